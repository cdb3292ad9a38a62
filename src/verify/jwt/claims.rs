//! The claims of a JWT: which values they must have, and the period of validity.

use serde_json::Value;
use sha2::Digest as _;
use sha2::Sha256;

use super::decode::numeric_date;
use crate::base::time::Moment;
use crate::extract::params;
use crate::extract::params::Params;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::BodyClaim;
use crate::verify::Failure;

/// The claims of a token, by name.
pub(super) type Claims = serde_json::Map<String, Value>;

/// The rules for the claims of tokens. Times are in seconds.
#[derive(Debug)]
pub(super) struct ClaimRules {
    leeway: i64,
    max_age: Option<i64>,
    /// `None` where any issuer is accepted.
    issuers: Option<Vec<String>>,
    audiences: Option<Vec<String>>,
    claims: Vec<(String, Value)>,
    body: Option<BodyClaim>,
}

impl ClaimRules {
    /// The rules of a profile, with the parameters of a source.
    pub(super) fn new(jwt: &profile::Jwt, params: &Params) -> Self {
        let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let named = |texts: &[String], name: &str| {
            let texts: Vec<_> = texts.iter().map(|text| params::fill(text, params)).collect();
            let default = || params.get(name).map(|param| vec![param.clone()]);
            if texts.is_empty() { default() } else { Some(texts) }
        };
        let claim = |(name, value): (&String, &toml::Value)| {
            let value = match value.as_str() {
                Some(text) => Value::from(params::fill(text, params)),
                None => serde_json::to_value(value).unwrap_or_default(),
            };
            (name.clone(), value)
        };
        Self {
            leeway: seconds(jwt.leeway),
            max_age: jwt.max_age.map(seconds),
            issuers: named(&jwt.issuer, "issuer"),
            audiences: named(&jwt.audience, "audience"),
            claims: jwt.claims.iter().map(claim).collect(),
            body: jwt.body.clone(),
        }
    }

    /// The seconds by which clocks may differ.
    pub(super) fn leeway(&self) -> i64 {
        self.leeway
    }

    /// Whether a token is valid for one body only.
    pub(super) fn binds_body(&self) -> bool {
        self.body.is_some()
    }

    /// Checks the claims that do not depend on the time.
    pub(super) fn check(&self, claims: &Claims, inbound: &Inbound) -> Result<(), Failure> {
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
            let decoded = bound.encoding.decode(text.as_bytes(), &mut digest);
            let computed: [u8; 32] = Sha256::digest(inbound.signed()).into();
            if !decoded || aws_lc_rs::constant_time::verify_slices_are_equal(&digest, &computed).is_err() {
                return Err(Failure::TokenBody);
            }
        }
        Ok(())
    }

    /// The validity of a token with these claims. With `issued_within`, it also ends that many seconds after `iat`.
    pub(super) fn validity(&self, claims: &Claims, issued_within: Option<i64>) -> Result<Validity, Failure> {
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
        let records_expire = issued.zip(issued_within).map(|(issued, within)| issued.saturating_add(within));
        // `holds` adds the leeway again: there is none for the expiry of dedupe records.
        let expires = records_expire.map_or(expires, |end| expires.min(end.saturating_sub(self.leeway)));
        let Some(max_age) = self.max_age else { return Ok(Validity { not_before, expires }) };
        let issued = issued.ok_or(Failure::TokenExpired)?;
        Ok(Validity {
            not_before: Some(not_before.unwrap_or(issued).max(issued)),
            expires: expires.min(issued.saturating_add(max_age).saturating_add(1)),
        })
    }

    /// Checks that a token is valid now.
    pub(super) fn holds(&self, validity: Validity, now: Moment) -> Result<(), Failure> {
        if now.unix() >= validity.expires.saturating_add(self.leeway) {
            return Err(Failure::TokenExpired);
        }
        if validity.not_before.is_some_and(|moment| now.unix() < moment.saturating_sub(self.leeway)) {
            return Err(Failure::TokenNotYetValid);
        }
        Ok(())
    }
}

/// The period in which a token is valid, in Unix seconds, without the leeway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    not_before: Option<i64>,
    pub(super) expires: i64,
}
