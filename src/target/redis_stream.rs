//! Delivers to a Redis stream: appends each message once. A message is acknowledged when Redis stores the entry as
//! durably as the settings ask.

use std::sync::LazyLock;
use std::time::Duration;

use http::HeaderValue;

use super::Failure;
use crate::message::Message;
use crate::message::codec;
use crate::store::Keyspace;
use crate::store::Redis;
use crate::store::redis::script::Script;

/// Appends an entry to a stream, unless one of its markers exists.
///
/// `KEYS`: the markers, then the stream. `ARGV`: how long markers live (ms), the length of the stream (`0`: unlimited),
/// then the names and values of the fields. Returns 1 when the entry was appended before. In that case the script still
/// writes (`PEXPIRE`), because `WAIT` and `WAITAOF` only confirm the writes of their own connection.
static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local sent = false
         for i = 1, #KEYS - 1 do
           if redis.call('PEXPIRE', KEYS[i], ARGV[1]) == 1 then sent = true end
         end
         if sent then return 1 end
         local entry = {'XADD', KEYS[#KEYS]}
         if ARGV[2] ~= '0' then
           table.insert(entry, 'MAXLEN') table.insert(entry, '~') table.insert(entry, ARGV[2])
         end
         table.insert(entry, '*')
         for i = 3, #ARGV do table.insert(entry, ARGV[i]) end
         redis.call(unpack(entry))
         for i = 1, #KEYS - 1 do redis.call('SET', KEYS[i], '', 'PX', ARGV[1]) end
         return 0",
    )
});

/// A stream to append to.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its key.
    pub key: String,
    /// Where the markers of its messages are, on the node of the stream.
    pub keyspace: Keyspace,
    /// About how many entries it keeps; all when absent.
    pub maxlen: Option<u64>,
}

/// The stream of one source, with the connections of one runtime.
#[derive(Debug)]
pub struct RedisStream {
    redis: Redis,
    stream: Stream,
    /// How long the marker of a message lives.
    ttl: Duration,
}

impl RedisStream {
    /// Appends to `stream`; a message is appended at most once within `ttl`.
    pub fn new(redis: Redis, stream: Stream, ttl: Duration) -> Self {
        Self { redis, stream, ttl }
    }

    /// Appends a message, unless one with its keys was appended.
    ///
    /// An entry has the fields `source`, `id`, `type`, `received_at` (RFC 3339), `method`, `target` (path and query),
    /// `headers` (a JSON array of name and value pairs), `body` (the bytes as received) and `verified` (`true` or
    /// `false`).
    ///
    /// # Errors
    /// [`Failure`] when Redis did not confirm the entry.
    pub(super) async fn publish(&self, message: &Message) -> Result<(), Failure> {
        let Self { redis, stream, ttl } = self;
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
        let sent = message.keys.into_iter().flat_map(|keys| keys.iter());
        let sent = sent.map(|key| format!("{}sent:{}", stream.keyspace.prefix(), key.hex()));
        let call = APPEND.call(sent.chain([stream.key.clone()]));
        let call = call.argument(ttl.as_millis().to_string()).argument(stream.maxlen.unwrap_or(0).to_string());
        let call = fields.iter().fold(call, |call, (name, value)| call.argument(*name).argument(*value));
        match redis.run(&stream.keyspace, call).await {
            Ok(_appended) => Ok(()),
            Err(failed) => {
                Err(Failure::Unacknowledged { why: failed.error.to_string(), ambiguous: failed.perhaps_done })
            }
        }
    }
}
