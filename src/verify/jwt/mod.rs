//! Verifies JWTs (RFC 7519) by the best practices of RFC 8725: one algorithm, which the profile sets; keys only from
//! configured sources; all configured claims required.

mod claims;
mod decode;
mod token_cache;

use std::sync::Arc;

use http::HeaderName;
use http::header;
use sha2::Digest as _;
use sha2::Sha256;

use super::Failure;
use super::Jwks;
use super::KeyError;
use super::KeyMaterial;
use super::Signed;
use super::jwks::KeySet;
use crate::base::time::Moment;
use crate::extract::field::Extracted;
use crate::extract::field::Field;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::Algorithm;
use crate::profile::Carrier;
use crate::profile::Location;

use self::claims::ClaimRules;
use self::claims::Claims;
use self::decode::configured_keys;
use self::decode::read_header;
use self::decode::signature_only;
use self::decode::unverified_iat;
use self::token_cache::TokenCache;
use self::token_cache::VerifiedToken;

/// The most bytes of a token.
const MAX_TOKEN: usize = 8 * 1024;

/// `[auth.jwt]` of a profile with the parameters and secrets of a source.
#[derive(Debug)]
pub struct Jwt {
    algorithm: Algorithm,
    signature: jsonwebtoken::Validation,
    rules: ClaimRules,
    field: Field,
    /// The prefix before the token; `None` for a bearer token.
    prefix: Option<String>,
    keys: Keys,
    /// Whether [`Signed::digest`] is needed, because the token is bound to the body, which does not cover the event's
    /// id.
    pub digest_signed: bool,
    /// How long dedupe records are kept, in whole seconds, if the token is bound to the body: an older token is
    /// refused, because a replay of it could not be recognised.
    pub issued_within: Option<i64>,
    verified: TokenCache,
}

#[derive(Debug)]
enum Keys {
    Fetched(Arc<Jwks>),
    Configured(Vec<(usize, Arc<KeySet>)>),
}

impl Jwt {
    /// Compiles the profile's scheme.
    ///
    /// # Errors
    /// What is wrong with a parameter.
    pub fn new(scheme: &profile::Jwt, material: &mut KeyMaterial<'_>) -> Result<Self, KeyError> {
        let keys = match material.jwks(scheme.algorithm)? {
            Some(jwks) => Keys::Fetched(jwks),
            None => Keys::Configured(
                material.keys(&scheme.key, |form, text| configured_keys(scheme, form, text).map(Arc::new)),
            ),
        };
        let bearer = Location { carrier: Carrier::Header(vec![header::AUTHORIZATION]), item: None };
        let location = scheme.from.as_ref().map_or(&bearer, |from| &from.location);
        Ok(Self {
            algorithm: scheme.algorithm,
            signature: signature_only(scheme.algorithm),
            rules: ClaimRules::new(scheme, material.params),
            prefix: scheme.from.as_ref().map(|from| from.prefix.clone()),
            field: Field::new(location, material.plan),
            keys,
            digest_signed: false,
            issued_within: None,
            verified: TokenCache::default(),
        })
    }

    /// The key set that is fetched; `None` with configured keys.
    pub fn jwks(&self) -> Option<&Arc<Jwks>> {
        match &self.keys {
            Keys::Fetched(jwks) => Some(jwks),
            Keys::Configured(_) => None,
        }
    }

    /// Whether there is a key to verify with.
    pub fn has_keys(&self) -> bool {
        match &self.keys {
            Keys::Fetched(_) => true,
            Keys::Configured(keys) => !keys.is_empty(),
        }
    }

    /// The field of the token.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// The headers that it reads.
    pub fn headers(&self) -> Vec<HeaderName> {
        self.field.headers()
    }

    /// Whether the body has to be parsed as JSON first.
    pub fn reads_json(&self) -> bool {
        self.field.is_json()
    }

    /// Whether a token is valid for one body only.
    pub fn binds_body(&self) -> bool {
        self.rules.binds_body()
    }

    /// Verifies the token at the moment `now`.
    ///
    /// # Errors
    /// The [`Failure`] that says what is wrong with it, or that the keys are not available.
    pub async fn verify(&self, inbound: &Inbound, values: &Extracted, now: Moment) -> Result<Signed, Failure> {
        let token = self.token(inbound, values)?;
        let fetched = match &self.keys {
            Keys::Fetched(jwks) => match jwks.keys().await {
                Ok(keys) => Some(keys),
                // A token with a wrong header fails with any keys, so that a retry would not help.
                Err(failure) => return Err(self.header(token).err().unwrap_or(failure)),
            },
            Keys::Configured(_) => None,
        };
        let generation = fetched.as_ref().map_or(0, |keys| keys.generation);
        // A token that is bound to one body is not cached: it is not sent again with another body.
        let fingerprint: Option<[u8; 32]> = (!self.binds_body()).then(|| Sha256::digest(token).into());
        let cached = fingerprint.and_then(|fingerprint| self.verified.get(&fingerprint, generation));
        let verified = match cached {
            Some(cached) => cached,
            None => self.decode(token, fetched, inbound, now).await?,
        };
        self.rules.holds(verified.validity, now)?;
        if let Some(fingerprint) = fingerprint.filter(|_| cached.is_none()) {
            self.verified.insert(fingerprint, verified, now);
        }
        // Without the signature: ECDSA signatures are malleable, so another valid one is easy to compute.
        let signed = || token.rsplit_once('.').map(|(signed, _)| Sha256::digest(signed).into());
        Ok(Signed { secret: verified.secret, digest: self.digest_signed.then(signed).flatten() })
    }

    /// The token of the request.
    fn token<'r>(&'r self, inbound: &'r Inbound, values: &'r Extracted) -> Result<&'r str, Failure> {
        let text = self.field.text(inbound, values).map_err(|_not_text| Failure::TokenMalformed)?;
        let text = text.ok_or(Failure::TokenMissing)?;
        let token = match &self.prefix {
            Some(prefix) => text.strip_prefix(prefix.as_str()).ok_or(Failure::TokenMissing)?,
            None => {
                let (scheme, token) = text.split_once(' ').ok_or(Failure::TokenMissing)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(Failure::TokenMissing);
                }
                token.trim_start_matches(' ')
            }
        };
        if token.len() > MAX_TOKEN { Err(Failure::TokenMalformed) } else { Ok(token) }
    }

    /// Reads the header of a token, and checks its algorithm and `crit`.
    fn header(&self, token: &str) -> Result<decode::Header, Failure> {
        let header = read_header(token)?;
        if header.alg != self.algorithm.title() {
            return Err(Failure::TokenAlgorithm);
        }
        if header.crit.is_some() {
            return Err(Failure::TokenMalformed);
        }
        Ok(header)
    }

    async fn decode(
        &self,
        token: &str,
        fetched: Option<Arc<KeySet>>,
        inbound: &Inbound,
        now: Moment,
    ) -> Result<VerifiedToken, Failure> {
        let header = self.header(token)?;
        let kid = header.kid.as_deref();
        match (&self.keys, fetched) {
            (Keys::Fetched(jwks), Some(mut keys)) => {
                if keys.find(kid).is_err_and(|failure| failure == Failure::TokenUnknownKey) {
                    keys = jwks.refreshed().await?;
                }
                match self.decode_with(token, kid, inbound, (&keys, None)) {
                    Err(Failure::TokenUnknownKey) if !self.was_fetched_after(&keys, token, now) => {
                        Err(Failure::KeysCoolingDown)
                    }
                    result => result,
                }
            }
            (Keys::Configured(sets), _) => {
                let mut failure = Failure::TokenUnknownKey;
                for (at, keys) in sets {
                    match self.decode_with(token, kid, inbound, (keys, Some(*at))) {
                        Err(
                            other @ (Failure::TokenUnknownKey
                            | Failure::TokenKeyUse
                            | Failure::TokenKeyUnusable(_)
                            | Failure::TokenSignature),
                        ) => failure = other,
                        result => return result,
                    }
                }
                Err(failure)
            }
            (Keys::Fetched(_), None) => Err(Failure::KeysUnavailable),
        }
    }

    /// Whether the fetch of a set began after a token was issued, so that a key that is not in the set is not the
    /// issuer's. A token without `iat`, or with one in the future, counts as issued now.
    fn was_fetched_after(&self, keys: &KeySet, token: &str, now: Moment) -> bool {
        let issued =
            unverified_iat(token).map(|seconds| Moment::from_unix(seconds.saturating_add(self.rules.leeway())));
        keys.began() >= issued.map_or(now, |issued| issued.min(now))
    }

    /// Verifies a token with keys. These come with the position of their secret, if they were configured.
    fn decode_with(
        &self,
        token: &str,
        kid: Option<&str>,
        inbound: &Inbound,
        (keys, secret): (&KeySet, Option<usize>),
    ) -> Result<VerifiedToken, Failure> {
        let mut failure = Failure::TokenUnknownKey;
        for key in keys.find(kid)? {
            match jsonwebtoken::decode::<Claims>(token, key, &self.signature) {
                Ok(decoded) => {
                    self.rules.check(&decoded.claims, inbound)?;
                    let validity = self.rules.validity(&decoded.claims, self.issued_within)?;
                    return Ok(VerifiedToken { validity, generation: keys.generation, secret });
                }
                Err(error) => {
                    let forged = matches!(error.kind(), jsonwebtoken::errors::ErrorKind::InvalidSignature);
                    failure = if forged { Failure::TokenSignature } else { Failure::TokenMalformed };
                }
            }
        }
        Err(failure)
    }
}
