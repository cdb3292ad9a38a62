//! Checks of what several tables consist of: places, conditions, templates, and texts with parameters.

use crate::base::problem::closest;
use crate::profile::Carrier;
use crate::profile::Condition;
use crate::profile::ConfigPath;
use crate::profile::Finding;
use crate::profile::Function;
use crate::profile::Location;
use crate::profile::Piece;
use crate::profile::Profile;
use crate::profile::Template;
use crate::profile::Test;
use crate::profile::finding::wrong;
use crate::profile::template::VARIABLES;

/// `each`: whether a pointer may lead to several values.
pub(super) fn location(found: &Location, config_path: &ConfigPath, each: bool) -> Result<(), Finding> {
    if let Carrier::Json(pointer) = &found.carrier
        && pointer.is_each()
        && !each
    {
        return wrong(
            config_path,
            format!("{pointer} leads to several values; only [auth.token] compares each of them"),
        );
    }
    Ok(())
}

/// The key of the entry that is looked for in a list, where it may name a parameter.
pub(super) fn entry(profile: &Profile, found: &Location, config_path: &ConfigPath) -> Result<(), Finding> {
    texts(profile, found.item.iter().map(|item| &item.key), config_path)
}

pub(super) fn checks(profile: &Profile, conditions: &[Condition], config_path: &ConfigPath) -> Result<(), Finding> {
    for (at, condition) in conditions.iter().enumerate() {
        let config_path = config_path.item(at);
        location(&condition.location, &config_path, false)?;
        if let Test::Equals(expected) = &condition.test {
            template(profile, expected, Use::Compared, &config_path.key("equals"))?;
        }
    }
    Ok(())
}

/// What a template is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The bytes of a signature.
    Signed,
    /// What something has to be equal to.
    Compared,
    /// The answer to a handshake, where the secret may be computed with.
    Reply,
}

pub(super) fn template(
    profile: &Profile,
    given: &Template,
    used: Use,
    config_path: &ConfigPath,
) -> Result<(), Finding> {
    for piece in given.walk() {
        match piece {
            Piece::Timestamp | Piece::Item(_) if used != Use::Signed => {
                return wrong(config_path, format!("{piece} belongs into signed"));
            }
            Piece::Timestamp if profile.timestamp.is_none() => {
                return wrong(config_path, "{timestamp} is used, but there is no [timestamp] that says where it is");
            }
            Piece::Url | Piece::UrlWithPort if !profile.params.contains_key("url") => {
                return wrong(config_path, format!("{piece} is a parameter; declare it as [params.url]"));
            }
            Piece::Param(name) => param(profile, name, config_path)?,
            Piece::Call(Function::Hmac(..), _) if used != Use::Reply => {
                return wrong(
                    config_path,
                    "hmac_… signs the reply of a handshake; what [auth.hmac] hashes is written without it",
                );
            }
            Piece::Call(Function::Hmac(..), _) if !profile.needs_secrets() || profile.keys_are_public() => {
                return wrong(config_path, "hmac_… needs a secret, and this profile has none");
            }
            Piece::Location(found) | Piece::Optional(found) => location(found, config_path, false)?,
            Piece::Literal(_) | Piece::Body | Piece::Timestamp | Piece::Method | Piece::Url | Piece::UrlWithPort => {}
            Piece::Query | Piece::SortedForm | Piece::Item(_) | Piece::Call(..) => {}
        }
    }
    Ok(())
}

fn param(profile: &Profile, name: &str, config_path: &ConfigPath) -> Result<(), Finding> {
    if profile.params.contains_key(name) {
        return Ok(());
    }
    let declared = profile.params.keys().map(String::as_str);
    let hint = match closest(name, VARIABLES.iter().copied().chain(declared)) {
        Some(near) => format!("did you mean {{{near}}}?"),
        None => format!("a parameter is declared as [params.{name}]"),
    };
    wrong(config_path, format!("{{{name}}} is neither a variable nor a parameter of this profile; {hint}"))
}

/// Texts in which `{name}` stands for a parameter, and nothing else for anything.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is read from requests is wrong here")]
pub(super) fn texts<'t, T: IntoIterator<Item = &'t String>>(
    profile: &Profile,
    texts: T,
    config_path: &ConfigPath,
) -> Result<(), Finding> {
    for text in texts {
        let parsed: Template = match text.parse() {
            Ok(parsed) => parsed,
            Err(message) => return wrong(config_path, message),
        };
        for piece in parsed.walk() {
            match piece {
                Piece::Literal(_) => {}
                Piece::Param(name) => param(profile, name, config_path)?,
                Piece::Url => param(profile, "url", config_path)?,
                other => {
                    return wrong(
                        config_path,
                        format!("{other} cannot stand in {text:?}, which takes parameters only"),
                    );
                }
            }
        }
    }
    Ok(())
}
