//! The headers of one attempt: the sender's, then the gateway's own.

use std::fmt::Display;
use std::io::Write as _;

use http::HeaderName;
use http::HeaderValue;
use http::header;

use super::Attempt;
use crate::message::Credentials;
use crate::message::Headers;
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
/// As long as a number or a time can be.
const MAX_DISPLAYED: usize = 32;

/// The headers that every attempt to deliver a message has.
pub fn headers_of(message: &Message) -> Headers {
    let mut headers = Headers::with_capacity(message.headers.len() + ADDED);
    of_message(message, None, &mut |name, value| {
        headers.extend(HeaderValue::from_bytes(value).map(|value| (name.clone(), value)));
    });
    headers
}

/// Gives the names and the values of all headers of one attempt to `write`, in their order.
pub(super) fn of_attempt(
    message: &Message,
    attempt: &Attempt<'_>,
    host: &HeaderValue,
    write: &mut impl FnMut(&HeaderName, &[u8]),
) {
    write(&header::HOST, host.as_bytes());
    of_message(message, attempt.credentials, write);
    shown(&header::CONTENT_LENGTH, message.body.len(), write);
    shown(&ATTEMPT, attempt.number, write);
    if !attempt.deduplicated {
        write(&DEDUPLICATED, b"false");
    }
}

/// The headers of a message, with these credentials behind the sender's.
fn of_message(message: &Message, credentials: Option<&Credentials>, write: &mut impl FnMut(&HeaderName, &[u8])) {
    for (name, value) in message.headers.iter().filter(|(name, _)| !is_own(name)) {
        write(name, value.as_bytes());
    }
    for (name, value) in credentials.into_iter().flat_map(Credentials::iter) {
        write(name, value.as_bytes());
    }
    if let Some(trace) = &message.trace {
        write(&TRACEPARENT, trace.as_bytes());
    }
    write(&SOURCE, message.source.as_bytes());
    if is_value(message.target.as_bytes()) {
        write(&TARGET, message.target.as_bytes());
    }
    if message.verified {
        write(&EVENT_ID, message.event_id.as_bytes());
    } else {
        write(&VERIFIED, b"false");
    }
    if let Some(kind) = &message.kind {
        write(&EVENT_TYPE, kind.as_bytes());
    }
    shown(&RECEIVED_AT, message.received_at.rfc3339(), write);
}

/// Writes a header whose value is a number or a time.
fn shown(name: &HeaderName, value: impl Display, write: &mut impl FnMut(&HeaderName, &[u8])) {
    let mut text = [0; MAX_DISPLAYED];
    let mut room = text.as_mut_slice();
    if write!(room, "{value}").is_ok() {
        let length = MAX_DISPLAYED - room.len();
        write(name, text.get(..length).unwrap_or_default());
    }
}

/// Whether the gateway alone sets it. No sender's comes this far, but a store that others write to may have one.
fn is_own(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "host" | "content-length" | "transfer-encoding") || name.starts_with("doorward-")
}

/// Whether a header can have this value.
fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &Message, attempt: &Attempt<'_>) -> Vec<String> {
        let mut shown = Vec::new();
        of_attempt(message, attempt, &HeaderValue::from_static("app"), &mut |name, value| {
            shown.push(format!("{name}: {}", String::from_utf8_lossy(value)));
        });
        shown
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

    #[test]
    fn headers_of_the_gateway_are_its_own_whatever_a_store_gave_back() {
        let own = ["host", "content-length", "transfer-encoding", "doorward-event-id", "doorward-attempt"];
        let headers = own.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("forged")));
        let forged = Message { headers: headers.to_vec(), ..Message::example() };
        let attempt = Attempt { number: 1, deduplicated: true, credentials: None };
        assert_eq!(shown(&forged, &attempt), shown(&Message::example(), &attempt));
        assert_eq!(headers_of(&forged), headers_of(&Message::example()));
    }

    #[test]
    fn a_value_is_one_for_the_library_too() {
        for byte in 0..=u8::MAX {
            assert_eq!(is_value(&[b'a', byte]), HeaderValue::from_bytes(&[b'a', byte]).is_ok(), "{byte}");
        }
        for number in [0, usize::MAX] {
            let mut all = Vec::new();
            super::shown(&ATTEMPT, number, &mut |_, value| all.push(value.to_vec()));
            assert_eq!(all, [number.to_string().into_bytes()]);
        }
    }
}
