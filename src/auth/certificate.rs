//! Keys from certificates that requests name, fetched from a few allowed hosts only, and kept.
//!
//! The host is authenticated by TLS, which is what makes the certificate the provider's. A sender can name any file on
//! those hosts, so fetches are few, and what they give is bounded.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use http::HeaderName;
use wildmatch::WildMatch;

use super::Failure;
use super::Material;
use super::Misfit;
use super::public_key::PublicKey;
use crate::body::Inbound;
use crate::fetch::Address;
use crate::fetch::Hosts;
use crate::fetch::Unfetched;
use crate::field::Field;
use crate::field::Values;
use crate::params;
use crate::profile;
use crate::profile::Hash;
use crate::time::Moment;

/// Most certificates that are kept.
const MAX_KEPT: usize = 32;
/// How long a certificate is used before it is fetched again.
const FRESH: Duration = Duration::from_hours(24);
/// How long it is remembered that an address has no certificate.
const REFUSED: Duration = Duration::from_mins(1);
/// Most fetches in any minute.
const MAX_PER_MINUTE: u32 = 10;

/// Certificates by address.
pub(super) struct Certificates {
    from: Field,
    hosts: Hosts,
    path: Option<WildMatch>,
    subject: Option<WildMatch>,
    hash: Hash,
    kept: Mutex<HashMap<Address, Kept>>,
    /// One fetch at a time; when the present minute began, and how many there were in it.
    fetching: tokio::sync::Mutex<(Option<Instant>, u32)>,
}

#[derive(Clone)]
struct Kept {
    key: Result<Key, Failure>,
    until: Instant,
}

/// A certificate's key and when it is valid, in Unix seconds.
#[derive(Clone)]
struct Key {
    key: PublicKey,
    valid: std::ops::RangeInclusive<i64>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Certificates that the profile's hosts may give.
    pub(super) fn new(hash: Hash, said: &profile::Certificate, material: &mut Material<'_>) -> Result<Self, Misfit> {
        let hosts = Hosts::parse(&params::fill(&said.hosts, material.params))
            .map_err(|message| ("params".to_owned(), message))?;
        Ok(Self {
            from: Field::new(&said.from, material.wants),
            hosts,
            path: said.path.as_deref().map(WildMatch::new),
            subject: said.subject.as_deref().map(WildMatch::new),
            hash,
            kept: Mutex::default(),
            fetching: tokio::sync::Mutex::new((None, 0)),
        })
    }

    /// The header that names the certificate.
    pub(super) fn headers(&self) -> Vec<HeaderName> {
        self.from.headers()
    }

    /// Whether the body names the certificate.
    pub(super) fn reads_json(&self) -> bool {
        self.from.is_json()
    }

    /// The key of the certificate that the request names.
    pub(super) async fn key(&self, inbound: &Inbound, values: &Values, now: Moment) -> Result<PublicKey, Failure> {
        let text = self.from.text(inbound, values).map_err(|_not_text| Failure::CertificateNotAllowed)?;
        let address = self.hosts.admit(text.ok_or(Failure::SignatureMissing)?);
        // With a query or a fragment one file has any number of addresses, each of which would be fetched.
        let allowed =
            |address: &Address| address.is_bare() && self.path.as_ref().is_none_or(|path| path.matches(address.path()));
        let address = address.filter(allowed).ok_or(Failure::CertificateNotAllowed)?;
        let key = match self.kept(&address) {
            Some(known) => known?,
            None => self.fetch(&address).await?,
        };
        if key.valid.contains(&now.unix()) { Ok(key.key) } else { Err(Failure::CertificateInvalid) }
    }

    fn kept(&self, address: &Address) -> Option<Result<Key, Failure>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(address).filter(|kept| kept.until > Instant::now()).map(|kept| kept.key.clone())
    }

    async fn fetch(&self, address: &Address) -> Result<Key, Failure> {
        let mut minute = self.fetching.lock().await;
        // Somebody else may have fetched it while this one waited.
        if let Some(known) = self.kept(address) {
            return known;
        }
        let (begun, fetched) = &mut *minute;
        if begun.is_none_or(|begun| begun.elapsed() > Duration::from_mins(1)) {
            (*begun, *fetched) = (Some(Instant::now()), 0);
        }
        if *fetched >= MAX_PER_MINUTE {
            return Err(Failure::KeysUnavailable);
        }
        *fetched += 1;
        let (key, fresh) = match Box::pin(address.fetch()).await {
            Ok(document) => match self.read(&document.bytes) {
                Some(key) => (Ok(key), FRESH),
                // A host may serve something else by mistake, and mend that.
                None => (Err(Failure::CertificateInvalid), REFUSED),
            },
            Err(error) => {
                tracing::warn!(url = %address, %error, "a certificate could not be fetched");
                match error {
                    // Anybody may name a file that is not there; asking for it again helps nobody.
                    Unfetched::Refused(_) => (Err(Failure::KeysUnavailable), REFUSED),
                    Unfetched::Unavailable(_) => return Err(Failure::KeysUnavailable),
                }
            }
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            // Those that gave a key stay as long as there is anything else to drop.
            kept.retain(|_, kept| kept.key.is_ok() && kept.until > Instant::now());
            if kept.len() >= MAX_KEPT {
                kept.clear();
            }
        }
        kept.insert(address.clone(), Kept { key: key.clone(), until: Instant::now() + fresh });
        key
    }

    /// The key in a PEM, of which the first certificate counts.
    fn read(&self, pem: &[u8]) -> Option<Key> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
        let certificate = pem.parse_x509().ok()?;
        if let Some(pattern) = &self.subject {
            let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
            if !pattern.matches(name) {
                return None;
            }
        }
        let key = PublicKey::rsa(self.hash, certificate.public_key().raw).ok()?;
        let validity = certificate.validity();
        Some(Key { key, valid: validity.not_before.timestamp()..=validity.not_after.timestamp() })
    }
}
