//! A [`Message`] is a webhook as it is delivered and stored. The [`Credentials`] of its request are never stored.

pub(crate) mod codec;
mod headers;

use std::fmt;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::Method;

use self::headers::Sorted;
use crate::base::time::Moment;
use crate::http::inbound::Inbound;
use crate::profile;
pub use crate::verify::event_key::Keys;
use crate::verify::identity::Event;

/// Headers in order. A list and not a map, because they are only passed on and not looked up.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// The header that identifies the trace of a request (W3C Trace Context).
pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A webhook as it is delivered and stored. It has no credentials, except those in its body, which is delivered as it
/// was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The name of its source.
    pub source: HeaderValue,
    /// The provider's id of the event; empty when it is not verified.
    pub event_id: HeaderValue,
    /// The type of the event, where it has a usable one.
    pub kind: Option<HeaderValue>,
    /// When the head of the request was complete.
    pub received_at: Moment,
    /// The method as sent.
    pub method: Method,
    /// The sender's end-to-end headers in order, without credentials and without [`trace`](Self::trace); then
    /// `x-forwarded-*`.
    pub headers: Headers,
    /// The body as sent, byte for byte.
    pub body: Bytes,
    /// Path and query as sent, without the parameters that are credentials.
    pub target: Box<str>,
    /// The sender's `traceparent`.
    pub trace: Option<HeaderValue>,
    /// Whether the request was verified.
    pub verified: bool,
    /// The keys of its dedupe records; `None` when it is not verified, or was read from a store.
    pub keys: Option<Keys>,
}

/// The headers of a request that are credentials: they let anybody who reads them send other requests. They are dropped
/// with the request.
#[derive(Default)]
pub struct Credentials(Headers);

impl Message {
    /// The message of an event of this source, and its credentials, which the profile defines.
    pub fn verified(event: Event, source: &HeaderValue, spec: &profile::Credentials) -> (Self, Credentials) {
        let Event { inbound, id, kind, keys, ahead: _, lane: _ } = event;
        let (mut message, credentials) = Self::observed(inbound, source, spec);
        message.event_id = id;
        message.kind = kind;
        message.verified = true;
        message.keys = Some(keys);
        (message, credentials)
    }

    /// The same for a request that was not verified, or has no event id, of a source that only observes.
    pub fn observed(inbound: Inbound, source: &HeaderValue, spec: &profile::Credentials) -> (Self, Credentials) {
        let parts = inbound.into_parts();
        let target = spec.remove_from(parts.target()).into();
        let Sorted { headers, credentials, trace } = Sorted::new(parts.headers, parts.client, spec);
        let message = Self {
            source: source.clone(),
            event_id: HeaderValue::from_static(""),
            kind: None,
            received_at: parts.received_at,
            method: parts.method,
            headers,
            body: parts.body,
            target,
            trace,
            verified: false,
            keys: None,
        };
        (message, Credentials(credentials))
    }

    /// The sender's headers, without credentials and without `x-forwarded-*`.
    pub fn sent(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let sent = codec::pairs(&self.headers).filter(|(name, _)| !headers::is_forwarded(name));
        sent.chain(self.trace.iter().map(|trace| (&TRACEPARENT, trace)))
    }

    /// The approximate number of bytes that it takes in memory.
    pub fn weight(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        self.body.len() + headers + self.target.len() + 256
    }
}

impl Credentials {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        codec::pairs(&self.0)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
impl Message {
    /// Any message that a store can return: without keys.
    pub(crate) fn any() -> impl proptest::strategy::Strategy<Value = Self> {
        use proptest::prelude::*;

        let value = || {
            proptest::collection::vec(any::<u8>(), 0..20)
                .prop_filter_map("no value", |bytes| HeaderValue::from_bytes(&bytes).ok())
        };
        let name = "[a-z][a-z0-9-]{0,9}".prop_map(|name| HeaderName::try_from(name).expect("a name"));
        let headers = proptest::collection::vec((name, value()), 0..9);
        let method =
            proptest::sample::select(vec![Method::POST, Method::GET, Method::from_bytes(b"ODD-1").expect("a method")]);
        let values = (value(), proptest::option::of(value()), proptest::option::of(value()));
        let body = proptest::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from);
        let rest = (any::<bool>(), any::<i64>(), ".{0,20}");
        (values, method, headers, body, rest).prop_map(
            |((event_id, kind, trace), method, headers, body, (verified, received_at, target))| Self {
                event_id,
                kind,
                received_at: Moment::from_millis(received_at),
                method,
                headers,
                body,
                target: target.into(),
                trace,
                verified,
                ..Self::example()
            },
        )
    }

    /// A fixed message for tests.
    pub(crate) fn example() -> Self {
        Self {
            source: HeaderValue::from_static("shop"),
            event_id: HeaderValue::from_static("1"),
            kind: None,
            received_at: Moment::from_unix(0),
            method: Method::POST,
            headers: Headers::new(),
            body: Bytes::new(),
            target: "/".into(),
            trace: None,
            verified: true,
            keys: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn request(target: &str, headers: &[(&'static str, &'static str)]) -> Inbound {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let (target, headers) = (target.parse().expect("a target"), headers.collect());
        Inbound::recorded(Method::POST, target, headers, Bytes::from_static(b"{}"), Moment::from_unix(1))
    }

    #[test]
    fn a_message_has_no_credential_of_its_request() {
        let profile = "title = \"Own\"\n[auth.token]\nfrom = { query = \"code\" }\n[event]\nid = { unique = true }\n";
        let profile = Profile::parse(profile).unwrap_or_else(|wrong| panic!("{wrong}"));
        let known = profile::Credentials::of(&profile);
        let sent = [("cookie", "hush"), ("x-kept", "1"), ("referer", "/?code=hush"), ("traceparent", "00-a-b-01")];
        let inbound = request("/in?a=1&code=hush&b", &sent);
        let (message, credentials) = Message::observed(inbound, &HeaderValue::from_static("own"), &known);
        assert!(!format!("{message:?}").contains("hush"), "{message:?}");
        assert_eq!((&*message.target, message.verified, message.keys), ("/in?a=1&b", false, None));
        assert_eq!(message.sent().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-kept", "traceparent"]);
        assert_eq!(format!("{credentials:?}"), r#"{"cookie", "referer"}"#);
        let values: Vec<_> = credentials.iter().map(|(_, value)| value.as_bytes()).collect();
        assert_eq!(values, [&b"hush"[..], b"/?code=hush"]);
    }
}
