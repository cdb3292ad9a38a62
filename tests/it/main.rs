//! Doorward from outside: the real binary, real sockets, real stores, real keys.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test may fail, and not every test needs everything of the harness"
)]

mod harness;

mod admin;
mod cli;
mod config;
mod dedup;
mod disk;
mod documents;
mod explain;
mod extract;
mod gateway;
mod handshakes;
mod how_to;
mod http;
mod kill;
mod layering;
mod listeners;
mod profile;
mod queue;
mod redis;
mod reload;
mod server;
mod sign;
mod store;
mod verify;
