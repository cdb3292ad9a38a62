//! The server: what it takes at one time, how it ends, and what it does about tasks that panic.

mod limits;
mod rate_limits;
mod shutdown_and_drain;
mod slow_clients;
mod supervision;
mod unauthenticated_clients;
