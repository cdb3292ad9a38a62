//! What the API says of events, as JSON.

use base64::Engine as _;
use serde_json::Value;
use serde_json::json;

use super::withheld::Places;
use crate::message::Message;
use crate::message::codec;
use crate::store::queued::Details;
use crate::store::queued::Done;
use crate::store::queued::Page;
use crate::store::queued::Summary;
use crate::target;
use crate::time::Moment;

/// A part of a list.
pub(super) fn page(page: &Page) -> Value {
    json!({ "events": page.events.iter().map(summary).collect::<Vec<_>>(), "next": page.next })
}

/// What was done.
pub(super) fn done(done: &Done) -> Value {
    json!({ "events": done.events, "next": done.next })
}

/// An event whole.
pub(super) fn details(details: &Details, withheld: &Places) -> Value {
    let mut told = summary(&details.summary);
    if let Value::Object(members) = &mut told {
        members.insert(
            "request".to_owned(),
            details.message.as_deref().map_or(Value::Null, |message| request(message, withheld)),
        );
    }
    told
}

fn summary(event: &Summary) -> Value {
    let time = |moment: Option<Moment>| moment.map(|moment| moment.rfc3339().to_string());
    json!({
        "source": event.source,
        "number": event.number.to_string(),
        "state": event.state.name(),
        "type": event.kind,
        "id": Some(&event.id).filter(|id| !id.is_empty()),
        "received_at": event.received_at.rfc3339().to_string(),
        "attempts": event.attempts,
        "last_attempt_at": time(event.settled_at),
        "next_attempt_at": time(event.due),
        "reason": event.reason,
        "answer": event.answer.as_ref().map(|answer| json!({ "status": answer.status, "body": answer.body })),
    })
}

/// What is delivered.
fn request(message: &Message, withheld: &Places) -> Value {
    let headers = target::headers_of(message);
    let shown = headers.iter().filter(|(name, _)| !withheld.is_header(name));
    let headers: Vec<_> = shown.map(|(name, value)| [name.as_str().to_owned(), codec::text(value)]).collect();
    let mut told = json!({ "method": message.method.as_str(), "headers": headers });
    if let Value::Object(members) = &mut told {
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
    told
}
