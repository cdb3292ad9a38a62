//! The limits of connections.

use std::time::Duration;

use crate::http::origin::TrustedProxies;

/// The limits of a worker's connections, on all listeners together.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// The most open connections.
    pub max: usize,
    /// The most open connections of one IPv4 address or one /64 network of IPv6.
    pub max_per_address: usize,
    /// Proxies, whose connections are not limited by address.
    pub trusted_proxies: TrustedProxies,
    /// The longest time from the acceptance of a connection to the end of its first head, and from the first byte of a
    /// later head to its end.
    pub header_timeout: Duration,
    /// The longest time from an answer to the first byte of the next request.
    pub idle_timeout: Duration,
}

/// An address has as many connections as it may, and all of them are busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all connections that one address may have are busy")]
pub struct Busy;
