//! Doorward, a standalone receiving gateway for webhooks: it verifies where each one comes from, lets each event
//! through once, and delivers it.
//!
//! Modules stand in the order of their dependencies: each imports only from those above it, which a test checks. The
//! stages of a request, through which [`gateway`] takes it in one function:
//!
//! connection → route → origin → body → verify → identify → deduplicate → deliver → reply

pub mod base;
// What a profile file says, and means.
pub mod profile;
// A request, and whether it comes from the provider.
pub mod http;
pub mod extract;
pub mod verify;
pub mod sign;
// A verified event: what is stored of it, and where it goes.
pub mod message;
pub mod store;
pub mod dedup;
pub mod target;
pub mod dispatch;
// Configured sources, and what is done with their requests.
pub mod source;
pub mod config;
pub mod telemetry;
pub mod gateway;
pub mod explain;
// The process, and its commands.
pub mod server;
pub mod cli;
