//! Delivers by appending to a Redis stream; the event is on it exactly once, and acknowledged when Redis has it.

use http::HeaderValue;

use super::headers;
use super::query::Names;
use crate::event::Event;
use crate::profile::Credentials;
use crate::store::Keys;
use crate::store::Published;
use crate::store::Redis;
use crate::store::Stream;
use crate::store::Token;
use crate::store::Unavailable;
use crate::store::pairs;

/// The stream of one source, over the connection of one worker.
#[derive(Debug)]
pub struct RedisStream {
    redis: Redis,
    stream: Stream,
    source: HeaderValue,
    credentials: Credentials,
    secrets: Names,
}

impl RedisStream {
    /// Publishes the events of `source` to `stream`, without its credentials in headers and query.
    pub fn new(redis: Redis, stream: Stream, source: HeaderValue, credentials: Credentials) -> Self {
        let secrets = Names::of_secrets(&credentials);
        Self { redis, stream, source, credentials, secrets }
    }

    /// Appends an event unless one with these keys is there already.
    ///
    /// An entry has the fields `source`, `id`, `type`, `received_at` (RFC 3339), `method`, `target` (path and query), `headers` (a
    /// JSON array of name and value pairs), `body` (the bytes as received) and `verified` (`true` or `false`).
    ///
    /// # Errors
    /// [`Unavailable`] when Redis did not say that it has the event.
    pub async fn publish(
        &self,
        event: &Event,
        keys: Option<Keys>,
        attempt: (Token, std::time::Duration),
    ) -> Result<Published, Unavailable> {
        let inbound = event.inbound();
        let received_at = inbound.received_at().rfc3339().to_string();
        let sent = pairs::to_json(headers::to_store(inbound.headers(), &self.credentials));
        let target = headers::target(inbound, &self.secrets);
        let fields: [(&str, &[u8]); 9] = [
            ("source", self.source.as_bytes()),
            ("id", event.id().as_bytes()),
            ("type", event.kind().map(HeaderValue::as_bytes).unwrap_or_default()),
            ("received_at", received_at.as_bytes()),
            ("method", inbound.method().as_str().as_bytes()),
            ("target", target.as_bytes()),
            ("headers", sent.as_bytes()),
            ("body", inbound.sent()),
            ("verified", if event.is_verified() { b"true" } else { b"false" }),
        ];
        self.redis.publish(keys, attempt, &self.stream, &fields).await
    }
}
