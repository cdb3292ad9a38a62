//! Redis: as the store of one gateway or several, as a queue, and as a stream.

mod cluster;
mod durable_streams;
mod outages;
mod queue;
mod queue_admin;
mod queue_faults;
mod sentinel;
mod store;
mod store_admin;
mod store_faults;
mod streams;
mod tls;
mod two_gateways;
