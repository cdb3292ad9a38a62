//! Profiles: descriptions of providers' webhooks in TOML, without secrets or settings of an installation.
//!
//! This module parses and validates profiles. [`crate::verify`], [`crate::verify::handshake`] and
//! [`crate::verify::identity`] apply them. Errors have line, column and caret.

mod ambiguity;
mod answers;
mod auth;
mod condition;
mod content_encoding;
mod credentials;
mod deserialize;
mod duration;
mod encoding;
mod event;
mod facts;
mod finding;
mod handshake;
mod hash;
mod ineffective_keys;
mod library;
mod limits;
mod lint;
mod list_item;
mod location;
mod retried;
mod shipped;
mod template;
mod timestamp;
mod config_path;
mod validate;

use std::collections::BTreeMap;

use bytesize::ByteSize;
use serde::Deserialize;

pub use answers::Answer;
pub use answers::AnswerBody;
pub use answers::Answers;
pub use answers::Status;
pub use auth::Algorithm;
pub use auth::Auth;
pub use auth::Basic;
pub use auth::BodyClaim;
pub use auth::Certificate;
pub use auth::Combination;
pub use auth::EcdsaFormat;
pub use auth::Jwt;
pub use auth::KeyEncoding;
pub use auth::KeyForm;
pub use auth::Member;
pub use auth::Scheme;
pub use auth::Signature;
pub use auth::SignatureAlgorithm;
pub use auth::Token;
pub use condition::Condition;
pub use condition::Test;
pub use config_path::ConfigPath;
pub use content_encoding::ContentEncoding;
pub use credentials::Credentials;
pub use duration::Tolerance;
pub use encoding::Encoding;
pub use event::Event;
pub use event::Reference;
pub use event::ReplayGuard;
pub use facts::Facts;
pub use facts::Network;
pub use finding::Finding;
pub use handshake::Handshake;
pub use handshake::Json;
pub use handshake::Reply;
pub use handshake::Verb;
pub use handshake::Visit;
pub use hash::Hash;
pub use library::Profiles;
pub use limits::Limits;
pub use list_item::Item;
pub use location::Carrier;
pub use location::Location;
pub use location::PrefixedLocation;
pub use location::SignatureLocation;
pub use location::header_name;
pub use retried::Retried;
pub use template::Function;
pub use template::Part;
pub use template::Piece;
pub use template::Template;
pub use timestamp::Timestamp;
pub use timestamp::TimestampPolicy;

/// A profile file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The provider's name as people write it.
    pub title: String,
    /// The address of the provider's documentation of its webhooks; absent where it is not public.
    pub docs: Option<String>,
    /// The parameters that a source sets under `params`.
    #[serde(default)]
    pub params: BTreeMap<String, Param>,
    /// Which bytes of a compressed body are signed; when absent, both are tried.
    pub content_encoding: Option<ContentEncoding>,
    /// How a request proves that it comes from the provider.
    pub auth: Auth,
    /// Conditions that every request must meet in addition to the proof.
    #[serde(default)]
    pub require: Vec<Condition>,
    /// The time of the request and how it is checked; absent when the provider sends none.
    pub timestamp: Option<Timestamp>,
    /// The locations of the event's id and type.
    pub event: Event,
    /// The probes that the gateway answers itself, tried in this order.
    #[serde(default, rename = "handshake")]
    pub handshakes: Vec<Handshake>,
    /// The statuses and bodies that this provider expects.
    #[serde(default)]
    pub answers: Answers,
    /// Limits that all requests of the provider meet.
    #[serde(default)]
    pub limits: Limits,
    /// What the provider publishes about its deliveries, for people and for defaults.
    #[serde(default)]
    pub facts: Facts,
    /// An event as the provider documents it, for trials.
    #[serde(default)]
    pub sample: Sample,
}

/// A parameter that the profile takes from its source.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { about = \"the address as registered\" }")]
pub struct Param {
    /// What it is, for the operator who sets it.
    pub about: String,
    /// The value when the source sets none; `{name}` is replaced by another parameter.
    pub default: Option<String>,
}

/// `[sample]`: an event as the provider documents it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [sample]")]
pub struct Sample {
    /// The body. Its id, type and time are replaced before it is signed.
    pub body: Option<String>,
    /// Headers in addition to those that the profile reads.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The query, without its question mark.
    pub query: Option<String>,
}

impl Profile {
    /// Parses and validates a profile file.
    ///
    /// # Errors
    /// What is wrong, with line, column and caret, for the author of the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut profile: Self = toml::from_str(text).map_err(|error| deserialize::describe_error(text, &error))?;
        validate::validate(&profile)
            .and_then(|()| ineffective_keys::refuse(&profile))
            .and_then(|()| ambiguity::check_unambiguous(&mut profile))
            .map_err(|finding| finding.with_excerpt(text))?;
        Ok(profile)
    }

    /// All warnings about this profile.
    pub fn lints(&self) -> Vec<Finding> {
        lint::lints(self)
    }

    /// The schemes of all members.
    pub fn schemes(&self) -> impl Iterator<Item = &Scheme> {
        self.auth.members.iter().map(|member| &member.scheme)
    }

    /// Whether the keys of tokens are fetched from the address in the parameter `jwks_url`.
    pub fn fetches_keys(&self) -> bool {
        self.params.contains_key("jwks_url")
    }

    /// The form of the source's secrets, one for each scheme that takes any.
    pub fn keys(&self) -> impl Iterator<Item = &KeyForm> {
        self.schemes().filter_map(|scheme| scheme.key(self.fetches_keys()))
    }

    /// Whether a source with this profile must have `secrets`.
    pub fn needs_secrets(&self) -> bool {
        self.keys().next().is_some()
    }

    /// Whether `secrets` has only public keys.
    pub fn keys_are_public(&self) -> bool {
        self.schemes().all(Scheme::is_asymmetric)
    }

    /// Whether the bytes of the body are signed or compared, so that it matters whether they are compressed.
    pub fn signs_bytes_of_body(&self) -> bool {
        self.signs_pieces(|piece| *piece == Piece::Body)
            || self.schemes().any(|scheme| matches!(scheme, Scheme::Jwt(jwt) if jwt.body.is_some()))
    }

    /// Whether any piece that is signed or compared meets the predicate.
    fn signs_pieces(&self, predicate: impl Fn(&Piece) -> bool) -> bool {
        let members = &self.auth.members;
        let conditions =
            self.require.iter().chain(members.iter().flat_map(|member| member.when.iter().chain(&member.check)));
        let expected = conditions
            .filter_map(|condition| if let Test::Equals(template) = &condition.test { Some(template) } else { None });
        self.schemes().flat_map(Scheme::signed).chain(expected).flat_map(Template::walk).any(predicate)
    }

    /// Whether the proof may cover the decompressed body as a whole, and not only values of its JSON.
    pub fn signs_before_compression(&self) -> bool {
        let plain = self.signed_when_compressed().contains(&ContentEncoding::SignedPlain);
        plain && (self.signs_bytes_of_body() || self.signs_pieces(|piece| *piece == Piece::SortedForm))
    }

    /// In which ways a compressed body may be signed, in the order in which they are tried. A signature over values of
    /// the body, and not over its bytes, does not cover the compression: then only the decompressed body counts.
    pub fn signed_when_compressed(&self) -> Vec<ContentEncoding> {
        match self.content_encoding {
            Some(encoding) => vec![encoding],
            None if self.signs_bytes_of_body() => vec![ContentEncoding::SignedAsSent, ContentEncoding::SignedPlain],
            None => vec![ContentEncoding::SignedPlain],
        }
    }

    /// The largest body that the provider sends, as far as it is known.
    pub fn largest_body(&self) -> Option<ByteSize> {
        self.facts.max_body.or(self.limits.max_body)
    }

    /// Whether the query is signed, on its own and not only as a part of the address.
    pub fn signs_query(&self) -> bool {
        self.schemes().flat_map(Scheme::signed).flat_map(Template::walk).any(|piece| *piece == Piece::Query)
    }

    /// Whether the query of every verified request is the one that the provider sent: each set of schemes that is
    /// enough to verify a request signs the whole query.
    pub fn signs_whole_query(&self) -> bool {
        // No signed parameter has an empty name, so only `{query}` covers this location.
        let whole = Location { carrier: Carrier::Query(String::new()), item: None };
        let signs = |member: &Member| self.signs(&member.scheme, &whole);
        match self.auth.combination {
            Combination::All => self.auth.members.iter().any(|member| !member.optional && signs(member)),
            Combination::First => self.auth.members.iter().all(signs),
        }
    }

    /// Whether every signed text has the address of the endpoint in it.
    pub fn signs_address(&self) -> bool {
        let address = |signed: &Template| {
            signed.unconditional_pieces().any(|piece| matches!(piece, Piece::Url | Piece::UrlWithPort))
        };
        self.schemes().all(|scheme| !scheme.signed().is_empty() && scheme.signed().iter().all(address))
    }

    /// Whether any member signs the timestamp.
    pub fn signs_timestamp(&self) -> bool {
        self.timestamp
            .as_ref()
            .is_some_and(|timestamp| self.schemes().any(|scheme| self.signs(scheme, &timestamp.from)))
    }

    /// The profile's reasons why ambiguous signed texts do no harm, one for each scheme that has any.
    pub fn ambiguities(&self) -> impl Iterator<Item = &str> {
        self.schemes().filter_map(|scheme| match scheme {
            Scheme::Signature(signature) => signature.ambiguous.as_deref(),
            Scheme::Token(_) | Scheme::Basic(_) | Scheme::Jwt(_) => None,
        })
    }

    /// Whether the scheme covers all locations that the reference may be read from.
    pub fn covers_all(&self, scheme: &Scheme, reference: &Reference) -> bool {
        let covers = |location| self.covers(scheme, location);
        // A digest of the body is covered if the body is. No form field has an empty name, so only `{body}` covers
        // this.
        let body = Location { carrier: Carrier::Form(String::new()), item: None };
        reference.locations().into_iter().all(covers) && (!reference.may_be_digest() || covers(&body))
    }

    /// Whether the scheme's signature covers the value at `location`, so that only the provider can change it.
    pub fn covers(&self, scheme: &Scheme, location: &Location) -> bool {
        let unambiguous = if let Scheme::Signature(signature) = scheme { signature.unambiguous } else { true };
        unambiguous && self.signs(scheme, location)
    }

    /// Whether the value at `location` is in the text that the scheme signs. If that text is ambiguous, an attacker may
    /// have moved bytes from one value to another; see [`Self::covers`].
    pub fn signs(&self, scheme: &Scheme, location: &Location) -> bool {
        let timestamp = self.timestamp.as_ref().map(|timestamp| &timestamp.from);
        match scheme {
            // All alternatives of the signed text must have it.
            Scheme::Signature(signature) => {
                let list = &signature.location.location.carrier;
                let covered = |piece: &Piece| piece.covers(location, timestamp, list);
                signature.signed.iter().all(|signed| signed.unconditional_pieces().any(covered))
            }
            Scheme::Jwt(jwt) => jwt.body.is_some() && location.is_in_body(),
            Scheme::Token(_) | Scheme::Basic(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_parses() {
        let wrong =
            shipped::FILES.iter().filter_map(|(name, text)| Some(format!("{name}: {}", Profile::parse(text).err()?)));
        assert_eq!(wrong.collect::<Vec<_>>().join("\n"), "");
        assert_eq!(Profiles::shipped().iter().count(), shipped::FILES.len());
    }

    #[test]
    fn only_twilio_signs_the_query_that_a_request_has() {
        let profiles = Profiles::shipped();
        let names = profiles.iter().filter(|(_, profile)| profile.signs_whole_query()).map(|(name, _)| name);
        assert_eq!(names.collect::<Vec<_>>(), ["twilio"]);
    }

    #[test]
    fn every_shipped_profile_says_for_how_long_its_provider_tries_again() {
        for (name, profile) in Profiles::shipped().iter() {
            let facts = &profile.facts;
            let retries = facts.retries.as_deref().unwrap_or_else(|| panic!("{name} says nothing of retries"));
            let says = |words: &[&str]| words.iter().any(|words| retries.to_lowercase().contains(words));
            let none = facts.retried.as_ref().is_some_and(Retried::is_nothing);
            let horizon = facts.horizon.is_some() || none || says(&["not published", "up to the sender"]);
            assert!(horizon, "{name} says neither a horizon nor that there is none: {retries}");
            let deadline = facts.deadline.is_some() || says(&["deadline"]);
            assert!(deadline, "{name} says neither a deadline nor that there is none: {retries}");
        }
    }

    #[test]
    fn errors_point_at_the_place_and_name_the_alternatives() {
        let wrong =
            "title = \"X\"\n[auth.hmac]\nsignatures = 1\nsigned = \"{body}\"\n[event]\nid = { json = \"/id\" }\n";
        let message = Profile::parse(wrong).expect_err("an unknown key");
        assert!(message.contains("line 3") && message.contains("`signature`"), "{message}");
    }
}
