//! A certificate authority of a test's own.

use std::path::Path;
use std::path::PathBuf;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use tempfile::TempDir;

use crate::harness::gateway::Gateway;

/// Who vouches for a server at 127.0.0.1, and the server's certificate: `ca.pem`, `server.pem`, `server.key`.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut own = CertificateParams::default();
        // Another one than that of the certificates that it issues, which would look as if they were their own authority.
        own.distinguished_name.push(DnType::CommonName, "an authority of tests");
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        std::fs::write(folder.path().join("ca.pem"), own.self_signed(&key).expect("a certificate").pem())
            .expect("a file");
        let authority = Self { folder, issuer: Issuer::new(own, key) };
        authority.issue("server", &["127.0.0.1"]);
        authority
    }

    /// Issues a certificate for these names, `NAME.pem` and `NAME.key`.
    pub fn issue(&self, name: &str, names: &[&str]) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        self.issue_with(name, &CertificateParams::new(names).expect("names"));
    }

    /// Issues a certificate with these parameters, `NAME.pem` and `NAME.key`.
    pub fn issue_with(&self, name: &str, parameters: &CertificateParams) {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("a file");
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
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
