//! Delivers queued messages: a dispatcher for each destination takes deliveries off its queue, attempts them, and has
//! the store record the outcomes.
//!
//! `policy` decides what follows a failed attempt, `breaker` whether an attempt may be made, and `budget` for how many
//! messages there is memory.

mod breaker;
mod budget;
mod metrics;
mod policy;
mod thread;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

pub use self::breaker::CircuitBreaker;
use self::breaker::Pass;
use self::breaker::Probe;
pub use self::budget::Budget;
use self::budget::Reserved;
pub use self::metrics::Metrics;
pub use self::metrics::QueueMetrics;
pub use self::policy::Policy;
pub use self::thread::start;
use crate::base::clock::Clock;
use crate::base::supervisor::Background;
use crate::base::supervisor::Lost;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::base::supervisor::caught;
use crate::base::time;
use crate::store::Delivery;
use crate::store::FailedAttempt;
use crate::store::MAX_KEPT_ANSWER;
use crate::store::Outcome;
use crate::store::Queue;
use crate::store::Store;
use crate::store::Taken;
use crate::store::Want;
use crate::target::Attempt;
use crate::target::Failure;
use crate::target::Receipt;
use crate::target::Target;

/// The shortest wait for a delivery that is due, so that a clock that is a little ahead of the store's does no harm.
const MIN_WAIT: Duration = Duration::from_millis(1);
/// Bytes of messages that one take reserves in the budget, where there is room; the largest message in any case.
const TAKE_BYTES: usize = 4 * 1024 * 1024;
/// How long a dispatcher that has taken all there is waits at most until it asks the store again.
const IDLE_WAIT: Duration = Duration::from_secs(5);
/// The pause after the store did not answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How often the metrics of queues are brought up to date.
const METRICS_EVERY: Duration = Duration::from_secs(1);

/// Delivers for one destination.
#[derive(Debug)]
pub struct Dispatcher {
    /// The store, as the runtime sees it that delivers.
    pub store: Store,
    /// The deliveries that wait.
    pub queue: Queue,
    /// The target that they are delivered to.
    pub target: Arc<Target>,
    /// The retry policy.
    pub policy: Policy,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Most attempts at one time.
    pub concurrency: usize,
    /// About how many bytes of memory ([`Message::weight`](crate::message::Message::weight)) the largest message takes.
    pub largest: usize,
    /// Whether the endpoint is worth an attempt; shared by all destinations that deliver to it.
    pub breaker: Arc<CircuitBreaker>,
    /// What all dispatchers together may have in hand.
    pub budget: Budget,
    /// A steady clock, for pauses and the age of messages.
    pub clock: Clock,
    /// The wall clock, for what operators see and for dates in answers.
    pub wall: Clock,
    /// The metrics of the queue.
    pub metrics: QueueMetrics,
}

/// A dispatcher that was started: what outlives a restart of its task.
#[derive(Debug)]
struct Running {
    dispatcher: Dispatcher,
    slots: Arc<Semaphore>,
    attempts: Background,
    supervisor: Supervisor,
}

/// What an attempt occupies, until it has ended.
struct Hold {
    probe: Option<Probe>,
    _slot: Option<OwnedSemaphorePermit>,
    _room: Reserved,
}

/// How an attempt failed.
struct Failed<'a> {
    reason: String,
    /// Status and body of the answer.
    answer: Option<(StatusCode, &'a [u8])>,
    /// How long the endpoint asked to be left alone.
    retry_after: Option<Duration>,
}

impl Dispatcher {
    /// Delivers on the runtime that this is called on until the future ends that `end` makes, and until the last attempt has
    /// ended and is recorded. `supervisor` starts it again when it dies; `end` is dropped when it has ended.
    pub fn start<F>(self, supervisor: &Supervisor, end: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(self.concurrency));
        let (attempts, owner) = (Background::default(), supervisor.clone());
        let running = Arc::new(Running { dispatcher: self, slots, attempts, supervisor: owner });
        let shown = Arc::clone(&running);
        supervisor.task(Task::QueueMetrics, move || Arc::clone(&shown).show());
        supervisor.task(Task::Dispatcher, move || {
            let (running, end) = (Arc::clone(&running), end());
            async move {
                running.run(end).await;
                Ok(())
            }
        });
    }

    fn source(&self) -> &str {
        &self.queue.id().source
    }

    fn destination(&self) -> &str {
        &self.queue.id().name
    }
}

impl Running {
    async fn run(self: Arc<Self>, end: impl Future<Output = ()>) {
        self.work(end).await;
        let dispatcher = &self.dispatcher;
        let _all_ended = self.slots.acquire_many(permits(dispatcher.concurrency)).await;
        if let Err(error) = dispatcher.store.flush(&dispatcher.queue).await {
            let (source, destination) = (dispatcher.source(), dispatcher.destination());
            tracing::error!(source, destination, %error, "the outcomes of the last attempts could not be recorded");
        }
    }

    /// Takes and attempts until `end`. A take is never given up half-way: what the store has claimed by then would have to wait for the
    /// end of its lease.
    async fn work(self: &Arc<Self>, end: impl Future<Output = ()>) {
        let Dispatcher { store, queue, clock, .. } = &self.dispatcher;
        let mut end = pin!(end);
        loop {
            let hold = tokio::select! {
                biased;
                () = &mut end => return,
                hold = self.hold() => hold,
            };
            let Some((slot, pass, room)) = hold else { return };
            let is_probe = matches!(pass, Pass::Probe(_));
            let max = if is_probe || room.bytes() == 0 { 1 } else { 1 + self.slots.available_permits() };
            let seen = queue.signal().count();
            let wait = match store.take(queue, Want { max, bytes: room.bytes() }).await {
                Ok(Taken { deliveries, next_due }) => {
                    let least = if deliveries.is_empty() { MIN_WAIT } else { Duration::ZERO };
                    if deliveries.is_empty() {
                        drop((slot, pass, room));
                    } else {
                        self.attempt_all(deliveries, (slot, pass, room));
                    }
                    let due = next_due.map(|due| due.saturating_duration_since(clock.instant()).max(least));
                    due.unwrap_or(IDLE_WAIT).min(IDLE_WAIT)
                }
                Err(error) => {
                    drop((slot, pass, room));
                    let (source, destination) = (self.dispatcher.source(), self.dispatcher.destination());
                    tracing::debug!(source, destination, %error, "nothing can be taken off the queue");
                    tokio::select! {
                        () = clock.sleep(STORE_PAUSE) => continue,
                        () = &mut end => return,
                    }
                }
            };
            if !wait.is_zero() {
                tokio::select! {
                    () = queue.signal().past(seen) => {}
                    () = clock.sleep(wait) => {}
                    () = &mut end => return,
                }
            }
        }
    }

    /// What an attempt needs: a slot has to be free before anything is taken, because what is taken is attempted at once.
    async fn hold(&self) -> Option<(OwnedSemaphorePermit, Pass, Reserved)> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let pass = self.dispatcher.breaker.pass().await;
        Some((slot, pass, self.room().await))
    }

    /// Room for the largest message, and for more where there is some; none, when nothing is in hand and others have it all.
    async fn room(&self) -> Reserved {
        let Dispatcher { budget, largest, concurrency, .. } = &self.dispatcher;
        tokio::select! {
            biased;
            reserved = budget.reserve(*largest, TAKE_BYTES.max(*largest)) => reserved,
            // One slot is that of whoever asks.
            _nothing_in_hand = self.slots.acquire_many(permits(concurrency.saturating_sub(1))) => Reserved::default(),
        }
    }

    fn attempt_all(
        self: &Arc<Self>,
        deliveries: Vec<Delivery>,
        (slot, pass, mut room): (OwnedSemaphorePermit, Pass, Reserved),
    ) {
        let mut slot = Some(slot);
        let mut probe = if let Pass::Probe(probe) = pass { Some(probe) } else { None };
        for delivery in deliveries {
            let hold = Hold {
                probe: probe.take(),
                _slot: slot.take().or_else(|| Arc::clone(&self.slots).try_acquire_owned().ok()),
                _room: room.split(delivery.message().weight()),
            };
            let running = Arc::clone(self);
            // In a box: it is large, and would be moved several times.
            self.attempts.spawn("attempt", Box::pin(async move { running.attempt(delivery, hold).await }));
        }
    }

    /// One attempt; one that panics is one that failed.
    async fn attempt(&self, delivery: Delivery, mut hold: Hold) {
        let Self { dispatcher, supervisor, .. } = self;
        let begun = dispatcher.clock.instant();
        if delivery.lease_end().is_some_and(|end| begun + dispatcher.timeout > end) {
            // The process was stopped or suspended: another gateway may take the delivery before this attempt would end.
            return;
        }
        let number = delivery.tries().attempts.saturating_add(1);
        let attempted = caught(async {
            supervisor.panic_if_injected(Task::Attempt);
            let attempt = Attempt { number, deduplicated: true, credentials: None };
            dispatcher.target.deliver(delivery.message(), &attempt).await
        });
        let attempted = attempted.await;
        let took = dispatcher.clock.instant().saturating_duration_since(begun);
        dispatcher.metrics.upstream_duration.observe(took.as_secs_f64());
        match attempted {
            Ok(Ok(receipt)) => dispatcher.delivered(delivery, &receipt, (number, hold.probe.take())),
            Ok(Err(failure)) => dispatcher.failed(delivery, &failure, (number, took), hold.probe.take()),
            Err(why) => {
                let reason = format!("the gateway could not make the attempt: {why}");
                let failed = Failed { reason, answer: None, retry_after: None };
                dispatcher.conclude(delivery, failed, (number, took), chance());
            }
        }
    }

    /// Keeps the gauges of the queue up to date, for ever.
    async fn show(self: Arc<Self>) -> Result<(), Lost> {
        let Dispatcher { store, queue, breaker, clock, metrics, .. } = &self.dispatcher;
        loop {
            metrics.breaker_open.set(i64::from(breaker.open_until().is_some()));
            // A store that does not answer has said so elsewhere.
            if let Ok(stats) = store.stats(queue).await {
                metrics.show(stats, clock.now());
            }
            clock.sleep(METRICS_EVERY).await;
        }
    }
}

impl Dispatcher {
    fn delivered(&self, delivery: Delivery, receipt: &Receipt, (number, probe): (u32, Option<Probe>)) {
        self.answered(probe);
        self.metrics.delivered.inc();
        let status = receipt.status().map(|status| status.as_u16());
        let (source, destination, id) = (self.source(), self.destination(), delivery.id());
        let event_id = String::from_utf8_lossy(delivery.message().event_id.as_bytes());
        if number == 1 {
            tracing::debug!(source, destination, number = %id, event_id = &*event_id, attempt = number, status, "delivered");
        } else {
            tracing::info!(source, destination, number = %id, event_id = &*event_id, attempt = number, status, "delivered");
        }
        drop(event_id);
        delivery.settle(Outcome::Delivered { at: self.wall.now(), status });
    }

    fn failed(&self, delivery: Delivery, failure: &Failure, attempt: (u32, Duration), probe: Option<Probe>) {
        let chance = chance();
        let answer = failure.answer();
        let asked = answer.and_then(|answer| answer.retry_after.as_ref()).and_then(|text| text.to_str().ok());
        // A date in it is one of the wall clock.
        let asked = asked.and_then(|text| time::retry_after(text, self.wall.now()));
        let reason = failure.to_string();
        if !failure.blames_endpoint() {
            self.answered(probe);
        } else if self.breaker.failed(probe, asked, chance) {
            let (source, destination) = (self.source(), self.destination());
            tracing::error!(
                source,
                destination,
                reason,
                "the circuit breaker is open: the endpoint is probed until it answers"
            );
        }
        let answer = answer.map(|answer| (answer.status, &*answer.body));
        self.conclude(delivery, Failed { reason, answer, retry_after: asked }, attempt, chance);
    }

    fn answered(&self, probe: Option<Probe>) {
        if self.breaker.answered(probe) {
            let (source, destination) = (self.source(), self.destination());
            tracing::info!(source, destination, "the circuit breaker is closed: the endpoint answers again");
        }
    }

    /// Records an attempt that failed.
    fn conclude(
        &self,
        delivery: Delivery,
        Failed { reason, answer, retry_after }: Failed<'_>,
        (number, took): (u32, Duration),
        chance: u64,
    ) {
        let message = delivery.message();
        let status = answer.map(|(status, _)| status);
        let tried = (delivery.tries(), message.received_at);
        // One of the clocks may have been wrong when the process began, and the other one may be set.
        let now = self.clock.now().min(self.wall.now());
        let pause = self.policy.pause_after((status, retry_after), tried, now, chance);
        let kept = answer.map(|(_, body)| body.get(..MAX_KEPT_ANSWER).unwrap_or(body)).unwrap_or_default();
        let at = self.wall.now();
        let failed = FailedAttempt {
            at,
            ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            status: status.map(|status| status.as_u16()),
            answer: String::from_utf8_lossy(kept).into_owned(),
            reason,
        };
        let (source, destination, id) = (self.source(), self.destination(), delivery.id());
        let event_id = String::from_utf8_lossy(message.event_id.as_bytes()).into_owned();
        let (status, cause, attempt) = (failed.status, &failed.reason, number);
        let outcome = if let Some(after) = pause {
            self.metrics.retried.inc();
            let due = at.after(after).rfc3339().to_string();
            tracing::warn!(source, destination, number = %id, event_id, attempt, status, cause, due, "not delivered yet");
            Outcome::Retry { after, failed }
        } else {
            self.metrics.dead.inc();
            tracing::error!(source, destination, number = %id, event_id, attempt, status, cause, "given up: a dead letter");
            Outcome::Dead { failed }
        };
        delivery.settle(outcome);
    }
}

fn chance() -> u64 {
    getrandom::u64().unwrap_or_default()
}

fn permits(slots: usize) -> u32 {
    u32::try_from(slots).unwrap_or(u32::MAX)
}
