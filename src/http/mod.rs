//! HTTP requests before they are verified: limits on connections and memory, the client's address, bodies. Also the
//! client that fetches documents for verification.

pub mod admission;
pub mod body;
pub mod content_coding;
mod decompression;
pub mod fetch;
mod http2_head;
pub mod inbound;
pub mod origin;
pub mod proxy_protocol;
pub mod tls;
pub mod unserved;
