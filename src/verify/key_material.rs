//! The secrets and parameters of one source, from which its schemes take their keys while the profile is compiled.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use super::CertificateLimits;
use super::Jwks;
use super::JwksLimits;
use super::keys;
use crate::base::secret::Secret;
use crate::extract::field::ExtractionPlan;
use crate::extract::params::Params;
use crate::http::fetch::Address;
use crate::profile::Algorithm;
use crate::profile::KeyForm;

/// An error in the secrets or parameters of a source: the configuration key, and what is wrong.
pub type KeyError = (String, String);

/// Key sets by address, which sources with the same issuer share.
pub type KeySets = HashMap<(Address, Algorithm), Arc<Jwks>>;

/// The secrets and parameters of one source, and which secrets are used.
#[derive(Debug)]
pub struct KeyMaterial<'m> {
    /// The source's secrets, in order.
    pub secrets: &'m [Secret],
    /// The source's parameters.
    pub params: &'m Params,
    /// The plan, to which the schemes add their fields.
    pub plan: &'m mut ExtractionPlan,
    /// The key sets of all sources.
    pub key_sets: &'m mut KeySets,
    /// The limits of fetching certificates.
    pub certificates: CertificateLimits,
    /// Prefixes of secrets that only one scheme uses.
    claimed: Vec<&'m str>,
    /// Positions of secrets that are a key for some scheme.
    used: BTreeSet<usize>,
    /// Errors of secrets that some scheme could not decode, by position.
    errors: BTreeMap<usize, String>,
}

impl<'m> KeyMaterial<'m> {
    /// `forms` are the key forms of all schemes of the profile.
    pub fn new(
        secrets: &'m [Secret],
        params: &'m Params,
        forms: impl Iterator<Item = &'m KeyForm>,
        plan: &'m mut ExtractionPlan,
        key_sets: &'m mut KeySets,
    ) -> Self {
        let claimed =
            forms.filter(|form| form.only_prefixed).flat_map(|form| &form.prefix).map(String::as_str).collect();
        Self {
            secrets,
            params,
            plan,
            key_sets,
            certificates: CertificateLimits::default(),
            claimed,
            used: BTreeSet::new(),
            errors: BTreeMap::new(),
        }
    }

    /// The keys that one scheme gets from the secrets, each with the position of its secret.
    pub(super) fn keys<K>(
        &mut self,
        form: &KeyForm,
        read: impl Fn(&KeyForm, &[u8]) -> Result<K, String>,
    ) -> Vec<(usize, K)> {
        let mut scheme_keys = Vec::new();
        for (at, secret) in self.secrets.iter().enumerate() {
            let text = keys::as_text(form, secret);
            for form in std::iter::once(form).chain(&text) {
                match keys::text(form, secret, &self.claimed).map(|text| read(form, text)) {
                    None => {}
                    Some(Ok(key)) => {
                        self.used.insert(at);
                        scheme_keys.push((at, key));
                    }
                    Some(Err(message)) => {
                        self.errors.entry(at).or_insert(message);
                    }
                }
            }
        }
        scheme_keys
    }

    /// The key set at the parameter `jwks_url`, where the profile has one and the algorithm is not symmetric.
    pub(super) fn jwks(&mut self, algorithm: Algorithm) -> Result<Option<Arc<Jwks>>, KeyError> {
        let Some(url) = self.params.get("jwks_url").filter(|_| !algorithm.is_symmetric()) else { return Ok(None) };
        let url = Address::parse(url).map_err(|message| ("params.jwks_url".to_owned(), message))?;
        let made = || Arc::new(Jwks::new(url.clone(), algorithm, JwksLimits::default()));
        Ok(Some(Arc::clone(self.key_sets.entry((url.clone(), algorithm)).or_insert_with(made))))
    }

    /// The positions of the secrets that no scheme can use, with the reason.
    pub fn unusable(&self) -> impl Iterator<Item = (usize, &str)> {
        (0..self.secrets.len())
            .filter(|at| !self.used.contains(at))
            .map(|at| (at, self.errors.get(&at).map_or("is for no scheme of this profile", String::as_str)))
    }
}
