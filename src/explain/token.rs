//! Describes the header and claims of a JWT, which are not verified.

use base64::Engine as _;
use serde_json::Value;

use super::Case;
use super::wording;
use super::wording::duration;
use crate::base::time::Moment;
use crate::extract::params;
use crate::profile::Jwt;

/// Longer claims are cut, in characters.
const MAX_SHOWN: usize = 120;

/// The token without its prefix, or without the scheme `Bearer`; `None` if the text does not begin with it.
pub(super) fn bare<'t>(text: &'t str, prefix: Option<&str>) -> Option<&'t str> {
    match prefix {
        Some(prefix) => text.strip_prefix(prefix),
        None => {
            text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token)
        }
    }
}

/// Header and claims of a token, unverified.
pub(super) fn parts(token: &str) -> Option<(Value, Value)> {
    let mut parts = token.split('.');
    let mut part = || {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()
    };
    Some((part()?, part()?))
}

/// Describes the header and the claims that the profile checks, without the signature.
pub(super) fn described(text: &str, prefix: Option<&str>, spec: &Jwt, case: &Case) -> Vec<String> {
    let Some((header, claims)) = bare(text, prefix).and_then(parts) else {
        return vec!["no JWT: three parts of base64url with points between them".to_owned()];
    };
    let mut found = vec![format!("a JWT: alg {}, kid {}", shown(header.get("alg")), shown(header.get("kid")))];
    found.push(format!("issuer {}, audience {}", shown(claims.get("iss")), shown(claims.get("aud"))));
    for (name, value) in &spec.claims {
        let wanted =
            value.as_str().map_or_else(|| value.to_string(), |text| format!("{:?}", params::fill(text, &case.params)));
        found.push(format!("claim {name} {}, where the source takes {wanted}", shown(claims.get(name))));
    }
    for (name, title) in [("iat", "issued"), ("nbf", "not valid before"), ("exp", "expires")] {
        if let Some(seconds) = claims.get(name).and_then(Value::as_f64).and_then(whole) {
            let (moment, age) = (Moment::from_unix(seconds), case.at.unix().saturating_sub(seconds));
            let relative = if age >= 0 { format!("{} ago", duration(age)) } else { format!("in {}", duration(-age)) };
            found.push(format!("{title} {}: {relative}", moment.rfc3339()));
        }
    }
    if let Some(bound) = &spec.body {
        found.push(format!("claim {}, the digest of the body: {}", bound.claim, cut(claims.get(&bound.claim))));
    }
    found
}

/// A value for people; long ones are cut.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) => {
            let text = value.to_string();
            if text.chars().count() <= MAX_SHOWN { text } else { cut(Some(value)) }
        }
    }
}

fn cut(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).map_or_else(|| "none".to_owned(), |text| wording::cut(text, ""))
}

/// The whole seconds of a numeric date.
fn whole(number: f64) -> Option<i64> {
    const LAST: f64 = 253_402_300_799.0;
    #[expect(clippy::as_conversions, reason = "within the range that was just checked")]
    (0.0..=LAST).contains(&number).then_some(number as i64)
}
