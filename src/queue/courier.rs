//! Takes the events of one source off the queue and tries them, so many at one time.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use prometheus::Histogram;
use prometheus::IntCounter;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use super::Attempted;
use super::Breaker;
use super::Policy;
use super::breaker::Permit;
use crate::deliver::Attempt;
use crate::deliver::Upstream;
use crate::store::Backlog;
use crate::store::queued::Settlement;
use crate::store::queued::Taken;
use crate::store::queued::Verdict;
use crate::time::Moment;
use crate::time::Steady;

/// Pause after the store did not answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);

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
    pub upstream: Upstream,
    /// How often they are tried.
    pub policy: Policy,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many at one time.
    pub concurrency: usize,
    /// Whether the upstream is worth trying; shared by all sources that deliver to it.
    pub gate: Arc<Gate>,
    /// The clock.
    pub clock: Steady,
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

impl Courier {
    /// Delivers until `end`, and until the last attempt is over and recorded.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(self.concurrency));
        let courier = Arc::new(self);
        tokio::select! {
            () = courier.work(&slots) => {}
            () = end => {}
        }
        let all = u32::try_from(courier.concurrency).unwrap_or(u32::MAX);
        let _all_back = slots.acquire_many(all).await;
        if let Err(error) = courier.backlog.finish(courier.queue).await {
            tracing::error!(source = courier.source, %error, "the last deliveries could not be recorded");
        }
    }

    /// Takes and tries for ever. May be dropped at any time: what was taken and is not under way is still in the store.
    async fn work(self: &Arc<Self>, slots: &Arc<Semaphore>) {
        loop {
            // A slot has to be free before anything is taken: what is taken is tried at once.
            let Ok(first) = Arc::clone(slots).acquire_owned().await else { return };
            let changed = self.gate.changed.notified();
            let permit = self.gate.lock().permit(Instant::now());
            let max = match permit {
                Permit::Any => 1 + slots.available_permits(),
                Permit::Probe => 1,
                Permit::Not(until) => {
                    drop(first);
                    drop(tokio::time::timeout_at(until.into(), changed).await);
                    continue;
                }
                Permit::Wait => {
                    drop(first);
                    changed.await;
                    continue;
                }
            };
            let probe = permit == Permit::Probe;
            match self.backlog.take(self.queue, self.clock.now(), max).await {
                Ok(taken) if !taken.is_empty() => self.send_off(taken, first, slots, probe),
                nothing => {
                    drop(first);
                    if probe {
                        self.gate.lock().return_probe(Instant::now());
                        self.gate.changed.notify_waiters();
                    }
                    match nothing {
                        Ok(_none) => self.backlog.more(self.queue, self.clock.now()).await,
                        Err(error) => {
                            tracing::debug!(source = self.source, %error, "nothing can be taken off the queue");
                            tokio::time::sleep(STORE_PAUSE).await;
                        }
                    }
                }
            }
        }
    }

    fn send_off(self: &Arc<Self>, taken: Vec<Taken>, first: OwnedSemaphorePermit, slots: &Arc<Semaphore>, probe: bool) {
        let mut slot = Some(first);
        for taken in taken {
            let slot = slot.take().or_else(|| Arc::clone(slots).try_acquire_owned().ok());
            let courier = Arc::clone(self);
            // In a box: it is large, and would be moved several times.
            drop(tokio::spawn(Box::pin(async move {
                courier.attempt(taken, probe).await;
                drop(slot);
            })));
        }
    }

    async fn attempt(&self, taken: Taken, probe: bool) {
        let attempts = taken.tries.attempts.saturating_add(1);
        let begun = Instant::now();
        if taken.lease_end.is_some_and(|end| begun + self.timeout > end) {
            // This process has slept, and somebody else delivers it, or will.
            self.backlog.forget(self.queue, &taken);
            if probe {
                self.gate.lock().return_probe(begun);
                self.gate.changed.notify_waiters();
            }
            return;
        }
        let attempt = Attempt { number: attempts, deduplicated: true, credentials: None };
        let delivered = self.upstream.deliver(&taken.message, &attempt).await;
        self.metrics.upstream_duration.observe(begun.elapsed().as_secs_f64());
        let now = self.clock.now();
        // A date in an answer is one of the wall's clock.
        let attempted = Attempted::new(&delivered, Moment::now());
        let chance = getrandom::u64().unwrap_or_default();
        self.tell_breaker(&attempted, probe, chance);
        let verdict = self.policy.judge(&attempted, &taken, now, chance);
        self.log(&taken, attempts, verdict, &attempted);
        match verdict {
            Verdict::Delivered => self.metrics.delivered.inc(),
            Verdict::Retry(_) => self.metrics.retried.inc(),
            Verdict::Dead => self.metrics.dead.inc(),
        }
        let (reason, answer) = (attempted.reason, attempted.answer);
        // What an upstream says to a delivery is not worth its room.
        let answer = answer.filter(|_| verdict != Verdict::Delivered);
        self.backlog.settle(self.queue, &taken, Settlement { verdict, attempts, at: now, reason, answer });
    }

    fn tell_breaker(&self, attempted: &Attempted, probe: bool, chance: u64) {
        let works = attempted.is_delivered() || self.policy.is_permanent(attempted);
        let mut breaker = self.gate.lock();
        if works {
            if breaker.succeeded() {
                tracing::info!(source = self.source, "the upstream takes events again");
                self.gate.changed.notify_waiters();
            }
            return;
        }
        if breaker.failed(probe, attempted.retry_after, Instant::now(), chance) {
            let reason = attempted.reason.as_deref();
            tracing::error!(
                source = self.source,
                reason,
                "the upstream fails: it is probed until it takes events again"
            );
        }
        if probe {
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
