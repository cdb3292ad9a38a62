//! Warnings about event ids: values that identify no event, are not signed, or do not stop a replay.

use http::HeaderName;

use crate::profile::Carrier;
use crate::profile::Combination;
use crate::profile::ConfigPath;
use crate::profile::Finding;
use crate::profile::Location;
use crate::profile::Member;
use crate::profile::Profile;
use crate::profile::Reference;
use crate::profile::Scheme;
use crate::profile::Test;
use crate::profile::TimestampPolicy;

/// Headers that are often mistaken for an event's id, and what they identify.
pub(super) const NO_EVENT_IDS: &[(&str, &str)] = &[
    ("x-webhook-id", "at several providers X-Webhook-ID names the subscription and is the same for every event"),
    ("x-webhook-subscription", "X-Webhook-Subscription names the subscription and is the same for every event"),
    ("x-hook-uuid", "X-Hook-UUID names the webhook and is the same for every event"),
    ("x-wc-webhook-id", "X-WC-Webhook-ID names the webhook and is the same for every event"),
    ("x-wc-webhook-delivery-id", "X-WC-Webhook-Delivery-ID is the same for all deliveries of one second"),
    ("x-zendesk-webhook-id", "X-Zendesk-Webhook-Id names the webhook and is the same for every event"),
    ("x-github-hook-id", "X-GitHub-Hook-ID names the webhook and is the same for every event"),
    ("x-gitlab-event-uuid", "X-Gitlab-Event-UUID is shared by hooks that cause each other"),
    ("x-gitlab-webhook-uuid", "X-Gitlab-Webhook-UUID does not stay the same over the attempts of one event"),
];

pub(super) fn lints(profile: &Profile) -> Vec<Finding> {
    let config_path = ConfigPath::to(["event", "id"]);
    let mut lints: Vec<_> = profile
        .event
        .id
        .locations()
        .into_iter()
        .filter_map(no_event_id)
        .map(|what| Finding::new(config_path.clone(), what))
        .collect();
    lints.extend(first_items_of_lists(profile).map(|message| Finding::new(config_path.clone(), message)));
    if takes_uncovered_bodies(profile) {
        lints.push(Finding::new(
            config_path.clone(),
            "stands in the body, which the signature does not cover as a whole: whoever has seen a signature can send \
             it with another body. What is signed is let through once, whatever its id; set allow as well",
        ));
    }
    if (profile.event.id == Reference::Unique || profile.event.id.always_has_digest())
        && profile.auth.members.iter().any(|member| is_replayable(profile, &member.scheme))
    {
        lints.push(Finding::new(
            config_path,
            if profile.event.id == Reference::Unique {
                "is another one for each request, and no signed time is enforced: a captured request is delivered each \
                 time that somebody sends it again"
            } else if profile.signs_timestamp() {
                "is a digest of the body: two events with the same bytes count as one"
            } else {
                "is a digest of the body, and no time is signed: two events with the same bytes count as one, and a \
                 captured request is delivered again once store.ttl has passed"
            },
        ));
    }
    lints
}

fn no_event_id(location: &Location) -> Option<String> {
    let Carrier::Header(names) = &location.carrier else { return None };
    let known = |name: &HeaderName| NO_EVENT_IDS.iter().find(|(known, _)| *known == name.as_str());
    let (_, what) = names.iter().find_map(known)?;
    Some(format!("may be no event's id: {what}"))
}

/// Warnings about ids that are read from one item of a list: events in the other items are lost.
fn first_items_of_lists(profile: &Profile) -> impl Iterator<Item = String> {
    let locations = profile.event.id.locations();
    let pointers = locations.into_iter().filter_map(|location| {
        if let Carrier::Json(pointer) = &location.carrier { Some(pointer.tokens()) } else { None }
    });
    let is_index = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
    let mut lists: Vec<_> =
        pointers.filter_map(|tokens| Some(tokens.split_at_checked(tokens.iter().position(is_index)?)?.0)).collect();
    lists.dedup();
    let requires_one_item = |list: &[String]| {
        let second = [list, &["1".to_owned()]].concat();
        let is_second =
            |location: &Location| matches!(&location.carrier, Carrier::Json(pointer) if *pointer.tokens() == *second);
        profile.require.iter().any(|condition| condition.test == Test::Absent && is_second(&condition.location))
    };
    lists.into_iter().filter(move |list| !requires_one_item(list)).map(|list| {
        let list: String = list.iter().map(|token| format!("/{token}")).collect();
        format!(
            "is that of one item of a list: a batch that begins with an event which came before is dropped with the new ones \
             in it; write each = \"{list}/*/…\", or [[require]] with json = \"{list}/1\" and absent = true where there is \
             never another item"
        )
    })
}

/// Whether a request can be verified by a signature that does not cover the ids in the body.
fn takes_uncovered_bodies(profile: &Profile) -> bool {
    let covers = |member: &Member| {
        let in_body = profile.event.id.locations().into_iter().filter(|location| location.is_in_body());
        in_body.into_iter().all(|location| profile.covers(&member.scheme, location))
    };
    let signatures = || profile.auth.members.iter().filter(|member| matches!(member.scheme, Scheme::Signature(_)));
    match profile.auth.combination {
        Combination::All => signatures().next().is_some() && !signatures().any(covers),
        Combination::First => !signatures().all(covers),
    }
}

/// Whether a captured request stays valid: nothing that the scheme covers expires. JWTs expire.
fn is_replayable(profile: &Profile, scheme: &Scheme) -> bool {
    if let Scheme::Jwt(_) = scheme {
        return false;
    }
    !profile.timestamp.as_ref().is_some_and(|timestamp| {
        timestamp.policy == TimestampPolicy::Enforce
            && timestamp.tolerance.is_some_and(|tolerance| tolerance.past.is_some())
            && profile.covers(scheme, &timestamp.from)
    })
}
