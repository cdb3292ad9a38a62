//! Claims and finished events in Redis, shared by all gateways that use the same server.
//!
//! A key holds `P` and the token of the attempt that claims it, or `D` and the token of the attempt that finished it. That of
//! an event whose type was not wanted, and is not signed, holds `I` and what stands for the type.
//! Redis keeps the time, so gateways need no common clock. Every verb may be repeated by the same attempt: a reply that
//! was lost does no harm.

pub(crate) mod connection;
pub(crate) mod durable;
mod queue;
pub(crate) mod script;
pub(crate) mod scripts;
mod seek;
pub(crate) mod url;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::FromRedisValue;

use self::connection::Connection;
pub(crate) use self::connection::Failed;
pub use self::durable::Durability;
use self::durable::Durable;
pub use self::queue::Queues;
pub use self::queue::RedisBacklog;
pub(crate) use self::script::Call;
pub(crate) use self::script::Script;
use self::scripts::CLAIM;
use self::scripts::IGNORE;
use self::scripts::PUBLISH;
use self::scripts::earlier;
use self::scripts::kind;
use self::scripts::millis;
use self::scripts::names;
use self::scripts::released;
pub use self::url::RedisUrl;
use self::url::Topology;
use super::Earlier;
use super::Keys;
use super::Keyspace;
use super::Noted;
use super::Published;
use super::Token;
use super::Unavailable;
use crate::event::Ignored;
use crate::supervisor::Background;
use crate::supervisor::Supervisor;

/// Most claims and marks that are tried again in the background at one time.
const MAX_ORPHANS: usize = 4096;
/// Pause between two such attempts.
const ORPHAN_PAUSE: Duration = Duration::from_millis(500);
/// How long a mark is tried again: longer than a failover takes.
const MARK_PATIENCE: Duration = Duration::from_secs(60);

/// The store of one worker in Redis.
#[derive(Debug, Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    url: RedisUrl,
    timeout: Duration,
    durability: Option<Durability>,
    ways: Ways,
    /// Claims and marks that are tried again, and how many they are.
    again: Background,
    orphans: AtomicUsize,
    supervisor: Supervisor,
}

/// The ways to the keys.
#[derive(Debug)]
enum Ways {
    /// One for all.
    One(Way),
    /// In a cluster, where each keyspace is on one node: one for each.
    Each(HashMap<Keyspace, Way>),
}

#[derive(Debug)]
struct Way {
    connection: Connection,
    /// Made when it is first needed: what only deduplicates does not.
    durable: OnceLock<Durable>,
}

impl Redis {
    /// The store at this address with these keyspaces, for one worker: call it on that worker's runtime. A command may take
    /// `timeout`; events on streams are acknowledged when `durability` holds, at once without one.
    pub fn connect(
        url: &RedisUrl,
        timeout: Duration,
        durability: Option<Durability>,
        spaces: impl IntoIterator<Item = Keyspace>,
        supervisor: &Supervisor,
    ) -> Self {
        let way = |space: Option<&Keyspace>| Way {
            connection: Connection::keep(url, space, timeout, supervisor),
            durable: OnceLock::new(),
        };
        let ways = match url.topology {
            Topology::Server | Topology::Sentinel { .. } => Ways::One(way(None)),
            Topology::Cluster => {
                let mut ways = HashMap::new();
                for space in spaces {
                    ways.entry(space).or_insert_with_key(|space| way(Some(space)));
                }
                Ways::Each(ways)
            }
        };
        let (again, orphans) = (Background::default(), AtomicUsize::new(0));
        let (url, supervisor) = (url.clone(), supervisor.clone());
        Self { shared: Arc::new(Shared { url, timeout, durability, ways, again, orphans, supervisor }) }
    }

    /// Whether Redis has answered at any time.
    pub fn has_answered(&self) -> bool {
        match &self.shared.ways {
            Ways::One(way) => way.connection.was_made(),
            Ways::Each(ways) => ways.values().any(|way| way.connection.was_made()),
        }
    }

    fn way(&self, space: &Keyspace) -> Result<&Way, Failed> {
        let way = match &self.shared.ways {
            Ways::One(way) => Some(way),
            Ways::Each(ways) => ways.get(space),
        };
        way.ok_or_else(|| Failed::unheard(format!("there is no way to the keys {}", space.prefix())))
    }

    /// Runs a script that is the same whether it runs once or twice.
    async fn call<T: FromRedisValue>(&self, space: &Keyspace, call: &Call) -> Result<T, Failed> {
        self.way(space)?.connection.run(|connection| call.run(connection)).await
    }

    /// As [`call`](Self::call); what the script wrote is as safe as the settings want when there is an answer.
    async fn durable(&self, space: &Keyspace, call: Call) -> Result<i64, Failed> {
        let Shared { url, timeout, durability, ways, supervisor, .. } = &*self.shared;
        let Some(durability) = *durability else { return self.call(space, &call).await };
        let place = match ways {
            Ways::One(_) => None,
            Ways::Each(_) => Some(space),
        };
        let durable = &self.way(space)?.durable;
        durable.get_or_init(|| Durable::keep(url, place, (*timeout, durability), supervisor)).run(call).await
    }

    pub(crate) async fn claim(
        &self,
        space: &Keyspace,
        keys: Keys,
        token: Token,
        lease: Duration,
    ) -> Result<Option<Earlier>, Unavailable> {
        let ignored = keys.ignored.map(|ignored| space.name(ignored.any));
        let call = CLAIM.call(names(space, keys).chain(ignored));
        let call = call.argument(token.text()).argument(millis(lease).to_string()).argument(kind(keys.ignored));
        match self.call::<i64>(space, &call).await {
            Ok(0) => Ok(None),
            Ok(answer) => Ok(Some(earlier(answer))),
            Err(failed) => {
                if failed.perhaps_done {
                    // Redis may have taken a claim whose answer never came, and that nobody will use. The provider's
                    // retry should not have to wait for the lease, after which it has ended by itself.
                    let let_go = released(space, keys, token, Duration::ZERO);
                    self.later(space, lease, move |way| {
                        let let_go = Arc::clone(&let_go);
                        async move { way.run(|connection| let_go.run::<i64>(connection)).await.map(drop) }
                    });
                }
                Err(failed.error)
            }
        }
    }

    /// Remembers an event whose type is not wanted.
    pub(crate) async fn ignore(&self, space: &Keyspace, ignored: Ignored, ttl: Duration) -> Result<Noted, Unavailable> {
        let call = IGNORE.call([space.name(ignored.any)]);
        let call = call.argument(ignored.typed.hex()).argument(millis(ttl).to_string());
        match self.call::<i64>(space, &call).await.map_err(|failed| failed.error)? {
            0.. => Ok(Noted::New),
            -1 => Ok(Noted::Again),
            _ => Ok(Noted::OtherType),
        }
    }

    pub(crate) async fn commit(
        &self,
        space: &Keyspace,
        keys: Keys,
        token: Token,
        ttl: Duration,
    ) -> Result<(), Unavailable> {
        // Done is the highest state, so that no script has to compare.
        let mut sets = redis::pipe();
        for name in names(space, keys) {
            sets.cmd("SET").arg(name).arg(token.done()).arg("PX").arg(millis(ttl)).ignore();
        }
        let sets = Arc::new(sets);
        let mark = move |way: Connection| {
            let sets = Arc::clone(&sets);
            async move {
                let sets = &*sets;
                way.run(|mut connection| async move { sets.query_async::<()>(&mut connection).await }).await
            }
        };
        let Err(failed) = mark(self.way(space).map_err(|failed| failed.error)?.connection.clone()).await else {
            return Ok(());
        };
        // A failover takes longer than anybody can wait for an answer.
        self.later(space, MARK_PATIENCE, mark);
        Err(failed.error)
    }

    pub(crate) async fn release(&self, space: &Keyspace, keys: Keys, token: Token) {
        self.hold(space, keys, token, Duration::ZERO).await;
    }

    pub(crate) async fn hold(&self, space: &Keyspace, keys: Keys, token: Token, duration: Duration) {
        if let Err(failed) = self.call::<i64>(space, &released(space, keys, token, duration)).await {
            tracing::warn!(error = %failed.error, "a claim could not be released; it ends with its lease");
        }
    }

    /// Tries again in the background until it works, for this long.
    fn later<F>(&self, space: &Keyspace, patience: Duration, attempt: impl Fn(Connection) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), Failed>> + Send,
    {
        let Ok(way) = self.way(space) else { return };
        let connection = way.connection.clone();
        if self.shared.orphans.fetch_add(1, Ordering::Relaxed) >= MAX_ORPHANS {
            self.shared.orphans.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let shared = Arc::downgrade(&self.shared);
        self.shared.again.spawn("redis-again", async move {
            let attempts = async {
                while attempt(connection.clone()).await.is_err() {
                    tokio::time::sleep(ORPHAN_PAUSE).await;
                }
            };
            let _late = tokio::time::timeout(patience, attempts).await;
            if let Some(shared) = shared.upgrade() {
                shared.orphans.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }

    /// Runs a script that is the same whether it runs once or twice, with keys beside this keyspace. What it wrote is as safe as
    /// the settings want when there is an answer.
    pub(crate) async fn run_durably(&self, space: &Keyspace, call: Call) -> Result<i64, Failed> {
        self.durable(space, call).await
    }

    /// Appends an event to a stream and marks it finished in one step, unless it is finished or claimed; without keys
    /// it is appended and not remembered.
    ///
    /// # Errors
    /// [`Unavailable`] when Redis did not say that it has the event, as safely as the settings want.
    pub async fn publish(
        &self,
        keys: Option<Keys>,
        (token, ttl): (Token, Duration),
        stream: &Stream,
        fields: &[(&str, &[u8])],
    ) -> Result<Published, Unavailable> {
        let space = &stream.keyspace;
        let ignored = keys.and_then(|keys| keys.ignored);
        let marks = keys.into_iter().flat_map(|keys| names(space, keys));
        let marks = marks.chain(ignored.map(|ignored| space.name(ignored.any)));
        let call = PUBLISH.call(marks.chain([stream.key.clone()]));
        let call = call.argument(token.text()).argument(millis(ttl).to_string()).argument(kind(ignored));
        let call = call.argument(stream.maxlen.unwrap_or(0).to_string());
        let call = fields.iter().fold(call, |call, (name, value)| call.argument(*name).argument(*value));
        match self.durable(space, call).await.map_err(|failed| failed.error)? {
            0 | 1 => Ok(Published::Appended),
            answer => Ok(Published::Earlier(earlier(answer))),
        }
    }
}

/// A stream to append to.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its key.
    pub key: String,
    /// What its events are remembered under.
    pub keyspace: Keyspace,
    /// About how many entries it keeps; all when absent.
    pub maxlen: Option<u64>,
}
