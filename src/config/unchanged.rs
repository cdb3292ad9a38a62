//! Finds sources of a running gateway that are configured as before. (`impl SourceContext` here, because `source.rs`
//! would be too long.)

use std::sync::Arc;

use super::again::Running;
use super::fingerprint::Fingerprint;
use super::section::Section;
use super::source::SourceContext;
use super::source::VerificationInput;
use crate::base::secret::Secret;
use crate::source::Source;
use crate::source::SourceSecret;

impl SourceContext<'_> {
    /// Whether this source may be left out: at the start, and as long as it is.
    pub(super) fn may_skip(&self, name: &str) -> bool {
        let is_left_out = |running: Running<'_>| running.current.skipped.iter().any(|skipped| skipped.name == name);
        self.skips && self.running.is_none_or(is_left_out)
    }

    /// The fingerprint of all that a source is made of, but for what takes effect at a start only.
    pub(super) fn fingerprint(
        &self,
        section: &Section<'_>,
        input: &VerificationInput<'_>,
        profile: &str,
        count: usize,
    ) -> Fingerprint {
        let so_far = self.shared_limits.fingerprint(self.trusted.clone(), count);
        let so_far = section.fingerprint(so_far).bytes(self.profiles.text(profile).unwrap_or_default().as_bytes());
        let secrets = input.secrets.unwrap_or_default();
        secrets.iter().fold(so_far, |so_far, secret| so_far.bytes(secret.expose())).finish()
    }

    /// The secrets of a source. What those have proved that its running one has is kept.
    pub(super) fn known_secrets(&self, name: &str, labels: Vec<String>, secrets: &[Secret]) -> Vec<SourceSecret> {
        let sources = self.running.map(|running| running.current.sources.as_slice()).unwrap_or_default();
        let before = sources.iter().find(|source| source.name.as_str() == name);
        let before = before.map(|source| source.secrets.as_slice()).unwrap_or_default();
        let known = |(label, secret): (String, &Secret)| {
            let same = before.iter().find(|before| before.secret.expose() == secret.expose());
            let proofs = same.map(|same| Arc::clone(&same.proofs)).unwrap_or_default();
            SourceSecret { label, secret: secret.clone(), proofs }
        };
        labels.into_iter().zip(secrets).map(known).collect()
    }

    /// The running source of this name, if it is made of the same.
    pub(super) fn unchanged(&self, name: &str, fingerprint: Fingerprint) -> Option<Arc<Source>> {
        let current = self.running?.current;
        current.fingerprints.get(name).filter(|known| **known == fingerprint)?;
        current.sources.iter().find(|source| source.name.as_str() == name).map(Arc::clone)
    }
}
