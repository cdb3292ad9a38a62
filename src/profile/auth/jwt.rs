//! `[auth.jwt]`: which JWTs (RFC 7519) prove a request, and their location in it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::KeyForm;
use crate::profile::Encoding;
use crate::profile::deserialize;
use crate::profile::duration;
use crate::profile::location::PrefixedLocation;

/// `[auth.jwt]`. A token must have `exp`, unless `max_age` is set. `exp` and `nbf` are checked whenever present.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [auth.jwt]")]
pub struct Jwt {
    /// The one algorithm that is accepted, whatever the token says.
    pub algorithm: Algorithm,
    /// The location of the token. Default: the bearer token of `Authorization` (RFC 6750).
    pub from: Option<PrefixedLocation>,
    /// How the text of a secret becomes the key, for a configured key.
    #[serde(default)]
    pub key: KeyForm,
    /// The accepted issuers. Default: the parameter `issuer`.
    #[serde(default, deserialize_with = "deserialize::strings")]
    pub issuer: Vec<String>,
    /// The accepted audiences. Default: the parameter `audience`.
    #[serde(default, deserialize_with = "deserialize::strings")]
    pub audience: Vec<String>,
    /// The allowed difference between the issuer's clock and the gateway's. Default: 10 s.
    #[serde(default = "default_leeway", deserialize_with = "duration::required")]
    pub leeway: Duration,
    /// How long after `iat` the token is accepted.
    #[serde(default, deserialize_with = "duration::optional")]
    pub max_age: Option<Duration>,
    /// Claims with the value that each must have; `{name}` in a text is replaced by a parameter.
    #[serde(default)]
    pub claims: BTreeMap<String, toml::Value>,
    /// The claim with the digest of the body.
    pub body: Option<BodyClaim>,
}

fn default_leeway() -> Duration {
    Duration::from_secs(10)
}

/// A claim that is the SHA-256 of the body.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { claim = \"body_sha256\", encoding = \"hex\" }")]
pub struct BodyClaim {
    /// The name of the claim.
    pub claim: String,
    /// How the digest is written.
    pub encoding: Encoding,
}

/// Signature algorithms of JWTs (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[expect(missing_docs, reason = "the names are the registered ones")]
pub enum Algorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "RS384")]
    Rs384,
    #[serde(rename = "RS512")]
    Rs512,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "PS384")]
    Ps384,
    #[serde(rename = "PS512")]
    Ps512,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "HS384")]
    Hs384,
    #[serde(rename = "HS512")]
    Hs512,
}

impl Algorithm {
    /// The registered name.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    /// Whether the key is a shared secret.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}
