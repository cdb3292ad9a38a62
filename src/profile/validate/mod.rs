//! Checks that the parts of a profile fit together, which the grammar alone cannot.

mod handshake;
mod schemes;
mod values;

use self::handshake::handshake;
use self::schemes::key_kinds;
use self::schemes::scheme;
use self::values::checks;
use self::values::entry;
use self::values::location;
use crate::profile::Carrier;
use crate::profile::ConfigPath;
use crate::profile::Finding;
use crate::profile::Profile;
use crate::profile::Reference;
use crate::profile::TimestampPolicy;
use crate::profile::finding::wrong;
use crate::profile::template::is_name;

/// Whether the parts fit together.
pub(super) fn validate(profile: &Profile) -> Result<(), Finding> {
    let unusable = |name: &&String| !is_name(name);
    if let Some(name) = profile.params.keys().find(unusable) {
        return wrong(
            &ConfigPath::to(["params", name]),
            "a parameter is named with a to z, 0 to 9 and _: with another name, no template can have it",
        );
    }
    timestamp(profile)?;
    if profile.facts.max_body.is_some() && profile.limits.max_body.is_some() {
        return wrong(
            &ConfigPath::to(["facts", "max_body"]),
            "facts.max_body is what the provider is known to send, and limits.max_body what it never sends more than: write one",
        );
    }
    if profile.content_encoding.is_some() && !profile.signs_bytes_of_body() {
        return wrong(
            &ConfigPath::to(["content_encoding"]),
            "content_encoding says which bytes of a compressed body are signed, and this profile signs none of them; remove it",
        );
    }
    for (at, member) in profile.auth.members.iter().enumerate() {
        scheme(profile, &member.scheme, &ConfigPath::member(at, member.scheme.table()))?;
        for (key, conditions) in [("when", &member.when), ("check", &member.check)] {
            checks(profile, conditions, &ConfigPath::member(at, key))?;
        }
    }
    key_kinds(profile)?;
    checks(profile, &profile.require, &ConfigPath::to(["require"]))?;
    reference(profile, &profile.event.id, &ConfigPath::to(["event", "id"]))?;
    if let Some(kind) = &profile.event.kind {
        let config_path = ConfigPath::to(["event", "type"]);
        reference(profile, kind, &config_path)?;
        if kind.may_be_made_up() {
            return wrong(&config_path, "a type is read from places; each, digest and unique tell no types apart");
        }
    }
    if let Some(found) = &profile.event.nonce {
        location(found, &ConfigPath::to(["event", "nonce"]), false)?;
    }
    let handshakes = ConfigPath::to(["handshake"]);
    profile.handshakes.iter().enumerate().try_for_each(|(at, given)| handshake(profile, given, &handshakes.item(at)))
}

fn timestamp(profile: &Profile) -> Result<(), Finding> {
    let Some(timestamp) = &profile.timestamp else { return Ok(()) };
    if timestamp.policy == TimestampPolicy::Enforce && timestamp.tolerance.is_none() {
        return wrong(
            &ConfigPath::to(["timestamp"]),
            "[timestamp] has no tolerance; write tolerance = \"5m\", or policy = \"record\" to only measure it",
        );
    }
    location(&timestamp.from, &ConfigPath::to(["timestamp", "from"]), false)
}

fn reference(profile: &Profile, given: &Reference, config_path: &ConfigPath) -> Result<(), Finding> {
    match given {
        Reference::Location(found) => {
            if let Carrier::Json(pointer) = &found.carrier
                && pointer.is_each()
            {
                return wrong(
                    config_path,
                    format!("{pointer} leads to several values; an id of all of them is {{ each = \"{pointer}\" }}"),
                );
            }
            entry(profile, found, config_path)
        }
        Reference::All(several) | Reference::First(several) => {
            several.iter().try_for_each(|one| reference(profile, one, config_path))
        }
        Reference::Each(_) | Reference::BodyDigest | Reference::Unique => Ok(()),
    }
}
