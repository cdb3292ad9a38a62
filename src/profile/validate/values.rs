//! Checks of the values that several tables have: locations, conditions, templates, and texts with parameters.

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
use crate::profile::finding::fail;
use crate::profile::template::VARIABLES;

/// Checks a location. `each`: whether its pointer may have a `*`.
pub(super) fn check_location(location: &Location, config_path: &ConfigPath, each: bool) -> Result<(), Finding> {
    if let Carrier::Json(pointer) = &location.carrier
        && pointer.is_each()
        && !each
    {
        return fail(
            config_path,
            format!("{pointer} leads to several values; only [auth.token] compares each of them"),
        );
    }
    Ok(())
}

/// Checks the parameters in the key of a list's entry.
pub(super) fn check_item_key(profile: &Profile, location: &Location, config_path: &ConfigPath) -> Result<(), Finding> {
    check_texts(profile, location.item.iter().map(|item| &item.key), config_path)
}

pub(super) fn check_conditions(
    profile: &Profile,
    conditions: &[Condition],
    config_path: &ConfigPath,
) -> Result<(), Finding> {
    for (at, condition) in conditions.iter().enumerate() {
        let config_path = config_path.item(at);
        check_location(&condition.location, &config_path, false)?;
        if let Test::Equals(expected) = &condition.test {
            check_template(profile, expected, Use::Compared, &config_path.key("equals"))?;
        }
    }
    Ok(())
}

/// The use of a template.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The text that a signature covers.
    Signed,
    /// The expected value of a condition.
    Compared,
    /// The reply to a handshake, the only template that may compute with the secret.
    Reply,
}

pub(super) fn check_template(
    profile: &Profile,
    template: &Template,
    used: Use,
    config_path: &ConfigPath,
) -> Result<(), Finding> {
    for piece in template.walk() {
        match piece {
            Piece::Timestamp | Piece::Item(_) if used != Use::Signed => {
                return fail(config_path, format!("{piece} belongs into signed"));
            }
            Piece::Timestamp if profile.timestamp.is_none() => {
                return fail(config_path, "{timestamp} is used, but there is no [timestamp] that says where it is");
            }
            Piece::Url | Piece::UrlWithPort if !profile.params.contains_key("url") => {
                return fail(config_path, format!("{piece} is a parameter; declare it as [params.url]"));
            }
            Piece::Param(name) => check_param(profile, name, config_path)?,
            Piece::Call(Function::Hmac(..), _) if used != Use::Reply => {
                return fail(
                    config_path,
                    "hmac_… signs the reply of a handshake; what [auth.hmac] hashes is written without it",
                );
            }
            Piece::Call(Function::Hmac(..), _) if !profile.needs_secrets() || profile.keys_are_public() => {
                return fail(config_path, "hmac_… needs a secret, and this profile has none");
            }
            Piece::Location(location) | Piece::Optional(location) => check_location(location, config_path, false)?,
            Piece::Literal(_) | Piece::Body | Piece::Timestamp | Piece::Method | Piece::Url | Piece::UrlWithPort => {}
            Piece::Query | Piece::SortedForm | Piece::Item(_) | Piece::Call(..) => {}
        }
    }
    Ok(())
}

fn check_param(profile: &Profile, name: &str, config_path: &ConfigPath) -> Result<(), Finding> {
    if profile.params.contains_key(name) {
        return Ok(());
    }
    let declared = profile.params.keys().map(String::as_str);
    let hint = match closest(name, VARIABLES.iter().copied().chain(declared)) {
        Some(near) => format!("did you mean {{{near}}}?"),
        None => format!("a parameter is declared as [params.{name}]"),
    };
    fail(config_path, format!("{{{name}}} is neither a variable nor a parameter of this profile; {hint}"))
}

/// Checks texts that may have parameters as `{name}`, and no other variables.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is read from requests is wrong here")]
pub(super) fn check_texts<'t, T: IntoIterator<Item = &'t String>>(
    profile: &Profile,
    texts: T,
    config_path: &ConfigPath,
) -> Result<(), Finding> {
    for text in texts {
        let parsed: Template = match text.parse() {
            Ok(parsed) => parsed,
            Err(message) => return fail(config_path, message),
        };
        for piece in parsed.walk() {
            match piece {
                Piece::Literal(_) => {}
                Piece::Param(name) => check_param(profile, name, config_path)?,
                Piece::Url => check_param(profile, "url", config_path)?,
                other => {
                    return fail(config_path, format!("{other} cannot stand in {text:?}, which takes parameters only"));
                }
            }
        }
    }
    Ok(())
}
