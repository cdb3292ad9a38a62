//! Keys from certificates whose addresses are in requests: which addresses are allowed, and how a certificate is
//! checked.
//!
//! TLS authenticates the host, and so the certificate. There is no chain to verify: providers publish the certificate
//! without those of its issuers.

mod cache;
mod queue;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use http::HeaderName;

use super::Failure;
use super::KeyError;
use super::KeyMaterial;
use super::public_key::PublicKey;
use crate::base::time::Moment;
use crate::extract::field::Extracted;
use crate::extract::field::Field;
use crate::extract::params;
use crate::http::fetch::Address;
use crate::http::fetch::Hosts;
use crate::http::fetch::matches_pattern;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::Hash;

use self::cache::Cache;
use self::queue::Network;

pub use self::cache::Limits;

/// The most bytes of an address.
const MAX_ADDRESS: usize = 512;

/// The certificates of one scheme, by address.
pub(super) struct Certificates {
    from: Field,
    hosts: Hosts,
    path: Option<String>,
    cache: Arc<Cache>,
}

/// A certificate that may verify signatures.
pub(super) struct Certificate {
    key: PublicKey,
    /// Its validity period, in Unix seconds.
    valid: RangeInclusive<i64>,
    /// Whether it has verified a signature.
    proven: AtomicBool,
}

/// Parses and checks certificates.
struct Reader {
    hash: Hash,
    /// Patterns, of which one must match the common name; any name is accepted when there are none.
    subjects: Vec<String>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("valid", &self.valid).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Compiles the table `certificate` of a profile.
    ///
    /// # Errors
    /// What is wrong with a parameter.
    pub(super) fn new(
        hash: Hash,
        spec: &profile::Certificate,
        material: &mut KeyMaterial<'_>,
    ) -> Result<Self, KeyError> {
        let hosts = Hosts::parse(&params::fill(&spec.hosts, material.params))
            .map_err(|message| ("params".to_owned(), message))?;
        let reader = Reader { hash, subjects: spec.subject.iter().map(|name| name.to_ascii_lowercase()).collect() };
        Ok(Self {
            from: Field::new(&spec.from, material.plan),
            hosts,
            path: spec.path.clone(),
            cache: Arc::new(Cache::new(reader, material.certificates)),
        })
    }

    /// The headers that may have the address.
    pub(super) fn headers(&self) -> Vec<HeaderName> {
        self.from.headers()
    }

    /// Whether the address is in the JSON body.
    pub(super) fn reads_json(&self) -> bool {
        self.from.is_json()
    }

    /// The certificate whose address is in the request.
    ///
    /// # Errors
    /// [`Failure::SignatureMissing`] when there is no address, [`Failure::CertificateNotAllowed`],
    /// [`Failure::CertificateInvalid`], and [`Failure::KeysUnavailable`] when it is not available now.
    pub(super) async fn named(
        &self,
        inbound: &Inbound,
        values: &Extracted,
        now: Moment,
    ) -> Result<Arc<Certificate>, Failure> {
        let text = self.from.text(inbound, values).map_err(|_not_text| Failure::CertificateNotAllowed)?;
        let text = text.ok_or(Failure::SignatureMissing)?;
        let address = self.allowed_address(text).ok_or(Failure::CertificateNotAllowed)?;
        let network = inbound.client().and_then(|client| client.address()).map(Network::of);
        let certificate = self.cache.certificate(&address, network, now).await?;
        if certificate.is_valid(now) { Ok(certificate) } else { Err(Failure::CertificateInvalid) }
    }

    fn allowed_address(&self, text: &str) -> Option<Address> {
        let address = Some(text).filter(|text| text.len() <= MAX_ADDRESS).and_then(|text| self.hosts.admit(text))?;
        // With a query or a fragment, one file would have any number of addresses, each of which would be fetched.
        let allowed = address.is_bare() && self.path.as_ref().is_none_or(|path| matches_pattern(path, address.path()));
        allowed.then_some(address)
    }
}

impl Certificate {
    /// Whether one of the signatures verifies for the message. If so, the certificate is proven.
    pub(super) fn verifies(&self, message: &[u8], signatures: &[Vec<u8>]) -> bool {
        let verified = self.key.verifies(message, signatures);
        if verified {
            self.mark_proven();
        }
        verified
    }

    fn is_valid(&self, now: Moment) -> bool {
        self.valid.contains(&now.unix())
    }

    fn mark_proven(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}

impl Reader {
    /// Parses and checks the first certificate in PEM.
    ///
    /// # Errors
    /// [`Failure::KeysUnavailable`] when it is not a certificate: the host may serve something else by mistake, and
    /// repair that. [`Failure::CertificateInvalid`] when its name or its key is not accepted.
    fn read(&self, pem: &[u8]) -> Result<Certificate, Failure> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_none| Failure::KeysUnavailable)?;
        let certificate = pem.parse_x509().map_err(|_none| Failure::KeysUnavailable)?;
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let is_named =
            |name: &str| self.subjects.iter().any(|subject| matches_pattern(subject, &name.to_ascii_lowercase()));
        if !self.subjects.is_empty() && !name.is_some_and(is_named) {
            return Err(Failure::CertificateInvalid);
        }
        let key =
            PublicKey::rsa(self.hash, certificate.public_key().raw).map_err(|_other| Failure::CertificateInvalid)?;
        let validity = certificate.validity();
        let valid = validity.not_before.timestamp()..=validity.not_after.timestamp();
        Ok(Certificate { key, valid, proven: AtomicBool::new(false) })
    }
}
