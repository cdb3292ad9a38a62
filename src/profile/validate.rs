//! Checks that the parts of a profile fit together, which the grammar alone cannot.

use super::Condition;
use super::Function;
use super::Handshake;
use super::Holder;
use super::Json;
use super::Jwt;
use super::KeyEncoding;
use super::KeyForm;
use super::Piece;
use super::Place;
use super::Profile;
use super::Reference;
use super::Scheme;
use super::Signature;
use super::Template;
use super::Test;
use super::TimestampPolicy;
use super::Trail;
use super::Verb;
use super::Verifier;
use super::template::VARIABLES;
use super::template::is_name;
use crate::base::problem::closest;

/// What does not fit, and where that shows.
#[derive(Debug)]
pub(super) struct Wrong {
    trail: Trail,
    message: String,
}

impl Wrong {
    pub(super) fn new(trail: &Trail, message: impl Into<String>) -> Self {
        Self { trail: trail.clone(), message: message.into() }
    }

    /// The message with the line in which it shows.
    pub(super) fn shown_in(&self, text: &str) -> String {
        self.trail.pointed(text, &self.message)
    }
}

fn wrong(trail: &Trail, message: impl Into<String>) -> Result<(), Wrong> {
    Err(Wrong::new(trail, message))
}

/// Whether the parts fit together.
pub(super) fn validate(profile: &Profile) -> Result<(), Wrong> {
    let unusable = |name: &&String| !is_name(name);
    if let Some(name) = profile.params.keys().find(unusable) {
        return wrong(
            &Trail::to(["params", name]),
            "a parameter is named with a to z, 0 to 9 and _: with another name, no template can have it",
        );
    }
    timestamp(profile)?;
    if profile.facts.max_body.is_some() && profile.limits.max_body.is_some() {
        return wrong(
            &Trail::to(["facts", "max_body"]),
            "facts.max_body is what the provider is known to send, and limits.max_body what it never sends more than: write one",
        );
    }
    if profile.content_encoding.is_some() && !profile.signs_bytes_of_body() {
        return wrong(
            &Trail::to(["content_encoding"]),
            "content_encoding says which bytes of a compressed body are signed, and this profile signs none of them; remove it",
        );
    }
    for (at, member) in profile.auth.members.iter().enumerate() {
        scheme(profile, &member.scheme, &Trail::member(at, member.scheme.table()))?;
        for (key, conditions) in [("when", &member.when), ("check", &member.check)] {
            checks(profile, conditions, &Trail::member(at, key))?;
        }
    }
    kinds_of_keys(profile)?;
    checks(profile, &profile.require, &Trail::to(["require"]))?;
    reference(profile, &profile.event.id, &Trail::to(["event", "id"]))?;
    if let Some(kind) = &profile.event.kind {
        let trail = Trail::to(["event", "type"]);
        reference(profile, kind, &trail)?;
        if kind.may_be_made_up() {
            return wrong(&trail, "a type is read from places; each, digest and unique tell no types apart");
        }
    }
    if let Some(found) = &profile.event.nonce {
        place(found, &Trail::to(["event", "nonce"]), false)?;
    }
    let handshakes = Trail::to(["handshake"]);
    profile.handshakes.iter().enumerate().try_for_each(|(at, said)| handshake(profile, said, &handshakes.item(at)))
}

fn reference(profile: &Profile, said: &Reference, trail: &Trail) -> Result<(), Wrong> {
    match said {
        Reference::Place(found) => {
            if let Holder::Json(pointer) = &found.holder
                && pointer.is_each()
            {
                return wrong(
                    trail,
                    format!("{pointer} leads to several values; an id of all of them is {{ each = \"{pointer}\" }}"),
                );
            }
            entry(profile, found, trail)
        }
        Reference::All(several) | Reference::First(several) => {
            several.iter().try_for_each(|one| reference(profile, one, trail))
        }
        Reference::Each(_) | Reference::BodyDigest | Reference::Unique => Ok(()),
    }
}

/// Whether public keys and shared secrets can be told apart, where a profile takes both.
fn kinds_of_keys(profile: &Profile) -> Result<(), Wrong> {
    let keyed = profile.schemes().filter_map(|scheme| Some((scheme, scheme.key(profile.fetches_keys())?)));
    let (public, shared): (Vec<_>, Vec<_>) = keyed.partition(|(scheme, _)| scheme.is_asymmetric());
    let marked = |keys: &[(&Scheme, &KeyForm)]| keys.iter().all(|(_, form)| form.only_prefixed);
    if public.is_empty() || shared.is_empty() || marked(&public) || marked(&shared) {
        return Ok(());
    }
    wrong(
        &Trail::to(["auth"]),
        "takes public keys and shared secrets, and does not say which is which: anybody could sign with a public key as the \
         secret; give the keys of one kind a prefix and only_prefixed = true",
    )
}

fn timestamp(profile: &Profile) -> Result<(), Wrong> {
    let Some(timestamp) = &profile.timestamp else { return Ok(()) };
    if timestamp.policy == TimestampPolicy::Enforce && timestamp.tolerance.is_none() {
        return wrong(
            &Trail::to(["timestamp"]),
            "[timestamp] has no tolerance; write tolerance = \"5m\", or policy = \"record\" to only measure it",
        );
    }
    place(&timestamp.from, &Trail::to(["timestamp", "from"]), false)
}

fn scheme(profile: &Profile, said: &Scheme, trail: &Trail) -> Result<(), Wrong> {
    match said {
        Scheme::Signature(said) => signature(profile, said, trail),
        Scheme::Token(token) => {
            place(&token.from.place, &trail.key("from"), true)?;
            key(&token.key, &[KeyEncoding::Text], trail)
        }
        Scheme::Basic(basic) => key(&basic.key, &[KeyEncoding::Text], trail),
        Scheme::Jwt(said) => jwt(profile, said, trail),
    }
}

fn signature(profile: &Profile, said: &Signature, trail: &Trail) -> Result<(), Wrong> {
    let encodings: &[_] = match said.verifier {
        Verifier::Hmac(_) => &[KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex],
        Verifier::Ed25519 => &[KeyEncoding::Hex, KeyEncoding::Base64, KeyEncoding::Spki],
        Verifier::Ecdsa(_) | Verifier::Rsa(_) | Verifier::Certificate(..) => &[KeyEncoding::Spki],
    };
    key(&said.key, encodings, trail)?;
    if said.key.derive.is_some() && !matches!(said.verifier, Verifier::Hmac(_)) {
        return wrong(
            &trail.key("key").key("derive"),
            "derive makes the key of an HMAC from the secret; a public key is taken as it is",
        );
    }
    place(&said.place.place, &trail.key("signature"), false)?;
    entry(profile, &said.place.place, &trail.key("signature").key("item"))?;
    for (at, template) in said.signed.iter().enumerate() {
        let trail = match at.checked_sub(1) {
            None => trail.key("signed"),
            Some(at) => trail.key("or_signed").item(at),
        };
        signed(profile, template, said.place.place.item.is_some(), &trail)?;
        let whole = |piece: &Piece| matches!(piece, Piece::Body | Piece::SortedForm);
        if said.place.place.is_in_body() && template.walk().any(whole) {
            return wrong(
                &trail,
                "has the whole body, in which the signature itself stands: none would ever be right; sign values of the body, \
                 such as {json:/id}",
            );
        }
    }
    if let Verifier::Certificate(_, certificate) = &said.verifier {
        let trail = trail.key("certificate");
        place(&certificate.from, &trail, false)?;
        texts(profile, [&certificate.hosts], &trail.key("hosts"))?;
    }
    Ok(())
}

/// `list`: whether the signature stands in a list with other entries.
fn signed(profile: &Profile, said: &Template, list: bool, trail: &Trail) -> Result<(), Wrong> {
    template(profile, said, Use::Signed, trail)?;
    if !said.covers_anything() {
        let text = said.to_string();
        let optional = said.pieces().any(|piece| matches!(piece, Piece::Optional(_)));
        let when = if optional {
            ", or may cover nothing, when all of it is left out: a part with ? in it goes as a whole"
        } else {
            ""
        };
        return wrong(
            trail,
            format!("{text:?} covers nothing of the request{when}; the usual template is \"{{body}}\""),
        );
    }
    if said.walk().any(|piece| matches!(piece, Piece::Item(_))) && !list {
        return wrong(
            trail,
            "{item:…} is an entry of the list that the signature stands in, but the signature has no item",
        );
    }
    Ok(())
}

fn jwt(profile: &Profile, said: &Jwt, trail: &Trail) -> Result<(), Wrong> {
    key(&said.key, &[KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex], trail)?;
    if let Some(from) = &said.from {
        place(&from.place, &trail.key("from"), false)?;
    }
    texts(profile, &said.issuer, &trail.key("issuer"))?;
    texts(profile, &said.audience, &trail.key("audience"))?;
    let claims =
        said.claims.values().filter_map(|value| if let toml::Value::String(text) = value { Some(text) } else { None });
    texts(profile, claims, &trail.key("claims"))?;
    let audience = !said.audience.is_empty() || profile.params.contains_key("audience");
    if !audience && said.body.is_none() {
        return wrong(
            trail,
            "[auth.jwt] takes any token of the issuer; declare [params.audience], write audience = \"…\", or body = { claim = \
             \"…\", encoding = \"hex\" } where the token binds the body",
        );
    }
    if said.algorithm.is_symmetric() && profile.fetches_keys() {
        return wrong(
            &trail.key("algorithm"),
            format!("{} is verified with a shared secret; it has no jwks_url", said.algorithm.title()),
        );
    }
    Ok(())
}

/// `trail` is the scheme's.
fn key(said: &KeyForm, encodings: &[KeyEncoding], trail: &Trail) -> Result<(), Wrong> {
    let trail = trail.key("key");
    if let Some(encoding) = said.encoding.filter(|encoding| !encodings.contains(encoding)) {
        let names: Vec<_> = encodings.iter().map(|known| format!("{known:?}").to_lowercase()).collect();
        let encoding = format!("{encoding:?}").to_lowercase();
        return wrong(
            &trail.key("encoding"),
            format!("{encoding:?} does not fit this scheme; its key takes {}", names.join(", ")),
        );
    }
    if said.only_prefixed && said.prefix.is_empty() {
        return wrong(&trail.key("only_prefixed"), "only_prefixed goes with prefix, such as prefix = \"whsec_\"");
    }
    let decoded = encodings.contains(&KeyEncoding::Text) && said.encoding.is_some_and(|is| is != KeyEncoding::Text);
    if said.or_text && (!decoded || said.only_prefixed) {
        return wrong(
            &trail.key("or_text"),
            "or_text goes with a shared secret that is decoded, such as encoding = \"base64\", with any prefix or none",
        );
    }
    Ok(())
}

/// `each`: whether a pointer may lead to several values.
fn place(found: &Place, trail: &Trail, each: bool) -> Result<(), Wrong> {
    if let Holder::Json(pointer) = &found.holder
        && pointer.is_each()
        && !each
    {
        return wrong(trail, format!("{pointer} leads to several values; only [auth.token] compares each of them"));
    }
    Ok(())
}

/// The key of the entry that is looked for in a list, where it may name a parameter.
fn entry(profile: &Profile, found: &Place, trail: &Trail) -> Result<(), Wrong> {
    texts(profile, found.item.iter().map(|item| &item.key), trail)
}

fn checks(profile: &Profile, conditions: &[Condition], trail: &Trail) -> Result<(), Wrong> {
    for (at, condition) in conditions.iter().enumerate() {
        let trail = trail.item(at);
        place(&condition.place, &trail, false)?;
        if let Test::Equals(expected) = &condition.test {
            template(profile, expected, Use::Compared, &trail.key("equals"))?;
        }
    }
    Ok(())
}

fn handshake(profile: &Profile, said: &Handshake, trail: &Trail) -> Result<(), Wrong> {
    if said.method == Verb::Post && said.when.is_empty() {
        let message = "when is missing: events come with POST, too, and all of them would be answered and never delivered; write \
                       when = [{ json = \"/type\", equals = \"…\" }]";
        return wrong(trail, message);
    }
    checks(profile, &said.when, &trail.key("when"))?;
    checks(profile, &said.check, &trail.key("check"))?;
    if let Some(visit) = &said.visit {
        let trail = trail.key("visit");
        place(&visit.from, &trail, false)?;
        texts(profile, [&visit.hosts], &trail.key("hosts"))?;
    }
    let trail = trail.key("reply");
    if said.reply.text.is_some() && said.reply.json.is_some() {
        return wrong(&trail, "reply has both text and json; it has one body");
    }
    if let Some(text) = &said.reply.text {
        template(profile, text, Use::Reply, &trail.key("text"))?;
    }
    for (name, value) in said.reply.json.iter().flatten() {
        if let Json::Text(text) = value {
            template(profile, text, Use::Reply, &trail.key("json").key(name))?;
        }
    }
    for (name, value) in &said.reply.headers {
        let trail = trail.key("headers").key(name);
        if http::HeaderName::try_from(name).is_err() {
            return wrong(&trail, format!("{name:?} is not a header name"));
        }
        template(profile, value, Use::Reply, &trail)?;
    }
    Ok(())
}

/// What a template is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// The bytes of a signature.
    Signed,
    /// What something has to be equal to.
    Compared,
    /// The answer to a handshake, where the secret may be computed with.
    Reply,
}

fn template(profile: &Profile, said: &Template, used: Use, trail: &Trail) -> Result<(), Wrong> {
    for piece in said.walk() {
        match piece {
            Piece::Timestamp | Piece::Item(_) if used != Use::Signed => {
                return wrong(trail, format!("{piece} belongs into signed"));
            }
            Piece::Timestamp if profile.timestamp.is_none() => {
                return wrong(trail, "{timestamp} is used, but there is no [timestamp] that says where it is");
            }
            Piece::Url | Piece::UrlWithPort if !profile.params.contains_key("url") => {
                return wrong(trail, format!("{piece} is a parameter; declare it as [params.url]"));
            }
            Piece::Param(name) => param(profile, name, trail)?,
            Piece::Call(Function::Hmac(..), _) if used != Use::Reply => {
                return wrong(
                    trail,
                    "hmac_… signs the reply of a handshake; what [auth.hmac] hashes is written without it",
                );
            }
            Piece::Call(Function::Hmac(..), _) if !profile.needs_secrets() || profile.keys_are_public() => {
                return wrong(trail, "hmac_… needs a secret, and this profile has none");
            }
            Piece::Place(found) | Piece::Optional(found) => place(found, trail, false)?,
            Piece::Literal(_) | Piece::Body | Piece::Timestamp | Piece::Method | Piece::Url | Piece::UrlWithPort => {}
            Piece::Query | Piece::SortedForm | Piece::Item(_) | Piece::Call(..) => {}
        }
    }
    Ok(())
}

fn param(profile: &Profile, name: &str, trail: &Trail) -> Result<(), Wrong> {
    if profile.params.contains_key(name) {
        return Ok(());
    }
    let declared = profile.params.keys().map(String::as_str);
    let hint = match closest(name, VARIABLES.iter().copied().chain(declared)) {
        Some(near) => format!("did you mean {{{near}}}?"),
        None => format!("a parameter is declared as [params.{name}]"),
    };
    wrong(trail, format!("{{{name}}} is neither a variable nor a parameter of this profile; {hint}"))
}

/// Texts in which `{name}` stands for a parameter, and nothing else for anything.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is read from requests is wrong here")]
fn texts<'t, T: IntoIterator<Item = &'t String>>(profile: &Profile, texts: T, trail: &Trail) -> Result<(), Wrong> {
    for text in texts {
        let parsed: Template = match text.parse() {
            Ok(parsed) => parsed,
            Err(message) => return wrong(trail, message),
        };
        for piece in parsed.walk() {
            match piece {
                Piece::Literal(_) => {}
                Piece::Param(name) => param(profile, name, trail)?,
                Piece::Url => param(profile, "url", trail)?,
                other => return wrong(trail, format!("{other} cannot stand in {text:?}, which takes parameters only")),
            }
        }
    }
    Ok(())
}
