//! Sets the identity of the event in a draft: id, type, time and nonce, at the locations where the profile reads them.

use super::Id;
use super::Order;
use super::draft::Draft;
use crate::profile::Carrier;
use crate::profile::Location;
use crate::profile::Piece;
use crate::profile::Reference;
use crate::profile::Scheme;
use crate::profile::Template;

/// The name of the member or field that makes a body unique.
const MARKER: &str = "doorward-sample";

/// Sets time, type, id and nonce. Returns the id.
pub(super) fn set_identity(draft: &mut Draft<'_>, order: &Order<'_>) -> Result<String, String> {
    let event = &order.profile.event;
    if let Some(timestamp) = &order.profile.timestamp
        && !draft.is_fixed(&timestamp.from)
    {
        draft.set(&timestamp.from, &timestamp.format.write(order.at))?;
    }
    if let Some(kind) = order.kind {
        set_kind(draft, order, kind)?;
    }
    let id = set_id(draft, order)?;
    match &event.nonce {
        Some(nonce) if !draft.is_fixed(nonce) => draft.set(nonce, &id)?,
        _ => {}
    }
    Ok(id)
}

fn set_id(draft: &mut Draft<'_>, order: &Order<'_>) -> Result<String, String> {
    let requested = matches!(order.id, Id::Asked(_));
    let parts = parts(&order.profile.event.id, draft);
    let kinds = order.profile.event.kind.as_ref().map(Reference::locations).unwrap_or_default();
    let Some(main) = distinguishing_part(&parts, &kinds) else {
        return match draft.is_given() && requested {
            true => {
                Err("this provider's events are known by their bodies, and the one that was given stays as it is; \
                         leave out the id"
                    .to_owned())
            }
            false => Ok(order.id.text()),
        };
    };
    if order.profile.schemes().filter_map(Scheme::location).any(|proof| proof == main) {
        return match requested {
            true => Err(format!("this provider's events are known by their proof, the {main}; leave out the id")),
            false => Ok(order.id.text()),
        };
    }
    let text = if draft.is_number(main) { order.id.number() } else { order.id.text() };
    if !draft.is_fixed(main) {
        let absent: Vec<_> = parts.iter().copied().filter(|part| *part != main && !draft.has(part)).collect();
        std::iter::once(main).chain(absent).try_for_each(|part| draft.set(part, &text))?;
    } else if requested {
        return Err(format!(
            "the event's id is the {main}, and the body that was given stays as it is; write the id there"
        ));
    }
    Ok(text)
}

fn set_kind(draft: &mut Draft<'_>, order: &Order<'_>, kind: &str) -> Result<(), String> {
    let parts = order.profile.event.kind.as_ref().map(|spec| parts(spec, draft)).unwrap_or_default();
    let texts: Vec<_> = kind.splitn(parts.len().max(1), '.').collect();
    if parts.is_empty() {
        return Err("this provider's events have no type; leave it out".to_owned());
    }
    if let Some(part) = parts.iter().find(|part| draft.is_fixed(part)) {
        return Err(format!(
            "the event's type is the {part}, and the body that was given stays as it is; write it there"
        ));
    }
    if texts.len() < parts.len() {
        let names: Vec<_> = parts.iter().map(ToString::to_string).collect();
        return Err(format!(
            "a type of this provider's has {} parts, joined by dots: {}; {kind:?} has fewer",
            parts.len(),
            names.join(" and ")
        ));
    }
    parts.into_iter().zip(texts).try_for_each(|(part, text)| draft.set(part, text))
}

/// The locations of a reference's values: of alternatives, the first that is present, or else the first. Empty when it
/// is the digest of the body, or a new id for each request.
fn parts<'r>(reference: &'r Reference, draft: &Draft<'_>) -> Vec<&'r Location> {
    match reference {
        Reference::Location(location) => vec![location],
        Reference::Each(locations) => locations.iter().collect(),
        Reference::All(several) => several.iter().flat_map(|one| parts(one, draft)).collect(),
        Reference::First(several) => {
            let present = several.iter().find(|one| is_present(one, draft));
            present.or_else(|| several.first()).map(|one| parts(one, draft)).unwrap_or_default()
        }
        Reference::BodyDigest | Reference::Unique => Vec::new(),
    }
}

fn is_present(reference: &Reference, draft: &Draft<'_>) -> bool {
    match reference {
        Reference::Location(location) => draft.has(location),
        Reference::Each(locations) => locations.iter().all(|location| draft.has(location)),
        Reference::All(several) => several.iter().all(|one| is_present(one, draft)),
        Reference::First(several) => several.iter().any(|one| is_present(one, draft)),
        Reference::BodyDigest | Reference::Unique => false,
    }
}

/// Of several locations, the one that distinguishes events: the last whose name ends with `id`, or else the first that
/// is not part of the type.
fn distinguishing_part<'p>(parts: &[&'p Location], kinds: &[&Location]) -> Option<&'p Location> {
    let is_id = |location: &&&Location| {
        let name = match &location.carrier {
            Carrier::Header(names) => names.first().map(|name| name.as_str().to_owned()).unwrap_or_default(),
            Carrier::Numbered(name) => name.as_str().to_owned(),
            Carrier::Json(pointer) => pointer.tokens().last().cloned().unwrap_or_default(),
            Carrier::Form(name) | Carrier::Query(name) => name.clone(),
        };
        name.to_ascii_lowercase().ends_with("id")
    };
    let named = parts.iter().rev().find(is_id);
    named.or_else(|| parts.iter().find(|location| !kinds.contains(location))).or_else(|| parts.first()).copied()
}

/// Makes the signed text unique, where the id is not in it, or the event has none. Otherwise it would be the same for
/// every sample, and the gateway would take the second one for a replay.
pub(super) fn make_unique(
    draft: &mut Draft<'_>,
    order: &Order<'_>,
    schemes: &[&Scheme],
    id: &str,
) -> Result<(), String> {
    let event = &order.profile.event;
    let parts = parts(&event.id, draft);
    let digest = event.id.may_be_digest() && parts.is_empty();
    let covered = schemes.iter().any(|scheme| order.profile.covers_all(scheme, &event.id));
    if draft.is_given() || covered && !digest {
        return Ok(());
    }
    // Mailgun signs a random `token` in the body.
    let is_token = |location: &&Location| matches!(&location.carrier, Carrier::Json(pointer) if pointer.tokens().last().is_some_and(|name| name == "token"));
    let signed = schemes.iter().flat_map(|scheme| scheme.signed()).flat_map(Template::walk);
    for location in signed.filter_map(Piece::location).filter(is_token) {
        if draft.has(location) {
            draft.set(location, &draft.replacement(location, id))?;
        }
    }
    let body_is_unique = event.nonce.is_some() || parts.iter().any(|part| part.is_in_body());
    if digest || !body_is_unique && schemes.iter().any(|scheme| scheme.signs_body()) {
        draft.add_marker(MARKER, id);
    }
    Ok(())
}
