//! Hypotheses: the secret was copied incompletely or with an addition, is decoded in another way than the profile says,
//! or is an old one.

use base64::Engine as _;

use super::Hypothesis;
use crate::base::secret::Secret;
use crate::explain::Case;
use crate::profile::KeyEncoding;
use crate::profile::KeyForm;
use crate::profile::Scheme;
use crate::profile::SignatureAlgorithm;

/// Prefixes of webhook secrets.
const PREFIXES: [&str; 5] = ["whsec_", "v1,whsec_", "whsk_", "whpk_", "sk_"];
/// The longest prefix that is tried without, in bytes.
const MAX_PREFIX: usize = 16;

/// The same request with each old secret of the source.
pub(super) fn old_secrets(case: &Case) -> Vec<Hypothesis> {
    let each = case.old_secrets.iter().enumerate().map(|(at, secret)| {
        let description = format!(
            "it is signed with old secret {}: the provider has not been told the new one, or still signs with the old one for \
             a while. List both in secrets of the source until it has stopped.",
            at + 1
        );
        Hypothesis::new(description, Case { secrets: vec![secret.clone()], ..case.clone() })
    });
    each.collect()
}

/// The same request with the secrets changed or decoded in other ways.
pub(super) fn altered(case: &Case) -> Vec<Hypothesis> {
    if case.profile.keys_are_public() {
        return Vec::new();
    }
    let mut all = texts(case);
    all.extend(forms(case));
    all
}

/// The same request with the text of a secret changed.
fn texts(case: &Case) -> Vec<Hypothesis> {
    let mut all = Vec::new();
    for (at, secret) in case.secrets.iter().enumerate() {
        let Ok(text) = std::str::from_utf8(secret.expose()) else { continue };
        for (description, changed) in changed(text) {
            let Ok(secret) = Secret::new(changed.as_bytes()) else { continue };
            let which = if case.secrets.len() > 1 { format!("secret {}", at + 1) } else { "the secret".to_owned() };
            let mut secrets = case.secrets.clone();
            secrets.get_mut(at).into_iter().for_each(|known| *known = secret.clone());
            all.push(Hypothesis::new(format!("{which} {description}"), Case { secrets, ..case.clone() }));
        }
    }
    all
}

fn changed(text: &str) -> Vec<(String, String)> {
    let mut ways = Vec::new();
    let mut way = |description: &str, changed: String| {
        if changed != text {
            ways.push((description.to_owned(), changed));
        }
    };
    way("has blanks or a line break around it that do not belong to it.", text.trim().to_owned());
    let unquoted = text.trim_matches(['"', '\'']);
    way("has quotation marks around it that do not belong to it.", unquoted.to_owned());
    for end in ["\n", "\r\n"] {
        let description = "was used by the sender with the line break at its end, as `echo` and files have one. Make it with \
                     `printf %s`.";
        way(description, format!("{text}{end}"));
    }
    for prefix in PREFIXES {
        way(
            &format!("lacks its prefix {prefix}, which belongs to the key here. Copy it whole."),
            format!("{prefix}{text}"),
        );
    }
    if let Some(name) = ["plain:", "env:", "file:"].iter().find(|name| text.starts_with(**name)) {
        let description = format!("begins with {name}, which belongs to the configuration and not to the secret.");
        way(&description, text.trim_start_matches(name).to_owned());
    }
    for end in ['_', ',', ':', '='] {
        if let Some((_, rest)) = text.split_once(end).filter(|(before, _)| before.len() <= MAX_PREFIX) {
            way(&format!("was used by the sender without what stands before its first {end:?}."), rest.to_owned());
        }
    }
    if let Ok(decoded) = percent_encoding::percent_decode_str(text).decode_utf8() {
        way("is percent-encoded, as it stood in an address. Decode it.", decoded.into_owned());
    }
    way("has to be in lower case.", text.to_lowercase());
    way("has to be in upper case.", text.to_uppercase());
    ways
}

/// The same request with the secret decoded in another way.
fn forms(case: &Case) -> Vec<Hypothesis> {
    let mut all = Vec::new();
    for (at, member) in case.profile.auth.members.iter().enumerate() {
        let Some(form) = member.scheme.key(case.profile.fetches_keys()) else { continue };
        if !takes_bytes(&member.scheme) {
            continue;
        }
        let is = form.encoding.unwrap_or(KeyEncoding::Text);
        for encoding in [KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex] {
            for prefix in [form.prefix.clone(), Vec::new(), vec!["whsec_".to_owned()]] {
                let spec = KeyForm { encoding: Some(encoding), prefix: prefix.clone(), ..form.clone() };
                let same = encoding == is && prefix == form.prefix;
                if same {
                    continue;
                }
                let description = format!(
                    "the sender takes the secret {}{}, and this profile {}{}. If the profile is yours, set encoding and \
                     prefix under key; if not, the sender has to change.",
                    read(encoding),
                    without(&prefix),
                    read(is),
                    without(&form.prefix),
                );
                all.push(Hypothesis::new(description, with_form(case, at, spec)));
            }
        }
    }
    all.extend(base64url(case));
    all
}

fn read(encoding: KeyEncoding) -> &'static str {
    match encoding {
        KeyEncoding::Text => "as the text that it is",
        KeyEncoding::Base64 => "decoded from base64",
        KeyEncoding::Hex => "decoded from hexadecimal",
        KeyEncoding::Spki => "as a public key",
    }
}

fn without(prefix: &[String]) -> String {
    if prefix.is_empty() { String::new() } else { format!(" without {}", prefix.join(" or ")) }
}

/// Base64url, where the profile says base64.
fn base64url(case: &Case) -> Vec<Hypothesis> {
    let in_base64 = |secret: &Secret| {
        let text = std::str::from_utf8(secret.expose()).ok()?;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        Secret::new(base64::engine::general_purpose::STANDARD.encode(bytes)).ok()
    };
    let secrets: Option<Vec<_>> = case.secrets.iter().map(in_base64).collect();
    let description = "the secret is base64 in the alphabet of addresses (- and _), and has to be decoded as such.";
    secrets.map(|secrets| Hypothesis::new(description, Case { secrets, ..case.clone() })).into_iter().collect()
}

fn takes_bytes(scheme: &Scheme) -> bool {
    match scheme {
        Scheme::Signature(spec) => matches!(spec.algorithm, SignatureAlgorithm::Hmac(_)),
        Scheme::Jwt(spec) => spec.algorithm.is_symmetric(),
        Scheme::Token(_) | Scheme::Basic(_) => false,
    }
}

fn with_form(case: &Case, at: usize, form: KeyForm) -> Case {
    let mut case = case.clone();
    match case.profile.auth.members.get_mut(at).map(|member| &mut member.scheme) {
        Some(Scheme::Signature(spec)) => spec.key = form,
        Some(Scheme::Jwt(spec)) => spec.key = form,
        Some(Scheme::Token(_) | Scheme::Basic(_)) | None => {}
    }
    case
}
