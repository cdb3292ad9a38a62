//! Doorward, a standalone receiving gateway for webhooks.
pub mod problem;
pub mod time;
pub mod secret;
pub mod json;
pub mod profile;
pub mod origin;
pub mod body;
pub mod field;
pub mod auth;
pub mod event;
pub mod dedup;
pub mod deliver;
pub mod refusal;
pub mod reply;
