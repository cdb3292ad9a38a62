//! Describes how a profile authenticates requests: its schemes and their secrets.

use super::format::conditions;
use super::format::duration;
use crate::profile::Combination;
use crate::profile::Hash;
use crate::profile::Jwt;
use crate::profile::KeyEncoding;
use crate::profile::KeyForm;
use crate::profile::Location;
use crate::profile::Member;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::profile::Signature;
use crate::profile::SignatureAlgorithm;

/// The schemes, and the secrets that they take, as labelled lines.
pub(super) fn proof(profile: &Profile) -> Vec<(&'static str, String)> {
    let members = &profile.auth.members;
    let mut lines = Vec::new();
    if members.len() > 1 {
        let how = match profile.auth.combination {
            Combination::All => "All of these have to hold.",
            Combination::First => "The first of these that applies decides; what it refuses no other accepts.",
        };
        lines.push(("verified by", how.to_owned()));
    }
    for member in members {
        lines.push(("verified by", scheme(profile, member)));
    }
    if !profile.require.is_empty() {
        lines.push(("verified by", format!("Besides, {}.", conditions(&profile.require))));
    }
    let mut keys: Vec<String> = Vec::new();
    for member in members {
        let key = key(profile, &member.scheme);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let label = if profile.keys_are_public() { "public key" } else { "secret" };
    lines.extend(keys.into_iter().map(|key| (label, key)));
    lines
}

fn scheme(profile: &Profile, member: &Member) -> String {
    let proof = match &member.scheme {
        Scheme::Signature(spec) => signature(&member.scheme, spec),
        Scheme::Token(token) => {
            format!("the secret itself in {}{}", token.from.location, after_prefix(&token.from.prefix))
        }
        Scheme::Basic(_) => "user and password in Authorization (HTTP Basic)".to_owned(),
        Scheme::Jwt(spec) => jwt(profile, spec),
    };
    let optional = if member.optional { ", where the source has a secret for it" } else { "" };
    let when = match member.when.as_slice() {
        [] => String::new(),
        when => format!(", when {}", conditions(when)),
    };
    let check = match member.check.as_slice() {
        [] => String::new(),
        check => format!("; then {}", conditions(check)),
    };
    format!("{proof}{optional}{when}{check}")
}

fn signature(scheme: &Scheme, spec: &Signature) -> String {
    let signed: Vec<_> = spec.signed.iter().map(ToString::to_string).collect();
    format!(
        "{} over {}; in {}, {}{}",
        scheme.title(),
        signed.join(" or "),
        list(&spec.location.location),
        spec.location.encoding.title(),
        after_prefix(&spec.location.prefix)
    )
}

/// A location, with the syntax of the list if it is in one.
fn list(location: &Location) -> String {
    let Some(item) = &location.item else { return location.to_string() };
    let whole = Location { carrier: location.carrier.clone(), item: None };
    let separator = if item.separator == ' ' { "blanks".to_owned() } else { format!("{:?}", item.separator) };
    format!("{whole} as {}{}… in a list between {separator}, of which any may match", item.key, item.assign)
}

fn after_prefix(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!(" behind {prefix:?}") }
}

fn jwt(profile: &Profile, spec: &Jwt) -> String {
    let from = spec.from.as_ref().map_or_else(
        || "as bearer token in Authorization".to_owned(),
        |from| format!("in {}{}", from.location, after_prefix(&from.prefix)),
    );
    let mut out = format!("a JWT signed with {}, {from}", spec.algorithm.title());
    for (name, texts) in [("issuer", &spec.issuer), ("audience", &spec.audience)] {
        let default = profile.params.contains_key(name).then(|| format!("{{{name}}}"));
        let texts = if texts.is_empty() { default.into_iter().collect() } else { texts.clone() };
        if !texts.is_empty() {
            out.push_str(&format!("; {name} {}", texts.join(" or ")));
        }
    }
    for (name, value) in &spec.claims {
        out.push_str(&format!("; {name} {value}"));
    }
    if let Some(age) = spec.max_age {
        out.push_str(&format!("; at most {} old", duration(age)));
    }
    match &spec.body {
        Some(body) => out.push_str(&format!("; its claim {} is the SHA-256 of the body", body.claim)),
        None => out.push_str("; it does not cover the body"),
    }
    out
}

fn key(profile: &Profile, scheme: &Scheme) -> String {
    let Some(key) = scheme.key(profile.fetches_keys()) else {
        return match scheme {
            Scheme::Signature(signature) => match &signature.algorithm {
                SignatureAlgorithm::Certificate(_, spec) => {
                    let path = spec.path.as_deref().map(|path| format!(", with the path {path}")).unwrap_or_default();
                    let subject = match spec.subject.join(" ") {
                        names if names.is_empty() => names,
                        names => format!("; it is of {names}"),
                    };
                    format!(
                        "none to set: the certificate is fetched from the address in {}, on the hosts {}{path}{subject}",
                        spec.from, spec.hosts
                    )
                }
                SignatureAlgorithm::Hmac(_)
                | SignatureAlgorithm::Ed25519
                | SignatureAlgorithm::Ecdsa(_)
                | SignatureAlgorithm::Rsa(_) => String::new(),
            },
            Scheme::Jwt(_) => "none to set: the issuer's keys are fetched from params.jwks_url".to_owned(),
            Scheme::Token(_) | Scheme::Basic(_) => String::new(),
        };
    };
    let about = key.about.clone().unwrap_or_else(|| format!("the key of {}", scheme.title()));
    format!("{about}; {}", form(scheme, key))
}

/// How the text of a secret becomes a key.
fn form(scheme: &Scheme, key: &KeyForm) -> String {
    let default = match scheme {
        Scheme::Signature(signature) => match signature.algorithm {
            SignatureAlgorithm::Hmac(_) => KeyEncoding::Text,
            SignatureAlgorithm::Ed25519 => KeyEncoding::Hex,
            SignatureAlgorithm::Ecdsa(_) | SignatureAlgorithm::Rsa(_) | SignatureAlgorithm::Certificate(..) => {
                KeyEncoding::Spki
            }
        },
        Scheme::Token(_) => KeyEncoding::Text,
        Scheme::Basic(_) => return "the user, a colon and the password".to_owned(),
        Scheme::Jwt(jwt) if !jwt.algorithm.is_symmetric() => return "a PEM, a JWK or a JWK set".to_owned(),
        Scheme::Jwt(_) => KeyEncoding::Text,
    };
    let written = match key.encoding.unwrap_or(default) {
        KeyEncoding::Text => "used as it stands",
        KeyEncoding::Base64 => "decoded from base64",
        KeyEncoding::Hex => "decoded from hexadecimal",
        KeyEncoding::Spki => "in PEM, or the base64 in it",
    };
    let prefix =
        if key.prefix.is_empty() { String::new() } else { format!(" without its {}", key.prefix.join(" or ")) };
    let text = if key.or_text { ", or used as it stands, whichever matches" } else { "" };
    let derive = key.derive.map(|hash: Hash| format!("; the key is its {}", hash.title())).unwrap_or_default();
    format!("{written}{prefix}{derive}{text}")
}
