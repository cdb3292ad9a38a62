//! The metrics of queued deliveries, by destination.

use prometheus::Gauge;
use prometheus::GaugeVec;
use prometheus::Histogram;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;

use crate::base::metrics::Registry;
use crate::base::time::Moment;
use crate::store::DestinationId;
use crate::store::State;
use crate::store::Stats;

/// The metrics of all destinations.
#[derive(Debug)]
pub struct Metrics {
    deliveries: IntCounterVec,
    queue_events: IntGaugeVec,
    queue_oldest: GaugeVec,
    breaker_open: IntGaugeVec,
    upstream_duration: HistogramVec,
}

impl Metrics {
    /// Registers them, except `upstream_duration`, the registered histogram of how long attempts take.
    ///
    /// # Errors
    /// Only when a name is taken, which is a bug.
    pub fn new(registry: &Registry, upstream_duration: HistogramVec) -> prometheus::Result<Self> {
        let destination = ["source", "destination"];
        let with = |last: &'static str| [destination.as_slice(), &[last]].concat();
        let oldest = "Age of the oldest event that is not delivered.";
        let breaker = "Whether the circuit breaker of its endpoint is open: 1 while nothing is attempted.";
        Ok(Self {
            deliveries: registry.counters("deliveries_total", "Attempts from queues.", &with("outcome"))?,
            queue_events: registry.gauges("queue_events", "Events on queues by state.", &with("state"))?,
            queue_oldest: registry.float_gauges("queue_oldest_seconds", oldest, &destination)?,
            breaker_open: registry.gauges("destination_breaker_open", breaker, &destination)?,
            upstream_duration,
        })
    }

    /// The metrics of one destination.
    pub fn for_destination(&self, id: &DestinationId) -> QueueMetrics {
        let labels = [id.source.as_str(), id.name.as_str()];
        let with = |last: &'static str| [labels.as_slice(), &[last]].concat();
        let outcome = |outcome| self.deliveries.with_label_values(&with(outcome));
        let states = [State::Blocked, State::Queued, State::Retrying, State::Dead];
        QueueMetrics {
            delivered: outcome("delivered"),
            retried: outcome("retried"),
            dead: outcome("dead"),
            upstream_duration: self.upstream_duration.with_label_values(&[&id.source]),
            breaker_open: self.breaker_open.with_label_values(&labels),
            states: states.map(|state| self.queue_events.with_label_values(&with(state.name()))),
            oldest: self.queue_oldest.with_label_values(&labels),
        }
    }
}

/// The metrics of one destination.
#[derive(Debug, Clone)]
pub struct QueueMetrics {
    /// Attempts that the target took.
    pub delivered: IntCounter,
    /// Attempts that will be repeated.
    pub retried: IntCounter,
    /// Deliveries that were given up.
    pub dead: IntCounter,
    /// The duration of an attempt, in seconds.
    pub upstream_duration: Histogram,
    /// Whether the circuit breaker of the endpoint is open.
    pub breaker_open: IntGauge,
    /// Deliveries by state: blocked, queued, retrying and dead.
    pub states: [IntGauge; 4],
    /// Age of the oldest message that is not delivered, in seconds.
    pub oldest: Gauge,
}

impl QueueMetrics {
    /// Sets the gauges of the queue to these numbers.
    pub(super) fn set_queue(&self, stats: Stats, now: Moment) {
        let Stats { blocked, queued, retrying, dead, oldest } = stats;
        for (gauge, count) in self.states.iter().zip([blocked, queued, retrying, dead]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.oldest.set(oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64()));
    }
}
