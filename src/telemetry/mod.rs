//! What operators see: metrics for Prometheus and the log. Labels come from the configuration and from enums only.

mod log;
mod metrics;
mod sampler;

pub use log::Guard;
pub use log::start_log;
pub use metrics::Metrics;
pub use metrics::SourceMetrics;
pub use metrics::StoreMetrics;
pub use sampler::Sampler;
