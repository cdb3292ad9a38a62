//! Checks of what `[auth]` says: the parts of each scheme, and the keys of all of them.

use super::values::Use;
use super::values::entry;
use super::values::place;
use super::values::template;
use super::values::texts;
use crate::profile::Finding;
use crate::profile::Jwt;
use crate::profile::KeyEncoding;
use crate::profile::KeyForm;
use crate::profile::Piece;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::profile::Signature;
use crate::profile::Template;
use crate::profile::Trail;
use crate::profile::Verifier;
use crate::profile::finding::wrong;

pub(super) fn scheme(profile: &Profile, given: &Scheme, trail: &Trail) -> Result<(), Finding> {
    match given {
        Scheme::Signature(given) => signature(profile, given, trail),
        Scheme::Token(token) => {
            place(&token.from.place, &trail.key("from"), true)?;
            key(&token.key, &[KeyEncoding::Text], trail)
        }
        Scheme::Basic(basic) => key(&basic.key, &[KeyEncoding::Text], trail),
        Scheme::Jwt(given) => jwt(profile, given, trail),
    }
}

fn signature(profile: &Profile, given: &Signature, trail: &Trail) -> Result<(), Finding> {
    let encodings: &[_] = match given.verifier {
        Verifier::Hmac(_) => &[KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex],
        Verifier::Ed25519 => &[KeyEncoding::Hex, KeyEncoding::Base64, KeyEncoding::Spki],
        Verifier::Ecdsa(_) | Verifier::Rsa(_) | Verifier::Certificate(..) => &[KeyEncoding::Spki],
    };
    key(&given.key, encodings, trail)?;
    if given.key.derive.is_some() && !matches!(given.verifier, Verifier::Hmac(_)) {
        return wrong(
            &trail.key("key").key("derive"),
            "derive makes the key of an HMAC from the secret; a public key is taken as it is",
        );
    }
    place(&given.place.place, &trail.key("signature"), false)?;
    entry(profile, &given.place.place, &trail.key("signature").key("item"))?;
    for (at, template) in given.signed.iter().enumerate() {
        let trail = match at.checked_sub(1) {
            None => trail.key("signed"),
            Some(at) => trail.key("or_signed").item(at),
        };
        signed(profile, template, given.place.place.item.is_some(), &trail)?;
        let whole = |piece: &Piece| matches!(piece, Piece::Body | Piece::SortedForm);
        if given.place.place.is_in_body() && template.walk().any(whole) {
            return wrong(
                &trail,
                "has the whole body, in which the signature itself stands: none would ever be right; sign values of the body, \
                 such as {json:/id}",
            );
        }
    }
    if let Verifier::Certificate(_, certificate) = &given.verifier {
        let trail = trail.key("certificate");
        place(&certificate.from, &trail, false)?;
        texts(profile, [&certificate.hosts], &trail.key("hosts"))?;
    }
    Ok(())
}

/// `in_list`: whether the signature stands in a list with other entries.
fn signed(profile: &Profile, given: &Template, in_list: bool, trail: &Trail) -> Result<(), Finding> {
    template(profile, given, Use::Signed, trail)?;
    if !given.covers_anything() {
        let text = given.to_string();
        let optional = given.pieces().any(|piece| matches!(piece, Piece::Optional(_)));
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
    if given.walk().any(|piece| matches!(piece, Piece::Item(_))) && !in_list {
        return wrong(
            trail,
            "{item:…} is an entry of the list that the signature stands in, but the signature has no item",
        );
    }
    Ok(())
}

fn jwt(profile: &Profile, given: &Jwt, trail: &Trail) -> Result<(), Finding> {
    key(&given.key, &[KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex], trail)?;
    if let Some(from) = &given.from {
        place(&from.place, &trail.key("from"), false)?;
    }
    texts(profile, &given.issuer, &trail.key("issuer"))?;
    texts(profile, &given.audience, &trail.key("audience"))?;
    let claims =
        given.claims.values().filter_map(|value| if let toml::Value::String(text) = value { Some(text) } else { None });
    texts(profile, claims, &trail.key("claims"))?;
    let audience = !given.audience.is_empty() || profile.params.contains_key("audience");
    if !audience && given.body.is_none() {
        return wrong(
            trail,
            "[auth.jwt] takes any token of the issuer; declare [params.audience], write audience = \"…\", or body = { claim = \
             \"…\", encoding = \"hex\" } where the token binds the body",
        );
    }
    if given.algorithm.is_symmetric() && profile.fetches_keys() {
        return wrong(
            &trail.key("algorithm"),
            format!("{} is verified with a shared secret; it has no jwks_url", given.algorithm.title()),
        );
    }
    Ok(())
}

/// `trail` is the scheme's.
fn key(form: &KeyForm, encodings: &[KeyEncoding], trail: &Trail) -> Result<(), Finding> {
    let trail = trail.key("key");
    if let Some(encoding) = form.encoding.filter(|encoding| !encodings.contains(encoding)) {
        let names: Vec<_> = encodings.iter().map(|known| format!("{known:?}").to_lowercase()).collect();
        let encoding = format!("{encoding:?}").to_lowercase();
        return wrong(
            &trail.key("encoding"),
            format!("{encoding:?} does not fit this scheme; its key takes {}", names.join(", ")),
        );
    }
    if form.only_prefixed && form.prefix.is_empty() {
        return wrong(&trail.key("only_prefixed"), "only_prefixed goes with prefix, such as prefix = \"whsec_\"");
    }
    let decoded = encodings.contains(&KeyEncoding::Text) && form.encoding.is_some_and(|is| is != KeyEncoding::Text);
    if form.or_text && (!decoded || form.only_prefixed) {
        return wrong(
            &trail.key("or_text"),
            "or_text goes with a shared secret that is decoded, such as encoding = \"base64\", with any prefix or none",
        );
    }
    Ok(())
}

/// Whether public keys and shared secrets can be told apart, where a profile takes both.
pub(super) fn key_kinds(profile: &Profile) -> Result<(), Finding> {
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
