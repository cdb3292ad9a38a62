//! Describes a profile for people, as labelled lines.

use std::time::Duration;

use super::format::conditions;
use super::format::duration;
use super::proof;
use crate::base::time::Format;
use crate::profile::AnswerBody;
use crate::profile::Answers;
use crate::profile::Combination;
use crate::profile::ContentEncoding;
use crate::profile::Handshake;
use crate::profile::Json;
use crate::profile::Profile;
use crate::profile::Reference;
use crate::profile::ReplayGuard;
use crate::profile::Reply;
use crate::profile::Scheme;
use crate::profile::Status;
use crate::profile::TimestampPolicy;

/// The longest line, in characters.
const WIDTH: usize = 110;
/// The longest label, in characters.
const LABEL: usize = 11;

/// The description of a profile.
pub(super) fn explain(profile: &Profile) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    lines.extend(profile.docs.iter().map(|docs| ("documented", docs.clone())));
    lines.extend(proof::proof(profile));
    lines.extend(time(profile).map(|time| ("time", time)));
    lines.push(("event id", event_id(profile)));
    lines.extend(profile.event.kind.iter().map(|kind| ("event type", format!("{kind}; {}", covered(profile, kind)))));
    lines.extend(profile.event.nonce.iter().map(|nonce| ("nonce", format!("{nonce}, which may come once"))));
    lines.extend(profile.handshakes.iter().map(|spec| ("handshake", handshake(spec))));
    lines.extend(answers(profile).into_iter().map(|answer| ("answers", answer)));
    lines.extend(limits(profile).into_iter().map(|limit| ("limits", limit)));
    lines.extend(facts(profile));
    lines.extend(profile.facts.notes.iter().map(|note| ("note", note.clone())));
    lines.extend(profile.lints().into_iter().map(|lint| ("beware", format!("{} {}", lint.config_path, lint.message))));
    // Two members of a combination may have the same description.
    lines.dedup();
    let mut out = String::new();
    let mut last = "";
    for (label, text) in lines {
        let mut shown = if label == last { "" } else { label };
        last = label;
        for line in wrapped(&text, WIDTH - LABEL - 4) {
            out.push_str(&format!("  {shown:<LABEL$} {line}\n"));
            shown = "";
        }
    }
    out
}

/// A text, wrapped at spaces into lines of at most `width` characters; a longer word has a line of its own.
pub(in crate::cli) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn time(profile: &Profile) -> Option<String> {
    let timestamp = profile.timestamp.as_ref()?;
    let format = match timestamp.format {
        Format::Unix => "Unix seconds",
        Format::UnixMs => "Unix milliseconds",
        Format::UnixFloat => "Unix seconds with decimals",
        Format::Rfc3339 => "RFC 3339",
        Format::Rfc3339Lenient => "RFC 3339, read leniently",
        Format::HttpDate => "an HTTP date",
    };
    let signed = if profile.signs_timestamp() { "signed" } else { "not signed" };
    let judged = match (timestamp.policy, timestamp.tolerance) {
        (TimestampPolicy::Record, _) | (_, None) if profile.signs_timestamp() => {
            "recorded, and not taken once it is as old as store.ttl".to_owned()
        }
        (TimestampPolicy::Record, _) | (_, None) => "recorded, not enforced".to_owned(),
        (TimestampPolicy::Enforce, Some(tolerance)) => {
            let side = |side: Option<Duration>| side.map_or_else(|| "any time".to_owned(), duration);
            format!("at most {} old and {} ahead", side(tolerance.past), side(tolerance.future))
        }
    };
    Some(format!("{}, {format}; {signed}; {judged}", timestamp.from))
}

fn event_id(profile: &Profile) -> String {
    let id = &profile.event.id;
    if *id == Reference::Unique {
        return id.to_string();
    }
    let guarded = |scheme: &Scheme| matches!(scheme, Scheme::Signature(_)) && !profile.covers_all(scheme, id);
    let covered = covered(profile, id);
    let is_guarded = covered != SIGNED && profile.schemes().any(guarded) && profile.event.nonce.is_none();
    let guard = match profile.event.replay_guard {
        ReplayGuard::Content if is_guarded => ", so that what is signed is let through once, whatever its id",
        ReplayGuard::ContentAndType if is_guarded => {
            ", so that what is signed is let through once as each type, whatever its id"
        }
        ReplayGuard::Content | ReplayGuard::ContentAndType | ReplayGuard::Off => "",
    };
    format!("{id}; {covered}{guard}")
}

const SIGNED: &str = "signed";

/// Which schemes sign a value.
fn covered(profile: &Profile, reference: &Reference) -> String {
    let (covering, others): (Vec<&Scheme>, Vec<&Scheme>) =
        profile.schemes().partition(|scheme| profile.covers_all(scheme, reference));
    let any = profile.auth.combination == Combination::All && !covering.is_empty();
    if others.is_empty() || any {
        return SIGNED.to_owned();
    }
    if covering.is_empty() {
        return "not signed".to_owned();
    }
    let titles: Vec<_> = covering.iter().map(|scheme| scheme.title()).collect();
    format!("signed where {} decides", titles.join(" or "))
}

fn handshake(spec: &Handshake) -> String {
    let about = spec.about.as_ref().map(|about| format!("{about} ")).unwrap_or_default();
    let proven = if spec.is_signed() { "verified " } else { "" };
    let when = match spec.when.as_slice() {
        [] => String::new(),
        when => format!(" in which {}", conditions(when)),
    };
    let check = match spec.check.as_slice() {
        [] => String::new(),
        check => format!(", if {},", conditions(check)),
    };
    let visit = spec
        .visit
        .as_ref()
        .map(|visit| format!(" after the address in {} was asked (on the hosts {})", visit.from, visit.hosts))
        .unwrap_or_default();
    format!("{about}Any {proven}{}{when}{check} is answered with {}{visit}.", spec.method.method(), reply(&spec.reply))
}

fn reply(spec: &Reply) -> String {
    let mut out = spec.status.map_or(200, Status::code).to_string();
    if let Some(text) = &spec.text {
        out.push_str(&format!(" and the text {text}"));
    }
    if let Some(json) = &spec.json {
        let members = json.iter().map(|(name, value)| match value {
            Json::Text(text) => format!("{name:?}: \"{text}\""),
            Json::Number(number) => format!("{name:?}: {number}"),
            Json::Bool(yes) => format!("{name:?}: {yes}"),
        });
        out.push_str(&format!(" and {{ {} }}", members.collect::<Vec<_>>().join(", ")));
    }
    for (name, value) in &spec.headers {
        out.push_str(&format!(" and {name}: {value}"));
    }
    out
}

/// The answers that differ from the defaults.
fn answers(profile: &Profile) -> Vec<String> {
    let Answers { accepted, refused, malformed, too_large, retry } = &profile.answers;
    let mut lines = Vec::new();
    let body = |body: &AnswerBody| match body {
        AnswerBody::Text(text) if text.is_empty() => " without a body".to_owned(),
        AnswerBody::Text(text) | AnswerBody::Json(text) => format!(" and {text}"),
    };
    for (status, spec, usual, what) in [
        (accepted.status.map(Status::code), &accepted.body, 200, "for an event that is taken"),
        (refused.status.map(Status::code), &refused.body, 401, "for a request that is not authentic"),
    ] {
        if status.is_some() || spec.is_some() {
            let body = spec.as_ref().map(body).unwrap_or_default();
            lines.push(format!("{}{body} {what}", status.unwrap_or(usual)));
        }
    }
    for (status, what) in
        [(malformed, "for a request that cannot be read"), (too_large, "for a body that is too large")]
    {
        lines.extend(status.map(|status| format!("{} {what}", status.code())));
    }
    lines.extend(retry.map(|status| format!("{} for what is to be sent again", status.code())));
    if let Some(retried) = &profile.facts.retried {
        let (again, taken): (Vec<u16>, Vec<u16>) =
            [200, 201, 202, 204].into_iter().partition(|code| retried.contains(*code));
        let codes = |codes: &[u16]| codes.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ");
        if !again.is_empty() {
            lines.push(format!("{} is what the app has to answer; {} is tried again", codes(&taken), codes(&again)));
        }
    }
    lines
}

fn limits(profile: &Profile) -> Vec<String> {
    let size = profile.limits.max_body.map(|size| format!("bodies of at most {size}"));
    let known = profile.facts.max_body.map(|size| format!("bodies of up to {size}"));
    let coding = profile.content_encoding.map(|signed| match signed {
        ContentEncoding::SignedPlain => "compressed bodies are signed before their compression".to_owned(),
        ContentEncoding::SignedAsSent => "compressed bodies are signed as sent".to_owned(),
    });
    let json = profile.limits.json.then(|| "bodies are JSON objects or arrays".to_owned());
    size.into_iter().chain(known).chain(coding).chain(json).collect()
}

fn facts(profile: &Profile) -> Vec<(&'static str, String)> {
    let facts = &profile.facts;
    let mut lines = Vec::new();
    lines.extend(facts.deadline.map(|deadline| ("waits", format!("{} for the answer", duration(deadline)))));
    lines.extend(facts.retries.iter().map(|retries| ("retries", retries.clone())));
    lines.extend(
        facts.horizon.map(|horizon| ("retries", format!("The last attempt may come after {}.", duration(horizon)))),
    );
    if let Some(retried) = facts.retried.as_ref().filter(|retried| !retried.is_nothing()) {
        lines.push(("retries", format!("Answers that are tried again: {retried}.")));
    }
    if !facts.addresses.is_empty() {
        let addresses: Vec<_> = facts.addresses.iter().map(ToString::to_string).collect();
        lines.push(("addresses", addresses.join(", ")));
    }
    lines
}
