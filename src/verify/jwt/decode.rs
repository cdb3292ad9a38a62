//! The inputs of `jsonwebtoken`, which verifies only signatures here: configured keys, the token's header, and the one
//! algorithm. Also reads times from claims.

use base64::Engine as _;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use crate::profile;
use crate::profile::Algorithm;
use crate::profile::KeyEncoding;
use crate::profile::KeyForm;
use crate::verify::Failure;
use crate::verify::KeySet;
use crate::verify::keys;

/// The parameters of a token's header that are checked.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    pub(super) crit: Option<Value>,
}

/// The keys in the text of one secret: a shared key, a public key in PEM, a JWK or a JWK set.
pub(super) fn configured_keys(scheme: &profile::Jwt, form: &KeyForm, text: &[u8]) -> Result<KeySet, String> {
    if scheme.algorithm.is_symmetric() {
        return Ok(KeySet::single(DecodingKey::from_secret(&keys::bytes(form, KeyEncoding::Text, text)?)));
    }
    if !text.trim_ascii_start().starts_with(b"-----BEGIN") {
        return KeySet::parse(text, scheme.algorithm, 0);
    }
    let key = match scheme.algorithm {
        Algorithm::Es256 | Algorithm::Es384 => DecodingKey::from_ec_pem(text),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(text),
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => DecodingKey::from_rsa_pem(text),
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => return Err("is not a shared key".to_owned()),
    };
    key.map(KeySet::single).map_err(|_bad| format!("is not a public key for {} in PEM", scheme.algorithm.title()))
}

/// A configuration of `jsonwebtoken` that verifies only the signature. The claims are checked in [`super::claims`],
/// which also refuses claims of the wrong type, and takes the time as an argument.
pub(super) fn signature_only(algorithm: Algorithm) -> jsonwebtoken::Validation {
    let mut validation = jsonwebtoken::Validation::new(match algorithm {
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Rs384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::Rs512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::Ps384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::Ps512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::Hs384 => jsonwebtoken::Algorithm::HS384,
        Algorithm::Hs512 => jsonwebtoken::Algorithm::HS512,
    });
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// The `iat` of a token whose signature is not verified.
pub(super) fn unverified_iat(token: &str) -> Option<i64> {
    let claims = token.split('.').nth(1)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok()?;
    numeric_date(serde_json::from_slice::<Value>(&json).ok()?.get("iat")?)
}

/// Seconds since 1970, optionally with a fraction, which is dropped (RFC 7519 section 2, `NumericDate`).
pub(super) fn numeric_date(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| (0.0..1e12).contains(seconds))?;
        #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the range was checked above")]
        Some(seconds as i64)
    })
}

/// Reads the header of a token in compact serialization (RFC 7515 section 7.1).
pub(super) fn read_header(token: &str) -> Result<Header, Failure> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(Failure::TokenMalformed);
    };
    let json =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).map_err(|_bad| Failure::TokenMalformed)?;
    serde_json::from_slice(&json).map_err(|_bad| Failure::TokenMalformed)
}
