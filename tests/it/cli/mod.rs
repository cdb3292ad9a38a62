//! The command line: what commands print, and with what they exit.

mod commands;
mod drain_and_healthcheck;
pub mod events;
mod output_escaping;
mod store;
