//! The API's answers as JSON.

use base64::Engine as _;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::base::time::Moment;
use crate::message::Message;
use crate::message::codec;
use crate::server::withheld::CredentialLocations;
use crate::store::Details;
use crate::store::Done;
use crate::store::FailedAttempt;
use crate::store::Page;
use crate::store::Recovered;
use crate::store::State;
use crate::store::Summary;
use crate::target;

/// A page of a list. `open_until` tells until when the circuit breaker of a delivery's endpoint is open.
pub(super) fn page(page: &Page, open_until: impl Fn(&Summary) -> Option<Moment>) -> Value {
    let row = |summary: &Summary| {
        let mut row = message(summary);
        row.extend(delivery(summary, &summary.failures.list(), open_until(summary)));
        Value::Object(row)
    };
    json!({ "events": page.deliveries.iter().map(row).collect::<Vec<_>>(), "next": page.next.map(|next| next.to_string()) })
}

/// The result of a replay or a purge.
pub(super) fn done(done: Done) -> Value {
    json!({ "events": done.deliveries, "next": done.next.map(|next| next.to_string()) })
}

/// The result of a recovery.
pub(super) fn recovered(recovered: Recovered) -> Value {
    let Recovered { imported, present, record_lost, lost, next } = recovered;
    let next = next.map(|next| next.to_string());
    json!({ "imported": imported, "present": present, "record_lost": record_lost, "lost": lost, "next": next })
}

/// A message with all its deliveries.
pub(super) fn details(
    details: &Details,
    withheld: &CredentialLocations,
    open_until: impl Fn(&Summary) -> Option<Moment>,
) -> Value {
    let with_failures = |summary: &Summary| {
        let failures = summary.failures.list();
        let mut members = delivery(summary, &failures, open_until(summary));
        members.insert("failures".to_owned(), failures.iter().map(failure).collect());
        Value::Object(members)
    };
    let mut members = details.deliveries.first().map(message).unwrap_or_default();
    members.insert("deliveries".to_owned(), details.deliveries.iter().map(with_failures).collect());
    let request = details.message.as_deref().map_or(Value::Null, |message| request(message, withheld));
    members.insert("request".to_owned(), request);
    Value::Object(members)
}

/// The members that all deliveries of a message have in common.
fn message(summary: &Summary) -> Map<String, Value> {
    members(json!({
        "source": summary.source,
        "number": summary.id.to_string(),
        "type": summary.kind,
        "id": Some(&summary.event_id).filter(|id| !id.is_empty()),
        "received_at": summary.received_at.rfc3339().to_string(),
    }))
}

fn delivery(summary: &Summary, failures: &[FailedAttempt], open_until: Option<Moment>) -> Map<String, Value> {
    let time = |moment: Option<Moment>| moment.map(|moment| moment.rfc3339().to_string());
    let last = failures.last().filter(|_| summary.state != State::Delivered);
    members(json!({
        "destination": summary.destination,
        "state": summary.state.name(),
        "attempts": summary.attempts,
        "last_attempt_at": time(summary.settled_at),
        "next_attempt_at": time(summary.due),
        "breaker_open_until": time(open_until.filter(|_| summary.state.is_open())),
        "status": last.map_or(summary.status, |last| last.status),
        "reason": last.map(|last| &last.reason),
        "answer": last.and_then(|last| last.status.map(|status| json!({ "status": status, "body": last.answer }))),
    }))
}

fn failure(failed: &FailedAttempt) -> Value {
    let FailedAttempt { at, ms, status, reason, answer } = failed;
    json!({ "at": at.rfc3339().to_string(), "took_ms": ms, "status": status, "reason": reason, "answer": answer })
}

fn members(value: Value) -> Map<String, Value> {
    if let Value::Object(members) = value { members } else { Map::new() }
}

/// The request that is delivered, with credentials masked; `null` as body when they cannot be found to be masked.
fn request(message: &Message, withheld: &CredentialLocations) -> Value {
    let headers = target::headers_of(message);
    let shown = headers.iter().filter(|(name, _)| !withheld.is_header(name));
    let headers: Vec<_> = shown.map(|(name, value)| [name.as_str().to_owned(), codec::text(value)]).collect();
    let mut body = json!({ "method": message.method.as_str(), "headers": headers });
    if let Value::Object(members) = &mut body {
        let body = withheld.body(message);
        let (name, body) = match body.as_deref().map(|body| (std::str::from_utf8(body), body)) {
            None => ("body", Value::Null),
            Some((Ok(text), _)) => ("body", Value::from(text)),
            Some((Err(_), bytes)) => {
                ("body_base64", Value::from(base64::engine::general_purpose::STANDARD.encode(bytes)))
            }
        };
        members.insert(name.to_owned(), body);
    }
    body
}
