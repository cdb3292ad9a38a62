//! Types that all stores share: ids, queues, claims of events, and results of looking events up.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::Keyspace;
use crate::base::signal::Signal;
use crate::base::time::Moment;
use crate::message::Keys;

/// Identifies one attempt to let an event through, so that only the holder of a claim releases it.
#[derive(Debug, Clone, Copy)]
pub struct Token(pub u128);

/// How a duplicate was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBy {
    /// By its id.
    Id,
    /// Only by its signed content: it has another id or type.
    Content,
}

/// What became of an event that came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// It is finished.
    Finished(KnownBy),
    /// It is claimed or cooling down; it can be claimed after this time at the latest.
    InFlight(Duration),
}

/// The result of [`Store::enqueue`](super::Store::enqueue).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// This attempt has stored the message.
    Stored,
    /// It came earlier.
    Earlier(Earlier),
}

/// The result of recording an event whose type is not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgnoreResult {
    /// It came for the first time, and is recorded now.
    New,
    /// It was ignored before, with the same type.
    Again,
    /// It was ignored before, as another type.
    OtherType,
}

/// The store does not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store does not answer: {0}")]
pub struct Unavailable(pub String);

/// The id of a stored message: the millisecond in which it was stored and a sequence number, like the ids of entries in
/// Redis streams. Later messages have higher ids, even when the clock is set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub millis: u64,
    /// The number within that millisecond.
    pub sequence: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl FromStr for MessageId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not the number of an event, such as \"1767323045678-0\"");
        let (millis, sequence) = text.split_once('-').ok_or_else(wrong)?;
        // `parse` would accept a sign.
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let part = |text: &str| text.parse().ok().filter(|_| digits(text)).ok_or_else(wrong);
        Ok(Self { millis: part(millis)?, sequence: part(sequence)? })
    }
}

/// Identifies a destination: its source and its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId {
    /// The source.
    pub source: String,
    /// The destination's name.
    pub name: String,
}

impl DestinationId {
    /// The name of a source's only destination, which has no name in the configuration.
    pub const DEFAULT: &str = "default";

    /// The unnamed destination of a source.
    pub fn unnamed(source: &str) -> Self {
        Self { source: source.to_owned(), name: Self::DEFAULT.to_owned() }
    }
}

/// The terms under which a store keeps the queue of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueTerms {
    /// The destination.
    pub id: DestinationId,
    /// How long delivered messages are kept.
    pub keep: Duration,
}

/// A handle to the queue of one destination, valid for the store that returned it, as long as the process lives.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    id: DestinationId,
    index: usize,
    signal: Signal,
}

impl Queue {
    /// The handle of the destination at this index of the store's own list.
    pub(super) fn new(id: DestinationId, index: usize) -> Self {
        Self(Arc::new(Handle { id, index, signal: Signal::default() }))
    }

    /// The destination.
    pub fn id(&self) -> &DestinationId {
        &self.0.id
    }

    /// The index in the store's own list.
    pub(super) fn index(&self) -> usize {
        self.0.index
    }

    /// Raised when there may be more to take.
    pub fn signal(&self) -> &Signal {
        &self.0.signal
    }
}

/// One attempt to let an event through, with the dedupe records that it writes.
#[derive(Debug, Clone)]
pub struct Once {
    /// The keyspace of the source.
    pub space: Keyspace,
    /// The keys of the event.
    pub keys: Keys,
    /// Identifies the attempt.
    pub token: Token,
    /// How long the event is remembered when it is finished.
    pub ttl: Duration,
}

/// The number of a queue's deliveries by state, and the age of the oldest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Deliveries that wait for an earlier one of their lane.
    pub blocked: u64,
    /// Deliveries that wait for their first attempt, or are in it.
    pub queued: u64,
    /// Deliveries that wait for another attempt, or are in it.
    pub retrying: u64,
    /// Deliveries that were given up.
    pub dead: u64,
    /// When the oldest message that is not delivered yet was received.
    pub oldest: Option<Moment>,
}
