//! Deliveries: states, outcomes of attempts, and deliveries that were taken off a queue.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::MessageId;
use super::Queue;
use super::Store;
use crate::base::time::Moment;
use crate::message::Message;
use crate::verify::event_key::Lane;

/// Most bytes of the body of a destination's last answer that are stored with a delivery.
pub const MAX_KEPT_ANSWER: usize = 4 * 1024;

/// The state of a delivery:
///
/// ```text
/// blocked → queued → (attempt) → delivered
///                  ↘ retrying ⇄ (attempt) → dead
/// delivered, dead → (replay) → retrying | blocked
/// ```
///
/// Invariant of lanes: at most one open delivery of a lane is not blocked. The transaction, or script, that enqueues or
/// replays a delivery makes it blocked if its lane has an open one; the one that ends a delivery (delivered or dead)
/// unblocks the oldest blocked one of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for the end of an earlier delivery of its lane.
    Blocked,
    /// It waits for its first attempt.
    Queued,
    /// An attempt failed, or it was replayed: there will be another.
    Retrying,
    /// The destination took it.
    Delivered,
    /// It was given up: a dead letter, which can be replayed or purged.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Blocked, Self::Queued, Self::Retrying, Self::Delivered, Self::Dead];

    /// The name in answers, labels and filters.
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

    /// Whether it is to be delivered still.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Blocked | Self::Queued | Self::Retrying)
    }
}

/// The queue that a message goes to, and its lane there.
#[derive(Debug, Clone)]
pub struct Route {
    /// The queue of its destination.
    pub queue: Queue,
    /// Deliveries of one lane are attempted one after the other, in the order in which they were stored.
    pub lane: Option<Lane>,
}

/// The limits of a take.
#[derive(Debug, Clone, Copy)]
pub struct TakeLimit {
    /// Most deliveries.
    pub max: usize,
    /// About how many bytes of messages ([`Message::weight`]); one delivery is taken in any case.
    pub bytes: usize,
}

/// The earlier attempts of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tries {
    /// Attempts so far.
    pub attempts: u32,
    /// Attempts before the last replay, which do not count for `max_attempts`.
    pub before_replay: u32,
    /// When it was last replayed; `max_age` counts from then.
    pub replayed_at: Option<Moment>,
    /// The attempts that failed.
    pub failures: Failures,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination took the message.
    Delivered {
        /// When the attempt ended.
        at: Moment,
        /// The status of the answer, if the target has one.
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
    /// The state of the delivery after the outcome.
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
    /// The status of the answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it failed, for people.
    pub reason: String,
    /// The beginning of the answer's body, at most [`MAX_KEPT_ANSWER`] bytes, with replacement characters for invalid
    /// UTF-8. Stored for the last attempt only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// The failed attempts of a delivery, the newest last, in their stored form: a JSON array of [`FailedAttempt`], or
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failures(Option<Box<str>>);

impl Failures {
    /// Most attempts that are kept.
    pub const MAX: usize = 20;

    /// From the stored JSON.
    pub(super) fn stored(json: Option<&str>) -> Self {
        Self(json.filter(|json| !json.is_empty()).map(Into::into))
    }

    /// The JSON to be stored; `None` without failures.
    pub(super) fn as_json(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Adds a failure. Drops the oldest beyond [`Self::MAX`], and the answers of all but the last.
    #[must_use]
    pub(super) fn with(&self, failed: FailedAttempt) -> Self {
        let mut all = self.list();
        all.iter_mut().for_each(|earlier| earlier.answer.clear());
        all.push(failed);
        let kept = all.len().saturating_sub(Self::MAX);
        Self(serde_json::to_string(all.get(kept..).unwrap_or_default()).ok().map(Into::into))
    }

    /// The stored failures, the newest last. Damaged JSON counts as none, since failures are only shown to people.
    pub fn list(&self) -> Vec<FailedAttempt> {
        self.0.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }
}

/// The result of a take.
#[derive(Debug, Default)]
pub struct Taken {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// When there may be more to take, if that is known: now when the take reached a limit, otherwise when the next
    /// retry is due.
    pub next_due: Option<Instant>,
}

/// A delivery that was taken off its queue for one attempt. Dropped without [`Self::settle`], it is returned to its
/// queue.
#[derive(Debug)]
pub struct Delivery {
    pub(super) claimed: Claimed,
    pub(super) queue: Queue,
    pub(super) store: Store,
    pub(super) settled: bool,
}

/// A claimed delivery.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) id: MessageId,
    pub(super) message: Arc<Message>,
    pub(super) lane: Option<Lane>,
    pub(super) tries: Tries,
    /// Absent when no other process uses the store.
    pub(super) lease: Option<Lease>,
}

/// The time for which this process holds a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    /// When it ends by the clock of this process.
    pub(super) end: Instant,
    /// When it ends by the store's clock, in microseconds. It identifies the claim, because each later claim of the
    /// delivery has a later deadline.
    pub(super) deadline: i64,
}

impl Delivery {
    /// The id of its message.
    pub fn id(&self) -> MessageId {
        self.claimed.id
    }

    /// The message.
    pub fn message(&self) -> &Arc<Message> {
        &self.claimed.message
    }

    /// Its lane.
    pub fn lane(&self) -> Option<Lane> {
        self.claimed.lane
    }

    /// The earlier attempts.
    pub fn tries(&self) -> &Tries {
        &self.claimed.tries
    }

    /// When another process may take it; `None` when no other process uses the store.
    pub fn lease_end(&self) -> Option<Instant> {
        self.claimed.lease.map(|lease| lease.end)
    }

    /// Records the outcome of the attempt, in the background and in the order of these calls. A failure is ignored when
    /// the lease was lost meanwhile; a success always counts. When a crash loses the outcome, the attempt is repeated.
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
