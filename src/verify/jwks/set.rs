//! Parses JWK sets (RFC 7517 section 5): which of their keys are used, and why the others are not.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use std::time::Instant;

use base64::Engine as _;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::AlgorithmParameters;
use jsonwebtoken::jwk::EllipticCurve;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::jwk::KeyOperations;
use jsonwebtoken::jwk::PublicKeyUse;
use serde::Deserialize;
use serde_json::Value;

use crate::base::time::Moment;
use crate::profile::Algorithm;
use crate::verify::Failure;

/// The most keys of one set.
const MAX_KEYS: usize = 64;
/// The most keys with the same `kid`. A token with that `kid` is verified with each of them.
const MAX_ALIKE: usize = 4;
/// Bytes of the modulus of an RSA key: 2048 to 8192 bits.
const RSA_BYTES: RangeInclusive<usize> = 256..=1024;
/// The most characters of a `kid` in the log.
const MAX_NAME: usize = 64;

/// The keys of one fetch.
pub struct KeySet {
    /// The keys by `kid`.
    keys: HashMap<String, Vec<DecodingKey>>,
    /// The only key of the set, if it has no `kid`.
    anonymous: Option<DecodingKey>,
    /// Whether the anonymous key is used for every `kid`: it was configured without a set.
    only: bool,
    /// The keys that are not used, with their `kid`.
    left_out: Vec<(Option<String>, LeftOut)>,
    /// When the fetch began, by the wall clock.
    pub(super) began: Moment,
    /// When it was fetched, by the monotonic clock.
    pub(super) fetched: Instant,
    /// How long it is fresh.
    pub(super) fresh: Duration,
    /// The number of the fetch. Verified tokens are cached with it, so that a withdrawn key is not used from the cache.
    pub generation: u64,
}

/// Why a key of a set is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it means")]
pub enum LeftOut {
    #[error("no JWK that can be read")]
    Unreadable,
    #[error("of another kind than the profile's algorithm takes")]
    Kind,
    #[error("not published for verifying signatures with the profile's algorithm")]
    Use,
    #[error("not written in base64url without padding, or not of its algorithm's length")]
    Encoding,
    #[error("too short: RSA has {} bits at least", RSA_BYTES.start() * 8)]
    Short,
    #[error("too long: RSA has {} bits at most", RSA_BYTES.end() * 8)]
    Long,
    #[error("one too many: a set has {MAX_KEYS} keys at most, of which {MAX_ALIKE} with one kid")]
    TooMany,
    #[error("without a kid among others")]
    NotIdentified,
}

impl LeftOut {
    /// Whether the issuer publishes the key for another purpose, which is no error.
    pub(super) fn is_expected(self) -> bool {
        match self {
            Self::Kind | Self::Use => true,
            Self::Unreadable | Self::Encoding | Self::Short | Self::Long | Self::TooMany | Self::NotIdentified => false,
        }
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").field("left_out", &self.left_out).finish_non_exhaustive()
    }
}

/// A JWK set. Its name is part of error messages.
#[derive(Deserialize)]
struct Written {
    keys: Vec<Value>,
}

impl KeySet {
    /// The keys with which a token with this `kid` may be signed. For a token without one, the only key of the set.
    ///
    /// # Errors
    /// [`Failure::TokenUnknownKey`] when there is none, or why the key with this `kid` is not used.
    pub fn find(&self, kid: Option<&str>) -> Result<&[DecodingKey], Failure> {
        let anonymous = self.anonymous.as_ref().map(std::slice::from_ref);
        let keys = match kid {
            Some(kid) => self.keys.get(kid).map(Vec::as_slice).or_else(|| anonymous.filter(|_| self.only)),
            None if anonymous.is_some() => anonymous,
            None if self.keys.len() == 1 => self.keys.values().next().map(Vec::as_slice),
            None => None,
        };
        keys.ok_or_else(|| {
            let named = kid.and_then(|kid| self.left_out.iter().find(|(name, _)| name.as_deref() == Some(kid)));
            match named {
                None => Failure::TokenUnknownKey,
                Some((_, LeftOut::Use)) => Failure::TokenKeyUse,
                Some((_, why)) => Failure::TokenKeyUnusable(*why),
            }
        })
    }

    /// Whether the set has a usable key.
    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty() || self.anonymous.is_some()
    }

    /// The error message for a set without a usable key.
    pub(super) fn no_key_message(&self, algorithm: Algorithm) -> String {
        let why = self.left_out().next().map(|(kid, why)| format!("; its key {kid:?} is {why}"));
        format!("the set has no key for {}{}", algorithm.title(), why.unwrap_or_default())
    }

    /// When its fetch began.
    pub fn began(&self) -> Moment {
        self.began
    }

    /// The keys that are not used: the `kid`, shortened, and the reason.
    pub fn left_out(&self) -> impl Iterator<Item = (String, LeftOut)> {
        self.left_out.iter().map(|(kid, why)| (kid.iter().flat_map(|kid| kid.chars()).take(MAX_NAME).collect(), *why))
    }

    /// A set of one configured key, which is used for every `kid`.
    pub(in crate::verify) fn single(key: DecodingKey) -> Self {
        Self { anonymous: Some(key), only: true, ..Self::empty(0) }
    }

    fn empty(generation: u64) -> Self {
        Self {
            keys: HashMap::new(),
            anonymous: None,
            only: false,
            left_out: Vec::new(),
            began: Moment::now(),
            fetched: Instant::now(),
            fresh: Duration::MAX,
            generation,
        }
    }

    /// Parses a JWK set, or a single JWK.
    ///
    /// # Errors
    /// It is not valid, or has no usable key, unless the issuer publishes one for another use.
    pub fn parse(bytes: &[u8], algorithm: Algorithm, generation: u64) -> Result<Self, String> {
        let one = |error: serde_json::Error| match serde_json::from_slice::<Jwk>(bytes) {
            Ok(_) => serde_json::from_slice(bytes).map(|one| vec![one]).map_err(|error| error.to_string()),
            Err(_) => Err(format!("not a JWK set: {error}")),
        };
        let values = serde_json::from_slice::<Written>(bytes).map_or_else(one, |set| Ok(set.keys))?;
        let mut set = Self::empty(generation);
        let (mut anonymous, mut taken) = (Vec::new(), 0);
        for value in values {
            let kid = value.get("kid").and_then(Value::as_str).map(str::to_owned);
            match usable_key(value, algorithm) {
                Err(why) => set.left_out.push((kid, why)),
                Ok(_) if taken == MAX_KEYS => set.left_out.push((kid, LeftOut::TooMany)),
                Ok(key) => match kid {
                    None => anonymous.push(key),
                    Some(kid) => {
                        let alike = set.keys.entry(kid.clone()).or_default();
                        if alike.len() == MAX_ALIKE {
                            set.left_out.push((Some(kid), LeftOut::TooMany));
                            continue;
                        }
                        alike.push(key);
                        taken += 1;
                    }
                },
            }
        }
        if anonymous.len() == 1 && set.keys.is_empty() {
            set.anonymous = anonymous.pop();
        }
        set.left_out.extend(anonymous.iter().map(|_| (None, LeftOut::NotIdentified)));
        if !set.has_keys() && !set.left_out.iter().any(|(_, why)| *why == LeftOut::Use) {
            return Err(set.no_key_message(algorithm));
        }
        Ok(set)
    }
}

/// Decodes a key, if it is of the algorithm's type, has a sufficient length, and is for verifying signatures.
fn usable_key(value: Value, algorithm: Algorithm) -> Result<DecodingKey, LeftOut> {
    let known = matches!(value.get("kty").and_then(Value::as_str), Some("RSA" | "EC" | "OKP" | "oct"));
    let jwk: Jwk = serde_json::from_value(value).map_err(|_bad| LeftOut::Unreadable)?;
    let decoded =
        |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).map_err(|_other| LeftOut::Encoding);
    let check_length = |text: &str, length: usize| match decoded(text)?.len() {
        actual if actual == length => Ok(()),
        _ => Err(LeftOut::Encoding),
    };
    match (&jwk.algorithm, algorithm) {
        (
            AlgorithmParameters::RSA(rsa),
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512,
        ) => match decoded(&rsa.n)?.len() {
            short if short < *RSA_BYTES.start() => return Err(LeftOut::Short),
            long if long > *RSA_BYTES.end() => return Err(LeftOut::Long),
            _ => {}
        },
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::Es256) if ec.curve == EllipticCurve::P256 => {
            check_length(&ec.x, 32)?;
            check_length(&ec.y, 32)?;
        }
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::Es384) if ec.curve == EllipticCurve::P384 => {
            check_length(&ec.x, 48)?;
            check_length(&ec.y, 48)?;
        }
        (AlgorithmParameters::OctetKeyPair(okp), Algorithm::EdDsa) if okp.curve == EllipticCurve::Ed25519 => {
            check_length(&okp.x, 32)?;
        }
        (AlgorithmParameters::Other(_), _) if known => return Err(LeftOut::Unreadable),
        _ => return Err(LeftOut::Kind),
    }
    let common = &jwk.common;
    let for_signatures = !matches!(common.public_key_use, Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)));
    let may_verify =
        common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let same_algorithm = common.key_algorithm.is_none_or(|named| named.to_string() == algorithm.title());
    if !(for_signatures && may_verify && same_algorithm) {
        return Err(LeftOut::Use);
    }
    DecodingKey::from_jwk(&jwk).map_err(|_bad| LeftOut::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_without_a_usable_key_are_no_sets() {
        for bad in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#, r#"{"keys":[1]}"#] {
            assert!(KeySet::parse(bad.as_bytes(), Algorithm::Rs256, 1).is_err(), "{bad}");
        }
    }
}
