//! TLS of listeners: their certificates, chosen by the name that a client asks for, and replaced while the gateway runs.

mod files;
mod metrics;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::ClientHello;
use rustls::server::NoServerSessionStorage;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

pub use self::files::Chain;
pub use self::files::ClientAuthorities;
pub use self::files::Key;
pub use self::files::Pair;
pub use self::metrics::Outcome;
pub use self::metrics::TlsMetrics;
use crate::base::time::Moment;

/// HTTP/2 in ALPN.
pub const HTTP2: &[u8] = b"h2";

/// The protocols that are offered (ALPN), the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];

/// The TLS of one listener, as it was read from files.
pub struct TlsTerms {
    config: Arc<ServerConfig>,
    /// The file and the end of each certificate.
    expiries: Vec<(String, Moment)>,
    asks_for_certificates: bool,
}

impl std::fmt::Debug for TlsTerms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsTerms").field("expiries", &self.expiries).finish_non_exhaustive()
    }
}

impl TlsTerms {
    /// TLS with these certificates. The first one is for clients that ask for no name, or for one that none has. With
    /// `clients`, they are asked for certificates, and may go on without.
    ///
    /// # Errors
    /// Only when the cryptography does not work, which is a bug.
    pub fn new(pairs: Vec<Pair>, clients: Option<ClientAuthorities>) -> Result<Self, String> {
        let expiries = pairs.iter().map(|pair| (pair.file.clone(), pair.not_after)).collect();
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let asks_for_certificates = clients.is_some();
        let mut config = match clients {
            Some(ClientAuthorities(verifier)) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        }
        .with_cert_resolver(Arc::new(ByName(pairs)));
        if asks_for_certificates {
            // A session that goes on would not have its certificate verified again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self { config: Arc::new(config), expiries, asks_for_certificates })
    }

    /// Whether clients are asked for certificates.
    pub fn asks_for_certificates(&self) -> bool {
        self.asks_for_certificates
    }
}

/// Certificates by the names in them.
#[derive(Debug)]
struct ByName(Vec<Pair>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |pair: &&Pair| pair.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let named = name.and_then(|name| self.0.iter().filter(usable).find(|pair| pair.is_for(&name)));
        let pair = named.or_else(|| self.0.iter().find(usable)).or_else(|| self.0.first());
        pair.map(|pair| Arc::clone(&pair.key))
    }
}

/// The TLS of one listener, as it runs.
#[derive(Debug)]
pub struct Tls {
    listener: String,
    terms: ArcSwap<TlsTerms>,
}

impl Tls {
    /// The TLS of the listener of this name.
    pub fn new(listener: String, terms: Arc<TlsTerms>) -> Self {
        Self { listener, terms: ArcSwap::new(terms) }
    }

    /// The name of its listener.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Has handshakes from now on use other certificates. Connections go on with those that they began with.
    pub fn replace(&self, terms: Arc<TlsTerms>) {
        self.terms.store(terms);
    }

    /// What a handshake needs.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.terms.load().config))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::CertificateParams;
    use rcgen::KeyPair;
    use rustls::ClientConfig;
    use rustls::RootCertStore;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::ServerName;
    use tokio_rustls::TlsConnector;

    use super::*;

    /// A certificate that is its own authority, in files.
    fn pair(folder: &Path, name: &str) -> (Pair, CertificateDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let certificate =
            CertificateParams::new([name.to_owned()]).expect("a name").self_signed(&key).expect("a certificate");
        let [chain_file, key_file] =
            ["crt", "key"].map(|kind| folder.join(format!("{name}.{kind}").replace('*', "any")));
        std::fs::write(&chain_file, certificate.pem()).expect("written");
        std::fs::write(&key_file, key.serialize_pem()).expect("written");
        let read = |path: &Path| std::fs::read(path);
        let (chain, key) =
            (Chain::read(&chain_file, read).expect("a chain"), Key::read(&key_file, read).expect("a key"));
        (Pair::new(chain, key).expect("a pair"), certificate.der().clone())
    }

    /// The certificate that a client sees that asks for this name and believes all of these.
    async fn seen(tls: &Tls, name: &str, roots: &[CertificateDer<'static>]) -> Option<CertificateDer<'static>> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(store)
            .with_no_client_auth();
        let (client, server) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connect = TlsConnector::from(Arc::new(config)).connect(name, client);
        let (client, _server) = tokio::join!(connect, tls.acceptor().accept(server));
        let client = client.ok()?;
        client.get_ref().1.peer_certificates()?.first().cloned().map(CertificateDer::into_owned)
    }

    #[tokio::test]
    async fn a_certificate_is_chosen_by_name_and_all_are_replaced_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["one.example", "*.two.example", "three.example"];
        let (mut pairs, mut roots) = (Vec::new(), Vec::new());
        for name in names {
            let (pair, root) = pair(folder.path(), name);
            pairs.push(pair);
            roots.push(root);
        }
        let tls = Tls::new("public".to_owned(), Arc::new(TlsTerms::new(pairs, None).expect("TLS")));
        for (asked, at) in [("one.example", 0), ("ONE.example", 0), ("a.two.example", 1), ("three.example", 2)] {
            assert_eq!(seen(&tls, asked, &roots).await.as_ref(), roots.get(at), "{asked}");
        }
        for unknown in ["two.example", "a.b.two.example", "four.example"] {
            assert_eq!(seen(&tls, unknown, &roots).await, None, "the first one does not fit {unknown}");
        }
        let (pair, root) = pair(folder.path(), "four.example");
        tls.replace(Arc::new(TlsTerms::new(vec![pair], None).expect("TLS")));
        roots.push(root);
        assert_eq!(seen(&tls, "four.example", &roots).await.as_ref(), roots.get(3));
        assert_eq!(seen(&tls, "one.example", &roots).await, None);
    }
}
