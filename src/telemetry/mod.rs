//! Metrics for Prometheus, and the log. Values of labels come from the configuration and from enums only, so that their
//! number is bounded.

mod log;
mod metrics;
mod sampler;

pub use log::Guard;
pub use log::start_log;
pub use metrics::Metrics;
pub use metrics::SourceMetrics;
pub use metrics::StoreMetrics;
pub use sampler::Sampler;
