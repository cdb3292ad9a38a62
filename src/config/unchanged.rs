//! Finds sources of a running gateway that are configured as before. (`impl SourceContext` here, because `source.rs`
//! would be too long.)

use std::sync::Arc;

use super::again::Running;
use super::fingerprint::Fingerprint;
use super::section::Section;
use super::source::SourceContext;
use super::source::VerificationInput;
use crate::source::Source;

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

    /// The running source of this name, if it is made of the same.
    pub(super) fn unchanged(&self, name: &str, fingerprint: Fingerprint) -> Option<Arc<Source>> {
        let current = self.running?.current;
        current.fingerprints.get(name).filter(|known| **known == fingerprint)?;
        current.sources.iter().find(|source| source.name.as_str() == name).map(Arc::clone)
    }
}
