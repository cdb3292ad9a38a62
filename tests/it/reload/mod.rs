//! A configuration that changes while the gateway runs.

mod certificates;
mod commands;
mod faults;
mod files;
mod includes;
mod load;
mod queues;
mod sources;
