//! Checks of `[auth]`: each scheme, and the keys of all schemes together.

use super::values::Use;
use super::values::check_item_key;
use super::values::check_location;
use super::values::check_template;
use super::values::check_texts;
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
use crate::profile::finding::fail;

pub(super) fn check_scheme(profile: &Profile, scheme: &Scheme, config_path: &ConfigPath) -> Result<(), Finding> {
    match scheme {
        Scheme::Signature(signature) => check_signature(profile, signature, config_path),
        Scheme::Token(token) => {
            check_location(&token.from.location, &config_path.key("from"), true)?;
            check_key(&token.key, &[KeyEncoding::Text], config_path)
        }
        Scheme::Basic(basic) => check_key(&basic.key, &[KeyEncoding::Text], config_path),
        Scheme::Jwt(jwt) => check_jwt(profile, jwt, config_path),
    }
}

fn check_signature(profile: &Profile, signature: &Signature, config_path: &ConfigPath) -> Result<(), Finding> {
    let encodings: &[_] = match signature.algorithm {
        SignatureAlgorithm::Hmac(_) => &[KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex],
        SignatureAlgorithm::Ed25519 => &[KeyEncoding::Hex, KeyEncoding::Base64, KeyEncoding::Spki],
        SignatureAlgorithm::Ecdsa(_) | SignatureAlgorithm::Rsa(_) | SignatureAlgorithm::Certificate(..) => {
            &[KeyEncoding::Spki]
        }
    };
    check_key(&signature.key, encodings, config_path)?;
    if signature.key.derive.is_some() && !matches!(signature.algorithm, SignatureAlgorithm::Hmac(_)) {
        return fail(
            &config_path.key("key").key("derive"),
            "derive makes the key of an HMAC from the secret; a public key is taken as it is",
        );
    }
    check_location(&signature.location.location, &config_path.key("signature"), false)?;
    check_item_key(profile, &signature.location.location, &config_path.key("signature").key("item"))?;
    for (at, template) in signature.signed.iter().enumerate() {
        let config_path = match at.checked_sub(1) {
            None => config_path.key("signed"),
            Some(at) => config_path.key("or_signed").item(at),
        };
        check_signed_text(profile, template, signature.location.location.item.is_some(), &config_path)?;
        let whole = |piece: &Piece| matches!(piece, Piece::Body | Piece::SortedForm);
        if signature.location.location.is_in_body() && template.walk().any(whole) {
            return fail(
                &config_path,
                "has the whole body, in which the signature itself stands: none would ever be right; sign values of the body, \
                 such as {json:/id}",
            );
        }
    }
    if let SignatureAlgorithm::Certificate(_, certificate) = &signature.algorithm {
        let config_path = config_path.key("certificate");
        check_location(&certificate.from, &config_path, false)?;
        check_texts(profile, [&certificate.hosts], &config_path.key("hosts"))?;
    }
    Ok(())
}

/// Checks a signed text. `in_list`: whether the signature is an entry of a list.
fn check_signed_text(
    profile: &Profile,
    template: &Template,
    in_list: bool,
    config_path: &ConfigPath,
) -> Result<(), Finding> {
    check_template(profile, template, Use::Signed, config_path)?;
    if !template.covers_anything() {
        let text = template.to_string();
        let optional = template.pieces().any(|piece| matches!(piece, Piece::Optional(_)));
        let when = if optional {
            ", or may cover nothing, when all of it is left out: a part with ? in it goes as a whole"
        } else {
            ""
        };
        return fail(
            config_path,
            format!("{text:?} covers nothing of the request{when}; the usual template is \"{{body}}\""),
        );
    }
    if template.walk().any(|piece| matches!(piece, Piece::Item(_))) && !in_list {
        return fail(
            config_path,
            "{item:…} is an entry of the list that the signature stands in, but the signature has no item",
        );
    }
    Ok(())
}

fn check_jwt(profile: &Profile, jwt: &Jwt, config_path: &ConfigPath) -> Result<(), Finding> {
    check_key(&jwt.key, &[KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex], config_path)?;
    if let Some(from) = &jwt.from {
        check_location(&from.location, &config_path.key("from"), false)?;
    }
    check_texts(profile, &jwt.issuer, &config_path.key("issuer"))?;
    check_texts(profile, &jwt.audience, &config_path.key("audience"))?;
    let claims =
        jwt.claims.values().filter_map(|value| if let toml::Value::String(text) = value { Some(text) } else { None });
    check_texts(profile, claims, &config_path.key("claims"))?;
    let audience = !jwt.audience.is_empty() || profile.params.contains_key("audience");
    if !audience && jwt.body.is_none() {
        return fail(
            config_path,
            "[auth.jwt] takes any token of the issuer; declare [params.audience], write audience = \"…\", or body = { claim = \
             \"…\", encoding = \"hex\" } where the token binds the body",
        );
    }
    if jwt.algorithm.is_symmetric() && profile.fetches_keys() {
        return fail(
            &config_path.key("algorithm"),
            format!("{} is verified with a shared secret; it has no jwks_url", jwt.algorithm.title()),
        );
    }
    Ok(())
}

/// Checks the form of a key. `config_path` is the scheme's.
fn check_key(form: &KeyForm, encodings: &[KeyEncoding], config_path: &ConfigPath) -> Result<(), Finding> {
    let config_path = config_path.key("key");
    if let Some(encoding) = form.encoding.filter(|encoding| !encodings.contains(encoding)) {
        let names: Vec<_> = encodings.iter().map(|known| format!("{known:?}").to_lowercase()).collect();
        let encoding = format!("{encoding:?}").to_lowercase();
        return fail(
            &config_path.key("encoding"),
            format!("{encoding:?} does not fit this scheme; its key takes {}", names.join(", ")),
        );
    }
    if form.only_prefixed && form.prefix.is_empty() {
        return fail(&config_path.key("only_prefixed"), "only_prefixed goes with prefix, such as prefix = \"whsec_\"");
    }
    let decoded = encodings.contains(&KeyEncoding::Text) && form.encoding.is_some_and(|is| is != KeyEncoding::Text);
    if form.or_text && (!decoded || form.only_prefixed) {
        return fail(
            &config_path.key("or_text"),
            "or_text goes with a shared secret that is decoded, such as encoding = \"base64\", with any prefix or none",
        );
    }
    Ok(())
}

/// Checks that a profile with both public keys and shared secrets tells them apart by a prefix.
pub(super) fn check_key_kinds(profile: &Profile) -> Result<(), Finding> {
    let keyed = profile.schemes().filter_map(|scheme| Some((scheme, scheme.key(profile.fetches_keys())?)));
    let (public, shared): (Vec<_>, Vec<_>) = keyed.partition(|(scheme, _)| scheme.is_asymmetric());
    let marked = |keys: &[(&Scheme, &KeyForm)]| keys.iter().all(|(_, form)| form.only_prefixed);
    if public.is_empty() || shared.is_empty() || marked(&public) || marked(&shared) {
        return Ok(());
    }
    fail(
        &ConfigPath::to(["auth"]),
        "takes public keys and shared secrets, and does not say which is which: anybody could sign with a public key as the \
         secret; give the keys of one kind a prefix and only_prefixed = true",
    )
}
