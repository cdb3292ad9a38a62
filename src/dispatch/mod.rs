//! Delivers queued messages: a dispatcher for each destination takes deliveries off its queue, attempts them, and has
//! the store record the outcomes. When the configuration is read again, dispatchers get other terms, or none.
//!
//! `policy` decides what follows a failed attempt, `breaker` whether an attempt may be made, and `budget` for how many
//! messages there is memory.

mod breaker;
mod budget;
mod dispatcher;
mod metrics;
mod policy;
mod slots;
mod take_loop;
mod thread;

pub use self::breaker::CircuitBreaker;
pub use self::budget::Budget;
pub use self::dispatcher::Resources;
pub use self::dispatcher::Terms;
pub use self::metrics::Metrics;
pub use self::metrics::QueueMetrics;
pub use self::policy::Policy;
pub use self::thread::Destination;
pub use self::thread::start;
