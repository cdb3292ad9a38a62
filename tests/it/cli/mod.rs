//! The commands of `doorward` that run, watch and steer a gateway.

mod commands;
mod drain_and_healthcheck;
pub mod events;
mod output_escaping;
mod store;
