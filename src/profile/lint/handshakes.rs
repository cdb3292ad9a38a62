//! Warnings about handshakes that sign any text a client sends, or mistake events for probes.

use crate::profile::Carrier;
use crate::profile::Condition;
use crate::profile::ConfigPath;
use crate::profile::Finding;
use crate::profile::Function;
use crate::profile::Handshake;
use crate::profile::Location;
use crate::profile::Piece;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::profile::Template;
use crate::profile::Test;
use crate::profile::Verb;

pub(super) fn lints(profile: &Profile) -> impl Iterator<Item = Finding> {
    signing_of_any_text(profile).chain(unsigned_that_match_events(profile))
}

/// Unsigned handshakes that sign a text of the client without limiting it.
fn signing_of_any_text(profile: &Profile) -> impl Iterator<Item = Finding> {
    let signs = |handshake: &Handshake| {
        handshake.templates().flat_map(Template::walk).any(|piece| matches!(piece, Piece::Call(Function::Hmac(..), _)))
    };
    let limits = |check: &Condition| matches!(check.test, Test::Equals(_) | Test::Length(..) | Test::Without(_));
    let open = profile.handshakes.iter().enumerate().filter(move |(_, handshake)| {
        !handshake.is_signed() && !handshake.check.iter().any(limits) && signs(handshake)
    });
    open.map(|(at, _)| {
        Finding::new(
            ConfigPath::to(["handshake"]).item(at).key("check"),
            "says nothing of what the text may be, and the reply is signed: anybody can have a signature made over a \
             text of theirs, perhaps an event; write a check that lets no event's body pass, such as without = \"{[\" or max_length",
        )
    })
}

/// Unsigned handshakes whose conditions a signed event may meet, too.
fn unsigned_that_match_events(profile: &Profile) -> impl Iterator<Item = Finding> {
    let is_header = |location: &Location| matches!(location.carrier, Carrier::Header(_) | Carrier::Numbered(_));
    let unsigned = profile
        .handshakes
        .iter()
        .enumerate()
        .filter(|(_, handshake)| handshake.method == Verb::Post && !handshake.is_signed());
    unsigned.filter_map(move |(at, handshake)| {
        let requires_absence_of = |proof: &Location| {
            let absent = handshake.when.iter().filter(|condition| condition.test == Test::Absent);
            absent.into_iter().any(|condition| condition.location == Location { item: None, ..proof.clone() })
        };
        let taken =
            profile.schemes().map(Scheme::proof).find(|proof| is_header(proof) && !requires_absence_of(proof))?;
        Some(Finding::new(
            ConfigPath::to(["handshake"]).item(at).key("when"),
            format!(
                "does not say that {} is absent: what is signed may be taken for the probe, answered and never \
                 delivered; write a condition on it with absent = true",
                Location { item: None, ..taken }
            ),
        ))
    })
}
