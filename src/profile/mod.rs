//! Profiles: descriptions of providers' webhooks in TOML, without secrets and without anything of one installation.
//!
//! This module parses and validates them; [`crate::verify`], [`crate::verify::handshake`] and
//! [`crate::verify::identity`] apply them. They are parsed with `toml` directly, whose errors have line, column and
//! caret.

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
    /// Which bytes of a compressed body are signed; either may be when absent.
    pub content_encoding: Option<ContentEncoding>,
    /// How a request proves that it comes from the provider.
    pub auth: Auth,
    /// Conditions that have to hold besides the proof.
    #[serde(default)]
    pub require: Vec<Condition>,
    /// The time of the request and how it is judged; absent when the provider sends none.
    pub timestamp: Option<Timestamp>,
    /// Where the event's identity is.
    pub event: Event,
    /// The probes that the gateway answers itself, tried in this order.
    #[serde(default, rename = "handshake")]
    pub handshakes: Vec<Handshake>,
    /// The statuses this provider expects.
    #[serde(default)]
    pub answers: Answers,
    /// The limits that the provider's requests keep to.
    #[serde(default)]
    pub limits: Limits,
    /// What is known of the provider's deliveries; for people and for defaults.
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
    /// What it is, for the person who has to fill it in.
    pub about: String,
    /// The value when the source gives none; `{name}` stands for another parameter.
    pub default: Option<String>,
}

/// `[sample]`: an event as the provider documents it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [sample]")]
pub struct Sample {
    /// The body; id, type and time are set in it before it is signed.
    pub body: Option<String>,
    /// Headers besides those that the profile reads.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The query, without its question mark.
    pub query: Option<String>,
}

impl Profile {
    /// Reads one profile file.
    ///
    /// # Errors
    /// What is wrong, with line, column and caret, for whoever wrote the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut profile: Self = toml::from_str(text).map_err(|error| deserialize::explained(text, &error))?;
        validate::validate(&profile)
            .and_then(|()| ineffective_keys::refuse(&profile))
            .and_then(|()| ambiguity::prove(&mut profile))
            .map_err(|wrong| wrong.shown_in(text))?;
        Ok(profile)
    }

    /// All warnings about it.
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

    /// What the source's secrets are, one for each scheme that takes any.
    pub fn keys(&self) -> impl Iterator<Item = &KeyForm> {
        self.schemes().filter_map(|scheme| scheme.key(self.fetches_keys()))
    }

    /// Whether a source with this profile must have `secrets`.
    pub fn needs_secrets(&self) -> bool {
        self.keys().next().is_some()
    }

    /// Whether all that stands in `secrets` is public.
    pub fn keys_are_public(&self) -> bool {
        self.schemes().all(Scheme::is_asymmetric)
    }

    /// Whether anything is made of the bytes of the body, so that they have to be the signed ones.
    pub fn signs_bytes_of_body(&self) -> bool {
        self.signs_pieces(|piece| *piece == Piece::Body)
            || self.schemes().any(|scheme| matches!(scheme, Scheme::Jwt(jwt) if jwt.body.is_some()))
    }

    fn signs_pieces(&self, of: impl Fn(&Piece) -> bool) -> bool {
        let members = &self.auth.members;
        let conditions =
            self.require.iter().chain(members.iter().flat_map(|member| member.when.iter().chain(&member.check)));
        let expected = conditions
            .filter_map(|condition| if let Test::Equals(template) = &condition.test { Some(template) } else { None });
        self.schemes().flat_map(Scheme::signed).chain(expected).flat_map(Template::walk).any(of)
    }

    /// Whether a proof may be made of what a compressed body was before its compression, but for values of its JSON.
    pub fn signs_before_compression(&self) -> bool {
        let plain = self.signed_when_compressed().contains(&ContentEncoding::SignedPlain);
        plain && (self.signs_bytes_of_body() || self.signs_pieces(|piece| *piece == Piece::SortedForm))
    }

    /// In which ways a compressed body may be signed, in the order in which they are tried. Where the signature is over
    /// values of the body and not over its bytes, anybody can compress it in another way: then only what is read
    /// counts.
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

    /// Whether the query of requests is signed, as something of its own.
    pub fn signs_query(&self) -> bool {
        self.schemes().flat_map(Scheme::signed).flat_map(Template::walk).any(|piece| *piece == Piece::Query)
    }

    /// Whether no verified request can have another query than the provider sent: whatever is enough to verify it signs
    /// the query as a whole.
    pub fn signs_whole_query(&self) -> bool {
        // None of its parameters is called so.
        let whole = Location { carrier: Carrier::Query(String::new()), item: None };
        let signs = |member: &Member| self.signs(&member.scheme, &whole);
        match self.auth.combination {
            Combination::All => self.auth.members.iter().any(|member| !member.optional && signs(member)),
            Combination::First => self.auth.members.iter().all(signs),
        }
    }

    /// Whether everything that is signed has the address of the endpoint in it.
    pub fn signs_address(&self) -> bool {
        let address =
            |signed: &Template| signed.certain().any(|piece| matches!(piece, Piece::Url | Piece::UrlWithPort));
        self.schemes().all(|scheme| !scheme.signed().is_empty() && scheme.signed().iter().all(address))
    }

    /// Whether the timestamp is under any member's signature.
    pub fn signs_timestamp(&self) -> bool {
        self.timestamp
            .as_ref()
            .is_some_and(|timestamp| self.schemes().any(|scheme| self.signs(scheme, &timestamp.from)))
    }

    /// Why it does no harm that what is signed can be read in more than one way, scheme by scheme.
    pub fn ambiguities(&self) -> impl Iterator<Item = &str> {
        self.schemes().filter_map(|scheme| match scheme {
            Scheme::Signature(signature) => signature.ambiguous.as_deref(),
            Scheme::Token(_) | Scheme::Basic(_) | Scheme::Jwt(_) => None,
        })
    }

    /// Whether everything that the reference may be read from is covered.
    pub fn covers_all(&self, scheme: &Scheme, reference: &Reference) -> bool {
        let covers = |location| self.covers(scheme, location);
        // The digest of the body changes with the body: it is covered as the body is.
        let body = Location { carrier: Carrier::Form(String::new()), item: None };
        reference.locations().into_iter().all(covers) && (!reference.may_be_digest() || covers(&body))
    }

    /// Whether the scheme's signature covers what `place` holds, so that nobody but the provider can change it.
    pub fn covers(&self, scheme: &Scheme, location: &Location) -> bool {
        let one_reading = if let Scheme::Signature(signature) = scheme { signature.one_reading } else { true };
        one_reading && self.signs(scheme, location)
    }

    /// Whether what the scheme signs has in it what `place` holds; where that can be read in more than one way,
    /// somebody may have cut it out of other values.
    pub fn signs(&self, scheme: &Scheme, location: &Location) -> bool {
        let timestamp = self.timestamp.as_ref().map(|timestamp| &timestamp.from);
        match scheme {
            // Every variant of what is signed has to have it.
            Scheme::Signature(signature) => {
                let list = &signature.location.location.carrier;
                let covered = |piece: &Piece| piece.covers(location, timestamp, list);
                signature.signed.iter().all(|signed| signed.certain().any(covered))
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
