//! The store: dedupe records, messages and their deliveries. In memory (dedupe records only), in a SQLite file, or in
//! Redis for several gateways. Every `match` over the kinds of stores is in this file, `queues` and `operations`, which
//! hold parts of `impl Store`.
//!
//! The store is authoritative. The process only caches its claims (deliveries that were taken) and messages that were
//! just stored or read; a queue has no read position.

mod admin;
pub mod dedupe_log;
mod delivery;
mod gauge;
mod keyspace;
pub mod metrics;
mod operations;
mod options;
mod owner_only;
mod page_cache;
mod queues;
mod records;
pub mod redis;
mod search;
pub mod sqlite;
mod types;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;

pub use self::admin::*;
pub use self::delivery::*;
pub use self::keyspace::Keyspace;
pub use self::keyspace::SourceTag;
pub use self::options::Kind;
pub use self::options::Options;
pub use self::records::DedupeRecords;
pub use self::records::Record;
pub use self::redis::Durability;
pub use self::redis::Redis;
pub use self::redis::RedisUrl;
pub use self::sqlite::Sqlite;
pub use self::types::*;
use crate::base::supervisor::Supervisor;
use crate::verify::event_key::Ignored;
use crate::verify::event_key::Key;

/// Hashes event keys, which are digests already, for tables in memory: fast, and randomly seeded, so that a sender who
/// chooses ids cannot provoke collisions.
pub(crate) type KeyHasher = foldhash::quality::RandomState;
/// Values by event key.
pub(crate) type KeyMap<V> = HashMap<Key, V, KeyHasher>;

/// The store of a process. A clone is another handle to the same one.
#[derive(Debug, Clone)]
pub enum Store {
    /// Dedupe records in memory, lost when the process ends. No queues.
    Memory(Arc<DedupeRecords>),
    /// A file that only this process uses, and dedupe records in a log in the same folder.
    Sqlite(Arc<Sqlite>),
    /// A Redis, for several processes.
    Redis(Redis),
}

impl Store {
    /// Opens a store. A Redis is connected to when it is first used.
    ///
    /// # Errors
    /// Why a file cannot be used, for the operator.
    pub fn open(options: &Options<'_>) -> Result<Self, String> {
        Ok(match options.kind {
            Kind::Memory => {
                let (spaces, wall) = (options.spaces.iter().cloned(), options.clocks.0.clone());
                Self::Memory(Arc::new(DedupeRecords::new(options.max_events, spaces, wall)))
            }
            Kind::Sqlite(path) => Self::Sqlite(Arc::new(Sqlite::open(path, options)?)),
            Kind::Redis(url) => Self::Redis(Redis::new(url, options)),
        })
    }

    /// A handle for another runtime, with connections of its own. It connects when it is first used.
    #[must_use]
    pub fn local(&self) -> Self {
        match self {
            Self::Memory(_) | Self::Sqlite(_) => self.clone(),
            Self::Redis(redis) => Self::Redis(redis.local()),
        }
    }

    /// The Redis, if the store is one.
    pub fn redis(&self) -> Option<&Redis> {
        match self {
            Self::Redis(redis) => Some(redis),
            Self::Memory(_) | Self::Sqlite(_) => None,
        }
    }

    /// Whether the store has queues.
    pub fn has_queues(&self) -> bool {
        !matches!(self, Self::Memory(_))
    }

    /// The collectors of its metrics.
    ///
    /// # Errors
    /// Only when a metric has a bad name, which is a bug.
    pub fn collectors(&self) -> prometheus::Result<Vec<Box<dyn Collector>>> {
        Ok(match self {
            Self::Memory(records) => vec![Box::new(records.evicted().clone())],
            Self::Sqlite(sqlite) => sqlite.collectors()?,
            Self::Redis(redis) => vec![Box::new(redis.refused().clone())],
        })
    }

    /// Readiness: whether a gateway with this store can be sent events. `durable_records` requires that dedupe records
    /// outlive a crash.
    ///
    /// # Errors
    /// [`Unavailable`] when a file cannot be written, or a Redis has never answered. A Redis that has answered before
    /// is ready even if it does not answer now: gateways that share it must not all become unready at once.
    pub fn ready(&self, durable_records: bool) -> Result<(), Unavailable> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Sqlite(sqlite) if durable_records => sqlite.healthy().and_then(|()| sqlite.remembers()),
            Self::Sqlite(sqlite) => sqlite.healthy(),
            Self::Redis(redis) if redis.has_answered() => Ok(()),
            Self::Redis(_) => Err(Unavailable("Redis has not answered yet".to_owned())),
        }
    }

    /// Liveness: whether the store can work without a restart of the process.
    ///
    /// # Errors
    /// [`Unavailable`] when a file can no longer be written.
    pub fn sound(&self) -> Result<(), Unavailable> {
        match self {
            Self::Sqlite(sqlite) => sqlite.sound(),
            Self::Memory(_) | Self::Redis(_) => Ok(()),
        }
    }

    /// Claims an event for `lease`. Returns `None` when it is claimed, or what became of it earlier. Where one process
    /// has the store for itself, `dedup` holds the claims, and this only looks up finished events.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer, or could not record the event.
    pub async fn claim(&self, once: &Once, lease: Duration) -> Result<Option<Earlier>, Unavailable> {
        match self {
            Self::Memory(records) => Ok(records.earlier(once.space.tag(), once.keys)),
            // A duplicate is recognised even when no more records can be written.
            Self::Sqlite(sqlite) => match sqlite.records().earlier(once.space.tag(), once.keys) {
                Some(earlier) => Ok(Some(earlier)),
                None => sqlite.remembers().map(|()| None),
            },
            Self::Redis(redis) => redis.claim(once, lease).await,
        }
    }

    /// Records that the event is finished. When this returns, the record outlives a kill of the process; with
    /// `store.durability` also a power failure. An event without a claim (`claimed` is false, because the store was
    /// unavailable) is recorded in memory only, except in Redis.
    ///
    /// # Errors
    /// [`Unavailable`] when the record may not outlive a kill.
    pub async fn commit(&self, once: &Once, claimed: bool) -> Result<(), Unavailable> {
        let (tag, keys) = (once.space.tag(), once.keys.iter());
        match self {
            Self::Memory(records) => {
                keys.for_each(|key| records.insert(tag, key, once.ttl));
                Ok(())
            }
            // The disk may be full: events that are delivered nevertheless must not be appended to the log.
            Self::Sqlite(sqlite) if !claimed => {
                keys.for_each(|key| sqlite.records().insert(tag, key, once.ttl));
                Ok(())
            }
            Self::Sqlite(sqlite) => sqlite.commit(tag, keys, once.ttl).await,
            Self::Redis(redis) => redis.commit(once).await,
        }
    }

    /// Releases a claim, now or after some time.
    pub async fn release(&self, once: &Once, after: Duration) {
        if let Self::Redis(redis) = self {
            redis.release(once, after).await;
        }
    }

    /// Records an event whose type is not wanted, so that a replay with another type is recognised.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer, or cannot record it.
    pub async fn ignore(&self, space: &Keyspace, ignored: Ignored, ttl: Duration) -> Result<IgnoreResult, Unavailable> {
        match self {
            Self::Memory(records) => {
                let result = records.ignored(space.tag(), ignored);
                if result == IgnoreResult::New {
                    ignored.iter().for_each(|key| records.insert(space.tag(), key, ttl));
                }
                Ok(result)
            }
            Self::Sqlite(sqlite) => match sqlite.records().ignored(space.tag(), ignored) {
                IgnoreResult::New => {
                    sqlite.remembers()?;
                    sqlite.commit(space.tag(), ignored.iter(), ttl).await.map(|()| IgnoreResult::New)
                }
                result @ (IgnoreResult::Again | IgnoreResult::OtherType) => Ok(result),
            },
            Self::Redis(redis) => redis.ignore(space, ignored, ttl).await,
        }
    }

    /// Waits until everything is written, at the end of the process, but not for a disk that hangs. Later calls on
    /// other handles may fail, or not be answered.
    pub fn close(&self) {
        match self {
            Self::Sqlite(sqlite) => sqlite.close(),
            Self::Memory(_) | Self::Redis(_) => {}
        }
    }

    /// Starts the background tasks of queues on the current runtime.
    pub fn maintain(&self, supervisor: &Supervisor) {
        match self {
            Self::Memory(_) | Self::Sqlite(_) => {}
            Self::Redis(redis) => redis.maintain(supervisor),
        }
    }
}
