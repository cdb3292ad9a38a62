//! Verifies JWTs (RFC 7519) as RFC 8725 asks: one algorithm set by the profile, keys from configured places only, and
//! every claim that is configured required.

mod decode;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use http::HeaderName;
use http::header;
use serde_json::Value;
use sha2::Digest as _;
use sha2::Sha256;

use super::Failure;
use super::Jwks;
use super::KeyError;
use super::KeyMaterial;
use super::Signed;
use super::jwks::KeySet;
use crate::base::time::Moment;
use crate::extract::field::Field;
use crate::extract::field::Values;
use crate::extract::params;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::Algorithm;
use crate::profile::BodyClaim;
use crate::profile::Holder;
use crate::profile::Place;

use self::decode::claimed_iat;
use self::decode::configured;
use self::decode::numeric_date;
use self::decode::read_header;
use self::decode::signature_only;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// Most tokens that are remembered.
const MAX_REMEMBERED: usize = 4096;

/// `[auth.jwt]` of a profile with the parameters and secrets of a source.
#[derive(Debug)]
pub struct Jwt {
    algorithm: Algorithm,
    signature: jsonwebtoken::Validation,
    leeway: i64,
    max_age: Option<i64>,
    /// Absent where any will do.
    issuers: Option<Vec<String>>,
    audiences: Option<Vec<String>>,
    claims: Vec<(String, Value)>,
    body: Option<BodyClaim>,
    field: Field,
    /// What stands before the token; `None` for a bearer token.
    prefix: Option<String>,
    keys: Keys,
    /// Whether the digest of what was signed is wanted, because the token is bound to a body that does not cover the
    /// event's id.
    pub digest_signed: bool,
    /// How long events are remembered, in whole seconds: a token for one body that was issued before that would be as good
    /// as new.
    pub issued_within: Option<i64>,
    remembered: Mutex<HashMap<[u8; 32], Validity>>,
}

#[derive(Debug)]
enum Keys {
    Fetched(Arc<Jwks>),
    Configured(Vec<(usize, Arc<KeySet>)>),
}

/// A verified token: from when to when it holds, and which keys said so.
#[derive(Debug, Clone, Copy)]
struct Validity {
    not_before: Option<i64>,
    expires: i64,
    generation: u64,
    secret: Option<usize>,
}

/// The claims of a token, by name.
type Claims = serde_json::Map<String, Value>;

impl Jwt {
    /// Makes the profile's scheme ready.
    ///
    /// # Errors
    /// What is wrong with a parameter.
    pub fn new(said: &profile::Jwt, material: &mut KeyMaterial<'_>) -> Result<Self, KeyError> {
        let keys = match material.jwks(said.algorithm)? {
            Some(jwks) => Keys::Fetched(jwks),
            None => Keys::Configured(material.keys(&said.key, |form, text| configured(said, form, text).map(Arc::new))),
        };
        let bearer = Place { holder: Holder::Header(vec![header::AUTHORIZATION]), item: None };
        let place = said.from.as_ref().map_or(&bearer, |from| &from.place);
        let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let named = |said: &[String], name: &str| {
            let texts: Vec<_> = said.iter().map(|text| params::fill(text, material.params)).collect();
            let usual = || material.params.get(name).map(|param| vec![param.clone()]);
            if texts.is_empty() { usual() } else { Some(texts) }
        };
        let claim = |(name, value): (&String, &toml::Value)| {
            let value = match value.as_str() {
                Some(text) => Value::from(params::fill(text, material.params)),
                None => serde_json::to_value(value).unwrap_or_default(),
            };
            (name.clone(), value)
        };
        Ok(Self {
            algorithm: said.algorithm,
            signature: signature_only(said.algorithm),
            leeway: seconds(said.leeway),
            max_age: said.max_age.map(seconds),
            issuers: named(&said.issuer, "issuer"),
            audiences: named(&said.audience, "audience"),
            claims: said.claims.iter().map(claim).collect(),
            body: said.body.clone(),
            prefix: said.from.as_ref().map(|from| from.prefix.clone()),
            field: Field::new(place, material.wants),
            keys,
            digest_signed: false,
            issued_within: None,
            remembered: Mutex::default(),
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
        self.body.is_some()
    }

    /// Checks the token at the moment `now`.
    ///
    /// # Errors
    /// The [`Failure`] that says what is wrong with it, or that the keys are not to be had.
    pub async fn verify(&self, inbound: &Inbound, values: &Values, now: Moment) -> Result<Signed, Failure> {
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
        let fingerprint: Option<[u8; 32]> = self.body.is_none().then(|| Sha256::digest(token).into());
        let known = fingerprint.and_then(|fingerprint| self.remembered().get(&fingerprint).copied());
        let known = known.filter(|known| known.generation == generation);
        let validity = match known {
            Some(known) => known,
            None => self.decode(token, fetched, inbound, now).await?,
        };
        self.hold(validity, now)?;
        if let Some(fingerprint) = fingerprint.filter(|_| known.is_none()) {
            self.remember(fingerprint, validity, now);
        }
        // Without the signature: of one made with ECDSA, anybody can make another that is as good.
        let signed = || token.rsplit_once('.').map(|(signed, _)| Sha256::digest(signed).into());
        Ok(Signed { secret: validity.secret, digest: self.digest_signed.then(signed).flatten() })
    }

    /// The token as it stands in the request.
    fn token<'r>(&'r self, inbound: &'r Inbound, values: &'r Values) -> Result<&'r str, Failure> {
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
    ) -> Result<Validity, Failure> {
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

    /// Whether a set was asked for after a token had been issued, so that a key that is not in it is none of the issuer's.
    /// A token that does not say when, or says a time ahead of now, may have been issued now.
    fn is_younger(&self, keys: &KeySet, token: &str, now: Moment) -> bool {
        let issued = claimed_iat(token).map(|seconds| Moment::from_unix(seconds.saturating_add(self.leeway)));
        keys.began() >= issued.map_or(now, |issued| issued.min(now))
    }

    /// The keys come with the position of the secret that they are, if they were configured.
    fn decode_with(
        &self,
        token: &str,
        kid: Option<&str>,
        inbound: &Inbound,
        (keys, secret): (&KeySet, Option<usize>),
    ) -> Result<Validity, Failure> {
        let mut failure = Failure::TokenUnknownKey;
        for key in keys.find(kid)? {
            match jsonwebtoken::decode::<Claims>(token, key, &self.signature) {
                Ok(decoded) => {
                    self.judge(&decoded.claims, inbound)?;
                    return self.validity(&decoded.claims, keys.generation, secret);
                }
                Err(error) => {
                    let forged = matches!(error.kind(), jsonwebtoken::errors::ErrorKind::InvalidSignature);
                    failure = if forged { Failure::TokenSignature } else { Failure::TokenMalformed };
                }
            }
        }
        Err(failure)
    }

    /// The claims that do not depend on the time.
    fn judge(&self, claims: &Claims, inbound: &Inbound) -> Result<(), Failure> {
        let one_of = |value: &Value, known: &[String]| {
            value.as_str().is_some_and(|text| known.iter().any(|known| known == text))
        };
        if let Some(issuers) = &self.issuers
            && !claims.get("iss").is_some_and(|issuer| one_of(issuer, issuers))
        {
            return Err(Failure::TokenIssuer);
        }
        if let Some(audiences) = &self.audiences {
            let for_us = match claims.get("aud") {
                Some(Value::Array(list)) => list.iter().any(|audience| one_of(audience, audiences)),
                Some(one) => one_of(one, audiences),
                None => false,
            };
            if !for_us {
                return Err(Failure::TokenAudience);
            }
        }
        if self.claims.iter().any(|(name, value)| claims.get(name) != Some(value)) {
            return Err(Failure::TokenClaim);
        }
        if let Some(bound) = &self.body {
            let mut digest = [0; 32];
            let text = claims.get(&bound.claim).and_then(Value::as_str).ok_or(Failure::TokenBody)?;
            let right = bound.encoding.decode(text.as_bytes(), &mut digest);
            let computed: [u8; 32] = Sha256::digest(inbound.signed()).into();
            if !right || aws_lc_rs::constant_time::verify_slices_are_equal(&digest, &computed).is_err() {
                return Err(Failure::TokenBody);
            }
        }
        Ok(())
    }

    fn validity(&self, claims: &Claims, generation: u64, secret: Option<usize>) -> Result<Validity, Failure> {
        let expires = match (claims.get("exp"), self.max_age) {
            (Some(value), _) => numeric_date(value).ok_or(Failure::TokenExpired)?,
            (None, Some(_)) => i64::MAX,
            (None, None) => return Err(Failure::TokenExpired),
        };
        let not_before = match claims.get("nbf") {
            Some(value) => Some(numeric_date(value).ok_or(Failure::TokenNotYetValid)?),
            None => None,
        };
        let issued = claims.get("iat").and_then(numeric_date);
        let forgotten = issued.zip(self.issued_within).map(|(issued, within)| issued.saturating_add(within));
        // The leeway is for clocks, which have nothing to do with it.
        let expires = forgotten.map_or(expires, |end| expires.min(end.saturating_sub(self.leeway)));
        let Some(max_age) = self.max_age else { return Ok(Validity { not_before, expires, generation, secret }) };
        let issued = issued.ok_or(Failure::TokenExpired)?;
        Ok(Validity {
            not_before: Some(not_before.unwrap_or(issued).max(issued)),
            expires: expires.min(issued.saturating_add(max_age).saturating_add(1)),
            generation,
            secret,
        })
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
            remembered.retain(|_, other| other.expires > now.unix() && other.generation == validity.generation);
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
