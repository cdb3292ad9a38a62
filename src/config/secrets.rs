//! Reads the secrets of a source.

use super::section::Section;
use crate::base::problem::Severity;
use crate::base::secret::Secret;
use crate::base::secret::SecretRef;
use crate::profile::Profile;

/// Why the secrets of a source cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// One of them cannot be read.
    Missing,
    /// One of them is no reference.
    Wrong,
}

/// The labels of the secrets, and the secrets. One that cannot be read is a problem of the severity `missing`.
pub(super) fn secrets(
    section: &mut Section<'_>,
    profile: Option<&Profile>,
    missing: Severity,
) -> Result<(Vec<String>, Vec<Secret>), Unusable> {
    // Public keys need not be secret.
    let public = profile.is_some_and(|profile| profile.needs_secrets() && profile.keys_are_public());
    let references = section.list("secrets", |text| Ok(SecretRef::parse(text)));
    let mut secrets = Vec::with_capacity(references.len());
    let mut unusable = None;
    for (number, reference) in (1..).zip(references) {
        if let Ok(SecretRef::Plain(_)) = reference
            && !public
        {
            section.warning("secrets", format!("number {number}: a plain secret is for local trials only"));
        }
        let loaded = match &reference {
            Ok(reference) => {
                reference.load_with(|path| section.files().read_secret(path)).map_err(|why| (missing, why))
            }
            Err(message) => Err((Severity::Error, message.clone())),
        };
        match loaded {
            Ok(secret) => secrets.push((reference.map(|known| known.label(number)).unwrap_or_default(), secret)),
            Err((Severity::Warning, message)) => {
                section.warning("secrets", format!("number {number}: {message}"));
                unusable = unusable.or(Some(Unusable::Missing));
            }
            Err((Severity::Error, message)) => {
                section.error("secrets", format!("number {number}: {message}"));
                unusable = Some(Unusable::Wrong);
            }
        }
    }
    unusable.map_or_else(|| Ok(secrets.into_iter().unzip()), Err)
}
