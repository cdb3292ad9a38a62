//! Doorward, a standalone receiving gateway for webhooks: it verifies where each one comes from, lets each event through
//! once, and hands it on.
//!
//! This list is the map. Modules stand in the order in which they may know each other: a module imports only from those
//! above it, and a test holds that. The journey of a request reads like the middle of the list, and [`gateway`] is the
//! one function that shows it whole:
//!
//! connection → route → origin → body → authenticate → identify → deduplicate → deliver → reply

// Leaves.
mod sync;
pub mod signal;
pub mod problem;
pub mod time;
pub mod clock;
pub mod limits;
pub mod supervisor;
pub mod escape;
pub mod secret;
pub mod json;
pub mod form;
pub mod query;
pub mod content_coding;

// What a profile file says, and means.
pub mod profile;
pub mod params;
pub mod mac;

// The journey.
pub mod origin;
pub mod admission;
pub mod body;
pub mod field;
pub mod template;
pub mod condition;
pub mod fetch;
pub mod auth;
pub mod handshake;
pub mod event;
pub mod message;
pub mod sign;
pub mod store;
pub mod dedup;
pub mod target;
pub mod dispatch;

// What joins it.
pub mod refusal;
pub mod reply;
pub mod source;
pub mod route;
pub mod settings;
pub mod explain;
pub mod telemetry;
pub mod gateway;

// The edges.
pub mod server;
pub mod cli;
