//! The wording of steps and causes. It shows a few characters of digests, and nothing of secrets.

use crate::extract::mac;
use crate::extract::template::Filled;
use crate::profile;
use crate::profile::Hash;

/// The proof of a scheme, and its location.
pub(super) fn proof(scheme: &profile::Scheme) -> String {
    match scheme {
        profile::Scheme::Signature(signature) => {
            let location = &signature.location;
            let prefix = after_prefix(&location.prefix);
            format!("{} in {}, {}{prefix}", scheme.title(), location.location, location.encoding.title())
        }
        profile::Scheme::Token(token) => {
            format!("the secret in {}{}", token.from.location, after_prefix(&token.from.prefix))
        }
        profile::Scheme::Basic(_) => "user and password in the header authorization (HTTP Basic)".to_owned(),
        profile::Scheme::Jwt(jwt) => match &jwt.from {
            Some(from) => format!("a JWT in {}{}", from.location, after_prefix(&from.prefix)),
            None => "a JWT as bearer token in the header authorization".to_owned(),
        },
    }
}

/// The signed bytes: their template, length and SHA-256.
pub(super) fn signed(spec: &profile::Template, filled: &Filled<'_>) -> String {
    let whole = filled.concat();
    let digest = const_hex::encode(mac::hash(Hash::Sha256, &[&whole]));
    format!("{spec}: {}, whose SHA-256 is {}", bytes(whole.len()), cut(&digest, ""))
}

/// A secret by its index.
pub(super) fn secret(at: usize) -> String {
    format!("secret {}", at + 1)
}

/// The prefix of a value.
pub(super) fn after_prefix(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!(" behind {prefix:?}") }
}

/// A signature or digest, cut to a few characters.
pub(super) fn cut(text: &str, prefix: &str) -> String {
    const SHOWN: usize = 8;
    let (prefix, rest) = text.strip_prefix(prefix).map_or(("", text), |rest| (prefix, rest));
    let shown: String = rest.chars().take(SHOWN.min(rest.chars().count() / 3)).collect();
    format!("{prefix}{shown}… ({})", characters(text.chars().count()))
}

/// How two texts differ, without showing either.
pub(super) fn differing(found: &[u8], expected: &[u8]) -> String {
    let same = found.iter().zip(expected).take_while(|(one, other)| one == other).count();
    let lengths = format!("{} instead of {}", bytes(found.len()), expected.len());
    match same {
        0 => format!("another text: {lengths}"),
        _ if same == found.len().min(expected.len()) => {
            format!("another text: {lengths}, and the same as far as both go")
        }
        _ => format!("another text: {lengths}, which differ from byte {} on", same + 1),
    }
}

/// A number of bytes.
pub(super) fn bytes(number: usize) -> String {
    format!("{number} byte{}", if number == 1 { "" } else { "s" })
}

fn characters(number: usize) -> String {
    format!("{number} character{}", if number == 1 { "" } else { "s" })
}

/// Seconds, rounded down for people.
pub(super) fn duration(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let whole = match seconds {
        0..120 => seconds,
        120..7200 => seconds / 60 * 60,
        7200..172_800 => seconds / 3600 * 3600,
        _ => return format!("{} days", seconds / 86_400),
    };
    humantime::format_duration(std::time::Duration::from_secs(whole)).to_string()
}
