//! HTTP before a request is verified: limits on connections and memory, the client's address, bodies, and documents
//! that the gateway fetches itself.

pub mod admission;
pub mod body;
pub mod content_coding;
mod decompression;
pub mod fetch;
pub mod inbound;
pub mod origin;
pub mod unserved;
