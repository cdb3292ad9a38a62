//! Signs JWTs (RFC 7519) with the claims that the profile requires.

use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use serde_json::Map;
use serde_json::Value;

use super::key::KID;
use crate::base::time::Moment;
use crate::extract::mac;
use crate::extract::params;
use crate::extract::params::Params;
use crate::profile;
use crate::profile::Hash;

/// Seconds from `iat` to `exp`.
const LIFETIME: i64 = 3600;

/// A token for this body, issued at this moment.
pub(super) fn token(
    spec: &profile::Jwt,
    key: &EncodingKey,
    params: &Params,
    (id, body, at): (&str, &[u8], Moment),
) -> Result<String, String> {
    let mut claims = Map::new();
    let mut claim = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
    let first = |texts: &[String], param: &str| {
        let text = texts.iter().next().map(|text| params::fill(text, params));
        text.or_else(|| params.get(param).cloned())
    };
    if let Some(issuer) = first(&spec.issuer, "issuer") {
        claim("iss", issuer.into());
    }
    if let Some(audience) = first(&spec.audience, "audience") {
        claim("aud", audience.into());
    }
    claim("iat", at.unix().into());
    if spec.max_age.is_none() {
        claim("exp", at.unix().saturating_add(LIFETIME).into());
    }
    claim("jti", id.into());
    for (name, value) in &spec.claims {
        claim(name, claim_value(value, params));
    }
    if let Some(bound) = &spec.body {
        claim(&bound.claim, bound.encoding.encode(&mac::hash(Hash::Sha256, &[body])).into());
    }
    let algorithm = spec.algorithm.title().parse().map_err(|error| failed(&error))?;
    let kid = (!spec.algorithm.is_symmetric()).then(|| KID.to_owned());
    jsonwebtoken::encode(&Header { kid, ..Header::new(algorithm) }, &claims, key).map_err(|error| failed(&error))
}

fn claim_value(value: &toml::Value, params: &Params) -> Value {
    match value.as_str() {
        Some(text) => params::fill(text, params).into(),
        None => serde_json::to_value(value).unwrap_or_default(),
    }
}

fn failed(error: &jsonwebtoken::errors::Error) -> String {
    format!("the token cannot be signed: {error}")
}
