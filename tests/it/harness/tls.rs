//! Clients of listeners with TLS, by rustls.

use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;

use crate::harness::authority::Authority;
use crate::harness::http::Answer;
use crate::harness::http::Message;
use crate::harness::http::connect;

/// A connection to a listener with TLS.
pub type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// The configuration of a client that believes this authority and offers these protocols.
pub fn client_config(authority: &Authority, protocols: &[&[u8]], certificate: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path("ca.pem")).expect("a certificate")).expect("added");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match certificate {
        Some(name) => {
            let certificate = CertificateDer::from_pem_file(authority.path(&format!("{name}.pem"))).expect("a chain");
            let key = PrivateKeyDer::from_pem_file(authority.path(&format!("{name}.key"))).expect("a key");
            builder.with_client_auth_cert(vec![certificate], key).expect("a certificate with its key")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A connection by this name.
pub fn connect_as(address: SocketAddr, name: &str, config: ClientConfig) -> TlsClient {
    on_stream(connect(address), name, config)
}

/// The same on a connection that is open already.
pub fn on_stream(stream: TcpStream, name: &str, config: ClientConfig) -> TlsClient {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), stream)
}

/// A connection to 127.0.0.1 with HTTP/1.1.
pub fn connect_tls(address: SocketAddr, authority: &Authority) -> TlsClient {
    connect_as(address, "127.0.0.1", client_config(authority, &[], None))
}

/// Sends bytes and reads the answer.
#[track_caller]
pub fn exchange_on(client: &mut TlsClient, request: &[u8]) -> Answer {
    client.write_all(request).expect("sent");
    Message::read(&mut BufReader::new(client)).expect("an answer").expect("an answer before the end").into()
}
