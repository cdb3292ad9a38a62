//! The parameters that a source sets for its profile, and their substitution for `{name}` in texts.

use std::collections::HashMap;

use crate::base::secret::SecretRef;
use crate::profile::Piece;
use crate::profile::Profile;
use crate::profile::Template;

/// The parameters of a source, by name.
pub type Params = HashMap<String, String>;

/// The value of a parameter; empty when it is missing, for which a source is refused at startup.
pub fn param<'p>(params: &'p Params, name: &str) -> &'p str {
    params.get(name).map_or("", String::as_str)
}

/// Replaces `{name}` by the parameter of that name.
#[expect(clippy::wildcard_enum_match_arm, reason = "a profile with anything else in such a text is refused")]
pub fn fill(text: &str, params: &Params) -> String {
    let Ok(template) = text.parse::<Template>() else { return text.to_owned() };
    let piece = |piece: &Piece| match piece {
        Piece::Param(name) => param(params, name).to_owned(),
        Piece::Url => param(params, "url").to_owned(),
        Piece::Literal(text) => text.clone(),
        other => other.to_string(),
    };
    template.pieces().map(piece).collect()
}

/// The parameters of a source: those that are given, and defaults of the profile for the others.
///
/// # Errors
/// The name of each parameter that is missing, unknown or cannot be read, and what is wrong.
pub fn complete(profile: &Profile, given: &[(&str, String)]) -> Result<Params, Vec<(String, String)>> {
    let mut errors = Vec::new();
    for (name, _) in given.iter().filter(|(name, _)| !profile.params.contains_key(*name)) {
        let known: Vec<_> = profile.params.keys().map(String::as_str).collect();
        let hint = match known.as_slice() {
            [] => "it takes none".to_owned(),
            known => format!("it takes {}", known.join(", ")),
        };
        errors.push(((*name).to_owned(), format!("is not a parameter of this profile; {hint}")));
    }
    let mut values = HashMap::new();
    for (name, param) in &profile.params {
        let spec = given.iter().find(|(given, _)| given == name).map(|(_, value)| load(value.clone())).transpose();
        match spec.map(|spec| spec.or_else(|| param.default.clone())) {
            Ok(Some(value)) if !value.is_empty() => drop(values.insert(name.clone(), value)),
            Ok(_) => errors.push((name.clone(), format!("is missing: {}", param.about))),
            Err(message) => errors.push((name.clone(), message)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    // A default may refer to other parameters, such as {issuer}.
    Ok(values.iter().map(|(name, value)| (name.clone(), fill(value, &values))).collect())
}

/// A parameter as it is written, or read from the environment (`env:`) or a file (`file:`).
fn load(value: String) -> Result<String, String> {
    if !value.starts_with("env:") && !value.starts_with("file:") {
        return Ok(value);
    }
    let secret = SecretRef::parse(&value)?.load()?;
    String::from_utf8(secret.expose().to_vec()).map_err(|_bytes| "is not text".to_owned())
}
