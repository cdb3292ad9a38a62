//! Messages and deliveries as every store keeps them: ids, states, outcomes, and how they are asked for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::Keyspace;
use crate::base::signal::Signal;
use crate::base::time::Moment;
use crate::message::Keys;
use crate::message::Message;
use crate::verify::identity::Lane;

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
pub enum Enqueued {
    /// The event is there, put there by this attempt.
    Stored,
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

/// Most bytes of a destination's last answer that are kept with a delivery.
pub const MAX_KEPT_ANSWER: usize = 4 * 1024;

/// Most deliveries that are listed, replayed or purged at once. A page never separates the deliveries of one message.
pub const MAX_PART: usize = 1000;

/// The id of a stored message: the millisecond in which it was stored and which of that millisecond it is, as Redis names the
/// entries of streams. Later messages have higher ids, whatever the clock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub millis: u64,
    /// Which of the millisecond.
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

/// How far a delivery has come:
///
/// ```text
/// blocked → queued → (attempt) → delivered
///                  ↘ retrying ⇄ (attempt) → dead
/// delivered, dead → (replay) → retrying | blocked
/// ```
///
/// The rule of lanes: of a destination's open deliveries with one ordering key, at most one is not blocked. It is kept in
/// the step that enqueues or replays a delivery (blocked when its lane has an open one) and in the step that ends one
/// (delivered or dead: the oldest that is blocked in its lane follows).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for an earlier one of its lane.
    Blocked,
    /// It waits for its first attempt.
    Queued,
    /// An attempt failed, or it was replayed: there will be another.
    Retrying,
    /// The destination took it.
    Delivered,
    /// It was given up, and waits to be replayed or purged.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Blocked, Self::Queued, Self::Retrying, Self::Delivered, Self::Dead];

    /// Its name in answers, labels and filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
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

    /// Whether it is still to be delivered.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Blocked | Self::Queued | Self::Retrying)
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

/// The deliveries that wait for one destination: a handle, which stays valid as long as the process. It is given out by the
/// store that knows the destination, and means nothing to another.
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

/// To which queue a message goes, and in which lane.
#[derive(Debug, Clone)]
pub struct Route {
    /// The queue of its destination.
    pub queue: Queue,
    /// Deliveries of one lane are attempted one after the other, in the order in which they were stored.
    pub lane: Option<Lane>,
}

/// By what an event is let through once.
#[derive(Debug, Clone)]
pub struct Once {
    /// Whose keys they are.
    pub space: Keyspace,
    /// What the event is known by.
    pub keys: Keys,
    /// Names the attempt.
    pub token: Token,
    /// How long it is remembered when it is finished.
    pub ttl: Duration,
}

/// How much is taken at most.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// Deliveries.
    pub max: usize,
    /// About so many bytes of messages ([`Message::weight`]); one delivery in any case.
    pub bytes: usize,
}

/// What has been tried, and since when the limits count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tries {
    /// Attempts so far.
    pub attempts: u32,
    /// Those of them that were before the last replay, and do not count for the limit.
    pub before_replay: u32,
    /// When it was last replayed.
    pub replayed_at: Option<Moment>,
    /// The attempts that failed.
    pub failures: Failures,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination took the message.
    Delivered {
        /// When.
        at: Moment,
        /// What it answered, where it answers with a status.
        status: Option<u16>,
    },
    /// It is tried again after a pause.
    Retry {
        /// The pause.
        after: Duration,
        /// What happened.
        failed: FailedAttempt,
    },
    /// It is given up.
    Dead {
        /// What happened.
        failed: FailedAttempt,
    },
}

impl Outcome {
    /// The state in which it leaves the delivery.
    pub(super) fn state(&self) -> State {
        match self {
            Self::Delivered { .. } => State::Delivered,
            Self::Retry { .. } => State::Retrying,
            Self::Dead { .. } => State::Dead,
        }
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FailedAttempt {
    /// When it ended, in milliseconds since 1970.
    pub at: Moment,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub ms: u64,
    /// What the destination answered, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it failed, in words.
    pub reason: String,
    /// The beginning of the answer's body, at most [`MAX_KEPT_ANSWER`] bytes, with replacement characters for what is no text. Of
    /// the last attempt only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// The attempts of a delivery that failed, the newest last, as a store keeps them: a JSON array of [`FailedAttempt`], or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failures(Option<Box<str>>);

impl Failures {
    /// How many are kept.
    pub const MAX: usize = 20;

    /// As a store has kept them.
    pub(super) fn stored(json: Option<&str>) -> Self {
        Self(json.filter(|json| !json.is_empty()).map(Into::into))
    }

    /// As a store keeps them; nothing when there are none.
    pub(super) fn as_json(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// With one more. The oldest go when there are too many, and the answers of all but the last.
    #[must_use]
    pub(super) fn with(&self, failed: FailedAttempt) -> Self {
        let mut all = self.list();
        all.iter_mut().for_each(|earlier| earlier.answer.clear());
        all.push(failed);
        let kept = all.len().saturating_sub(Self::MAX);
        Self(serde_json::to_string(all.get(kept..).unwrap_or_default()).ok().map(Into::into))
    }

    /// All that are kept, the newest last. What is damaged is none: it is only there for people.
    pub fn list(&self) -> Vec<FailedAttempt> {
        self.0.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }
}

/// Which deliveries are meant. An empty filter means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this source.
    pub source: Option<String>,
    /// To the destination of this name.
    pub destination: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// Of this type.
    pub kind: Option<String>,
    /// With this id of the provider.
    pub id: Option<String>,
    /// Received at this moment or later.
    pub from: Option<Moment>,
    /// Received before this moment.
    pub until: Option<Moment>,
}

/// A delivery in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The source.
    pub source: String,
    /// The name of the destination.
    pub destination: String,
    /// The id of the message.
    pub id: MessageId,
    /// The provider's id of the event.
    pub event_id: String,
    /// Its type.
    pub kind: Option<String>,
    /// When it was received.
    pub received_at: Moment,
    /// How far the delivery has come.
    pub state: State,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due, where one failed before.
    pub due: Option<Moment>,
    /// When the last attempt ended.
    pub settled_at: Option<Moment>,
    /// The status with which the destination took it.
    pub status: Option<u16>,
    /// Attempts that failed.
    pub failures: Failures,
}

impl Summary {
    /// Where it goes.
    pub fn destination_id(&self) -> DestinationId {
        DestinationId { source: self.source.clone(), name: self.destination.clone() }
    }
}

/// A message with all its deliveries.
#[derive(Debug, Clone)]
pub struct Details {
    /// At least one.
    pub deliveries: Vec<Summary>,
    /// What is delivered; nothing when it is damaged.
    pub message: Option<Arc<Message>>,
}

/// A part of a list, newest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The deliveries.
    pub deliveries: Vec<Summary>,
    /// Where the list goes on; nothing at its end.
    pub next: Option<MessageId>,
}

/// What was done to some deliveries at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// How many.
    pub deliveries: u64,
    /// Where it goes on; nothing when all are done.
    pub next: Option<MessageId>,
}

/// What one call has imported of a quarantined file, in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Imported with their deliveries.
    pub imported: u64,
    /// There already, or stored anew since.
    pub present: u64,
    /// Imported as dead letters, because nothing is left of their deliveries.
    pub record_lost: u64,
    /// Lost: a delivery is left, or a message that is not what was written.
    pub lost: u64,
    /// Where it goes on; nothing when all is done and the file is renamed.
    pub next: Option<MessageId>,
}

impl Recovered {
    /// With what another call has imported before.
    #[must_use]
    pub(super) fn and(self, before: Self) -> Self {
        Self {
            imported: self.imported + before.imported,
            present: self.present + before.present,
            record_lost: self.record_lost + before.record_lost,
            lost: self.lost + before.lost,
            next: self.next,
        }
    }
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

/// A part of all deliveries that a request of an operator is about.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) filter: Filter,
    /// In these states.
    pub(super) states: Vec<State>,
    /// Behind this message, in the order of the request.
    pub(super) after: Option<MessageId>,
    /// About so many.
    pub(super) limit: usize,
}

/// Why something cannot be done for an operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdminError {
    /// The store is out.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// No such event is stored.
    #[error("there is no event {1} of {0}; what was delivered is forgotten after a while")]
    NoSuchEvent(String, MessageId),
    /// No event of this source was ever queued; those whose events were.
    #[error("no events of a source {0:?} are stored; there are those of {names}", names = listed(.1))]
    NoSuchSource(String, Vec<String>),
    /// No event was ever queued for a destination of this name; those for which some were.
    #[error("no events for a destination {0:?} are stored; there are those for {names}", names = listed(.1))]
    NoSuchDestination(String, Vec<String>),
    /// The source does not queue its events, so that nobody would deliver them.
    #[error("the source {0} has no deliver.queue any more, so that nobody would deliver its events")]
    NoQueue(String),
    /// The event is delivered without a replay.
    #[error("the event is {name} and is delivered without that; replay what is dead or delivered", name = .0.name())]
    Waiting(State),
    /// Events in this state are delivered without a replay.
    #[error("events that are {name} are delivered without that; replay those that are dead or delivered", name = .0.name())]
    NotReplayed(State),
    /// Events in this state were acknowledged and are still to be delivered.
    #[error(
        "events that are {name} were acknowledged and are still to be delivered, so that none is purged; purge those that \
         are dead or delivered",
        name = .0.name()
    )]
    NotPurged(State),
    /// No message of this store can have this id.
    #[error("{0} is no place to go on at; take the \"next\" of the answer before")]
    BadCursor(MessageId),
    /// Another kind of store would be needed.
    #[error("{0}")]
    NotThisStore(&'static str),
    /// A file or folder cannot be used for that.
    #[error("{0}")]
    BadPath(String),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A part of what a store has to hand out.
#[derive(Debug, Default)]
pub struct Taken {
    /// The deliveries.
    pub deliveries: Vec<super::Delivery>,
    /// When there may be more to take, as far as that is known: at once where not all there is was taken, or when the next one is due
    /// that waits for another attempt.
    pub next_due: Option<Instant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(at: i64) -> FailedAttempt {
        let (at, reason) = (Moment::from_millis(at), "the upstream answered 500".to_owned());
        FailedAttempt { at, ms: 12, status: Some(500), reason, answer: "so;\"".to_owned() }
    }

    #[test]
    fn the_newest_failures_are_kept_and_the_last_answer() {
        let mut failures = Failures::default();
        assert_eq!((failures.as_json(), failures.list().len()), (None, 0));
        for at in 1..=Failures::MAX + 1 {
            failures = failures.with(failed(i64::try_from(at).expect("small")));
            assert_eq!(failures.list().len(), at.min(Failures::MAX));
        }
        let list = Failures::stored(failures.as_json()).list();
        assert_eq!(list.first().expect("some").at.millis(), 2);
        let (last, earlier) = list.split_last().expect("some");
        assert_eq!(*last, failed(21));
        assert!(earlier.iter().all(|earlier| earlier.answer.is_empty()));
        assert!(Failures::stored(Some("[{]")).list().is_empty());
    }
}
