//! Reads `server.listen` and `[server.listeners.NAME]`: where providers reach the gateway.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use super::section::Section;
use crate::base::time::Moment;
use crate::http::origin::TrustedPeer;
use crate::http::origin::TrustedProxies;
use crate::http::tls::Chain;
use crate::http::tls::ClientAuthorities;
use crate::http::tls::Key;
use crate::http::tls::Pair;
use crate::http::tls::TlsTerms;

/// The longest path of a Unix socket, in bytes (`sun_path` of Linux, without its end).
const MAX_SOCKET_PATH: usize = 107;

/// Who may open a Unix socket, unless `mode` says otherwise: its user and its group.
const DEFAULT_MODE: u32 = 0o660;

/// One listener for providers.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name, which log and metrics show; empty when `server.listen` is the only one.
    pub name: String,
    /// Where it listens.
    pub address: ListenAddress,
    /// The load balancers that speak the PROXY protocol to it; without any, nobody does.
    pub proxy_protocol: Option<TrustedProxies>,
    /// Its TLS; without it, it speaks plain HTTP.
    pub tls: Option<Arc<TlsTerms>>,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.name.is_empty() {
            write!(f, "{}=", self.name)?;
        }
        self.address.fmt(f)
    }
}

impl Listener {
    /// Its address with a port, if it has one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        if let ListenAddress::Tcp(address) = self.address { Some(address) } else { None }
    }
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address with a port.
    Tcp(SocketAddr),
    /// The file of a Unix socket, and its permissions.
    Unix(PathBuf, u32),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path, _) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether one of them asks clients for certificates.
pub(super) fn ask_for_certificates(listeners: &[Listener]) -> bool {
    listeners.iter().filter_map(|listener| listener.tls.as_ref()).any(|tls| tls.asks_for_certificates())
}

/// The listeners of `[server]`: those of `[server.listeners]`, or else the one of `server.listen`.
pub(super) fn listeners(server: &mut Section<'_>) -> Option<Vec<Listener>> {
    let named = server.subsection("listeners").map(|listeners| listeners.subsections()).unwrap_or_default();
    let single = server.required("listen", address);
    if named.is_empty() {
        return Some(vec![Listener { name: String::new(), address: single?, proxy_protocol: None, tls: None }]);
    }
    if server.is_set("listen") {
        server.error("listen", "is set beside server.listeners; make it one of those");
    }
    let all: Vec<_> = named.into_iter().map(|(name, section)| listener(name, section)).collect();
    let listeners: Vec<_> = all.iter().flatten().cloned().collect();
    for (at, listener) in listeners.iter().enumerate() {
        let before = listeners.iter().take(at).find(|before| is_same(&before.address, &listener.address));
        if let Some(before) = before {
            let key = format!("listeners.{}.listen", listener.name);
            server.error(&key, format!("is where server.listeners.{} listens too", before.name));
        }
    }
    (listeners.len() == all.len()).then_some(listeners)
}

fn listener(name: &str, mut section: Section<'_>) -> Option<Listener> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(fits);
    if !is_name {
        section.error("", "is not a name of a listener; use 1 to 64 lower-case letters, digits, \"-\" and \"_\"");
    }
    let address = section.required("listen", address);
    let mode = section.optional("mode", mode);
    let address = match (address, mode) {
        (Some(ListenAddress::Unix(path, default)), mode) => Some(ListenAddress::Unix(path, mode.unwrap_or(default))),
        (Some(ListenAddress::Tcp(_)), Some(_)) => {
            section.error("mode", "is for unix: sockets; remove it");
            None
        }
        (address, _) => address,
    };
    let proxy_protocol = proxy_protocol(&mut section, address.as_ref());
    let tls = match section.subsection("tls") {
        Some(tls) if !matches!(address, Some(ListenAddress::Unix(..))) => Some(self::tls(tls)),
        Some(_) => {
            section.error("tls", "is for addresses: what comes by a unix: socket comes from this machine; remove it");
            None
        }
        // Something else than a table was reported.
        None => section.has("tls").then_some(None),
    };
    section.finish();
    let tls = match tls {
        Some(read) => Some(read?),
        None => None,
    };
    Some(Listener { name: is_name.then(|| name.to_owned())?, address: address?, proxy_protocol, tls })
}

fn tls(mut section: Section<'_>) -> Option<Arc<TlsTerms>> {
    let tables = section.tables("certificates");
    if tables.as_ref().is_some_and(Vec::is_empty) || !section.has("certificates") {
        section
            .error("certificates", "is missing: write [{ certificate = \"/path/tls.crt\", key = \"/path/tls.key\" }]");
    }
    let pairs: Vec<_> = tables.into_iter().flatten().map(pair).collect();
    let has_clients = section.has("client_ca");
    let files = section.files();
    let read = |path: &Path| files.read(path);
    let clients = section.optional("client_ca", |path| ClientAuthorities::read(Path::new(path), read));
    let pairs = pairs.into_iter().collect::<Option<Vec<_>>>().filter(|pairs| !pairs.is_empty());
    let is_complete = clients.is_some() == has_clients;
    let terms = pairs.filter(|_| is_complete).map(|pairs| TlsTerms::new(pairs, clients));
    let terms = terms.and_then(|terms| terms.map_err(|message| section.error("", message)).ok());
    section.finish();
    terms.map(Arc::new)
}

fn pair(mut section: Section<'_>) -> Option<Pair> {
    let files = section.files();
    let read = |path: &Path| files.read(path);
    let chain = section.required("certificate", |path| Chain::read(Path::new(path), read));
    let key = section.required("key", |path| Key::read(Path::new(path), read));
    if let Some(problem) = chain.as_ref().and_then(|chain| chain.problem(Moment::now())) {
        section.warning("certificate", problem);
    }
    let pair = chain.zip(key).map(|(chain, key)| Pair::new(chain, key));
    let pair = pair.and_then(|pair| pair.map_err(|message| section.error("key", message)).ok());
    section.finish();
    pair
}

fn proxy_protocol(section: &mut Section<'_>, address: Option<&ListenAddress>) -> Option<TrustedProxies> {
    let peers = section.has("proxy_protocol").then(|| section.list("proxy_protocol", TrustedPeer::parse))?;
    let is_unix = matches!(address, Some(ListenAddress::Unix(..)));
    if is_unix && !peers.iter().any(|peer| matches!(peer, TrustedPeer::Unix)) {
        section.error("proxy_protocol", "has no \"unix:\", so that nobody could connect to this socket");
    } else if address.is_some() && !is_unix && !peers.iter().any(|peer| matches!(peer, TrustedPeer::Network(_))) {
        section.error("proxy_protocol", "names nobody: list the addresses of the load balancer, or remove it");
    }
    Some(peers.into_iter().collect())
}

/// Whether two listeners would listen at one place. Port 0 is another one each time.
fn is_same(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => one == other && one.port() != 0,
        (ListenAddress::Unix(one, _), ListenAddress::Unix(other, _)) => one == other,
        (ListenAddress::Tcp(_) | ListenAddress::Unix(..), _) => false,
    }
}

fn address(text: &str) -> Result<ListenAddress, String> {
    let Some(path) = text.strip_prefix("unix:") else {
        return text.parse().map(ListenAddress::Tcp).map_err(|_bad| {
            format!(
                "{text:?} is not an address with a port, such as \"0.0.0.0:8080\" or \"[::]:8080\", or the path of a socket, \
                 such as \"unix:/run/doorward.sock\""
            )
        });
    };
    match path {
        "" => Err("has no path; write for example \"unix:/run/doorward.sock\"".to_owned()),
        _ if path.contains('\0') => Err("has a path that no file can have".to_owned()),
        _ if path.len() > MAX_SOCKET_PATH => {
            Err(format!("has a path of {} bytes, and that of a socket has {MAX_SOCKET_PATH} at most", path.len()))
        }
        _ => Ok(ListenAddress::Unix(PathBuf::from(path), DEFAULT_MODE)),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    let digits = (3..=4).contains(&text.len()).then(|| u32::from_str_radix(text, 8).ok()).flatten();
    digits
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("{text:?} is not what a file may have, such as \"0660\""))
}
