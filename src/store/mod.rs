//! Where event ids and queued events are remembered: memory, a SQLite file, Redis.

mod backlog;
pub mod dedupe_log;
mod key_map;
mod keyspace;
mod ledger;
pub(crate) mod page_cache;
pub mod queued;
mod records;
mod redis;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

pub use self::backlog::Backlog;
pub(crate) use self::key_map::KeyMap;
pub use self::keyspace::Keyspace;
pub use self::keyspace::SourceTag;
pub use self::ledger::Denied;
pub use self::ledger::Ledger;
use self::ledger::Part;
pub use self::records::DedupeRecords;
pub use self::redis::Durability;
pub use self::redis::Queues;
pub use self::redis::Redis;
pub use self::redis::RedisBacklog;
pub use self::redis::RedisUrl;
pub use self::redis::Stream;
pub use self::sqlite::Options;
pub use self::sqlite::Sqlite;
pub use self::sqlite::why_volatile;
use crate::message::Keys;

/// Where finished events are remembered.
#[derive(Debug, Clone)]
pub enum Store {
    /// In this process, until it ends.
    Memory(Arc<DedupeRecords>),
    /// In this process and in a file.
    Sqlite(Arc<Sqlite>),
    /// In Redis, with the claims, for several processes.
    Redis(Redis),
}

/// Names one attempt, so that only the one who holds a claim can let go of it.
#[derive(Debug, Clone, Copy)]
pub struct Token(pub u128);

/// By what an event is known that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Its id.
    Id,
    /// What is signed of it alone, under another id or as another type.
    Content,
}

/// What became of an event that came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// It is finished.
    Finished(Known),
    /// Another attempt holds it, or it may have been delivered a moment ago: ask again after this time.
    InFlight(Duration),
}

/// The outcome of publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The event is there, put there by this attempt.
    Appended,
    /// It came earlier.
    Earlier(Earlier),
}

/// What becomes of an event whose type is not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is remembered from now on.
    New,
    /// It was remembered before, with this type.
    Again,
    /// It came before as another type.
    OtherType,
}

/// The store does not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store does not answer: {0}")]
pub struct Unavailable(pub String);

impl Store {
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

    /// Whether a restart would not help.
    ///
    /// # Errors
    /// [`Unavailable`] when a file could not be written, or is damaged.
    pub fn sound(&self) -> Result<(), Unavailable> {
        match self {
            Self::Sqlite(sqlite) => sqlite.sound(),
            Self::Memory(_) | Self::Redis(_) => Ok(()),
        }
    }
}
