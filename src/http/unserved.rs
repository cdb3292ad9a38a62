//! Why something that came on a connection is no request that could be served, as far as its first bytes tell.

use crate::http::admission::Busy;

/// Why something that came on a connection is no request that could be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// It is no HTTP/1.
    #[error("it is no request of HTTP/1")]
    Malformed,
    /// Its head is longer than allowed.
    #[error("the head of the request is too large")]
    TooLarge,
    /// A load balancer speaks the PROXY protocol.
    #[error(
        "it begins with the PROXY protocol, which is not spoken here: switch it off in the load balancer, have that send \
         X-Forwarded-For, and list its addresses in server.trusted_proxies"
    )]
    ProxyProtocol,
    /// A proxy speaks HTTP/2 without having asked.
    #[error("it begins with HTTP/2, which is not spoken here: set the proxy in front to HTTP/1.1 for this upstream")]
    Http2,
    /// A sender speaks TLS.
    #[error(
        "it begins with a TLS handshake, and this port speaks plain HTTP: let a proxy in front end TLS, and give senders \
         its address"
    )]
    Tls,
    /// Its head did not come in time.
    #[error("the head of the request did not arrive in time")]
    TimedOut,
    /// It had waited longest when another connection needed its place.
    #[error("nothing was complete when the place was needed for another connection")]
    Displaced,
    /// Its address has as many connections as it may.
    #[error(transparent)]
    Busy(#[from] Busy),
}

impl Unserved {
    /// What hyper did not take, by how it begins.
    pub fn of(start: &[u8], too_large: bool) -> Self {
        const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
        match start {
            [0x16, 0x03, ..] => Self::Tls,
            _ if start.starts_with(b"PROXY ") || start.starts_with(PROXY_V2) => Self::ProxyProtocol,
            _ if start.starts_with(b"PRI * HTTP/2.0\r\n") => Self::Http2,
            _ if too_large => Self::TooLarge,
            _ => Self::Malformed,
        }
    }
}
