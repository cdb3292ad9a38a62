//! HTTP as it comes in: framing, bodies, paths, queries, and addresses of clients.

mod bodies;
mod client_addresses;
mod content_codings;
mod framing;
mod hosts;
mod queries;
mod routing;
