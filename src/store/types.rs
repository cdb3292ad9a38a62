//! Types that all stores share: ids, queues, claims of events, and whether an event came earlier.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::Keyspace;
use crate::base::signal::Signal;
use crate::base::time::Moment;
use crate::message::Keys;

/// Names one attempt, so that only the one who holds a claim can let go of it.
#[derive(Debug, Clone, Copy)]
pub struct Token(pub u128);

/// By what it is known that an event came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBy {
    /// By its id.
    Id,
    /// Only by what is signed of it, under another id or as another type.
    Content,
}

/// What became of an event that came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// It is finished.
    Finished(KnownBy),
    /// Another attempt holds it, or it may have been delivered a moment ago: ask again after this time.
    InFlight(Duration),
}

/// The outcome of publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// The event is there, put there by this attempt.
    Stored,
    /// It came earlier.
    Earlier(Earlier),
}

/// What becomes of an event whose type is not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgnoreResult {
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

/// The id of a stored message: the millisecond in which it was stored and which of that millisecond it is, as Redis
/// names the entries of streams. Later messages have higher ids, whatever the clock does.
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
        // Without a sign, which the library would take.
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let part = |text: &str| text.parse().ok().filter(|_| digits(text)).ok_or_else(wrong);
        Ok(Self { millis: part(millis)?, sequence: part(sequence)? })
    }
}

/// A named place to which messages of a source go. The name of one that is configured with its source, and has none, is
/// [`DestinationId::DEFAULT`].
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId {
    /// The source.
    pub source: String,
    /// The destination's name.
    pub name: String,
}

impl DestinationId {
    /// The name of a destination without one.
    pub const DEFAULT: &str = "default";

    /// The unnamed destination of a source.
    pub fn unnamed(source: &str) -> Self {
        Self { source: source.to_owned(), name: Self::DEFAULT.to_owned() }
    }
}

/// What a store has to know of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueTerms {
    /// The destination.
    pub id: DestinationId,
    /// How long delivered messages are kept.
    pub keep: Duration,
}

/// The deliveries that wait for one destination: a handle, which stays valid as long as the process. It is given out by
/// the store that knows the destination, and means nothing to another.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    id: DestinationId,
    index: usize,
    signal: Signal,
}

impl Queue {
    /// The handle of a destination that the store keeps at this place of its own list.
    pub(super) fn new(id: DestinationId, index: usize) -> Self {
        Self(Arc::new(Handle { id, index, signal: Signal::default() }))
    }

    /// The destination.
    pub fn id(&self) -> &DestinationId {
        &self.0.id
    }

    /// Where the store keeps it.
    pub(super) fn index(&self) -> usize {
        self.0.index
    }

    /// Is raised when there may be more to take than at the last look.
    pub fn signal(&self) -> &Signal {
        &self.0.signal
    }
}

/// What deduplication needs to know of one attempt to let an event through.
#[derive(Debug, Clone)]
pub struct Once {
    /// The keyspace of the source.
    pub space: Keyspace,
    /// What the event is known by.
    pub keys: Keys,
    /// Identifies the attempt.
    pub token: Token,
    /// How long it is remembered when it is finished.
    pub ttl: Duration,
}

/// How many deliveries a queue has, by state, and how old they are.
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
