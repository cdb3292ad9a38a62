//! What the grammar alone cannot say: that the parts of a profile fit together.

use super::Auth;
use super::Condition;
use super::Function;
use super::Holder;
use super::Jwt;
use super::KeyEncoding;
use super::KeyForm;
use super::Piece;
use super::Place;
use super::Profile;
use super::Scheme;
use super::Signature;
use super::Template;
use super::Test;
use super::TimestampPolicy;
use super::Verifier;
use crate::problem::closest;

/// What does not fit, and the key where that shows.
#[derive(Debug)]
pub(super) struct Wrong {
    path: Vec<String>,
    message: String,
}

impl Wrong {
    /// The message with the line in which it shows, written as the TOML library does.
    pub(super) fn shown_in(&self, text: &str) -> String {
        let Some(start) = span(text, &self.path) else { return self.message.clone() };
        let before = text.get(..start).unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default();
        let width = number.to_string().len();
        format!(
            "TOML parse error at line {number}, column {column}\n{:width$} |\n{number} | {line}\n{:width$} | {:>column$}\n{}\n",
            "", "", "^", self.message
        )
    }
}

/// Where the value stands to which the keys lead, or the last of them that is there.
fn span(text: &str, path: &[String]) -> Option<usize> {
    use toml::de::DeValue;
    let document = toml::de::DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut found = None;
    for key in path {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref().as_ref() == key.as_str()) else { break };
        found = Some(name.span().start);
        let mut value = value.get_ref();
        // Of a list of tables the last one is as good as any: the message says which is meant.
        if let DeValue::Array(items) = value
            && let Some(last) = items.iter().last()
        {
            value = last.get_ref();
        }
        let DeValue::Table(inner) = value else { break };
        table = inner;
    }
    found
}

fn wrong(path: &[&str], message: impl Into<String>) -> Result<(), Wrong> {
    Err(Wrong { path: path.iter().map(|key| (*key).to_owned()).collect(), message: message.into() })
}

/// Whether the parts fit together.
pub(super) fn validate(profile: &Profile) -> Result<(), Wrong> {
    timestamp(profile)?;
    let Auth { members, .. } = &profile.auth;
    for member in members {
        match &member.scheme {
            Scheme::Signature(said) => signature(profile, said)?,
            Scheme::Token(token) => {
                place(&token.from.place, &["auth"], true)?;
                key(&token.key, &[KeyEncoding::Text], &["auth"])?;
            }
            Scheme::Basic(basic) => key(&basic.key, &[KeyEncoding::Text], &["auth"])?,
            Scheme::Jwt(said) => jwt(profile, said)?,
        }
        for condition in member.when.iter().chain(&member.check) {
            check(profile, condition, &["auth"])?;
        }
    }
    for condition in &profile.require {
        check(profile, condition, &["require"])?;
    }
    for reference in std::iter::once(&profile.event.id).chain(&profile.event.kind) {
        for found in reference.places() {
            place(found, &["event"], false)?;
            texts(profile, &found.item.iter().map(|item| &item.key).collect::<Vec<_>>(), &["event"])?;
        }
    }
    if let Some(found) = &profile.event.nonce {
        place(found, &["event", "nonce"], false)?;
    }
    profile.handshakes.iter().try_for_each(|said| handshake(profile, said))
}

fn timestamp(profile: &Profile) -> Result<(), Wrong> {
    let Some(timestamp) = &profile.timestamp else { return Ok(()) };
    if timestamp.policy == TimestampPolicy::Enforce && timestamp.tolerance.is_none() {
        return wrong(
            &["timestamp"],
            "[timestamp] has no tolerance; write tolerance = \"5m\", or policy = \"record\" to only measure it",
        );
    }
    place(&timestamp.from, &["timestamp", "from"], false)
}

fn signature(profile: &Profile, said: &Signature) -> Result<(), Wrong> {
    let (path, encodings): (_, &[_]) = match said.verifier {
        Verifier::Hmac(_) => (["auth", "hmac"], &[KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex]),
        Verifier::Ed25519 => (["auth", "ed25519"], &[KeyEncoding::Hex, KeyEncoding::Base64, KeyEncoding::Spki]),
        Verifier::Ecdsa(_) => (["auth", "ecdsa"], &[KeyEncoding::Spki]),
        Verifier::Rsa(_) | Verifier::Certificate(..) => (["auth", "rsa"], &[KeyEncoding::Spki]),
    };
    key(&said.key, encodings, &path)?;
    if said.key.derive.is_some() && !matches!(said.verifier, Verifier::Hmac(_)) {
        return wrong(&path, "derive makes the key of an HMAC from the secret; a public key is taken as it is");
    }
    place(&said.place.place, &[path[0], path[1], "signature"], false)?;
    texts(profile, &said.place.place.item.iter().map(|item| &item.key).collect::<Vec<_>>(), &path)?;
    for signed in &said.signed {
        let path = [path[0], path[1], "signed"];
        template(profile, signed, false, &path)?;
        if !signed.covers_anything() {
            return wrong(
                &path,
                format!(
                    "{signed:?} covers nothing of the request; the usual template is \"{{body}}\"",
                    signed = signed.to_string()
                ),
            );
        }
        if signed.walk().any(|piece| matches!(piece, Piece::Item(_))) && said.place.place.item.is_none() {
            return wrong(
                &path,
                "{item:…} is an entry of the list that the signature stands in, but the signature has no item",
            );
        }
    }
    if let Verifier::Certificate(_, certificate) = &said.verifier {
        place(&certificate.from, &[path[0], path[1], "certificate"], false)?;
        texts(profile, &[&certificate.hosts], &[path[0], path[1], "certificate"])?;
    }
    Ok(())
}

fn jwt(profile: &Profile, said: &Jwt) -> Result<(), Wrong> {
    let path = ["auth", "jwt"];
    key(&said.key, &[KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex], &path)?;
    if let Some(from) = &said.from {
        place(&from.place, &path, false)?;
    }
    let texts_in_claims =
        said.claims.values().filter_map(|value| if let toml::Value::String(text) = value { Some(text) } else { None });
    texts(profile, &said.issuer.iter().chain(said.audience.iter()).chain(texts_in_claims).collect::<Vec<_>>(), &path)?;
    let audience = said.audience.iter().next().is_some() || profile.params.contains_key("audience");
    if !audience && said.body.is_none() {
        return wrong(
            &path,
            "[auth.jwt] takes any token of the issuer; declare [params.audience], write audience = \"…\", or body = { claim = \
             \"…\", encoding = \"hex\" } where the token binds the body",
        );
    }
    if said.algorithm.is_symmetric() && profile.fetches_keys() {
        return wrong(
            &path,
            format!("{} is verified with a shared secret; it has no jwks_url", said.algorithm.title()),
        );
    }
    Ok(())
}

fn key(said: &KeyForm, encodings: &[KeyEncoding], path: &[&str]) -> Result<(), Wrong> {
    if let Some(encoding) = said.encoding
        && !encodings.contains(&encoding)
    {
        let names: Vec<_> = encodings.iter().map(|known| format!("{known:?}").to_lowercase()).collect();
        return wrong(
            path,
            format!(
                "key: encoding {:?} does not fit this scheme; it takes {}",
                format!("{encoding:?}").to_lowercase(),
                names.join(", ")
            ),
        );
    }
    if said.only_prefixed && said.prefix.is_none() {
        return wrong(path, "key: only_prefixed goes with prefix");
    }
    Ok(())
}

/// `each`: whether a pointer may lead to several values.
fn place(found: &Place, path: &[&str], each: bool) -> Result<(), Wrong> {
    match &found.holder {
        Holder::Json(pointer) if pointer.is_each() && !each => {
            wrong(path, format!("{pointer} leads to several values; only [auth.token] compares each of them"))
        }
        Holder::Header(_) | Holder::Numbered(_) | Holder::Json(_) | Holder::Form(_) | Holder::Query(_) => Ok(()),
    }
}

fn check(profile: &Profile, condition: &Condition, path: &[&str]) -> Result<(), Wrong> {
    place(&condition.place, path, false)?;
    match &condition.test {
        Test::Equals(expected) => template(profile, expected, false, path),
        Test::Present | Test::Absent | Test::Length(..) => Ok(()),
    }
}

fn handshake(profile: &Profile, said: &super::Handshake) -> Result<(), Wrong> {
    let path = ["handshake"];
    for condition in said.when.iter().chain(&said.check) {
        check(profile, condition, &path)?;
    }
    if let Some(visit) = &said.visit {
        place(&visit.from, &path, false)?;
        texts(profile, &[&visit.hosts], &path)?;
    }
    if said.reply.text.is_some() && said.reply.json.is_some() {
        return wrong(&path, "reply has both text and json; it has one body");
    }
    for name in said.reply.headers.keys() {
        if http::HeaderName::try_from(name).is_err() {
            return wrong(&path, format!("{name:?} is not a header name"));
        }
    }
    let json = said.reply.json.iter().flat_map(|members| members.values());
    let json = json.filter_map(|value| if let super::Json::Text(text) = value { Some(text) } else { None });
    let mut templates = said.reply.text.iter().chain(said.reply.headers.values()).chain(json);
    templates.try_for_each(|text| template(profile, text, true, &path))
}

/// `reply`: whether it is part of a handshake's answer, where the secret may be computed with.
fn template(profile: &Profile, said: &Template, reply: bool, path: &[&str]) -> Result<(), Wrong> {
    for piece in said.walk() {
        match piece {
            Piece::Timestamp if profile.timestamp.is_none() => {
                return wrong(path, "{timestamp} is used, but there is no [timestamp] that says where it is");
            }
            Piece::Timestamp if reply => return wrong(path, "{timestamp} belongs into signed"),
            Piece::Url | Piece::UrlWithPort if !profile.params.contains_key("url") => {
                return wrong(path, "{url} is a parameter; declare it as [params.url]");
            }
            Piece::Param(name) => param(profile, name, path)?,
            Piece::Call(Function::Hmac(..), _) if !reply => {
                return wrong(
                    path,
                    "hmac_… signs the reply of a handshake; what [auth.hmac] hashes is written without it",
                );
            }
            Piece::Call(Function::Hmac(..), _) if !profile.needs_secrets() || profile.keys_are_public() => {
                return wrong(path, "hmac_… needs a secret, and this profile has none");
            }
            Piece::Place(found) | Piece::Optional(found) => place(found, path, false)?,
            Piece::Literal(_) | Piece::Body | Piece::Timestamp | Piece::Method | Piece::Url | Piece::UrlWithPort => {}
            Piece::Query | Piece::SortedForm | Piece::Item(_) | Piece::Call(..) => {}
        }
    }
    Ok(())
}

fn param(profile: &Profile, name: &str, path: &[&str]) -> Result<(), Wrong> {
    const VARIABLES: &[&str] = &["body", "timestamp", "method", "url", "url_with_port", "query", "sorted_form"];
    if profile.params.contains_key(name) {
        return Ok(());
    }
    let declared = profile.params.keys().map(String::as_str);
    let hint = match closest(name, VARIABLES.iter().copied().chain(declared)) {
        Some(near) => format!("did you mean {{{near}}}?"),
        None => format!("a parameter is declared as [params.{name}]"),
    };
    wrong(path, format!("{{{name}}} is neither a variable nor a parameter of this profile; {hint}"))
}

/// Texts in which `{name}` stands for a parameter, and nothing else for anything.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is read from requests is wrong here")]
fn texts(profile: &Profile, texts: &[&String], path: &[&str]) -> Result<(), Wrong> {
    for text in texts {
        let parsed: Template = match text.parse() {
            Ok(parsed) => parsed,
            Err(message) => return wrong(path, message),
        };
        for piece in parsed.walk() {
            match piece {
                Piece::Literal(_) => {}
                Piece::Param(name) => param(profile, name, path)?,
                Piece::Url => param(profile, "url", path)?,
                other => return wrong(path, format!("{other} cannot stand in {text:?}, which takes parameters only")),
            }
        }
    }
    Ok(())
}
