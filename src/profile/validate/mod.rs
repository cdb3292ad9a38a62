//! Checks that the parts of a profile fit together, beyond what deserialization checks.

mod handshake;
mod schemes;
mod values;

use self::handshake::check_handshake;
use self::schemes::check_key_kinds;
use self::schemes::check_scheme;
use self::values::check_conditions;
use self::values::check_item_key;
use self::values::check_location;
use crate::profile::Carrier;
use crate::profile::ConfigPath;
use crate::profile::Finding;
use crate::profile::Profile;
use crate::profile::Reference;
use crate::profile::TimestampPolicy;
use crate::profile::finding::fail;
use crate::profile::template::is_name;

/// Checks that the parts of a profile fit together.
pub(super) fn validate(profile: &Profile) -> Result<(), Finding> {
    let unusable = |name: &&String| !is_name(name);
    if let Some(name) = profile.params.keys().find(unusable) {
        return fail(
            &ConfigPath::to(["params", name]),
            "a parameter is named with a to z, 0 to 9 and _: with another name, no template can have it",
        );
    }
    check_timestamp(profile)?;
    if profile.facts.max_body.is_some() && profile.limits.max_body.is_some() {
        return fail(
            &ConfigPath::to(["facts", "max_body"]),
            "facts.max_body is what the provider is known to send, and limits.max_body what it never sends more than: write one",
        );
    }
    if profile.content_encoding.is_some() && !profile.signs_bytes_of_body() {
        return fail(
            &ConfigPath::to(["content_encoding"]),
            "content_encoding says which bytes of a compressed body are signed, and this profile signs none of them; remove it",
        );
    }
    for (at, member) in profile.auth.members.iter().enumerate() {
        check_scheme(profile, &member.scheme, &ConfigPath::member(at, member.scheme.table()))?;
        for (key, conditions) in [("when", &member.when), ("check", &member.check)] {
            check_conditions(profile, conditions, &ConfigPath::member(at, key))?;
        }
    }
    check_key_kinds(profile)?;
    check_conditions(profile, &profile.require, &ConfigPath::to(["require"]))?;
    check_reference(profile, &profile.event.id, &ConfigPath::to(["event", "id"]))?;
    if let Some(kind) = &profile.event.kind {
        let config_path = ConfigPath::to(["event", "type"]);
        check_reference(profile, kind, &config_path)?;
        if kind.may_be_computed() {
            return fail(&config_path, "a type is read from places; each, digest and unique tell no types apart");
        }
    }
    if let Some(nonce) = &profile.event.nonce {
        check_location(nonce, &ConfigPath::to(["event", "nonce"]), false)?;
    }
    let handshakes = ConfigPath::to(["handshake"]);
    profile
        .handshakes
        .iter()
        .enumerate()
        .try_for_each(|(at, handshake)| check_handshake(profile, handshake, &handshakes.item(at)))
}

fn check_timestamp(profile: &Profile) -> Result<(), Finding> {
    let Some(timestamp) = &profile.timestamp else { return Ok(()) };
    if timestamp.policy == TimestampPolicy::Enforce && timestamp.tolerance.is_none() {
        return fail(
            &ConfigPath::to(["timestamp"]),
            "[timestamp] has no tolerance; write tolerance = \"5m\", or policy = \"record\" to only measure it",
        );
    }
    check_location(&timestamp.from, &ConfigPath::to(["timestamp", "from"]), false)
}

fn check_reference(profile: &Profile, reference: &Reference, config_path: &ConfigPath) -> Result<(), Finding> {
    match reference {
        Reference::Location(location) => {
            if let Carrier::Json(pointer) = &location.carrier
                && pointer.is_each()
            {
                return fail(
                    config_path,
                    format!("{pointer} leads to several values; an id of all of them is {{ each = \"{pointer}\" }}"),
                );
            }
            check_item_key(profile, location, config_path)
        }
        Reference::All(several) | Reference::First(several) => {
            several.iter().try_for_each(|one| check_reference(profile, one, config_path))
        }
        Reference::Each(_) | Reference::BodyDigest | Reference::Unique => Ok(()),
    }
}
