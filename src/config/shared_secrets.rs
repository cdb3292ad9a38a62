//! Warns of secrets that several sources share: a request that is signed for one of them verifies at the others as
//! well.

use std::cell::RefCell;

use zeroize::Zeroizing;

use super::section::Section;
use crate::base::secret::Secret;
use crate::profile::Profile;
use crate::verify;

/// The secrets of the sources that were read.
#[derive(Default)]
pub(super) struct SharedSecrets(RefCell<Vec<KnownSecret>>);

struct KnownSecret {
    /// The secret as text, and decoded as each key of its profile.
    keys: Vec<Zeroizing<Vec<u8>>>,
    /// The key of its source, `sources.NAME`.
    source: String,
    /// Its position among the secrets of that source, from 1.
    number: usize,
    /// The URL of the endpoint, where every signature covers it: requests do not verify at other URLs then.
    address: Option<String>,
}

impl SharedSecrets {
    /// Adds the secrets of a source, and warns of those that another source has.
    pub(super) fn add(&self, section: &Section<'_>, profile: &Profile, secrets: &[Secret], params: &[(&str, String)]) {
        let url = params.iter().find(|(name, _)| *name == "url").map(|(_, url)| url);
        // With ambiguous signed texts, one URL may be a prefix of another.
        let address = url.filter(|_| profile.signs_address() && profile.ambiguities().next().is_none());
        let mut known = self.0.borrow_mut();
        for (at, secret) in secrets.iter().enumerate() {
            let number = at + 1;
            let text = Zeroizing::new(secret.expose().to_vec());
            let forms = profile.keys().filter_map(|form| verify::key_bytes(form, secret).ok());
            let keys: Vec<_> = std::iter::once(text).chain(forms).collect();
            let shares = |other: &&KnownSecret| {
                let elsewhere = other.address.as_ref().zip(address).is_some_and(|(one, other)| one != other);
                other.keys.iter().any(|key| keys.contains(key)) && other.source != section.key() && !elsewhere
            };
            if let Some(other) = known.iter().find(shares) {
                section.warning(
                    "secrets",
                    format!(
                        "number {number}: is the secret of {} (number {}) too: whoever captures a request to one of \
                         them can send it to the other, where it is new; give each a secret of its own where the \
                         provider has one for each",
                        other.source, other.number
                    ),
                );
            }
            known.push(KnownSecret { keys, source: section.key().to_owned(), number, address: address.cloned() });
        }
    }
}
