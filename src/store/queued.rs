//! Queued messages as every store keeps them: how far each has come, and how they are asked for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::message::Message;
use crate::time::Moment;

/// Most bytes of an upstream's answer that are kept with an event.
pub const MAX_KEPT_ANSWER: usize = 4 * 1024;

/// Most events that are listed, replayed or purged at once.
pub const MAX_PART: usize = 1000;

/// The number of a queued event: the millisecond in which it was queued and which of that millisecond it is, as Redis
/// numbers the entries of streams. Later events have higher numbers, whatever the clock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub millis: u64,
    /// Which of the millisecond.
    pub sequence: u64,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl FromStr for Number {
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

/// How far a queued event has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for its first attempt.
    Queued,
    /// An attempt failed, and there will be another.
    Retrying,
    /// The upstream took it.
    Delivered,
    /// It was given up, and waits to be replayed or purged.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Queued, Self::Retrying, Self::Delivered, Self::Dead];

    /// Its name in answers, labels and filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What has been tried, and since when the limits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tries {
    /// Attempts so far.
    pub attempts: u32,
    /// Those of them that were before its last replay, and do not count for the limit.
    pub spent: u32,
    /// When it was last replayed.
    pub replayed_at: Option<Moment>,
}

impl Tries {
    /// The state of an event that has been tried like this and is not finished.
    pub fn state(self) -> State {
        if self.attempts == 0 && self.replayed_at.is_none() { State::Queued } else { State::Retrying }
    }
}

/// An event that was taken off the queue for an attempt.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its number.
    pub number: Number,
    /// What is delivered.
    pub message: Arc<Message>,
    /// What was tried before.
    pub tries: Tries,
    /// When others may take it over; never when nobody else could.
    pub lease_end: Option<Instant>,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream took it.
    Delivered,
    /// It is tried again at this moment.
    Retry(Moment),
    /// It is given up.
    Dead,
}

/// The record of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// What it came to.
    pub verdict: Verdict,
    /// Attempts so far, this one included.
    pub attempts: u32,
    /// When it ended.
    pub at: Moment,
    /// Why it failed, in words; nothing after a delivery.
    pub reason: Option<String>,
    /// The upstream's answer.
    pub answer: Option<LastAnswer>,
}

/// What an upstream answered to the last attempt.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LastAnswer {
    /// Its status.
    pub status: u16,
    /// The beginning of its body, at most [`MAX_KEPT_ANSWER`] bytes, with replacement characters for what is no text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
}

/// Which events are meant. An empty filter means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this source.
    pub source: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// Of this type.
    pub kind: Option<String>,
    /// With this id.
    pub id: Option<String>,
    /// Received at this moment or later.
    pub from: Option<Moment>,
    /// Received before this moment.
    pub until: Option<Moment>,
}

/// A queued event in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its source.
    pub source: String,
    /// Its number.
    pub number: Number,
    /// The provider's id of it.
    pub id: String,
    /// Its type.
    pub kind: Option<String>,
    /// When it was received.
    pub received_at: Moment,
    /// How far it has come.
    pub state: State,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due.
    pub due: Option<Moment>,
    /// When the last attempt ended.
    pub settled_at: Option<Moment>,
    /// Why the last attempt failed.
    pub reason: Option<String>,
    /// What the upstream answered to it.
    pub answer: Option<LastAnswer>,
}

/// A queued event, whole.
#[derive(Debug, Clone)]
pub struct Details {
    /// What a list shows of it.
    pub summary: Summary,
    /// What is delivered; nothing when it is damaged.
    pub message: Option<Arc<Message>>,
}

/// A part of a list, newest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<Summary>,
    /// Where the list goes on; nothing at its end.
    pub next: Option<String>,
}

/// What was done to some events at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// How many.
    pub events: u64,
    /// Where it goes on; nothing when all are done.
    pub next: Option<String>,
}

/// How much there is of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that wait for their first attempt, or are in it.
    pub queued: u64,
    /// Events that wait for another attempt, or are in it.
    pub retrying: u64,
    /// Events that were given up.
    pub dead: u64,
    /// When the oldest event that is not delivered yet was received.
    pub oldest: Option<Moment>,
}

/// What a store has to know of a source whose events it queues.
#[derive(Debug, Clone)]
pub struct Queue {
    /// The source.
    pub source: String,
    /// Whether events have lanes.
    pub ordered: bool,
    /// How long delivered events are kept.
    pub keep: Duration,
}
