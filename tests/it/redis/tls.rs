//! Redis behind TLS: only one whose certificate somebody vouches for is used.

use std::path::PathBuf;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use tempfile::TempDir;

use crate::harness::free_port;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_redis;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Upstream;

#[test]
fn events_are_queued_and_let_through_once_over_tls() {
    let (authority, upstream, port) = (Authority::new(), Upstream::start(), free_port());
    let arguments = authority.arguments(port);
    let _redis = Redis::with(&arguments.each_ref().map(String::as_str));
    let gateway = authority.gateway(&queued_in_redis(&upstream.url(), "", &format!("rediss://127.0.0.1:{port}")));
    let delivery = Github::delivery("one", "{}");
    assert_eq!(delivery.send_until_taken(gateway.address()).text(), QUEUED);
    assert_eq!(delivery.send(gateway.address()).text(), DUPLICATE);
    upstream.wait_for(1);
    assert_eq!(upstream.ids(), ["one"]);
}

#[test]
fn a_redis_with_the_certificate_of_a_stranger_is_not_used() {
    let (authority, stranger, upstream) = (Authority::new(), Authority::new(), Upstream::start());
    let port = free_port();
    let arguments = stranger.arguments(port);
    let redis = Redis::with(&arguments.each_ref().map(String::as_str));
    let gateway = authority.gateway(&queued_in_redis(&upstream.url(), "", &format!("rediss://127.0.0.1:{port}")));
    gateway.logged("why", |event| {
        event["error"].as_str().is_some_and(|error| error.starts_with("invalid peer certificate"))
    });
    assert!(Github::delivery("one", "{}").send(gateway.address()).asks_to_come_again());
    assert_eq!(gateway.admin("/readyz").status, 503);
    assert!(upstream.received().is_empty());
    assert_eq!(redis.command::<u32>(&["DBSIZE"]), 0);
}

/// Who vouches for a server, and the server's certificate.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
        let mut own = CertificateParams::default();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let [key, server_key] = [(); 2].map(|()| KeyPair::generate().expect("a key"));
        write("ca.pem", own.self_signed(&key).expect("a certificate").pem());
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        let server = server.signed_by(&server_key, &Issuer::new(own, key)).expect("a certificate");
        write("server.pem", server.pem());
        write("server.key", server_key.serialize_pem());
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What makes a Redis server take TLS on this port.
    fn arguments(&self, port: u16) -> [String; 10] {
        let path = |name: &str| self.path(name).to_str().expect("a path").to_owned();
        [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", path("server.pem")),
            ("--tls-key-file", path("server.key")),
            ("--tls-ca-cert-file", path("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
        ]
        .map(|(name, value)| [name.to_owned(), value])
        .concat()
        .try_into()
        .expect("ten words")
    }

    /// A gateway that believes whom this one vouches for.
    fn gateway(&self, sections: &str) -> Gateway {
        let trusted = self.path("ca.pem");
        Gateway::spawn(self.folder.path(), sections, &[("SSL_CERT_FILE", trusted.to_str().expect("a path"))])
    }
}
