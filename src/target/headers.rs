//! The headers of one attempt: the sender's, then the gateway's own.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use super::Attempt;
use crate::message::Credentials;
use crate::message::Message;
use crate::message::TRACEPARENT;

const SOURCE: HeaderName = HeaderName::from_static("doorward-source");
const EVENT_ID: HeaderName = HeaderName::from_static("doorward-event-id");
const EVENT_TYPE: HeaderName = HeaderName::from_static("doorward-event-type");
const RECEIVED_AT: HeaderName = HeaderName::from_static("doorward-received-at");
const ATTEMPT: HeaderName = HeaderName::from_static("doorward-attempt");
/// Path and query of the sender's request.
const TARGET: HeaderName = HeaderName::from_static("doorward-target");
/// Only on messages that are not verified: `false`.
const VERIFIED: HeaderName = HeaderName::from_static("doorward-verified");
const DEDUPLICATED: HeaderName = HeaderName::from_static("doorward-deduplicated");

/// Most headers that are added to the sender's.
const ADDED: usize = 11;

/// The headers that every attempt to deliver a message has.
pub fn headers_of(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(message.headers.len() + ADDED);
    add(message, None, &mut headers);
    headers
}

/// All headers of one attempt.
pub(super) fn for_attempt(message: &Message, attempt: &Attempt<'_>, host: &HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(message.headers.len() + ADDED);
    headers.insert(header::HOST, host.clone());
    add(message, attempt.credentials, &mut headers);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(message.body.len()));
    // Most attempts are the first.
    let number = if attempt.number == 1 { HeaderValue::from_static("1") } else { HeaderValue::from(attempt.number) };
    headers.insert(ATTEMPT, number);
    if !attempt.deduplicated {
        headers.insert(DEDUPLICATED, HeaderValue::from_static("false"));
    }
    headers
}

/// Adds the headers of a message: the sender's with these credentials, then the gateway's.
fn add(message: &Message, credentials: Option<&Credentials>, headers: &mut HeaderMap) {
    for (name, value) in &message.headers {
        headers.append(name, value.clone());
    }
    for (name, value) in credentials.into_iter().flat_map(Credentials::iter) {
        headers.append(name, value.clone());
    }
    if let Some(trace) = &message.trace {
        headers.append(&TRACEPARENT, trace.clone());
    }
    headers.insert(SOURCE, message.source.clone());
    if let Ok(target) = HeaderValue::from_bytes(message.target.as_bytes()) {
        headers.insert(TARGET, target);
    }
    if message.verified {
        headers.insert(EVENT_ID, message.event_id.clone());
    } else {
        headers.insert(VERIFIED, HeaderValue::from_static("false"));
    }
    if let Some(kind) = &message.kind {
        headers.insert(EVENT_TYPE, kind.clone());
    }
    if let Ok(received_at) = HeaderValue::try_from(message.received_at.rfc3339().to_string()) {
        headers.insert(RECEIVED_AT, received_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &Message, attempt: &Attempt<'_>) -> Vec<String> {
        let headers = for_attempt(message, attempt, &HeaderValue::from_static("app"));
        headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect()
    }

    #[test]
    fn an_attempt_tells_what_is_known_of_its_message() {
        let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
        let verified = Message {
            kind: Some(HeaderValue::from_static("push")),
            headers: headers.clone(),
            target: "/caf\u{e9}?a".into(),
            trace: Some(HeaderValue::from_static("00-1")),
            ..Message::example()
        };
        let attempt = Attempt { number: 7, deduplicated: true, credentials: None };
        let expected = [
            "host: app",
            "content-type: text/plain",
            "traceparent: 00-1",
            "doorward-source: shop",
            "doorward-target: /caf\u{e9}?a",
            "doorward-event-id: 1",
            "doorward-event-type: push",
            "doorward-received-at: 1970-01-01T00:00:00.000Z",
            "content-length: 0",
            "doorward-attempt: 7",
        ];
        assert_eq!(shown(&verified, &attempt), expected);
        let observed = Message { verified: false, headers, ..Message::example() };
        let expected = [
            "host: app",
            "content-type: text/plain",
            "doorward-source: shop",
            "doorward-target: /",
            "doorward-verified: false",
            "doorward-received-at: 1970-01-01T00:00:00.000Z",
            "content-length: 0",
            "doorward-attempt: 1",
            "doorward-deduplicated: false",
        ];
        assert_eq!(shown(&observed, &Attempt { number: 1, deduplicated: false, credentials: None }), expected);
    }
}
