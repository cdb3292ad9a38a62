//! Profiles: what a provider says about its webhooks, as TOML. Holds no secret and nothing of one installation.
//!
//! This module reads the language; what a profile means is decided where it is used: [`crate::auth`] and
//! [`crate::event`]. Profiles are read with `toml` directly, which points at line, column and caret.

mod library;
mod place;
mod shipped;
mod template;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::time::Format;

pub use library::Profiles;
pub use place::Encoding;
pub use place::HeaderPlace;
pub use place::Item;
pub use place::Place;
pub use place::SignaturePlace;
pub use template::Piece;
pub use template::Template;

/// What one profile file says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The provider's name as people write it.
    pub title: String,
    /// The provider's own page about its webhooks; absent where it has no public address.
    pub docs: Option<String>,
    /// What a source must set under `params`, and what for.
    #[serde(default)]
    pub params: BTreeMap<String, Param>,
    /// How a request proves that it comes from the provider.
    pub auth: Auth,
    /// The time of the request and how it is judged; absent when the provider sends none.
    pub timestamp: Option<Timestamp>,
    /// Where the event's identity is.
    pub event: Event,
    /// The statuses this provider expects.
    #[serde(default)]
    pub answers: Answers,
    /// What is known of the provider's deliveries; for people and for defaults.
    #[serde(default)]
    pub facts: Facts,
}

/// A parameter that the profile takes from its source.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// What it is, for the person who has to fill it in.
    pub about: String,
    /// The value when the source gives none; `{name}` stands for another parameter.
    pub default: Option<String>,
}

/// The scheme; exactly one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// A keyed hash of the request (RFC 2104).
    Hmac(Hmac),
    /// A signed token whose keys are published as a JWK set (RFC 7519, RFC 7517).
    Jwt(Jwt),
}

impl Auth {
    /// The scheme in one word or two.
    pub fn scheme(&self) -> String {
        match self {
            Self::Hmac(hmac) => format!("HMAC-{}", hmac.hash.title()),
            Self::Jwt(jwt) => format!("JWT {}", jwt.algorithm.title()),
        }
    }
}

/// `[auth.hmac]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hmac {
    /// The hash; SHA-256 unless said otherwise.
    #[serde(default)]
    pub hash: Hash,
    /// How the secret's text becomes the key; as it stands unless said otherwise.
    #[serde(default)]
    pub key: KeyForm,
    /// Where the signature is and how it is written.
    pub signature: SignaturePlace,
    /// The bytes that are signed.
    pub signed: Template,
}

/// Hash functions that providers still use inside HMAC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// FIPS 180-4 SHA-256.
    #[default]
    Sha256,
    /// FIPS 180-4 SHA-512.
    Sha512,
    /// FIPS 180-4 SHA-1, which still holds inside HMAC (RFC 6194 section 3.3).
    Sha1,
}

impl Hash {
    /// The name as standards write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
            Self::Sha1 => "SHA1",
        }
    }
}

/// How the text of a secret becomes key bytes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyForm {
    /// The encoding; `text` takes the secret's bytes as they stand, whatever they look like.
    #[serde(default)]
    pub encoding: KeyEncoding,
    /// Dropped from the front when it is there, before decoding (`whsec_` at Standard Webhooks).
    pub prefix: Option<String>,
}

/// What the text of a secret is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// The key itself.
    #[default]
    Text,
    /// RFC 4648 section 4, with or without padding.
    Base64,
    /// RFC 4648 section 8, either case.
    Hex,
}

/// `[auth.jwt]`: a bearer token (RFC 6750) checked against the keys at the `jwks_url` parameter, the `issuer` and the
/// `audience` parameter; `exp` must be there and hold, `nbf` must hold where it is there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The one algorithm that is accepted, whatever the token says.
    pub algorithm: Algorithm,
    /// Allowed difference between the issuer's clock and ours; 10 s unless said otherwise.
    #[serde(default = "default_leeway", with = "seconds")]
    pub leeway: Duration,
}

fn default_leeway() -> Duration {
    Duration::from_secs(10)
}

/// Signature algorithms (RFC 7518 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
}

impl Algorithm {
    /// The registered name.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// `[timestamp]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// Where it is.
    pub from: Place,
    /// How it is written.
    pub format: Format,
    /// Allowed distance from now, into the past and into the future; needed unless only recorded.
    #[serde(default, with = "optional_seconds")]
    pub tolerance: Option<Duration>,
    /// What happens to a request outside the tolerance.
    #[serde(default)]
    pub policy: TimestampPolicy,
}

/// Whether the time decides anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampPolicy {
    /// It must be there, be readable and lie within the tolerance.
    #[default]
    Enforce,
    /// Its distance from now is measured, and that is all.
    Record,
}

/// `[event]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// What stays the same over all attempts of one event and differs between events.
    pub id: Place,
    /// The event's type, which `events` of a source selects by.
    #[serde(rename = "type")]
    pub kind: Option<Place>,
}

/// `[answers]`: the statuses of each outcome.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// For events that were taken; 200 unless said otherwise.
    pub accepted: Option<Status<200, 299>>,
    /// For requests that could not be authenticated; 401 unless said otherwise.
    pub refused: Option<Status<400, 499>>,
    /// The one status that makes the provider try again, where not every 5xx does; then it also replaces 502 and 504.
    pub retry: Option<Status<400, 599>>,
}

/// An HTTP status within a range (RFC 9110 section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub struct Status<const MIN: u16, const MAX: u16>(u16);

impl<const MIN: u16, const MAX: u16> Status<MIN, MAX> {
    /// The number.
    pub fn code(self) -> u16 {
        self.0
    }
}

impl<const MIN: u16, const MAX: u16> TryFrom<u16> for Status<MIN, MAX> {
    type Error = String;

    fn try_from(code: u16) -> Result<Self, String> {
        if (MIN..=MAX).contains(&code) {
            Ok(Self(code))
        } else {
            Err(format!("{code} is no status for this answer; it takes {MIN} to {MAX}"))
        }
    }
}

/// `[facts]`: what the provider publishes about its deliveries.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// How long the provider waits for the answer.
    #[serde(default, with = "optional_seconds")]
    pub deadline: Option<Duration>,
    /// How long after the first attempt the provider's last automatic one may come.
    #[serde(default, with = "optional_seconds")]
    pub horizon: Option<Duration>,
    /// When and how often it tries again, in words.
    pub retries: Option<String>,
    /// What an operator should know, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

mod optional_seconds {
    use std::time::Duration;

    use serde::Deserialize;
    use serde::Deserializer;
    use serde::de::Error;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map(Some)
            .map_err(|error| D::Error::custom(format_args!("{text:?} is not a duration such as \"5m\": {error}")))
    }
}

mod seconds {
    use std::time::Duration;

    use serde::Deserializer;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::optional_seconds::deserialize(deserializer).map(Option::unwrap_or_default)
    }
}

impl Profile {
    /// Reads one profile file.
    ///
    /// # Errors
    /// What is wrong, with line, column and caret, for whoever wrote the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let profile: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if let Some(timestamp) = &profile.timestamp
            && timestamp.policy == TimestampPolicy::Enforce
            && timestamp.tolerance.is_none()
        {
            return Err("[timestamp] has no tolerance; write tolerance = \"5m\", or policy = \"record\" to \
                        only measure it"
                .to_owned());
        }
        if profile.timestamp.is_none() && profile.signs_timestamp() {
            return Err("signed uses {timestamp}, but there is no [timestamp] that says where it is".to_owned());
        }
        if let Auth::Jwt(_) = profile.auth {
            for needed in ["issuer", "audience", "jwks_url"] {
                if !profile.params.contains_key(needed) {
                    return Err(format!("[auth.jwt] needs the parameter {needed:?}; declare it as [params.{needed}]"));
                }
            }
        }
        Ok(profile)
    }

    /// Whether the timestamp is part of what is signed.
    pub fn signs_timestamp(&self) -> bool {
        match &self.auth {
            Auth::Hmac(hmac) => hmac.signed.pieces().iter().any(|piece| matches!(piece, Piece::Timestamp)),
            Auth::Jwt(_) => false,
        }
    }

    /// Whether a source with this profile must have `secrets`.
    pub fn needs_secrets(&self) -> bool {
        match self.auth {
            Auth::Hmac(_) => true,
            Auth::Jwt(_) => false,
        }
    }

    /// Whether the signature covers what `place` holds, so that nobody but the provider can change it.
    pub fn covers(&self, place: &Place) -> bool {
        match &self.auth {
            Auth::Hmac(hmac) => hmac.signed.pieces().iter().any(|piece| match piece {
                Piece::Body => matches!(place, Place::Json(_)),
                Piece::Timestamp => self.timestamp.as_ref().is_some_and(|timestamp| timestamp.from == *place),
                Piece::Place(signed) => signed == place,
                Piece::Literal(_) => false,
            }),
            Auth::Jwt(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_parses() {
        for (name, text) in shipped::FILES {
            assert!(Profile::parse(text).is_ok(), "{name}: {:?}", Profile::parse(text).err());
        }
        assert_eq!(Profiles::shipped().iter().count(), shipped::FILES.len());
    }

    #[test]
    fn errors_point_at_the_place_and_name_the_alternatives() {
        let wrong =
            "title = \"X\"\n[auth.hmac]\nsignatures = 1\nsigned = \"{body}\"\n[event]\nid = { json = \"/id\" }\n";
        let message = Profile::parse(wrong).expect_err("an unknown key");
        assert!(message.contains("line 3") && message.contains("`signature`"), "{message}");
    }
}
