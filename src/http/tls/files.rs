//! Certificates and keys of listeners in files (PEM).

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::Error as PemError;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use crate::base::time::Moment;

/// A certificate with those that it was issued by.
#[derive(Debug)]
pub struct Chain {
    file: String,
    certificates: Vec<CertificateDer<'static>>,
    /// Its DNS names, in lower case.
    names: Vec<String>,
    not_before: Moment,
    not_after: Moment,
}

impl Chain {
    /// Reads a file with `read`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Self, String> {
        let file = path.display().to_string();
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes(path, read)?)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{file} is not PEM that can be read: {}", said(&error)))?;
        let first = certificates.first().ok_or_else(|| format!("{file} has no certificate (BEGIN CERTIFICATE)"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(first)
            .map_err(|_bad| format!("{file} has a certificate that cannot be read"))?;
        let names = match parsed.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter().filter_map(dns_name).collect(),
            Ok(None) | Err(_) => Vec::new(),
        };
        let [not_before, not_after] = [parsed.validity().not_before, parsed.validity().not_after]
            .map(|time| Moment::from_millis(time.timestamp().saturating_mul(1000)));
        Ok(Self { names, not_before, not_after, file, certificates })
    }

    /// Why clients do not accept it at this moment.
    pub fn problem(&self, now: Moment) -> Option<String> {
        let file = &self.file;
        if self.not_after < now {
            return Some(format!("{file} has expired, at {}: clients refuse it", self.not_after.rfc3339()));
        }
        (now < self.not_before)
            .then(|| format!("{file} is valid from {} on: clients refuse it", self.not_before.rfc3339()))
    }
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name { Some(name.to_ascii_lowercase()) } else { None }
}

/// The authorities whose client certificates are accepted.
#[derive(Debug)]
pub struct ClientAuthorities(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientAuthorities {
    /// Reads a file with `read`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Self, String> {
        let file = path.display().to_string();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes(path, read)?) {
            let certificate =
                certificate.map_err(|error| format!("{file} is not PEM that can be read: {}", said(&error)))?;
            roots.add(certificate).map_err(|error| format!("{file} has a certificate that cannot be used: {error}"))?;
        }
        if roots.is_empty() {
            return Err(format!("{file} has no certificate (BEGIN CERTIFICATE)"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // A client without a certificate is told by the sources that require one.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
        verifier.build().map(Self).map_err(|error| format!("{file} cannot be used: {error}"))
    }
}

/// A private key.
#[derive(Debug)]
pub struct Key {
    file: String,
    key: PrivateKeyDer<'static>,
}

impl Key {
    /// Reads a file with `read`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Self, String> {
        let file = path.display().to_string();
        let key = PrivateKeyDer::from_pem_slice(&bytes(path, read)?).map_err(|error| {
            if matches!(error, PemError::NoItemsFound) {
                return format!(
                    "{file} has no private key that is not encrypted (BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC \
                     PRIVATE KEY)"
                );
            }
            format!("{file} is not PEM that can be read: {}", said(&error))
        })?;
        Ok(Self { file, key })
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Pair {
    pub(super) file: String,
    pub(super) key: Arc<CertifiedKey>,
    names: Vec<String>,
    pub(super) not_after: Moment,
}

impl Pair {
    /// A certificate with its key.
    ///
    /// # Errors
    /// Why the key cannot be used with the certificate.
    pub fn new(chain: Chain, key: Key) -> Result<Self, String> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain.certificates, key.key, &provider).map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                return format!("{} is not the key of {}", key.file, chain.file);
            }
            format!("{} cannot be used: {error}", key.file)
        })?;
        Ok(Self { file: chain.file, key: Arc::new(certified), names: chain.names, not_after: chain.not_after })
    }

    /// Whether it is for this host, which is in lower case.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_label, parent)| parent);
        self.names.iter().any(|name| name == host || parent.is_some() && name.strip_prefix("*.") == parent)
    }
}

fn bytes(path: &Path, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
    read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// What is wrong with PEM, without the lines themselves: they may be those of a key.
fn said(error: &PemError) -> &'static str {
    if matches!(error, PemError::MissingSectionEnd { .. }) {
        "a section does not end"
    } else if matches!(error, PemError::Base64Decode(_)) {
        "a section is not base64"
    } else {
        "a section does not begin as it should"
    }
}
