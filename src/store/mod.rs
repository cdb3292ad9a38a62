//! Everything that is stored: dedupe records, messages and their deliveries. In memory (dedupe records only), in a
//! SQLite file, or in Redis for several gateways. Every `match` over the stores is in this file, `queues` and
//! `operations`.
//!
//! The store alone is authoritative. The process keeps claims in memory (what it has in hand) and messages that were
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

/// Values by event key. Hashed with random numbers of this process: whoever can choose ids cannot make their keys fall
/// together.
pub(crate) type KeyMap<V> = HashMap<Key, V>;

/// The store of a process. A clone is another handle to the same one.
#[derive(Debug, Clone)]
pub enum Store {
    /// Dedupe records in this process, until it ends. It has no queues.
    Memory(Arc<DedupeRecords>),
    /// A file of this process, and dedupe records in a log beside it.
    Sqlite(Arc<Sqlite>),
    /// A Redis, for several processes.
    Redis(Redis),
}

impl Store {
    /// Opens a store. A Redis is connected to when it is first used.
    ///
    /// # Errors
    /// What is wrong with a file, for the operator.
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

    /// The store as it is used on another runtime: a connection lives on one. Connects when it is first used.
    #[must_use]
    pub fn local(&self) -> Self {
        match self {
            Self::Memory(_) | Self::Sqlite(_) => self.clone(),
            Self::Redis(redis) => Self::Redis(redis.local()),
        }
    }

    /// The Redis, where it is one.
    pub fn redis(&self) -> Option<&Redis> {
        match self {
            Self::Redis(redis) => Some(redis),
            Self::Memory(_) | Self::Sqlite(_) => None,
        }
    }

    /// Whether it keeps messages, to be looked at and delivered.
    pub fn has_queues(&self) -> bool {
        !matches!(self, Self::Memory(_))
    }

    /// What it counts, to be registered.
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

    /// Whether a gateway with this store can be sent events; with `remembering`, only if it knows after a crash what
    /// was delivered.
    ///
    /// # Errors
    /// [`Unavailable`] when a file cannot be written, or a Redis has never answered. One that has answered before may
    /// come back at any time, and replicas that share it must not all stop being ready at once.
    pub fn ready(&self, remembering: bool) -> Result<(), Unavailable> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Sqlite(sqlite) if remembering => sqlite.healthy().and_then(|()| sqlite.remembers()),
            Self::Sqlite(sqlite) => sqlite.healthy(),
            Self::Redis(redis) if redis.has_answered() => Ok(()),
            Self::Redis(_) => Err(Unavailable("Redis has not answered yet".to_owned())),
        }
    }

    /// Whether the store works without a restart of the process.
    ///
    /// # Errors
    /// [`Unavailable`] when a file cannot be written any more.
    pub fn sound(&self) -> Result<(), Unavailable> {
        match self {
            Self::Sqlite(sqlite) => sqlite.sound(),
            Self::Memory(_) | Self::Redis(_) => Ok(()),
        }
    }

    /// Asks to deliver an event, for as long as `lease`: nothing when it may be, or what became of it earlier. Where
    /// one process has the store for itself, claims are that process's, and only what is finished is looked up.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer, or could not remember the event.
    pub async fn claim(&self, once: &Once, lease: Duration) -> Result<Option<Earlier>, Unavailable> {
        match self {
            Self::Memory(records) => Ok(records.earlier(once.space.tag(), once.keys)),
            // What is known is known, whether or not more can be remembered.
            Self::Sqlite(sqlite) => match sqlite.records().earlier(once.space.tag(), once.keys) {
                Some(earlier) => Ok(Some(earlier)),
                None => sqlite.remembers().map(|()| None),
            },
            Self::Redis(redis) => redis.claim(once, lease).await,
        }
    }

    /// The event is finished, which is known after a kill of the process when this returns. What had no claim, because
    /// the store was out, is remembered in memory alone where that is possible.
    ///
    /// # Errors
    /// [`Unavailable`] when it is not known after a kill.
    pub async fn commit(&self, once: &Once, claimed: bool) -> Result<(), Unavailable> {
        let (tag, keys) = (once.space.tag(), once.keys.iter());
        match self {
            Self::Memory(records) => {
                keys.for_each(|key| records.insert(tag, key, once.ttl));
                Ok(())
            }
            // Without room for more, what is delivered nevertheless must not fill it either.
            Self::Sqlite(sqlite) if !claimed => {
                keys.for_each(|key| sqlite.records().insert(tag, key, once.ttl));
                Ok(())
            }
            Self::Sqlite(sqlite) => sqlite.commit(tag, keys, once.ttl).await,
            Self::Redis(redis) => redis.commit(once).await,
        }
    }

    /// Lets go of a claim, now or after a while.
    pub async fn release(&self, once: &Once, after: Duration) {
        if let Self::Redis(redis) = self {
            redis.release(once, after).await;
        }
    }

    /// Remembers an event whose type is not wanted, so that nobody can bring it again as another type.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer, or cannot remember it.
    pub async fn ignore(&self, space: &Keyspace, ignored: Ignored, ttl: Duration) -> Result<IgnoreResult, Unavailable> {
        match self {
            Self::Memory(records) => {
                let noted = records.note(space.tag(), ignored);
                if noted == IgnoreResult::New {
                    ignored.iter().for_each(|key| records.insert(space.tag(), key, ttl));
                }
                Ok(noted)
            }
            Self::Sqlite(sqlite) => match sqlite.records().note(space.tag(), ignored) {
                IgnoreResult::New => {
                    sqlite.remembers()?;
                    sqlite.commit(space.tag(), ignored.iter(), ttl).await.map(|()| IgnoreResult::New)
                }
                noted @ (IgnoreResult::Again | IgnoreResult::OtherType) => Ok(noted),
            },
            Self::Redis(redis) => redis.ignore(space, ignored, ttl).await,
        }
    }

    /// Waits until everything is written, at the end of a process, whoever else may still have a handle; a disk that
    /// hangs is not waited for. What uses the store afterwards may be told that it is unavailable, or nothing.
    pub fn close(&self) {
        match self {
            Self::Sqlite(sqlite) => sqlite.close(),
            Self::Memory(_) | Self::Redis(_) => {}
        }
    }

    /// Does what queues need beside being asked, on the runtime that this is called on, until it ends.
    pub fn maintain(&self, supervisor: &Supervisor) {
        match self {
            Self::Memory(_) | Self::Sqlite(_) => {}
            Self::Redis(redis) => redis.maintain(supervisor),
        }
    }
}
