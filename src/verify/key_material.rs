//! The secrets and parameters of one source, from which its schemes take their keys.

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

/// Something that a source gives its profile and that does not fit: the key, and what is wrong.
pub type KeyError = (String, String);

/// Key sets by address, so that sources of one issuer share theirs.
pub type KeySets = HashMap<(Address, Algorithm), Arc<Jwks>>;

/// The secrets and parameters of one source, and what becomes of them.
#[derive(Debug)]
pub struct KeyMaterial<'m> {
    /// The source's secrets, in their order.
    pub secrets: &'m [Secret],
    /// Its parameters.
    pub params: &'m Params,
    /// Everything that is read from bodies and queries.
    pub plan: &'m mut ExtractionPlan,
    /// The key sets of all sources.
    pub key_sets: &'m mut KeySets,
    /// What fetching certificates may cost.
    pub certificates: CertificateLimits,
    /// Prefixes of secrets that are for one scheme only.
    claimed: Vec<&'m str>,
    used: BTreeSet<usize>,
    wrong: BTreeMap<usize, String>,
}

impl<'m> KeyMaterial<'m> {
    /// Begins with these; `forms` are the keys of all schemes of the profile.
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
            wrong: BTreeMap::new(),
        }
    }

    /// The keys that the secrets are for one scheme, with their positions.
    pub(super) fn keys<K>(
        &mut self,
        form: &KeyForm,
        read: impl Fn(&KeyForm, &[u8]) -> Result<K, String>,
    ) -> Vec<(usize, K)> {
        let mut found = Vec::new();
        for (at, secret) in self.secrets.iter().enumerate() {
            let text = keys::as_text(form, secret);
            for form in std::iter::once(form).chain(&text) {
                match keys::text(form, secret, &self.claimed).map(|text| read(form, text)) {
                    None => {}
                    Some(Ok(key)) => {
                        self.used.insert(at);
                        found.push((at, key));
                    }
                    Some(Err(message)) => {
                        self.wrong.entry(at).or_insert(message);
                    }
                }
            }
        }
        found
    }

    /// The key set at the parameter `jwks_url`, where the profile has one and the algorithm is not symmetric.
    pub(super) fn jwks(&mut self, algorithm: Algorithm) -> Result<Option<Arc<Jwks>>, KeyError> {
        let Some(url) = self.params.get("jwks_url").filter(|_| !algorithm.is_symmetric()) else { return Ok(None) };
        let url = Address::parse(url).map_err(|message| ("params.jwks_url".to_owned(), message))?;
        let made = || Arc::new(Jwks::new(url.clone(), algorithm, JwksLimits::default()));
        Ok(Some(Arc::clone(self.key_sets.entry((url.clone(), algorithm)).or_insert_with(made))))
    }

    /// The positions of the secrets that are a key for no scheme, with what is wrong with each.
    pub fn unusable(&self) -> impl Iterator<Item = (usize, &str)> {
        (0..self.secrets.len())
            .filter(|at| !self.used.contains(at))
            .map(|at| (at, self.wrong.get(&at).map_or("is for no scheme of this profile", String::as_str)))
    }
}
