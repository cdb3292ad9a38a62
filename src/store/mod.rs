//! Where event ids and queued events are remembered: memory, a SQLite file, Redis.

pub mod dedupe_log;
mod key_map;
mod keyspace;
pub(crate) mod page_cache;
mod records;
pub(crate) mod redis;

use std::time::Duration;

pub(crate) use self::key_map::KeyMap;
pub use self::keyspace::Keyspace;
pub use self::keyspace::SourceTag;
pub use self::records::DedupeRecords;
pub use self::redis::Durability;
pub use self::redis::RedisUrl;

use crate::message::Keys;

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
