//! Delivers by appending to a Redis stream; the message is on it exactly once, and acknowledged when Redis has it.

use std::time::Duration;

use http::HeaderValue;

use crate::message::Message;
use crate::message::codec;
use crate::store::Published;
use crate::store::Redis;
use crate::store::Stream;
use crate::store::Token;
use crate::store::Unavailable;

/// The stream of one source, over the connection of one worker.
#[derive(Debug)]
pub struct RedisStream {
    redis: Redis,
    stream: Stream,
}

impl RedisStream {
    /// Publishes to `stream`.
    pub fn new(redis: Redis, stream: Stream) -> Self {
        Self { redis, stream }
    }

    /// Appends a message unless one with its keys is there already.
    ///
    /// An entry has the fields `source`, `id`, `type`, `received_at` (RFC 3339), `method`, `target` (path and query), `headers` (a
    /// JSON array of name and value pairs), `body` (the bytes as received) and `verified` (`true` or `false`).
    ///
    /// # Errors
    /// [`Unavailable`] when Redis did not say that it has the message.
    pub async fn publish(&self, message: &Message, attempt: (Token, Duration)) -> Result<Published, Unavailable> {
        let received_at = message.received_at.rfc3339().to_string();
        let headers = codec::to_json(message.sent());
        let fields: [(&str, &[u8]); 9] = [
            ("source", message.source.as_bytes()),
            ("id", message.event_id.as_bytes()),
            ("type", message.kind.as_ref().map(HeaderValue::as_bytes).unwrap_or_default()),
            ("received_at", received_at.as_bytes()),
            ("method", message.method.as_str().as_bytes()),
            ("target", message.target.as_bytes()),
            ("headers", headers.as_bytes()),
            ("body", &message.body),
            ("verified", if message.verified { b"true" } else { b"false" }),
        ];
        self.redis.publish(message.keys, attempt, &self.stream, &fields).await
    }
}
