//! The log, and the rate limit for its lines about unverified requests. Each module declares its own metrics; see
//! [`crate::base::metrics`].

mod log;
mod sampler;

pub use log::Guard;
pub use log::collectors;
pub use log::start_log;
pub use sampler::Sampler;
