//! Metrics of a dedupe log: its size, the age of what is not synced, and failures.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use prometheus::Gauge;
use prometheus::IntCounter;
use prometheus::IntGauge;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::DedupeLog;

/// The metrics of a log, read at each scrape.
#[derive(Debug)]
pub(crate) struct LogMetrics {
    log: Arc<DedupeLog>,
    /// Size and the oldest record that is not safe, as they were seen last.
    seen: Mutex<(u64, Option<Instant>)>,
    bytes: IntGauge,
    unsynced: Gauge,
}

/// Counts what failed.
pub(super) fn failures() -> IntCounter {
    let help = "Appends, syncs and snapshots of the dedupe log that failed.";
    #[expect(clippy::expect_used, reason = "the name is a constant")]
    IntCounter::new("doorward_dedupe_log_failures_total", help).expect("a valid metric")
}

impl LogMetrics {
    /// Of this log.
    ///
    /// # Errors
    /// Only when a name is not valid, which is a bug.
    pub(crate) fn new(log: Arc<DedupeLog>) -> prometheus::Result<Self> {
        let unsynced = "Age of the oldest record that a power failure would take; 0 when there is none.";
        Ok(Self {
            log,
            seen: Mutex::default(),
            bytes: IntGauge::new("doorward_dedupe_log_bytes", "Size of the dedupe log's files.")?,
            unsynced: Gauge::new("doorward_dedupe_log_unsynced_seconds", unsynced)?,
        })
    }
}

impl Collector for LogMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.bytes.desc().into_iter().chain(self.unsynced.desc());
        gauges.chain(self.log.failures.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.log.clock.instant();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A scrape does not wait for a write that the disk holds up.
        if let Ok(state) = self.log.state.try_lock() {
            *seen = (state.bytes, state.syncing.or(state.unsynced));
        }
        let (bytes, unsynced) = *seen;
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.unsynced.set(unsynced.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64()));
        let gauges = self.bytes.collect().into_iter().chain(self.unsynced.collect());
        gauges.chain(self.log.failures.collect()).collect()
    }
}
