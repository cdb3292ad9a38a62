//! The metrics of one queue.

use prometheus::Gauge;
use prometheus::Histogram;
use prometheus::IntCounter;
use prometheus::IntGauge;

use crate::base::time::Moment;
use crate::store::Stats;

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
    /// Sets the gauges to these numbers.
    pub(super) fn show(&self, stats: Stats, now: Moment) {
        let Stats { blocked, queued, retrying, dead, oldest } = stats;
        for (gauge, count) in self.states.iter().zip([blocked, queued, retrying, dead]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.oldest.set(oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64()));
    }
}
