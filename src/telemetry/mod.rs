//! The log, and which lines of it are written while requests flood in that nobody verified. Metrics are declared beside
//! what they count; see [`crate::base::metrics`].

mod log;
mod sampler;

pub use log::Guard;
pub use log::collectors;
pub use log::start_log;
pub use sampler::Sampler;
