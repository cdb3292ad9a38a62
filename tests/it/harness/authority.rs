//! A certificate authority of a test's own.

use std::path::PathBuf;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use tempfile::TempDir;

use crate::harness::gateway::Gateway;

/// Who vouches for a server at 127.0.0.1, and the server's certificate: `ca.pem`, `server.pem`, `server.key`.
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A gateway that believes whom this one vouches for.
    #[track_caller]
    pub fn gateway(&self, sections: &str) -> Gateway {
        let trusted = self.path("ca.pem");
        Gateway::spawn(self.folder.path(), sections, &[("SSL_CERT_FILE", trusted.to_str().expect("a path"))])
    }
}
