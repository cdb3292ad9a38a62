//! Refuses keys that are valid but have no effect: their author expects one.

use super::Auth;
use super::Combination;
use super::ConfigPath;
use super::Finding;
use super::Handshake;
use super::Jwt;
use super::KeyForm;
use super::Piece;
use super::Profile;
use super::Reference;
use super::Scheme;
use super::Signature;
use super::SignatureAlgorithm;
use super::Template;
use super::Test;
use super::TimestampPolicy;
use super::finding::fail;

/// Fails on the first key that has no effect.
pub(super) fn refuse(profile: &Profile) -> Result<(), Finding> {
    if profile.title.trim().is_empty() {
        return fail(&ConfigPath::to(["title"]), "title is empty; write the provider's name");
    }
    if profile.limits.max_body.is_some_and(|size| size.as_u64() == 0) {
        return fail(
            &ConfigPath::to(["limits", "max_body"]),
            "max_body is zero, and every event has a body; leave it out",
        );
    }
    if let Some(timestamp) = &profile.timestamp
        && timestamp.policy == TimestampPolicy::Record
        && timestamp.tolerance.is_some()
    {
        return fail(
            &ConfigPath::to(["timestamp", "tolerance"]),
            "tolerance decides nothing with policy = \"record\", which only measures the time; leave one of them out",
        );
    }
    members(&profile.auth, profile.fetches_keys())?;
    for (at, member) in profile.auth.members.iter().enumerate() {
        let config_path = ConfigPath::member(at, member.scheme.table());
        match &member.scheme {
            Scheme::Signature(scheme) => signature(scheme, &config_path)?,
            Scheme::Jwt(scheme) => jwt(scheme, profile.fetches_keys(), &config_path)?,
            Scheme::Token(token) => sent_along(&token.key, &config_path)?,
            Scheme::Basic(basic) => sent_along(&basic.key, &config_path)?,
        }
    }
    let handshakes = ConfigPath::to(["handshake"]);
    for (at, handshake) in profile.handshakes.iter().enumerate() {
        if let Some(visit) = &handshake.visit {
            hosts(&visit.hosts, &handshakes.item(at).key("visit").key("hosts"))?;
        }
    }
    params(profile)
}

fn members(auth: &Auth, fetched: bool) -> Result<(), Finding> {
    for (at, member) in auth.members.iter().enumerate().filter(|(_, member)| member.optional) {
        let config_path = ConfigPath::member(at, "optional");
        if auth.combination == Combination::First {
            return fail(
                &config_path,
                "optional goes with [[auth.all]]: of [[auth.first]], a scheme for which a source has no secret never counts",
            );
        }
        if member.scheme.key(fetched).is_none() {
            return fail(
                &config_path,
                "optional is for a scheme that takes a secret, which a source may not have; this takes none",
            );
        }
    }
    Ok(())
}

fn signature(scheme: &Signature, config_path: &ConfigPath) -> Result<(), Finding> {
    if let SignatureAlgorithm::Certificate(_, certificate) = &scheme.algorithm {
        if is_written(&scheme.key) {
            return fail(
                &config_path.key("key"),
                "key decides nothing beside certificate, which has the key in it; leave it out",
            );
        }
        hosts(&certificate.hosts, &config_path.key("certificate").key("hosts"))?;
    }
    for (at, template) in scheme.signed.iter().enumerate().skip(1) {
        if scheme.signed.iter().take(at).any(|earlier| earlier == template) {
            return fail(
                &config_path.key("or_signed").item(at - 1),
                format!("{:?} is said before, so that it never decides; leave it out", template.to_string()),
            );
        }
    }
    Ok(())
}

fn jwt(scheme: &Jwt, fetched: bool, config_path: &ConfigPath) -> Result<(), Finding> {
    if fetched && !scheme.algorithm.is_symmetric() && is_written(&scheme.key) {
        return fail(
            &config_path.key("key"),
            "key decides nothing beside the parameter jwks_url, from which the keys come; leave it out",
        );
    }
    for (name, texts) in [("issuer", &scheme.issuer), ("audience", &scheme.audience)] {
        if texts.iter().any(|text| text.trim().is_empty()) {
            return fail(
                &config_path.key(name),
                format!("{name} is empty, and no token has it; write what the claim has to be"),
            );
        }
    }
    if scheme.body.as_ref().is_some_and(|body| body.claim.is_empty()) {
        return fail(
            &config_path.key("body").key("claim"),
            "claim is empty; write the name of the claim that has the digest",
        );
    }
    Ok(())
}

fn sent_along(key: &KeyForm, config_path: &ConfigPath) -> Result<(), Finding> {
    if key.derive.is_some() {
        return fail(
            &config_path.key("key").key("derive"),
            "derive makes the key of an HMAC from the secret; a secret that is sent along is compared as it stands",
        );
    }
    Ok(())
}

/// Whether the profile sets any key of the table `key`.
fn is_written(key: &KeyForm) -> bool {
    let KeyForm { about, encoding, prefix, only_prefixed, or_text, derive } = key;
    about.is_some() || encoding.is_some() || !prefix.is_empty() || *only_prefixed || *or_text || derive.is_some()
}

fn hosts(hosts: &str, config_path: &ConfigPath) -> Result<(), Finding> {
    if hosts.trim().is_empty() {
        return fail(
            config_path,
            "hosts names none, so that nothing could be fetched; write hosts = \"api.example.com\"",
        );
    }
    Ok(())
}

/// Fails on a parameter that nothing reads.
fn params(profile: &Profile) -> Result<(), Finding> {
    let jwts = || profile.schemes().filter_map(|scheme| if let Scheme::Jwt(jwt) = scheme { Some(jwt) } else { None });
    let is_default_of_jwt = |name: &str| match name {
        "jwks_url" => jwts().any(|jwt| !jwt.algorithm.is_symmetric()),
        "issuer" => jwts().any(|jwt| jwt.issuer.is_empty()),
        "audience" => jwts().any(|jwt| jwt.audience.is_empty()),
        _ => false,
    };
    let is_in_text = |name: &str| texts(profile).iter().any(|text| text.contains(&format!("{{{name}}}")));
    let is_in_template = |name: &str| {
        templates(profile).into_iter().flat_map(Template::walk).any(|piece| match piece {
            Piece::Param(known) => known == name,
            Piece::Url | Piece::UrlWithPort => name == "url",
            Piece::Literal(_) | Piece::Body | Piece::Timestamp | Piece::Method | Piece::Query | Piece::SortedForm => {
                false
            }
            Piece::Location(_) | Piece::Optional(_) | Piece::Item(_) | Piece::Call(..) => false,
        })
    };
    match profile.params.keys().find(|name| !is_default_of_jwt(name) && !is_in_text(name) && !is_in_template(name)) {
        Some(name) => fail(
            &ConfigPath::to(["params", name]),
            format!(
                "nothing reads this parameter, so that a source would set it for nothing; write {{{name}}} where it is wanted"
            ),
        ),
        None => Ok(()),
    }
}

/// All texts that may have parameters, other than templates.
fn texts(profile: &Profile) -> Vec<&str> {
    let mut texts: Vec<&str> = profile.params.values().filter_map(|param| param.default.as_deref()).collect();
    for scheme in profile.schemes() {
        match scheme {
            Scheme::Signature(signature) => {
                texts.extend(signature.location.location.item.iter().map(|item| item.key.as_str()));
                if let SignatureAlgorithm::Certificate(_, certificate) = &signature.algorithm {
                    texts.push(&certificate.hosts);
                }
            }
            Scheme::Jwt(jwt) => {
                texts.extend(jwt.issuer.iter().chain(&jwt.audience).map(String::as_str));
                texts.extend(jwt.claims.values().filter_map(toml::Value::as_str));
            }
            Scheme::Token(_) | Scheme::Basic(_) => {}
        }
    }
    let references = [Some(&profile.event.id), profile.event.kind.as_ref()];
    let locations = references.into_iter().flatten().flat_map(Reference::locations);
    texts.extend(locations.filter_map(|location| location.item.as_ref()).map(|item| item.key.as_str()));
    texts.extend(
        profile.handshakes.iter().filter_map(|handshake| handshake.visit.as_ref()).map(|visit| visit.hosts.as_str()),
    );
    texts
}

fn templates(profile: &Profile) -> Vec<&Template> {
    let members = profile.auth.members.iter().flat_map(|member| member.when.iter().chain(&member.check));
    let handshakes = profile.handshakes.iter().flat_map(|handshake| handshake.when.iter().chain(&handshake.check));
    let conditions = profile.require.iter().chain(members).chain(handshakes);
    let compared = conditions
        .filter_map(|condition| if let Test::Equals(template) = &condition.test { Some(template) } else { None });
    let replies = profile.handshakes.iter().flat_map(Handshake::templates);
    profile.schemes().flat_map(Scheme::signed).chain(compared).chain(replies).collect()
}
