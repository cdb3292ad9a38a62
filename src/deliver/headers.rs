//! The headers that an upstream receives: the sender's end-to-end headers as sent, then the gateway's own.

use std::borrow::Cow;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use super::query::Names;
use crate::body::Inbound;
use crate::event::Event;
use crate::profile::Credentials;
use crate::store::queued::QueuedEvent;

const SOURCE: HeaderName = HeaderName::from_static("doorward-source");
const EVENT_ID: HeaderName = HeaderName::from_static("doorward-event-id");
const EVENT_TYPE: HeaderName = HeaderName::from_static("doorward-event-type");
const RECEIVED_AT: HeaderName = HeaderName::from_static("doorward-received-at");
const ATTEMPT: HeaderName = HeaderName::from_static("doorward-attempt");
/// Path and query of the sender's request.
pub(super) const TARGET: HeaderName = HeaderName::from_static("doorward-target");
/// Not there on what is verified.
pub(super) const VERIFIED: HeaderName = HeaderName::from_static("doorward-verified");
const DEDUPLICATED: HeaderName = HeaderName::from_static("doorward-deduplicated");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The sender's end-to-end headers without those that are the gateway's to set.
///
/// What `Connection` names is dropped here, before anything is added, so that no sender can strip the gateway's own
/// headers that way (RFC 9110 section 7.6.1).
fn end_to_end(inbound: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    // Most requests have none.
    let connection = inbound.contains_key(header::CONNECTION);
    inbound.iter().filter(move |(name, _)| !(is_dropped(name) || connection && is_named_by_connection(name, inbound)))
}

/// All headers of the only attempt to deliver an event.
pub(super) fn of_delivery(
    event: &Event,
    source: &HeaderValue,
    host: &HeaderValue,
    secrets: &Names,
    deduplicated: bool,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(event.inbound().headers().len() + 13);
    headers.insert(header::HOST, host.clone());
    copy(end_to_end(event.inbound().headers()), &mut headers);
    of_event(event, source, secrets, deduplicated, &mut headers);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(event.inbound().sent().len()));
    headers.insert(ATTEMPT, HeaderValue::from_static("1"));
    headers
}

/// The sender's headers that may lie somewhere: the end-to-end ones without credentials.
pub(super) fn to_store<'h>(
    inbound: &'h HeaderMap,
    credentials: &Credentials,
) -> impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)> {
    end_to_end(inbound).filter(|(name, _)| !credentials.is_header(name))
}

/// What is kept of a queued event's headers: all but credentials and those of one attempt.
pub(super) fn to_keep(event: &Event, source: &HeaderValue, credentials: &Credentials, secrets: &Names) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(event.inbound().headers().len() + 13);
    copy(to_store(event.inbound().headers(), credentials), &mut headers);
    of_event(event, source, secrets, true, &mut headers);
    headers
}

/// All headers of one attempt to deliver a queued event.
pub(super) fn of_attempt(event: &QueuedEvent, attempt: u32, host: &HeaderValue) -> HeaderMap {
    let mut headers = event.headers.clone();
    headers.insert(header::HOST, host.clone());
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(event.body.len()));
    headers.insert(ATTEMPT, HeaderValue::from(attempt));
    headers
}

fn copy<'h>(sent: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>, headers: &mut HeaderMap) {
    for (name, value) in sent {
        headers.append(name, value.clone());
    }
}

/// Path and query of a request as sent, but the parameters that are secrets.
pub(super) fn target<'r>(inbound: &'r Inbound, secrets: &Names) -> Cow<'r, str> {
    let target = inbound.target();
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    match secrets.left_out_of(query) {
        Cow::Borrowed(_) => Cow::Borrowed(target),
        Cow::Owned(rest) if rest.is_empty() => Cow::Borrowed(path),
        Cow::Owned(rest) => Cow::Owned(format!("{path}?{rest}")),
    }
}

fn of_event(event: &Event, source: &HeaderValue, secrets: &Names, deduplicated: bool, headers: &mut HeaderMap) {
    let inbound = event.inbound();
    headers.insert(SOURCE, source.clone());
    if let Ok(target) = HeaderValue::from_bytes(target(inbound, secrets).as_bytes()) {
        headers.insert(TARGET, target);
    }
    if event.is_verified() {
        headers.insert(EVENT_ID, event.id().clone());
    } else {
        headers.insert(VERIFIED, HeaderValue::from_static("false"));
    }
    if let Some(kind) = event.kind() {
        headers.insert(EVENT_TYPE, kind.clone());
    }
    if let Ok(received_at) = HeaderValue::try_from(inbound.received_at().rfc3339().to_string()) {
        headers.insert(RECEIVED_AT, received_at);
    }
    if !deduplicated {
        headers.insert(DEDUPLICATED, HeaderValue::from_static("false"));
    }
    forwarded(event, headers);
}

/// `x-forwarded-*`: what trusted proxies said, or what the gateway saw itself.
fn forwarded(event: &Event, headers: &mut HeaderMap) {
    let inbound = event.inbound();
    let Some(client) = inbound.client() else { return };
    headers.insert(FORWARDED_FOR, client.chain().clone());
    let believed =
        |name: &HeaderName| client.by_trusted_proxy().then(|| inbound.headers().get(name).cloned()).flatten();
    let proto = believed(&FORWARDED_PROTO).unwrap_or(HeaderValue::from_static("http"));
    headers.insert(FORWARDED_PROTO, proto);
    if let Some(host) = believed(&FORWARDED_HOST).or_else(|| inbound.headers().get(header::HOST).cloned()) {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Hop-by-hop headers, framing, and names that only the gateway may set. Some servers read an underscore as a hyphen, so
/// those spellings go too.
fn is_dropped(name: &HeaderName) -> bool {
    match name.as_str() {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "expect"
        | "host"
        | "content-length"
        | "forwarded"
        | "x-real-ip" => true,
        name => reserved(name, b"doorward") || reserved(name, b"x-forwarded"),
    }
}

/// Whether a name is `prefix` alone or goes on with a hyphen or an underscore; both count as the same.
fn reserved(name: &str, prefix: &[u8]) -> bool {
    let Some((start, rest)) = name.as_bytes().split_at_checked(prefix.len()) else { return false };
    let same = start.iter().zip(prefix).all(|(given, wanted)| given == wanted || (*given == b'_' && *wanted == b'-'));
    same && matches!(rest.first(), None | Some(b'-' | b'_'))
}

fn is_named_by_connection(name: &HeaderName, inbound: &HeaderMap) -> bool {
    inbound.get_all(header::CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_gateway_are_dropped_in_every_spelling() {
        for name in ["doorward-event-id", "doorward_event_id", "doorward", "x-forwarded-for", "x_forwarded-for", "te"] {
            assert!(is_dropped(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["doorwards", "x-forward", "content-type", "stripe-signature", "traceparent"] {
            assert!(!is_dropped(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn what_connection_names_goes_no_further() {
        let mut sent = HeaderMap::new();
        sent.insert(header::CONNECTION, HeaderValue::from_static("close, X-Hop"));
        sent.insert("x-hop", HeaderValue::from_static("1"));
        sent.insert("x-end", HeaderValue::from_static("2"));
        assert_eq!(end_to_end(&sent).map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-end"]);
    }
}
