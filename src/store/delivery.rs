//! Deliveries: their states, the outcomes of their attempts, and those that were taken off a queue.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::MessageId;
use super::Queue;
use super::Store;
use crate::base::time::Moment;
use crate::message::Message;
use crate::verify::event_key::Lane;

/// Most bytes of a destination's last answer that are kept with a delivery.
pub const MAX_KEPT_ANSWER: usize = 4 * 1024;

/// How far a delivery has come:
///
/// ```text
/// blocked → queued → (attempt) → delivered
///                  ↘ retrying ⇄ (attempt) → dead
/// delivered, dead → (replay) → retrying | blocked
/// ```
///
/// The rule of lanes: of a destination's open deliveries with one ordering key, at most one is not blocked. It is kept
/// in the step that enqueues or replays a delivery (blocked when its lane has an open one) and in the step that ends
/// one (delivered or dead: the oldest that is blocked in its lane follows).
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

/// To which queue a message goes, and in which lane.
#[derive(Debug, Clone)]
pub struct Route {
    /// The queue of its destination.
    pub queue: Queue,
    /// Deliveries of one lane are attempted one after the other, in the order in which they were stored.
    pub lane: Option<Lane>,
}

/// How much is taken at most.
#[derive(Debug, Clone, Copy)]
pub struct TakeLimit {
    /// Most deliveries.
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
        /// When the attempt ended.
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
    /// The beginning of the answer's body, at most [`MAX_KEPT_ANSWER`] bytes, with replacement characters for what is
    /// no text. Of the last attempt only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// The attempts of a delivery that failed, the newest last, as a store keeps them: a JSON array of [`FailedAttempt`],
/// or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failures(Option<Box<str>>);

impl Failures {
    /// Most attempts that are kept.
    pub const MAX: usize = 20;

    /// The failures in the JSON that a store has kept.
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

/// A part of what a store has to hand out.
#[derive(Debug, Default)]
pub struct Taken {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// When there may be more to take, as far as that is known: at once where not all there is was taken, or when the
    /// next one is due that waits for another attempt.
    pub next_due: Option<Instant>,
}

/// A delivery that was taken off its queue, for one attempt. Dropped unsettled, it goes back to its queue.
#[derive(Debug)]
pub struct Delivery {
    pub(super) claimed: Claimed,
    pub(super) queue: Queue,
    pub(super) store: Store,
    pub(super) settled: bool,
}

/// What a store hands out.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) id: MessageId,
    pub(super) message: Arc<Message>,
    pub(super) lane: Option<Lane>,
    pub(super) tries: Tries,
    /// Nothing where no other process could take it.
    pub(super) lease: Option<Lease>,
}

/// The time for which a delivery is this process's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    /// When it ends by the clock of this process.
    pub(super) end: Instant,
    /// When it ends by the store's clock, in microseconds: names the claim, since of one delivery it only grows.
    pub(super) deadline: i64,
}

impl Delivery {
    /// The id of its message.
    pub fn id(&self) -> MessageId {
        self.claimed.id
    }

    /// What is delivered.
    pub fn message(&self) -> &Arc<Message> {
        &self.claimed.message
    }

    /// Its lane.
    pub fn lane(&self) -> Option<Lane> {
        self.claimed.lane
    }

    /// What was tried before.
    pub fn tries(&self) -> &Tries {
        &self.claimed.tries
    }

    /// When another process may take it; never when none could.
    pub fn lease_end(&self) -> Option<Instant> {
        self.claimed.lease.map(|lease| lease.end)
    }

    /// Records what the attempt came to: soon, and in the order of these calls. A lease that was lost meanwhile is
    /// respected, but a success always counts. An outcome that is lost in a crash is an attempt that is made again.
    pub fn settle(mut self, outcome: Outcome) {
        self.settled = true;
        self.store.settle(&self.queue, &self.claimed, outcome);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.settled {
            self.store.give_back(&self.queue, &self.claimed);
        }
    }
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
