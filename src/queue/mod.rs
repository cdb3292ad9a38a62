//! Delivers what is queued: couriers take events off the queue, try them, and record what came of it.
//!
//! `policy` decides what follows an attempt and `breaker` whether there may be one; both are pure, the clock and chance
//! are given to them.

mod breaker;
mod courier;
mod policy;

pub use self::breaker::Breaker;
pub use self::breaker::Permit;
pub use self::courier::Courier;
pub use self::courier::CourierMetrics;
pub use self::courier::Gate;
pub use self::policy::Attempted;
pub use self::policy::Policy;
