//! The histograms of how long a request waits for operations of the store.

use prometheus::Histogram;

use crate::base::metrics::Registry;

/// `doorward_store_duration_seconds`, by operation.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the operation of its name")]
pub struct StoreMetrics {
    pub claim: Histogram,
    pub ignore: Histogram,
    pub commit: Histogram,
    pub release: Histogram,
    pub enqueue: Histogram,
}

impl StoreMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// Only when the name is taken, which is a bug.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Time that the store took, by operation.";
        let durations = registry.durations("store_duration_seconds", help, &["operation"])?;
        Ok(Self {
            claim: durations.with_label_values(&["claim"]),
            ignore: durations.with_label_values(&["ignore"]),
            commit: durations.with_label_values(&["commit"]),
            release: durations.with_label_values(&["release"]),
            enqueue: durations.with_label_values(&["enqueue"]),
        })
    }
}
