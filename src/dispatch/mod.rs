//! Delivers queued messages: a dispatcher for each destination takes deliveries off its queue, attempts them, and has
//! the store record the outcomes.
//!
//! `policy` decides what follows a failed attempt, `breaker` whether an attempt may be made, and `budget` for how many
//! messages there is memory.

mod breaker;
mod budget;
mod dispatcher;
mod metrics;
mod policy;
mod take_loop;
mod thread;

pub use self::breaker::CircuitBreaker;
pub use self::budget::Budget;
pub use self::dispatcher::Dispatcher;
pub use self::metrics::Metrics;
pub use self::metrics::QueueMetrics;
pub use self::policy::Policy;
pub use self::thread::start;
