//! The dispatcher of one destination: makes attempts, and has the store record their outcomes.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;

use super::breaker::CircuitBreaker;
use super::breaker::Probe;
use super::budget::Budget;
use super::metrics::QueueMetrics;
use super::policy::Policy;
use crate::base::clock::Clock;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::base::supervisor::TaskError;
use crate::base::supervisor::catch_panic;
use crate::base::time;
use crate::store::Delivery;
use crate::store::FailedAttempt;
use crate::store::MAX_KEPT_ANSWER;
use crate::store::Outcome;
use crate::store::Queue;
use crate::store::Store;
use crate::target::Attempt;
use crate::target::Failure;
use crate::target::Receipt;
use crate::target::Target;

/// The interval at which the gauges of a queue are updated.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

/// Delivers for one destination.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) resources: Resources,
    /// The queue that deliveries are taken from.
    pub(super) queue: Queue,
    /// The present terms; without any, nothing is taken.
    pub(super) terms: watch::Receiver<Option<Arc<Terms>>>,
    /// The metrics of the queue.
    pub(super) metrics: QueueMetrics,
}

/// What all dispatchers share.
#[derive(Debug, Clone)]
pub struct Resources {
    /// The store handle of the runtime that delivers.
    pub store: Store,
    /// The memory budget of all dispatchers.
    pub budget: Budget,
    /// A monotonic clock, for pauses and the age of messages.
    pub clock: Clock,
    /// The wall clock, for what operators see and for dates in answers.
    pub wall: Clock,
}

/// The terms of a destination. An attempt is made and judged by those it began with.
#[derive(Debug)]
pub struct Terms {
    /// The target that messages are delivered to.
    pub target: Target,
    /// The retry policy.
    pub policy: Policy,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Most attempts at one time.
    pub concurrency: usize,
    /// About how many bytes of memory the largest message takes; see
    /// [`Message::weight`](crate::message::Message::weight).
    pub largest: usize,
    /// The circuit breaker of the endpoint, shared by all destinations that deliver to it.
    pub breaker: Arc<CircuitBreaker>,
}

/// An attempt with its terms.
struct OnTerms<'a> {
    dispatcher: &'a Dispatcher,
    terms: &'a Terms,
}

impl Dispatcher {
    /// Makes one attempt, and records its outcome; a panic counts as a failure.
    pub(super) async fn attempt(
        &self,
        terms: &Terms,
        delivery: Delivery,
        probe: Option<Probe>,
        supervisor: &Supervisor,
    ) {
        let clock = &self.resources.clock;
        let begun = clock.instant();
        if delivery.lease_end().is_some_and(|end| begun + terms.timeout > end) {
            // The process was stopped or suspended: another gateway may take the delivery before this attempt would
            // end.
            return;
        }
        let number = delivery.tries().attempts.saturating_add(1);
        let attempted = catch_panic(async {
            supervisor.panic_if_injected(Task::Attempt);
            let attempt = Attempt { number, deduplicated: true, credentials: None };
            terms.target.deliver(delivery.message(), &attempt).await
        });
        let attempted = attempted.await;
        let took = clock.instant().saturating_duration_since(begun);
        self.metrics.upstream_duration.observe(took.as_secs_f64());
        let on_terms = OnTerms { dispatcher: self, terms };
        match attempted {
            Ok(Ok(receipt)) => on_terms.delivered(delivery, &receipt, (number, probe)),
            Ok(Err(failure)) => on_terms.failed(delivery, &failure, (number, took), probe),
            Err(why) => {
                let reason = format!("the gateway could not make the attempt: {why}");
                let failed = Failed { reason, answer: None, retry_after: None };
                on_terms.conclude(delivery, failed, (number, took), random());
            }
        }
    }

    /// Updates the gauges of the queue at an interval, and warns of events that wait while it is not configured; never
    /// returns.
    pub(super) async fn update_metrics(&self) -> Result<(), TaskError> {
        let mut warned = false;
        loop {
            let breaker = self.terms.borrow().as_ref().map(|terms| Arc::clone(&terms.breaker));
            let is_open = breaker.as_ref().is_some_and(|breaker| breaker.open_until().is_some());
            self.metrics.breaker_open.set(i64::from(is_open));
            // The store itself logs that it does not answer.
            if let Ok(stats) = self.resources.store.stats(&self.queue).await {
                self.metrics.set_queue(stats, self.resources.clock.now());
                let events = stats.blocked + stats.queued + stats.retrying;
                let waits = breaker.is_none() && events > 0;
                if waits && !warned {
                    let (source, destination) = (self.source(), self.destination());
                    tracing::warn!(
                        source,
                        destination,
                        events,
                        "events wait on the queue of a source that has none any more; they are delivered when it has one again"
                    );
                }
                warned = waits;
            }
            self.resources.clock.sleep(METRICS_INTERVAL).await;
        }
    }

    pub(super) fn source(&self) -> &str {
        &self.queue.id().source
    }

    pub(super) fn destination(&self) -> &str {
        &self.queue.id().name
    }
}

impl OnTerms<'_> {
    fn delivered(&self, delivery: Delivery, receipt: &Receipt, (number, probe): (u32, Option<Probe>)) {
        self.answered(probe);
        self.dispatcher.metrics.delivered.inc();
        let status = receipt.status().map(|status| status.as_u16());
        let (source, destination, id) = (self.dispatcher.source(), self.dispatcher.destination(), delivery.id());
        let event_id = String::from_utf8_lossy(delivery.message().event_id.as_bytes());
        if number == 1 {
            tracing::debug!(source, destination, number = %id, event_id = &*event_id, attempt = number, status, "delivered");
        } else {
            tracing::info!(source, destination, number = %id, event_id = &*event_id, attempt = number, status, "delivered");
        }
        drop(event_id);
        delivery.settle(Outcome::Delivered { at: self.dispatcher.resources.wall.now(), status });
    }

    fn failed(&self, delivery: Delivery, failure: &Failure, attempt: (u32, Duration), probe: Option<Probe>) {
        let chance = random();
        let answer = failure.answer();
        let requested = answer.and_then(|answer| answer.retry_after.as_ref()).and_then(|text| text.to_str().ok());
        // `Retry-After` may be a date (RFC 9110, section 10.2.3), which the wall clock is compared with.
        let requested = requested.and_then(|text| time::retry_after(text, self.dispatcher.resources.wall.now()));
        let reason = failure.to_string();
        if !failure.blames_endpoint() {
            self.answered(probe);
        } else if self.terms.breaker.failed(probe, requested, chance) {
            let (source, destination) = (self.dispatcher.source(), self.dispatcher.destination());
            tracing::error!(
                source,
                destination,
                reason,
                "the circuit breaker is open: the endpoint is probed until it answers"
            );
        }
        let answer = answer.map(|answer| (answer.status, &*answer.body));
        self.conclude(delivery, Failed { reason, answer, retry_after: requested }, attempt, chance);
    }

    fn answered(&self, probe: Option<Probe>) {
        if self.terms.breaker.answered(probe) {
            let (source, destination) = (self.dispatcher.source(), self.dispatcher.destination());
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
        // Either clock may be ahead: the monotonic one if the time was wrong at the start, the wall clock if it was
        // set.
        let now = self.dispatcher.resources.clock.now().min(self.dispatcher.resources.wall.now());
        let pause = self.terms.policy.pause_after((status, retry_after), tried, now, chance);
        let kept = answer.map(|(_, body)| body.get(..MAX_KEPT_ANSWER).unwrap_or(body)).unwrap_or_default();
        let at = self.dispatcher.resources.wall.now();
        let failed = FailedAttempt {
            at,
            ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            status: status.map(|status| status.as_u16()),
            answer: String::from_utf8_lossy(kept).into_owned(),
            reason,
        };
        let (source, destination, id) = (self.dispatcher.source(), self.dispatcher.destination(), delivery.id());
        let event_id = String::from_utf8_lossy(message.event_id.as_bytes()).into_owned();
        let (status, cause, attempt) = (failed.status, &failed.reason, number);
        let outcome = if let Some(after) = pause {
            self.dispatcher.metrics.retried.inc();
            let due = at.after(after).rfc3339().to_string();
            tracing::warn!(source, destination, number = %id, event_id, attempt, status, cause, due, "not delivered yet");
            Outcome::Retry { after, failed }
        } else {
            self.dispatcher.metrics.dead.inc();
            tracing::error!(source, destination, number = %id, event_id, attempt, status, cause, "given up: a dead letter");
            Outcome::Dead { failed }
        };
        delivery.settle(outcome);
    }
}

/// A failed attempt.
struct Failed<'a> {
    reason: String,
    /// Status and body of the answer.
    answer: Option<(StatusCode, &'a [u8])>,
    /// The pause that the endpoint asked for.
    retry_after: Option<Duration>,
}

fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}
