//! The origin of a request: the peer, the client's address behind trusted proxies, and whether a source allows it.
//!
//! `X-Forwarded-For` is read from the right, skipping trusted proxies. The first other address is the client's. The
//! addresses left of it come from the client and are not trusted.

mod certificate;
mod networks;

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use ipnet::IpNet;

pub use certificate::CertificateNames;
pub use certificate::CertificateRule;
pub use certificate::NamePattern;
pub use networks::Networks;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The value of `x-forwarded-for` for a client whose address is not known.
const UNKNOWN: HeaderValue = HeaderValue::from_static("unknown");

/// The remote end of the socket.
#[derive(Debug, Clone)]
pub struct Peer {
    address: PeerAddress,
    text: HeaderValue,
    /// Whether the connection is encrypted.
    encrypted: bool,
    /// The names in the verified certificate of the client, if it showed one.
    certificate: Option<Arc<CertificateNames>>,
}

/// What is known of the address of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerAddress {
    Ip(IpAddr),
    /// The client of a Unix socket, which has no address.
    Unix,
    /// A client that a load balancer passes on without its address.
    Unknown,
}

impl Peer {
    /// The peer of an accepted connection. An IPv4-mapped IPv6 address becomes an IPv4 address.
    pub fn new(address: SocketAddr) -> Self {
        let address = address.ip().to_canonical();
        let text = HeaderValue::try_from(address.to_string()).unwrap_or(UNKNOWN);
        Self::with(PeerAddress::Ip(address), text)
    }

    /// The client of a Unix socket.
    pub fn unix() -> Self {
        Self::with(PeerAddress::Unix, UNKNOWN)
    }

    /// A client that a load balancer passes on without its address.
    pub fn unknown() -> Self {
        Self::with(PeerAddress::Unknown, UNKNOWN)
    }

    fn with(address: PeerAddress, text: HeaderValue) -> Self {
        Self { address, text, encrypted: false, certificate: None }
    }

    /// The connection is encrypted, and its client has shown this certificate, which was verified.
    pub fn set_encrypted(&mut self, certificate: Option<CertificateNames>) {
        self.encrypted = true;
        self.certificate = certificate.map(Arc::new);
    }

    /// Its address; `None` when it has none.
    pub fn address(&self) -> Option<IpAddr> {
        match self.address {
            PeerAddress::Ip(address) => Some(address),
            PeerAddress::Unix | PeerAddress::Unknown => None,
        }
    }
}

/// The client of a request, as told by the peer's address and `X-Forwarded-For`.
#[derive(Debug, Clone)]
pub struct Client {
    address: Option<IpAddr>,
    chain: HeaderValue,
    /// Whether the peer is a trusted proxy.
    trusted: bool,
    /// Whether the connection is encrypted.
    encrypted: bool,
    certificate: Option<Arc<CertificateNames>>,
}

impl Client {
    /// The client's address; `None` when it has none, or a trusted proxy forwarded something that is not an address.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The addresses from the client to the last proxy, client first: the value of `x-forwarded-for` for the upstream.
    pub fn into_chain(self) -> HeaderValue {
        self.chain
    }

    /// The scheme of its address, as the connection shows it.
    pub fn scheme(&self) -> &'static str {
        if self.encrypted { "https" } else { "http" }
    }

    /// Whether the request came by a trusted proxy, so that its other `x-forwarded-*` headers are trusted too.
    pub fn by_trusted_proxy(&self) -> bool {
        self.trusted
    }
}

/// The proxies whose `X-Forwarded-For` is trusted. Clones are the same, also when they are replaced.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<ArcSwap<Trusted>>);

#[derive(Debug, Default)]
struct Trusted {
    networks: Networks,
    /// Whether the clients of Unix sockets are trusted.
    unix: bool,
}

/// An element of a list of proxies.
#[derive(Debug, Clone, Copy)]
pub enum TrustedPeer {
    /// The proxies in this network.
    Network(IpNet),
    /// The clients of Unix sockets.
    Unix,
}

impl TrustedPeer {
    /// Parses an address, a network, or `unix:`.
    ///
    /// # Errors
    /// What is wrong with `text` and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "unix:" { Ok(Self::Unix) } else { Networks::parse(text).map(Self::Network) }
    }
}

impl FromIterator<TrustedPeer> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = TrustedPeer>>(trusted: I) -> Self {
        let mut unix = false;
        let networks = trusted.into_iter().filter_map(|peer| match peer {
            TrustedPeer::Network(network) => Some(network),
            TrustedPeer::Unix => {
                unix = true;
                None
            }
        });
        let networks = networks.collect();
        Self(Arc::new(ArcSwap::from_pointee(Trusted { networks, unix })))
    }
}

impl Trusted {
    fn trusts(&self, peer: &Peer) -> bool {
        match peer.address {
            PeerAddress::Ip(address) => self.networks.contains(address),
            PeerAddress::Unix => self.unix,
            PeerAddress::Unknown => false,
        }
    }
}

impl TrustedProxies {
    /// The same as they are now; not replaced with these.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self(Arc::new(ArcSwap::new(self.0.load_full())))
    }

    /// Trusts what the others trust, from now on.
    pub fn replace(&self, others: &Self) {
        self.0.store(others.0.load_full());
    }

    /// Whether this is the address of a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.load().networks.contains(address.to_canonical())
    }

    /// Whether this peer is a trusted proxy.
    pub fn trusts(&self, peer: &Peer) -> bool {
        self.0.load().trusts(peer)
    }

    /// The client: the first address that is not a trusted proxy's, from the peer back along `X-Forwarded-For`.
    pub fn client(&self, peer: &Peer, headers: &HeaderMap) -> Client {
        let trusted = self.0.load();
        if !trusted.trusts(peer) {
            return Client {
                address: peer.address(),
                chain: peer.text.clone(),
                trusted: false,
                encrypted: peer.encrypted,
                certificate: peer.certificate.clone(),
            };
        }
        let mut address = peer.address();
        let mut hops: Vec<_> = address.iter().map(IpAddr::to_string).collect();
        let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        'walk: for value in values.into_iter().rev() {
            for element in value.as_bytes().rsplit(|byte| *byte == b',') {
                address = parse_element(element);
                if let Some(address) = address {
                    hops.push(address.to_string());
                }
                if !address.is_some_and(|address| trusted.networks.contains(address)) {
                    break 'walk;
                }
            }
        }
        hops.reverse();
        let chain = HeaderValue::try_from(hops.join(", ")).ok().filter(|chain| !chain.is_empty());
        Client {
            address,
            chain: chain.unwrap_or_else(|| peer.text.clone()),
            trusted: true,
            encrypted: peer.encrypted,
            certificate: peer.certificate.clone(),
        }
    }
}

/// Parses an element of `X-Forwarded-For`: an address, optionally with brackets, port or zone.
fn parse_element(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim_matches([' ', '\t']);
    let text = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?.0,
        // `1.2.3.4:80` has one colon, an IPv6 address at least two.
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    let text = text.split_once('%').map_or(text, |(address, _zone)| address);
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The networks from which a source accepts requests, any when empty; and the client certificates that it requires.
#[derive(Debug, Clone, Default)]
pub struct Allowlist {
    networks: Networks,
    certificate: Option<CertificateRule>,
}

/// A client whose address and certificate the source admits. Only [`Allowlist::admit`] makes one.
#[derive(Debug)]
pub struct Admitted(Client);

impl Admitted {
    /// The admitted client.
    pub fn into_client(self) -> Client {
        self.0
    }
}

/// The client is not on the allowlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Its address is known and not on the allowlist.
    #[error("the address is not on the source's allowlist")]
    Address,
    /// Its address is unknown: it has none, or a trusted proxy forwarded something that is not an address.
    #[error(
        "the address cannot be told: a trusted proxy forwarded none, or it came by a unix: socket or a load balancer that does not know it"
    )]
    Unknown,
    /// The source requires a client certificate, and the connection has none.
    #[error("the source requires a client certificate, and the client has shown none on this connection")]
    CertificateMissing,
    /// The source requires a client certificate of another name.
    #[error("the client certificate has none of the names that the source requires")]
    CertificateMismatch,
}

impl Allowlist {
    /// Admits only these networks, or any when there are none; with a rule, only clients with such a certificate.
    pub fn new(networks: Networks, certificate: Option<CertificateRule>) -> Self {
        Self { networks, certificate }
    }

    /// Admits or denies the client.
    ///
    /// # Errors
    /// [`Denied`] when there is an allowlist and the client's address is not on it, or when a certificate is required and
    /// the client has shown none with such a name.
    pub fn admit(&self, client: Client) -> Result<Admitted, Denied> {
        if !self.networks.is_empty() {
            match client.address {
                Some(address) if self.networks.contains(address) => {}
                Some(_) => return Err(Denied::Address),
                None => return Err(Denied::Unknown),
            }
        }
        match (&self.certificate, &client.certificate) {
            (None, _) => Ok(Admitted(client)),
            (Some(_), None) => Err(Denied::CertificateMissing),
            (Some(rule), Some(names)) if rule.matches(names) => Ok(Admitted(client)),
            (Some(_), Some(_)) => Err(Denied::CertificateMismatch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        list.iter().map(|text| Networks::parse(text).expect("a network")).collect()
    }

    fn client(peer: &str, forwarded: &[&str]) -> (Option<IpAddr>, String) {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let peer = Peer::new(SocketAddr::new(peer.parse().expect("an address"), 1));
        let client = proxies(&["10.0.0.0/8", "::1"]).client(&peer, &headers);
        (client.address(), client.into_chain().to_str().expect("text").to_owned())
    }

    fn proxies(list: &[&str]) -> TrustedProxies {
        list.iter().map(|text| TrustedPeer::parse(text).expect("a proxy")).collect()
    }

    #[test]
    fn a_unix_client_has_no_address_unless_it_is_trusted_and_names_one() {
        let forwarded = |value: &str| HeaderMap::from_iter([(FORWARDED_FOR, value.parse().expect("a value"))]);
        let seen = |trusted: &[&str], headers: &HeaderMap| {
            let client = proxies(trusted).client(&Peer::unix(), headers);
            (client.address(), client.into_chain())
        };
        let is = |address: &str| address.parse().ok();
        assert_eq!(seen(&["0.0.0.0/0", "::/0"], &forwarded("203.0.113.9")), (None, UNKNOWN), "no network has it");
        assert_eq!(seen(&["unix:"], &HeaderMap::new()), (None, UNKNOWN));
        assert_eq!(
            seen(&["unix:"], &forwarded("203.0.113.9")),
            (is("203.0.113.9"), HeaderValue::from_static("203.0.113.9"))
        );
        assert_eq!(seen(&["unix:"], &forwarded("unknown")), (None, UNKNOWN));
    }

    #[test]
    fn the_chain_is_walked_from_the_right_over_trusted_proxies() {
        let is = |address: &str| address.parse().ok();
        assert_eq!(client("192.0.2.1", &["203.0.113.9"]), (is("192.0.2.1"), "192.0.2.1".to_owned()), "untrusted peer");
        assert_eq!(client("10.0.0.1", &[]).0, is("10.0.0.1"));
        assert_eq!(
            client("10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.0.0.2"]),
            (is("203.0.113.9"), "203.0.113.9, 10.0.0.2, 10.0.0.1".to_owned())
        );
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "203.0.113.9"]).0, is("203.0.113.9"), "several headers");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]).0, is("10.0.0.3"), "proxies all the way");
        assert_eq!(client("::ffff:10.0.0.1", &["[2001:db8::1]:443"]).0, is("2001:db8::1"));
        assert_eq!(client("10.0.0.1", &["203.0.113.9:8080"]).0, is("203.0.113.9"));
        for bad in ["unknown", "", "203.0.113.9, ", "\u{e9}", "1.2.3.4.5", "_hidden"] {
            assert_eq!(client("10.0.0.1", &[bad]).0, None, "{bad:?}");
        }
    }

    #[test]
    fn mapped_addresses_are_unmapped_on_both_sides() {
        let allow = Allowlist::new(networks(&["::ffff:203.0.113.0/120", "2001:db8::/32"]), None);
        let admit = |address: &str| {
            let peer = Peer::new(SocketAddr::new(address.parse().expect("an address"), 1));
            allow.admit(TrustedProxies::default().client(&peer, &HeaderMap::new())).map(|_| ())
        };
        assert_eq!(admit("203.0.113.7"), Ok(()));
        assert_eq!(admit("::ffff:203.0.113.7"), Ok(()));
        assert_eq!(admit("2001:db8:ffff::1"), Ok(()));
        assert_eq!(admit("203.0.114.7"), Err(Denied::Address));
        assert_eq!(admit("2001:db9::1"), Err(Denied::Address));
    }
}
