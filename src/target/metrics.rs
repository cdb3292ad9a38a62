//! How long deliveries to upstreams take, whether a provider waits for them or not.

use prometheus::HistogramVec;

use crate::base::metrics::Registry;

/// `doorward_upstream_duration_seconds`, by source.
///
/// # Errors
/// Only when the name is taken, which is a bug.
pub fn upstream_durations(registry: &Registry) -> prometheus::Result<HistogramVec> {
    registry.durations("upstream_duration_seconds", "Deliveries to upstreams.", &["source"])
}
