//! Doorward from outside: the real binary, real sockets, real stores, real keys.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "a test may fail, and not every test needs everything of the harness"
)]

mod harness;

mod documents;
mod fixtures;
mod journey;
mod layering;
