//! Checks of what `[auth]` says: the parts of each scheme, and the keys of all of them.

use super::values::Use;
use super::values::entry;
use super::values::location;
use super::values::template;
use super::values::texts;
use crate::profile::ConfigPath;
use crate::profile::Finding;
use crate::profile::Jwt;
use crate::profile::KeyEncoding;
use crate::profile::KeyForm;
use crate::profile::Piece;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::profile::Signature;
use crate::profile::SignatureAlgorithm;
use crate::profile::Template;
use crate::profile::finding::wrong;

pub(super) fn scheme(profile: &Profile, given: &Scheme, config_path: &ConfigPath) -> Result<(), Finding> {
    match given {
        Scheme::Signature(given) => signature(profile, given, config_path),
        Scheme::Token(token) => {
            location(&token.from.location, &config_path.key("from"), true)?;
            key(&token.key, &[KeyEncoding::Text], config_path)
        }
        Scheme::Basic(basic) => key(&basic.key, &[KeyEncoding::Text], config_path),
        Scheme::Jwt(given) => jwt(profile, given, config_path),
    }
}

fn signature(profile: &Profile, given: &Signature, config_path: &ConfigPath) -> Result<(), Finding> {
    let encodings: &[_] = match given.algorithm {
        SignatureAlgorithm::Hmac(_) => &[KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex],
        SignatureAlgorithm::Ed25519 => &[KeyEncoding::Hex, KeyEncoding::Base64, KeyEncoding::Spki],
        SignatureAlgorithm::Ecdsa(_) | SignatureAlgorithm::Rsa(_) | SignatureAlgorithm::Certificate(..) => {
            &[KeyEncoding::Spki]
        }
    };
    key(&given.key, encodings, config_path)?;
    if given.key.derive.is_some() && !matches!(given.algorithm, SignatureAlgorithm::Hmac(_)) {
        return wrong(
            &config_path.key("key").key("derive"),
            "derive makes the key of an HMAC from the secret; a public key is taken as it is",
        );
    }
    location(&given.location.location, &config_path.key("signature"), false)?;
    entry(profile, &given.location.location, &config_path.key("signature").key("item"))?;
    for (at, template) in given.signed.iter().enumerate() {
        let config_path = match at.checked_sub(1) {
            None => config_path.key("signed"),
            Some(at) => config_path.key("or_signed").item(at),
        };
        signed(profile, template, given.location.location.item.is_some(), &config_path)?;
        let whole = |piece: &Piece| matches!(piece, Piece::Body | Piece::SortedForm);
        if given.location.location.is_in_body() && template.walk().any(whole) {
            return wrong(
                &config_path,
                "has the whole body, in which the signature itself stands: none would ever be right; sign values of the body, \
                 such as {json:/id}",
            );
        }
    }
    if let SignatureAlgorithm::Certificate(_, certificate) = &given.algorithm {
        let config_path = config_path.key("certificate");
        location(&certificate.from, &config_path, false)?;
        texts(profile, [&certificate.hosts], &config_path.key("hosts"))?;
    }
    Ok(())
}

/// `in_list`: whether the signature stands in a list with other entries.
fn signed(profile: &Profile, given: &Template, in_list: bool, config_path: &ConfigPath) -> Result<(), Finding> {
    template(profile, given, Use::Signed, config_path)?;
    if !given.covers_anything() {
        let text = given.to_string();
        let optional = given.pieces().any(|piece| matches!(piece, Piece::Optional(_)));
        let when = if optional {
            ", or may cover nothing, when all of it is left out: a part with ? in it goes as a whole"
        } else {
            ""
        };
        return wrong(
            config_path,
            format!("{text:?} covers nothing of the request{when}; the usual template is \"{{body}}\""),
        );
    }
    if given.walk().any(|piece| matches!(piece, Piece::Item(_))) && !in_list {
        return wrong(
            config_path,
            "{item:…} is an entry of the list that the signature stands in, but the signature has no item",
        );
    }
    Ok(())
}

fn jwt(profile: &Profile, given: &Jwt, config_path: &ConfigPath) -> Result<(), Finding> {
    key(&given.key, &[KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex], config_path)?;
    if let Some(from) = &given.from {
        location(&from.location, &config_path.key("from"), false)?;
    }
    texts(profile, &given.issuer, &config_path.key("issuer"))?;
    texts(profile, &given.audience, &config_path.key("audience"))?;
    let claims =
        given.claims.values().filter_map(|value| if let toml::Value::String(text) = value { Some(text) } else { None });
    texts(profile, claims, &config_path.key("claims"))?;
    let audience = !given.audience.is_empty() || profile.params.contains_key("audience");
    if !audience && given.body.is_none() {
        return wrong(
            config_path,
            "[auth.jwt] takes any token of the issuer; declare [params.audience], write audience = \"…\", or body = { claim = \
             \"…\", encoding = \"hex\" } where the token binds the body",
        );
    }
    if given.algorithm.is_symmetric() && profile.fetches_keys() {
        return wrong(
            &config_path.key("algorithm"),
            format!("{} is verified with a shared secret; it has no jwks_url", given.algorithm.title()),
        );
    }
    Ok(())
}

/// `trail` is the scheme's.
fn key(form: &KeyForm, encodings: &[KeyEncoding], config_path: &ConfigPath) -> Result<(), Finding> {
    let config_path = config_path.key("key");
    if let Some(encoding) = form.encoding.filter(|encoding| !encodings.contains(encoding)) {
        let names: Vec<_> = encodings.iter().map(|known| format!("{known:?}").to_lowercase()).collect();
        let encoding = format!("{encoding:?}").to_lowercase();
        return wrong(
            &config_path.key("encoding"),
            format!("{encoding:?} does not fit this scheme; its key takes {}", names.join(", ")),
        );
    }
    if form.only_prefixed && form.prefix.is_empty() {
        return wrong(&config_path.key("only_prefixed"), "only_prefixed goes with prefix, such as prefix = \"whsec_\"");
    }
    let decoded = encodings.contains(&KeyEncoding::Text) && form.encoding.is_some_and(|is| is != KeyEncoding::Text);
    if form.or_text && (!decoded || form.only_prefixed) {
        return wrong(
            &config_path.key("or_text"),
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
        &ConfigPath::to(["auth"]),
        "takes public keys and shared secrets, and does not say which is which: anybody could sign with a public key as the \
         secret; give the keys of one kind a prefix and only_prefixed = true",
    )
}
