//! The histogram of how long deliveries take, direct ones as well as those from a queue.

use prometheus::HistogramVec;

use crate::base::metrics::Registry;

/// `doorward_upstream_duration_seconds`, by source.
///
/// # Errors
/// Only when the name is taken, which is a bug.
pub fn upstream_durations(registry: &Registry) -> prometheus::Result<HistogramVec> {
    registry.durations("upstream_duration_seconds", "Deliveries to upstreams.", &["source"])
}
