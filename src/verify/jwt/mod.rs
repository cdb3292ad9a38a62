//! Verifies JWTs (RFC 7519) as RFC 8725 asks: one algorithm set by the profile, keys from configured places only, and
//! every claim that is configured required.

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
use self::decode::claimed_iat;
use self::decode::configured;
use self::decode::read_header;
use self::decode::signature_only;
use self::token_cache::TokenCache;
use self::token_cache::VerifiedToken;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// `[auth.jwt]` of a profile with the parameters and secrets of a source.
#[derive(Debug)]
pub struct Jwt {
    algorithm: Algorithm,
    signature: jsonwebtoken::Validation,
    rules: ClaimRules,
    field: Field,
    /// What stands before the token; `None` for a bearer token.
    prefix: Option<String>,
    keys: Keys,
    /// Whether the digest of what was signed is wanted, because the token is bound to a body that does not cover the
    /// event's id.
    pub digest_signed: bool,
    /// How long events are remembered, in whole seconds: a token for one body that was issued before that would be as
    /// good as new.
    pub issued_within: Option<i64>,
    verified: TokenCache,
}

#[derive(Debug)]
enum Keys {
    Fetched(Arc<Jwks>),
    Configured(Vec<(usize, Arc<KeySet>)>),
}

impl Jwt {
    /// Makes the profile's scheme ready.
    ///
    /// # Errors
    /// What is wrong with a parameter.
    pub fn new(scheme: &profile::Jwt, material: &mut KeyMaterial<'_>) -> Result<Self, KeyError> {
        let keys = match material.jwks(scheme.algorithm)? {
            Some(jwks) => Keys::Fetched(jwks),
            None => {
                Keys::Configured(material.keys(&scheme.key, |form, text| configured(scheme, form, text).map(Arc::new)))
            }
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

    /// The keys that it fetches.
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

    /// Where the token stands.
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

    /// Whether a token is good for one body only.
    pub fn binds_body(&self) -> bool {
        self.rules.binds_body()
    }

    /// Checks the token at the moment `now`.
    ///
    /// # Errors
    /// The [`Failure`] that says what is wrong with it, or that the keys are not to be had.
    pub async fn verify(&self, inbound: &Inbound, values: &Extracted, now: Moment) -> Result<Signed, Failure> {
        let token = self.token(inbound, values)?;
        let fetched = match &self.keys {
            Keys::Fetched(jwks) => match jwks.keys().await {
                Ok(keys) => Some(keys),
                // What is no token of this profile is none with any keys, and need not come again.
                Err(failure) => return Err(self.header(token).err().unwrap_or(failure)),
            },
            Keys::Configured(_) => None,
        };
        let generation = fetched.as_ref().map_or(0, |keys| keys.generation);
        // A token that is bound to one body is not seen again.
        let fingerprint: Option<[u8; 32]> = (!self.binds_body()).then(|| Sha256::digest(token).into());
        let known = fingerprint.and_then(|fingerprint| self.verified.get(&fingerprint, generation));
        let verified = match known {
            Some(known) => known,
            None => self.decode(token, fetched, inbound, now).await?,
        };
        self.rules.holds(verified.validity, now)?;
        if let Some(fingerprint) = fingerprint.filter(|_| known.is_none()) {
            self.verified.insert(fingerprint, verified, now);
        }
        // Without the signature: of one made with ECDSA, anybody can make another that is as good.
        let signed = || token.rsplit_once('.').map(|(signed, _)| Sha256::digest(signed).into());
        Ok(Signed { secret: verified.secret, digest: self.digest_signed.then(signed).flatten() })
    }

    /// The token as it stands in the request.
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

    /// The header of a token that may be one of this profile.
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
                    Err(Failure::TokenUnknownKey) if !self.is_younger(&keys, token, now) => {
                        Err(Failure::KeysCoolingDown)
                    }
                    decided => decided,
                }
            }
            (Keys::Configured(sets), _) => {
                let mut failure = Failure::TokenUnknownKey;
                for (at, keys) in sets {
                    match self.decode_with(token, kid, inbound, (keys, Some(*at))) {
                        Err(
                            wrong @ (Failure::TokenUnknownKey
                            | Failure::TokenKeyUse
                            | Failure::TokenKeyUnusable(_)
                            | Failure::TokenSignature),
                        ) => failure = wrong,
                        decided => return decided,
                    }
                }
                Err(failure)
            }
            (Keys::Fetched(_), None) => Err(Failure::KeysUnavailable),
        }
    }

    /// Whether a set was asked for after a token had been issued, so that a key that is not in it is none of the
    /// issuer's. A token that does not say when, or says a time ahead of now, may have been issued now.
    fn is_younger(&self, keys: &KeySet, token: &str, now: Moment) -> bool {
        let issued = claimed_iat(token).map(|seconds| Moment::from_unix(seconds.saturating_add(self.rules.leeway())));
        keys.began() >= issued.map_or(now, |issued| issued.min(now))
    }

    /// The keys come with the position of the secret that they are, if they were configured.
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
                    self.rules.judge(&decoded.claims, inbound)?;
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
