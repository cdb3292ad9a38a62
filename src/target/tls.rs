//! Streams of bytes to and from an upstream, and TLS.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// Verifies upstreams against the system's certificate authorities, or those of `SSL_CERT_FILE`.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.name).finish()
    }
}

impl Tls {
    /// TLS with the server of this name.
    ///
    /// # Errors
    /// What is missing, for the operator.
    pub(super) fn new(host: &str) -> Result<Self, String> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_bad| format!("{host:?} is not a host name"))?;
        let mut roots = RootCertStore::empty();
        let (found, _unusable) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if found == 0 {
            return Err("https needs certificate authorities, and this machine has none; install ca-certificates or \
                        set SSL_CERT_FILE"
                .to_owned());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<Stream> {
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        Ok(Either::Right(Box::new(stream)))
    }
}

/// Bytes to and from an upstream without TLS.
pub(super) type Plain = Either<TcpStream, UnixStream>;

/// Bytes to and from an upstream, without TLS or with it.
pub(super) type Stream = Either<Plain, Box<TlsStream<TcpStream>>>;
