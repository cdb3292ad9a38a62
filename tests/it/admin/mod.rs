//! The admin port: probes, metrics and the API.

mod api;
mod probes_and_metrics;
