//! Sorts the headers of a request into those that are delivered, credentials, and those that are dropped: hop-by-hop
//! headers, framing, and names that only the gateway may set.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use super::Headers;
use super::TRACEPARENT;
use crate::http::origin::Client;
use crate::profile;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The most headers that are added.
const ADDED: usize = 3;

/// The headers of a request, sorted.
#[derive(Debug)]
pub(super) struct Sorted {
    /// The end-to-end headers in order, then `x-forwarded-*`.
    pub(super) headers: Headers,
    pub(super) credentials: Headers,
    /// The last `traceparent`.
    pub(super) trace: Option<HeaderValue>,
}

impl Sorted {
    /// Sorts the headers of a request. `spec` tells which are credentials.
    ///
    /// Headers that `Connection` names are dropped before any header is added, so that no sender can remove the
    /// gateway's own headers that way (RFC 9110 section 7.6.1).
    pub(super) fn new(sent: HeaderMap, client: Option<Client>, spec: &profile::Credentials) -> Self {
        let connection: Vec<_> = sent.get_all(header::CONNECTION).iter().cloned().collect();
        let trusted = client.as_ref().is_some_and(Client::by_trusted_proxy);
        let forwarded = |name: &HeaderName| if trusted { sent.get(name).cloned() } else { None };
        let (proto, mut host) = (forwarded(&FORWARDED_PROTO), forwarded(&FORWARDED_HOST));
        let headers = Headers::with_capacity(sent.len() + ADDED);
        let mut sorted = Self { headers, credentials: Headers::new(), trace: None };
        let mut kind = Kind::Dropped;
        for (name, value) in sent {
            // `HeaderMap` yields the name only with its first value.
            if let Some(name) = &name {
                kind = Kind::of(name, &connection, spec);
            }
            match kind {
                Kind::Dropped => {}
                Kind::Host => host = host.or(Some(value)),
                // The last value is the trace; earlier ones are ordinary headers.
                Kind::Trace => sorted.headers.extend(sorted.trace.replace(value).map(|it| (TRACEPARENT.clone(), it))),
                Kind::EndToEnd => push(&mut sorted.headers, name, value),
                Kind::Credential => push(&mut sorted.credentials, name, value),
            }
        }
        // From trusted proxies, or else from the connection and the request itself.
        if let Some(client) = client {
            let scheme = HeaderValue::from_static(client.scheme());
            sorted.headers.push((FORWARDED_FOR, client.into_chain()));
            sorted.headers.push((FORWARDED_PROTO, proto.unwrap_or(scheme)));
            sorted.headers.extend(host.map(|host| (FORWARDED_HOST, host)));
        }
        sorted
    }
}

/// Adds a value; without a name, to the last name.
fn push(headers: &mut Headers, name: Option<HeaderName>, value: HeaderValue) {
    if let Some(name) = name.or_else(|| headers.last().map(|(name, _)| name.clone())) {
        headers.push((name, value));
    }
}

/// What is done with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    EndToEnd,
    Credential,
    Trace,
    /// `Host`, which is passed on as `x-forwarded-host`.
    Host,
    Dropped,
}

impl Kind {
    fn of(name: &HeaderName, connection: &[HeaderValue], spec: &profile::Credentials) -> Self {
        if *name == header::HOST {
            Self::Host
        } else if is_dropped(name) || is_named_by(connection, name) {
            Self::Dropped
        } else if spec.is_header(name) {
            Self::Credential
        } else if *name == TRACEPARENT {
            Self::Trace
        } else {
            Self::EndToEnd
        }
    }
}

/// Whether a header of a message was added by the gateway. Those of a sender with such a name were dropped.
pub(super) fn is_forwarded(name: &HeaderName) -> bool {
    [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST].contains(name)
}

/// Whether a header is hop-by-hop, framing, or one that only the gateway may set, also when written with underscores,
/// which some servers read as hyphens.
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
        | "content-length"
        | "forwarded"
        | "x-real-ip" => true,
        name => has_prefix(name, b"doorward") || has_prefix(name, b"x-forwarded"),
    }
}

/// Whether a name is `prefix`, or begins with it and a hyphen. Underscores count as hyphens.
fn has_prefix(name: &str, prefix: &[u8]) -> bool {
    let Some((start, rest)) = name.as_bytes().split_at_checked(prefix.len()) else { return false };
    let same =
        start.iter().zip(prefix).all(|(byte, expected)| byte == expected || (*byte == b'_' && *expected == b'-'));
    same && matches!(rest.first(), None | Some(b'-' | b'_'))
}

/// Whether a value of `Connection` names a header.
fn is_named_by(connection: &[HeaderValue], name: &HeaderName) -> bool {
    connection.iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(sent: &[(&'static str, &'static str)]) -> Sorted {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Sorted::new(headers, None, &profile::Credentials::default())
    }

    fn shown(headers: &Headers) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect()
    }

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
        let sorted = sorted(&[
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("x-end", "2"),
            ("connection", "x-two"),
            ("x-two", "3"),
        ]);
        assert_eq!(shown(&sorted.headers), ["x-end: 2"]);
    }

    #[test]
    fn credentials_are_apart_and_what_is_left_keeps_its_order() {
        let sorted = sorted(&[
            ("host", "hooks.example"),
            ("x-b", "1"),
            ("cookie", "a"),
            ("x-a", "2"),
            ("x-b", "3"),
            ("authorization", "Bearer b"),
            ("cookie", "c"),
        ]);
        assert_eq!(shown(&sorted.headers), ["x-b: 1", "x-b: 3", "x-a: 2"]);
        assert_eq!(shown(&sorted.credentials), ["cookie: a", "cookie: c", "authorization: Bearer b"]);
    }

    #[test]
    fn of_several_traces_none_is_lost_and_they_keep_their_order() {
        let sorted = sorted(&[("traceparent", "00-1"), ("x-a", "1"), ("traceparent", "00-2")]);
        assert_eq!(sorted.trace.as_ref().map(HeaderValue::as_bytes), Some(&b"00-2"[..]));
        assert_eq!(shown(&sorted.headers), ["traceparent: 00-1", "x-a: 1"]);
    }
}
