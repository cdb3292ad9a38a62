//! The dispatcher of one source: takes its events from the queue and attempts to deliver them, `concurrency` at a time.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use prometheus::Histogram;
use prometheus::IntCounter;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use super::Attempted;
use super::Breaker;
use super::Policy;
use super::breaker::Permit;
use crate::clock::Clock;
use crate::limits;
use crate::store::Backlog;
use crate::store::queued::Settlement;
use crate::store::queued::Taken;
use crate::store::queued::Verdict;
use crate::supervisor::Background;
use crate::supervisor::Supervisor;
use crate::supervisor::Task;
use crate::supervisor::caught;
use crate::target::Attempt;
use crate::target::Target;
use crate::time::Moment;

/// One source's deliveries.
#[derive(Debug)]
pub struct Courier {
    /// The source, for the log.
    pub source: String,
    /// Where its events wait.
    pub backlog: Backlog,
    /// Which of the backlog's queues they are on.
    pub queue: usize,
    /// Where they go.
    pub upstream: Target,
    /// How often they are tried.
    pub policy: Policy,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many at one time.
    pub concurrency: usize,
    /// Whether the upstream is worth trying; shared by all sources that deliver to it.
    pub gate: Arc<Gate>,
    /// The clock, a steady one.
    pub clock: Clock,
    /// How long it waits.
    pub limits: limits::Dispatch,
    /// What is counted.
    pub metrics: CourierMetrics,
}

/// What is counted of one source's deliveries.
#[derive(Debug, Clone)]
pub struct CourierMetrics {
    /// Attempts that the upstream took.
    pub delivered: IntCounter,
    /// Attempts that will be repeated.
    pub retried: IntCounter,
    /// Events that were given up.
    pub dead: IntCounter,
    /// Of an attempt, in seconds.
    pub upstream_duration: Histogram,
}

/// A breaker that several couriers share.
#[derive(Debug)]
pub struct Gate {
    breaker: Mutex<Breaker>,
    changed: Notify,
}

impl Gate {
    /// A gate with this breaker.
    pub fn new(breaker: Breaker) -> Arc<Self> {
        Arc::new(Self { breaker: Mutex::new(breaker), changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A courier that was started: what outlives a restart of its task.
#[derive(Debug)]
struct Running {
    courier: Courier,
    slots: Arc<Semaphore>,
    attempts: Background,
    supervisor: Supervisor,
}

/// The right to probe an upstream; given back when it is dropped without an outcome.
#[derive(Debug)]
struct Probe {
    gate: Arc<Gate>,
    clock: Clock,
    spent: bool,
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.spent {
            self.gate.lock().return_probe(self.clock.instant());
            self.gate.changed.notify_waiters();
        }
    }
}

/// An event that was taken. Dropped unsettled, as when its task panics or the runtime ends, it goes back to the queue.
struct InHand {
    running: Arc<Running>,
    taken: Taken,
    settled: bool,
}

impl InHand {
    fn settle(&mut self, settlement: Settlement) {
        self.settled = true;
        let courier = &self.running.courier;
        courier.backlog.settle(courier.queue, &self.taken, settlement);
    }

    /// The lease is lost: another gateway may have it.
    fn forget(&mut self) {
        self.settled = true;
        let courier = &self.running.courier;
        courier.backlog.forget(courier.queue, &self.taken);
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if !self.settled {
            let (at, attempts) = (self.running.courier.clock.now(), self.taken.tries.attempts);
            self.settle(Settlement { verdict: Verdict::Retry(at), attempts, at, reason: None, answer: None });
        }
    }
}

impl Courier {
    /// Delivers on the runtime that this is called on until the future ends that `end` makes, and until the last attempt is
    /// over and recorded. `supervisor` starts it again when it dies; `end` is dropped when it has ended.
    pub fn start<F>(self, supervisor: &Supervisor, end: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(self.concurrency));
        let (attempts, owner) = (Background::default(), supervisor.clone());
        let running = Arc::new(Running { courier: self, slots, attempts, supervisor: owner });
        supervisor.task(Task::Dispatcher, move || {
            let (running, end) = (Arc::clone(&running), end());
            async move {
                running.run(end).await;
                Ok(())
            }
        });
    }
}

impl Running {
    async fn run(self: Arc<Self>, end: impl Future<Output = ()>) {
        tokio::select! {
            () = self.work() => {}
            () = end => {}
        }
        let courier = &self.courier;
        let all = u32::try_from(courier.concurrency).unwrap_or(u32::MAX);
        let _all_back = self.slots.acquire_many(all).await;
        if let Err(error) = courier.backlog.finish(courier.queue).await {
            tracing::error!(source = courier.source, %error, "the last deliveries could not be recorded");
        }
    }

    /// Takes and tries for ever. May be dropped at any time: what was taken and is not under way is still in the store.
    async fn work(self: &Arc<Self>) {
        let Self { courier, slots, .. } = &**self;
        let Courier { gate, backlog, queue, clock, .. } = courier;
        loop {
            // A slot has to be free before anything is taken: what is taken is tried at once.
            let Ok(first) = Arc::clone(slots).acquire_owned().await else { return };
            let changed = gate.changed.notified();
            let permit = gate.lock().permit(clock.instant());
            let max = match permit {
                Permit::Any => 1 + slots.available_permits(),
                Permit::Probe => 1,
                Permit::Not(until) => {
                    drop(first);
                    tokio::select! {
                        () = changed => {}
                        () = clock.sleep(until.saturating_duration_since(clock.instant())) => {}
                    }
                    continue;
                }
                Permit::Wait => {
                    drop(first);
                    changed.await;
                    continue;
                }
            };
            let probe =
                (permit == Permit::Probe).then(|| Probe { gate: Arc::clone(gate), clock: clock.clone(), spent: false });
            match backlog.take(*queue, clock.now(), max).await {
                Ok(taken) if !taken.is_empty() => self.send_off(taken, first, probe),
                nothing => {
                    drop((first, probe));
                    match nothing {
                        Ok(_none) => backlog.more(*queue, clock.now()).await,
                        Err(error) => {
                            tracing::debug!(source = courier.source, %error, "nothing can be taken off the queue");
                            clock.sleep(courier.limits.store_pause).await;
                        }
                    }
                }
            }
        }
    }

    fn send_off(self: &Arc<Self>, taken: Vec<Taken>, first: OwnedSemaphorePermit, mut probe: Option<Probe>) {
        let mut slot = Some(first);
        let in_hand = |taken| InHand { running: Arc::clone(self), taken, settled: false };
        let taken: Vec<_> = taken.into_iter().map(in_hand).collect();
        for mut in_hand in taken {
            let slot = slot.take().or_else(|| Arc::clone(&self.slots).try_acquire_owned().ok());
            let probe = probe.take();
            // In a box: it is large, and would be moved several times.
            self.attempts.spawn(
                "attempt",
                Box::pin(async move {
                    attempt(&mut in_hand, probe).await;
                    drop(slot);
                }),
            );
        }
    }
}

/// One attempt; one that panics is one that failed.
async fn attempt(in_hand: &mut InHand, probe: Option<Probe>) {
    let running = Arc::clone(&in_hand.running);
    let attempt = async {
        running.supervisor.panic_if_injected(Task::Attempt);
        running.courier.attempt(in_hand, probe).await;
    };
    if let Err(why) = caught(attempt).await {
        let reason = Some(format!("the gateway could not make the attempt: {why}"));
        let failed = Attempted { reason, answer: None, retry_after: None };
        running.courier.conclude(in_hand, failed, getrandom::u64().unwrap_or_default());
    }
}

impl Courier {
    async fn attempt(&self, in_hand: &mut InHand, probe: Option<Probe>) {
        let taken = &in_hand.taken;
        let attempts = taken.tries.attempts.saturating_add(1);
        let begun = self.clock.instant();
        if taken.lease_end.is_some_and(|end| begun + self.timeout > end) {
            // The process was stopped or suspended; another gateway may take the event before this attempt would end.
            in_hand.forget();
            return;
        }
        let attempt = Attempt { number: attempts, deduplicated: true, credentials: None };
        let delivered = self.upstream.deliver(&taken.message, &attempt).await;
        self.metrics.upstream_duration.observe(self.clock.instant().saturating_duration_since(begun).as_secs_f64());
        // A date in `Retry-After` is one of the wall clock.
        let attempted = Attempted::new(&delivered, Moment::now());
        let chance = getrandom::u64().unwrap_or_default();
        self.tell_breaker(&attempted, probe, chance);
        self.conclude(in_hand, attempted, chance);
    }

    /// Records what an attempt came to.
    fn conclude(&self, in_hand: &mut InHand, attempted: Attempted, chance: u64) {
        let taken = &in_hand.taken;
        let (now, attempts) = (self.clock.now(), taken.tries.attempts.saturating_add(1));
        let verdict = self.policy.judge(&attempted, taken, now, chance);
        self.log(taken, attempts, verdict, &attempted);
        match verdict {
            Verdict::Delivered => self.metrics.delivered.inc(),
            Verdict::Retry(_) => self.metrics.retried.inc(),
            Verdict::Dead => self.metrics.dead.inc(),
        }
        let (reason, answer) = (attempted.reason, attempted.answer);
        // What an upstream says to a delivery is not worth its room.
        let answer = answer.filter(|_| verdict != Verdict::Delivered);
        in_hand.settle(Settlement { verdict, attempts, at: now, reason, answer });
    }

    fn tell_breaker(&self, attempted: &Attempted, probe: Option<Probe>, chance: u64) {
        let was_probe = probe.is_some();
        if let Some(mut probe) = probe {
            probe.spent = true;
        }
        let works = attempted.is_delivered() || self.policy.is_permanent(attempted);
        let mut breaker = self.gate.lock();
        if works {
            if breaker.succeeded() {
                tracing::info!(source = self.source, "the upstream takes events again");
                self.gate.changed.notify_waiters();
            }
            return;
        }
        if breaker.failed(was_probe, attempted.retry_after, self.clock.instant(), chance) {
            let reason = attempted.reason.as_deref();
            tracing::error!(
                source = self.source,
                reason,
                "the upstream fails: it is probed until it takes events again"
            );
        }
        if was_probe {
            self.gate.changed.notify_waiters();
        }
    }

    fn log(&self, taken: &Taken, attempt: u32, verdict: Verdict, attempted: &Attempted) {
        macro_rules! write {
            ($level:expr, $words:literal, $due:expr) => {
                tracing::event!(
                    $level,
                    source = self.source,
                    number = %taken.number,
                    event_id = String::from_utf8_lossy(taken.message.event_id.as_bytes()).as_ref(),
                    attempt,
                    status = attempted.answer.as_ref().map(|answer| answer.status),
                    cause = attempted.reason,
                    due = $due,
                    $words
                )
            };
        }
        match verdict {
            Verdict::Delivered if attempt == 1 => write!(tracing::Level::DEBUG, "delivered", None::<String>),
            Verdict::Delivered => write!(tracing::Level::INFO, "delivered", None::<String>),
            Verdict::Retry(at) => write!(tracing::Level::WARN, "not delivered yet", Some(at.rfc3339().to_string())),
            Verdict::Dead => write!(tracing::Level::ERROR, "given up: a dead letter", None::<String>),
        }
    }
}
