//! Bearer tokens (RFC 6750) that are JWTs (RFC 7519), verified as RFC 8725 asks: one algorithm pinned by the profile,
//! keys from the configured JWK set only, and every claim that is configured required.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use base64::Engine as _;
use http::HeaderMap;
use http::header;
use serde::Deserialize;
use serde_json::Value;
use sha2::Digest as _;
use sha2::Sha256;

use super::Failure;
use super::Jwks;
use crate::profile;
use crate::profile::Algorithm;
use crate::time::Moment;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// Most tokens that are remembered.
const MAX_REMEMBERED: usize = 4096;

/// `[auth.jwt]` of a profile with the parameters of a source.
#[derive(Debug)]
pub struct Jwt {
    algorithm: Algorithm,
    leeway: i64,
    issuer: String,
    audience: String,
    keys: Arc<Jwks>,
    remembered: Mutex<HashMap<[u8; 32], Validity>>,
}

/// From when to when a verified token holds, and which keys said so.
#[derive(Debug, Clone, Copy)]
struct Validity {
    not_before: Option<i64>,
    expires: i64,
    generation: u64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<Value>,
    aud: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
}

impl Jwt {
    /// Accepts tokens of this issuer for this audience.
    pub fn new(said: &profile::Jwt, issuer: String, audience: String, keys: Arc<Jwks>) -> Self {
        Self {
            algorithm: said.algorithm,
            leeway: i64::try_from(said.leeway.as_secs()).unwrap_or(i64::MAX),
            issuer,
            audience,
            keys,
            remembered: Mutex::default(),
        }
    }

    /// The keys that it verifies with.
    pub fn jwks(&self) -> &Arc<Jwks> {
        &self.keys
    }

    /// Checks the token in `Authorization` at the moment `now`.
    ///
    /// # Errors
    /// The [`Failure`] that says what is wrong with it, or that the keys are not to be had.
    pub async fn verify(&self, headers: &HeaderMap, now: Moment) -> Result<(), Failure> {
        let token = bearer(headers)?;
        let fingerprint: [u8; 32] = Sha256::digest(token).into();
        let keys = self.keys.keys().await?;
        let known = self.remembered().get(&fingerprint).copied().filter(|known| known.generation == keys.generation);
        let validity = match known {
            Some(validity) => validity,
            None => self.decode(token, keys).await?,
        };
        self.hold(validity, now)?;
        if known.is_none() {
            self.remember(fingerprint, validity, now);
        }
        Ok(())
    }

    async fn decode(&self, token: &str, mut keys: Arc<super::jwks::KeySet>) -> Result<Validity, Failure> {
        let header = read_header(token)?;
        if header.alg != self.algorithm.title() {
            return Err(Failure::TokenAlgorithm);
        }
        if header.crit.is_some() {
            return Err(Failure::TokenMalformed);
        }
        if keys.find(header.kid.as_deref()).is_none() {
            keys = self.keys.refreshed().await?;
        }
        let key = keys.find(header.kid.as_deref()).ok_or(Failure::TokenUnknownKey)?;
        if !key.verifies {
            return Err(Failure::TokenKeyUse);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &key.key, &signature_only(self.algorithm))
            .map_err(|error| {
                let forged = matches!(error.kind(), jsonwebtoken::errors::ErrorKind::InvalidSignature);
                if forged { Failure::TokenSignature } else { Failure::TokenMalformed }
            })?
            .claims;
        self.judge(&claims, keys.generation)
    }

    /// The claims that do not depend on the time.
    fn judge(&self, claims: &Claims, generation: u64) -> Result<Validity, Failure> {
        if claims.iss.as_ref().and_then(Value::as_str) != Some(self.issuer.as_str()) {
            return Err(Failure::TokenIssuer);
        }
        let ours = |value: &Value| value.as_str() == Some(self.audience.as_str());
        let for_us = match &claims.aud {
            Some(Value::Array(list)) => list.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        };
        if !for_us {
            return Err(Failure::TokenAudience);
        }
        let expires = claims.exp.as_ref().and_then(numeric_date).ok_or(Failure::TokenExpired)?;
        let not_before = match &claims.nbf {
            Some(value) => Some(numeric_date(value).ok_or(Failure::TokenNotYetValid)?),
            None => None,
        };
        Ok(Validity { not_before, expires, generation })
    }

    fn hold(&self, validity: Validity, now: Moment) -> Result<(), Failure> {
        if now.unix() >= validity.expires.saturating_add(self.leeway) {
            return Err(Failure::TokenExpired);
        }
        if validity.not_before.is_some_and(|moment| now.unix() < moment.saturating_sub(self.leeway)) {
            return Err(Failure::TokenNotYetValid);
        }
        Ok(())
    }

    fn remember(&self, fingerprint: [u8; 32], validity: Validity, now: Moment) {
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, known| known.expires > now.unix() && known.generation == validity.generation);
            if remembered.len() >= MAX_REMEMBERED {
                remembered.clear();
            }
        }
        remembered.insert(fingerprint, validity);
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Validity>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only the signature: the claims are judged here, where "absent" and "of the wrong type" are both a no, and where the
/// time is an argument.
fn signature_only(algorithm: Algorithm) -> jsonwebtoken::Validation {
    let mut validation = jsonwebtoken::Validation::new(match algorithm {
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
    });
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn bearer(headers: &HeaderMap) -> Result<&str, Failure> {
    let value = headers.get(header::AUTHORIZATION).ok_or(Failure::TokenMissing)?;
    let value = value.to_str().map_err(|_bytes| Failure::TokenMalformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(Failure::TokenMissing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Failure::TokenMissing);
    }
    let token = token.trim_start_matches(' ');
    if token.len() > MAX_TOKEN { Err(Failure::TokenMalformed) } else { Ok(token) }
}

fn read_header(token: &str) -> Result<Header, Failure> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(Failure::TokenMalformed);
    };
    let json =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).map_err(|_bad| Failure::TokenMalformed)?;
    serde_json::from_slice(&json).map_err(|_bad| Failure::TokenMalformed)
}

/// Seconds since 1970, perhaps with a fraction (RFC 7519 section 2, `NumericDate`).
fn numeric_date(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| (0.0..1e12).contains(seconds))?;
        #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the range was checked above")]
        Some(seconds as i64)
    })
}
