//! Everything that is stored: dedupe records, messages and their deliveries. In memory (dedupe records only), in a
//! SQLite file, or in Redis for several gateways. Every `match` over the stores is in this file.
//!
//! The store alone is authoritative. The process keeps claims in memory (what it has in hand) and messages that were
//! just stored or read; a queue has no read position.

mod admin;
pub mod dedupe_log;
mod delivery;
mod gauge;
mod keyspace;
pub mod metrics;
mod page_cache;
mod owner_only;
mod records;
pub mod redis;
mod search;
pub mod sqlite;
mod types;

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;

pub use self::admin::*;
pub use self::delivery::*;
pub use self::keyspace::Keyspace;
pub use self::keyspace::SourceTag;
pub use self::records::DedupeRecords;
pub use self::records::Record;
pub use self::redis::Durability;
pub use self::redis::Redis;
pub use self::redis::RedisUrl;
pub use self::sqlite::Sqlite;
pub use self::types::*;
use crate::base::clock::Clock;
use crate::base::limits::Limits;
use crate::base::supervisor::Supervisor;
use crate::message::Message;
use crate::verify::event_key::Ignored;
use crate::verify::event_key::Key;

/// Values by event key. Hashed with random numbers of this process: whoever can choose ids cannot make their keys fall together.
pub(crate) type KeyMap<V> = HashMap<Key, V>;

/// `store.url`.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `memory:`
    Memory,
    /// `sqlite:PATH`
    Sqlite(PathBuf),
    /// `redis://…`, `redis-cluster://…`, `redis-sentinel://…`, or one of them with `rediss`.
    Redis(RedisUrl),
}

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct Options<'o> {
    /// Which store is opened, and where.
    pub kind: &'o Kind,
    /// All sources, and the tags of streams: each has a share of the dedupe keys.
    pub spaces: &'o [Keyspace],
    /// Most dedupe keys that memory and SQLite remember.
    pub max_events: usize,
    /// Bytes that stay free on the disk of a SQLite file.
    pub min_free: u64,
    /// Whether an event is finished only when its dedupe records are synced to the disk of a SQLite store.
    pub fsync: bool,
    /// How long Redis may take to answer a command of a request.
    pub timeout: Duration,
    /// When what is stored in Redis counts as safe; as soon as it answers without one.
    pub durability: Option<Durability>,
    /// How long a delivery stays with the gateway that took it, where others use the same store.
    pub lease: Duration,
    /// Sizes, intervals and thresholds.
    pub limits: &'o Limits,
    /// The wall clock and the steady one.
    pub clocks: (Clock, Clock),
    /// The owner of the store's tasks and threads.
    pub supervisor: &'o Supervisor,
}

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

    /// Whether a gateway with this store can be sent events; with `remembering`, only if it knows after a crash what was
    /// delivered.
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

    /// Asks to deliver an event, for as long as `lease`: nothing when it may be, or what became of it earlier. Where one process
    /// has the store for itself, claims are that process's, and only what is finished is looked up.
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

    /// The event is finished, which is known after a kill of the process when this returns. What had no claim, because the store
    /// was out, is remembered in memory alone where that is possible.
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
    pub async fn ignore(&self, space: &Keyspace, ignored: Ignored, ttl: Duration) -> Result<Noted, Unavailable> {
        match self {
            Self::Memory(records) => {
                let noted = records.note(space.tag(), ignored);
                if noted == Noted::New {
                    ignored.iter().for_each(|key| records.insert(space.tag(), key, ttl));
                }
                Ok(noted)
            }
            Self::Sqlite(sqlite) => match sqlite.records().note(space.tag(), ignored) {
                Noted::New => {
                    sqlite.remembers()?;
                    sqlite.commit(space.tag(), ignored.iter(), ttl).await.map(|()| Noted::New)
                }
                noted @ (Noted::Again | Noted::OtherType) => Ok(noted),
            },
            Self::Redis(redis) => redis.ignore(space, ignored, ttl).await,
        }
    }

    /// Makes destinations known, for every configuration again: what is known keeps its handle, and its terms are exchanged. The
    /// handles are in the order of `destinations`.
    ///
    /// # Errors
    /// [`Unavailable`] when they cannot be noted, or the store has no queues.
    pub async fn register(&self, destinations: &[QueueTerms]) -> Result<Vec<Queue>, Unavailable> {
        match self {
            Self::Memory(_) if destinations.is_empty() => Ok(Vec::new()),
            Self::Memory(_) => Err(no_queues()),
            Self::Sqlite(sqlite) => sqlite.register(destinations).await,
            Self::Redis(redis) => redis.register(destinations).await,
        }
    }

    /// Waits until everything is written, at the end of a process, whoever else may still have a handle; a disk that hangs is not waited
    /// for. What uses the store afterwards may be told that it is unavailable, or nothing.
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

    /// Stores a message, a delivery for each route and the dedupe records in one step, unless the event came earlier. A claim with the
    /// same token is no obstacle. When this returns, it is as safe as `store.durability` says.
    ///
    /// # Errors
    /// [`Unavailable`] when it may not be stored.
    pub async fn enqueue(
        &self,
        message: Arc<Message>,
        to: &[Route],
        once: Option<&Once>,
    ) -> Result<Enqueued, Unavailable> {
        match self {
            Self::Memory(_) => Err(no_queues()),
            Self::Sqlite(sqlite) => sqlite.enqueue(message, to, once).await,
            Self::Redis(redis) => redis.enqueue(&message, to, once).await,
        }
    }

    /// Takes deliveries that may be attempted now, each of which has to be settled. It may be fewer than there are. Whoever takes asks
    /// again when [`Taken::next_due`] has come or the queue's signal was raised since before the take, and sooner or later in any case.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer, or does not record what was delivered.
    pub async fn take(&self, queue: &Queue, want: Want) -> Result<Taken, Unavailable> {
        let (claimed, next_due) = match self {
            Self::Memory(_) => return Err(no_queues()),
            Self::Sqlite(sqlite) => sqlite.take(queue, want).await?,
            Self::Redis(redis) => redis.take(queue, want).await?,
        };
        let delivery = |claimed| Delivery { claimed, queue: queue.clone(), store: self.clone(), settled: false };
        Ok(Taken { deliveries: claimed.into_iter().map(delivery).collect(), next_due })
    }

    /// Waits until every outcome of a queue that was told so far is recorded.
    ///
    /// # Errors
    /// [`Unavailable`] when one is not.
    pub async fn flush(&self, queue: &Queue) -> Result<(), Unavailable> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Sqlite(sqlite) => sqlite.flush().await,
            Self::Redis(redis) => redis.flush(queue).await,
        }
    }

    /// How much there is of a queue.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer.
    pub async fn stats(&self, queue: &Queue) -> Result<Stats, Unavailable> {
        match self {
            Self::Memory(_) => Err(no_queues()),
            Self::Sqlite(sqlite) => sqlite.stats(queue).await,
            Self::Redis(redis) => redis.stats(queue),
        }
    }

    /// About `limit` deliveries, newest first, behind the message `after`; those of one message are not separated. It may be fewer
    /// although there are more: a search ends for now when it has scanned many.
    ///
    /// # Errors
    /// [`AdminError`] says why there is no list.
    pub async fn list(&self, filter: &Filter, after: Option<MessageId>, limit: usize) -> Result<Page, AdminError> {
        let states = filter.state.map_or_else(|| State::ALL.to_vec(), |state| vec![state]);
        let part = Part { filter: filter.clone(), states, after, limit };
        match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.list(part).await,
            Self::Redis(redis) => redis.list(part).await,
        }
    }

    /// One message with all its deliveries.
    ///
    /// # Errors
    /// [`AdminError`] when there is none, or it cannot be read.
    pub async fn show(&self, source: &str, id: MessageId) -> Result<Details, AdminError> {
        let details = match self {
            Self::Memory(_) => return Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.show(source, id).await?,
            Self::Redis(redis) => redis.show(source, id).await?,
        };
        details.ok_or_else(|| AdminError::NoSuchEvent(source.to_owned(), id))
    }

    /// Has one message delivered again: to the destination of this name; without one, to those where it is dead, or to all when it is
    /// dead nowhere. How many deliveries that are.
    ///
    /// # Errors
    /// [`AdminError`] says why it is not.
    pub async fn replay(&self, source: &str, id: MessageId, destination: Option<&str>) -> Result<u64, AdminError> {
        let meant = to_replay(self.show(source, id).await?.deliveries, destination)?;
        let replayed = match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.replay(&meant).await,
            Self::Redis(redis) => redis.replay(&meant).await,
        };
        match replayed? {
            // Somebody was faster.
            0 => Err(AdminError::Waiting(State::Retrying)),
            deliveries => Ok(deliveries),
        }
    }

    /// Has deliveries made again, the oldest first: those that are dead, or delivered when the filter says so. Looks at about
    /// `limit` of them, and says where to go on.
    ///
    /// # Errors
    /// [`AdminError`] says why none is.
    pub async fn replay_all(
        &self,
        filter: &Filter,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Done, AdminError> {
        let states = finished(filter, &[State::Dead], AdminError::NotReplayed)?;
        let part = Part { filter: filter.clone(), states, after, limit };
        match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.replay_all(part).await,
            Self::Redis(redis) => redis.replay_all(part).await,
        }
    }

    /// Deletes deliveries that are dead or delivered, the oldest first, and messages with the last of theirs. Looks at about
    /// `limit` of them, and says where to go on.
    ///
    /// # Errors
    /// [`AdminError`] says why none is.
    pub async fn purge(&self, filter: &Filter, after: Option<MessageId>, limit: usize) -> Result<Done, AdminError> {
        let states = finished(filter, &[State::Dead, State::Delivered], AdminError::NotPurged)?;
        let part = Part { filter: filter.clone(), states, after, limit };
        match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.purge(part).await,
            Self::Redis(redis) => redis.purge(part).await,
        }
    }

    /// Imports parts of a quarantined file of this name beside the store's, for about a second: those behind the message `after`.
    ///
    /// # Errors
    /// [`AdminError`] says why nothing is imported.
    pub async fn recover(&self, file: &str, after: Option<MessageId>) -> Result<Recovered, AdminError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.recover(file, after).await,
            Self::Memory(_) | Self::Redis(_) => Err(AdminError::NotThisStore(NO_FILE)),
        }
    }

    /// Copies the store's file and its dedupe records into a folder; returns the path of the copy.
    ///
    /// # Errors
    /// [`AdminError`] says why there is none.
    pub async fn backup(&self, folder: &Path) -> Result<PathBuf, AdminError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.backup(folder).await,
            Self::Memory(_) | Self::Redis(_) => Err(AdminError::NotThisStore(NO_FILE)),
        }
    }

    /// Records an outcome soon.
    fn settle(&self, queue: &Queue, claimed: &Claimed, outcome: Outcome) {
        match self {
            Self::Memory(_) => {}
            Self::Sqlite(sqlite) => sqlite.settle(queue, claimed, outcome),
            Self::Redis(redis) => redis.settle(queue, claimed, outcome),
        }
    }

    fn give_back(&self, queue: &Queue, claimed: &Claimed) {
        match self {
            Self::Memory(_) => {}
            Self::Sqlite(sqlite) => sqlite.give_back(queue, claimed),
            Self::Redis(redis) => redis.give_back(queue, claimed),
        }
    }
}

const NO_FILE: &str = "the store of this gateway is no file; its store.url is not sqlite:PATH";

fn no_queues() -> Unavailable {
    Unavailable("the store in memory has no queues; set store.url to sqlite:PATH or the URL of a Redis".to_owned())
}
