//! Why a connection ended without a complete head of a request, as told by its first bytes and its timeouts.

use crate::http::admission::Busy;
use crate::http::proxy_protocol::Invalid;

/// Why a connection ended without a complete head of a request. No source is known, so it is counted and logged apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// The bytes are not HTTP/1.
    #[error("it is no request of HTTP/1")]
    Malformed,
    /// The head is longer than allowed.
    #[error("the head of the request is too large")]
    TooLarge,
    /// A load balancer speaks the PROXY protocol.
    #[error(
        "it begins with the PROXY protocol, which this listener does not speak: list the load balancer's addresses in its \
         proxy_protocol, or have that send X-Forwarded-For instead, and list its addresses in server.trusted_proxies"
    )]
    ProxyProtocol,
    /// There is no usable header of the PROXY protocol where one is required.
    #[error(transparent)]
    ProxyHeader(#[from] Invalid),
    /// The peer is none of those that may speak the PROXY protocol.
    #[error("its address is not in proxy_protocol of this listener, so that it may not say whom it connects for")]
    ProxyNotTrusted,
    /// A proxy speaks HTTP/2 without negotiation.
    #[error(
        "it begins with HTTP/2, which is spoken over TLS only: set the proxy in front to HTTP/1.1 for this upstream"
    )]
    Http2,
    /// A client breaks the rules or limits of HTTP/2.
    #[error("the connection was ended, because it broke a rule or a limit of HTTP/2: {0}")]
    Http2Error(String),
    /// A client speaks TLS.
    #[error(
        "it begins with a TLS handshake, and this listener speaks plain HTTP: set its tls, or let a proxy in front end TLS \
         and give senders its address"
    )]
    Tls,
    /// A client speaks plain HTTP where TLS is required.
    #[error("it begins without a TLS handshake, and this listener speaks TLS: give senders its address with https")]
    TlsExpected,
    /// The two sides did not agree on TLS.
    #[error("the TLS handshake failed: {0}")]
    TlsHandshake(String),
    /// The head did not arrive in time.
    #[error("the head of the request did not arrive in time")]
    TimedOut,
    /// The connection had waited longest when another one needed its slot.
    #[error("nothing was complete when the place was needed for another connection")]
    Displaced,
    /// The address has as many connections as it may, all of them busy.
    #[error(transparent)]
    Busy(#[from] Busy),
}

impl Unserved {
    /// The cause why hyper refused a head, from its first bytes. `too_large`: whether hyper says that it is too large.
    pub fn from_first_bytes(start: &[u8], too_large: bool) -> Self {
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
