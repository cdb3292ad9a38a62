//! A configuration that changes while the gateway runs.

mod certificates;
mod commands;
mod files;
mod includes;
mod load;
mod queues;
mod sources;
