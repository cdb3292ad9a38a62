//! Claims and finished events in Redis, shared by all gateways that use the same server.
//!
//! A key holds `P` and the token of the attempt that claims it, or `D` and the token of the attempt that finished it.
//! Redis keeps the time, so gateways need no common clock. Every verb may be repeated by the same attempt: a reply that
//! was lost does no harm.

mod connection;

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Script;
use redis::ScriptInvocation;

use self::connection::Connection;
use self::connection::Failed;
pub use self::connection::RedisUrl;
use super::Answer;
use super::Keys;
use super::Published;
use super::Token;
use super::Unavailable;

/// `-1` when a key is done, the remaining milliseconds when another attempt holds it, or `0` and both are claimed.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for _, key in ipairs(KEYS) do
           local state = redis.call('GET', key)
           if state then
             if string.sub(state, 1, 1) == 'D' then return -1 end
             if state ~= 'P' .. ARGV[1] then return math.max(redis.call('PTTL', key), 1) end
           end
         end
         for _, key in ipairs(KEYS) do redis.call('SET', key, 'P' .. ARGV[1], 'PX', ARGV[2]) end
         return 0",
    )
});

/// Lets go of the keys that this attempt holds: at once, or after some milliseconds.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for _, key in ipairs(KEYS) do
           if redis.call('GET', key) == 'P' .. ARGV[1] then redis.call('PEXPIRE', key, ARGV[2]) end
         end
         return 0",
    )
});

/// Checks, appends and marks done in one step; the last key is the stream. As for a claim, or `1` when this very attempt
/// has published before.
static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for i = 1, #KEYS - 1 do
           local state = redis.call('GET', KEYS[i])
           if state == 'D' .. ARGV[1] then return 1 end
           if state then
             if string.sub(state, 1, 1) == 'D' then return -1 end
             return math.max(redis.call('PTTL', KEYS[i]), 1) + 1
           end
         end
         local entry = {'XADD', KEYS[#KEYS]}
         if ARGV[3] ~= '0' then
           table.insert(entry, 'MAXLEN') table.insert(entry, '~') table.insert(entry, ARGV[3])
         end
         table.insert(entry, '*')
         for i = 4, #ARGV do table.insert(entry, ARGV[i]) end
         redis.call(unpack(entry))
         for i = 1, #KEYS - 1 do redis.call('SET', KEYS[i], 'D' .. ARGV[1], 'PX', ARGV[2]) end
         return 0",
    )
});

/// Most claims whose fate is unknown that are released in the background at one time.
const MAX_ORPHANS: usize = 256;

/// The store of one worker in Redis.
#[derive(Debug, Clone)]
pub struct Redis {
    connection: Connection,
    orphans: Arc<AtomicUsize>,
}

impl Redis {
    /// The store at this address, for one worker: call it on that worker's runtime. A command may take `timeout`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn connect(url: &RedisUrl, timeout: Duration) -> Result<Self, String> {
        Ok(Self { connection: Connection::keep(url, timeout)?, orphans: Arc::default() })
    }

    /// Whether Redis has answered at any time.
    pub fn has_answered(&self) -> bool {
        self.connection.was_made()
    }

    pub(crate) async fn claim(&self, keys: Keys, token: Token, lease: Duration) -> Result<Answer, Unavailable> {
        let mut call = CLAIM.prepare_invoke();
        keys.iter().for_each(|key| {
            call.key(name(key));
        });
        call.arg(token.text()).arg(millis(lease));
        match self.call(&call).await {
            Ok(0) => Ok(Answer::Fresh),
            Ok(-1) => Ok(Answer::Finished),
            Ok(remaining) => Ok(Answer::InFlight(Duration::from_millis(remaining.unsigned_abs()))),
            Err(failed) => {
                if failed.perhaps_done {
                    self.release_later(keys, token, lease);
                }
                Err(failed.error)
            }
        }
    }

    pub(crate) async fn commit(&self, keys: Keys, token: Token, ttl: Duration) -> Result<(), Unavailable> {
        // Done is the highest state, so that no script has to compare.
        let mut sets = redis::pipe();
        for key in keys.iter() {
            sets.cmd("SET").arg(name(key)).arg(token.done()).arg("PX").arg(millis(ttl)).ignore();
        }
        let sets = &sets;
        self.connection
            .run(|mut connection| async move { sets.query_async::<()>(&mut connection).await })
            .await
            .map_err(|failed| failed.error)
    }

    pub(crate) async fn release(&self, keys: Keys, token: Token) {
        self.hold(keys, token, Duration::ZERO).await;
    }

    pub(crate) async fn hold(&self, keys: Keys, token: Token, duration: Duration) {
        if let Err(failed) = self.let_go(keys, token, duration).await {
            tracing::warn!(error = %failed.error, "a claim could not be released; it ends with its lease");
        }
    }

    async fn let_go(&self, keys: Keys, token: Token, after: Duration) -> Result<(), Failed> {
        let mut call = RELEASE.prepare_invoke();
        keys.iter().for_each(|key| {
            call.key(name(key));
        });
        call.arg(token.text()).arg(millis(after));
        self.call(&call).await.map(drop)
    }

    async fn call(&self, call: &ScriptInvocation<'_>) -> Result<i64, Failed> {
        self.connection.run(|mut connection| async move { call.invoke_async(&mut connection).await }).await
    }

    /// Redis may have taken a claim whose answer never came, and that nobody will use. The provider's retry should not
    /// have to wait for the lease.
    fn release_later(&self, keys: Keys, token: Token, lease: Duration) {
        if self.orphans.fetch_add(1, Ordering::Relaxed) >= MAX_ORPHANS {
            self.orphans.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let redis = self.clone();
        drop(tokio::spawn(async move {
            let release = async {
                while redis.let_go(keys, token, Duration::ZERO).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            };
            // After that the claim has ended by itself.
            let _ended = tokio::time::timeout(lease, release).await;
            redis.orphans.fetch_sub(1, Ordering::Relaxed);
        }));
    }

    /// Appends an event to a stream and marks it finished in one step, unless it is finished or claimed; without keys
    /// it is appended and not remembered.
    ///
    /// # Errors
    /// [`Unavailable`] when Redis did not say that it has the event.
    pub async fn publish(
        &self,
        keys: Option<Keys>,
        (token, ttl): (Token, Duration),
        stream: &Stream,
        fields: &[(&str, &[u8])],
    ) -> Result<Published, Unavailable> {
        let mut call = PUBLISH.prepare_invoke();
        keys.into_iter().flat_map(Keys::iter).for_each(|key| {
            call.key(name(key));
        });
        call.key(stream.key.as_str()).arg(token.text()).arg(millis(ttl)).arg(stream.maxlen.unwrap_or(0));
        fields.iter().for_each(|(name, value)| {
            call.arg(*name).arg(*value);
        });
        match self.call(&call).await.map_err(|failed| failed.error)? {
            0 | 1 => Ok(Published::Appended),
            -1 => Ok(Published::Finished),
            remaining => Ok(Published::InFlight(Duration::from_millis(remaining.unsigned_abs()))),
        }
    }
}

/// A stream to append to.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its key.
    pub key: String,
    /// About how many entries it keeps; all when absent.
    pub maxlen: Option<u64>,
}

impl Token {
    fn text(self) -> String {
        format!("{:032x}", self.0)
    }

    fn done(self) -> String {
        format!("D{:032x}", self.0)
    }
}

fn name(key: crate::event::Key) -> String {
    format!("doorward:{}", key.hex())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
