//! What one process knows of one queue: what it has in hand, what it still has to record, and whether there may be more.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;

use super::entry;
use super::record;
use super::scripts;
use crate::clock::Clock;
use crate::event::Lane;
use crate::store::Keyspace;
use crate::store::Stream;
use crate::store::Unavailable;
use crate::store::queued::Counts;
use crate::store::queued::Number;
use crate::store::queued::Queue;
use crate::store::queued::Settlement;
use crate::store::queued::Tries;
use crate::store::queued::Verdict;

/// One queue, shared by those who fill it and the one who empties it.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) source: String,
    pub(super) space: Keyspace,
    pub(super) stream: Stream,
    pub(super) keep: Duration,
    /// There may be more to take.
    pub(super) more: Notify,
    /// There is something to record.
    pub(super) tried: Notify,
    /// Something was recorded.
    pub(super) recorded: Notify,
    /// Most events that are in hand, or tried and not recorded: while Redis records nothing, nothing more is taken.
    max_in_hand: usize,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// There may be something to take; otherwise Redis need not be asked.
    wanted: bool,
    /// When the next event is due that waits for an attempt.
    next_due: Option<Instant>,
    /// Events may have been left by gateways that are gone.
    silent: bool,
    /// The answer to a take may have been lost, and events with it.
    uncertain: bool,
    /// Redis was asked since it was last looked at.
    active: bool,
    in_hand: HashSet<Number>,
    unrecorded: VecDeque<Unrecorded>,
    counts: Counts,
}

/// What has to be asked before and with a take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asking {
    pub(super) silent: bool,
    pub(super) uncertain: bool,
}

/// An attempt that Redis does not know of yet.
#[derive(Debug, Clone)]
pub(super) struct Unrecorded {
    number: Number,
    before: Tries,
    letter: &'static str,
    /// How long until the next attempt, and since when.
    pause: Duration,
    since: Instant,
    lane: String,
    record: String,
}

impl Unrecorded {
    pub(super) fn new(
        number: Number,
        lane: Option<Lane>,
        before: Tries,
        settlement: Settlement,
        since: Instant,
    ) -> Self {
        let (verdict, at) = (settlement.verdict, settlement.at);
        let pause = match verdict {
            Verdict::Retry(due) => due.since(at),
            Verdict::Delivered | Verdict::Dead => Duration::ZERO,
        };
        Self {
            number,
            before,
            letter: record::letter(verdict),
            pause,
            since,
            lane: lane.map(entry::lane_name).unwrap_or_default(),
            record: record::after(settlement, before),
        }
    }

    /// As the script takes it.
    pub(super) fn arguments(&self, now: Instant) -> [String; 7] {
        let pause = self.pause.saturating_sub(now.saturating_duration_since(self.since));
        [
            self.number.to_string(),
            self.letter.to_owned(),
            self.before.attempts.to_string(),
            self.before.spent.to_string(),
            pause.as_millis().to_string(),
            self.lane.clone(),
            self.record.clone(),
        ]
    }

    /// Whether recording it may leave something to take.
    fn leaves_more(&self) -> bool {
        self.letter == "R" || !self.lane.is_empty()
    }
}

impl Local {
    pub(super) fn new(queue: &Queue, max_in_hand: usize, clock: Clock) -> Self {
        let space = Keyspace::of_source(&queue.source);
        let stream = Stream { key: scripts::stream(&space), keyspace: space.clone(), maxlen: None };
        let state = State {
            wanted: true,
            next_due: None,
            silent: true,
            uncertain: false,
            active: true,
            in_hand: HashSet::new(),
            unrecorded: VecDeque::new(),
            counts: Counts::default(),
        };
        let (more, tried, recorded) = (Notify::new(), Notify::new(), Notify::new());
        let (source, keep, state) = (queue.source.clone(), queue.keep, Mutex::new(state));
        Self { source, space, stream, keep, more, tried, recorded, max_in_hand, clock, state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be something to take.
    pub(super) fn wake(&self) {
        self.lock().wanted = true;
        self.more.notify_one();
    }

    /// Begins a take; `None` when there is nothing to be had. Until [`took`](Self::took) says otherwise, its answer counts as
    /// lost.
    pub(super) fn begin(&self) -> Result<Option<Asking>, Unavailable> {
        let mut state = self.lock();
        let due = state.next_due.is_some_and(|due| due <= self.clock.instant());
        if !state.wanted && !due && !state.uncertain {
            return Ok(None);
        }
        if state.in_hand.len() >= self.max_in_hand {
            return Err(Unavailable("Redis does not record what was delivered".to_owned()));
        }
        let asking = Asking { silent: state.silent, uncertain: state.uncertain };
        // What is queued from here on may come too late for this take.
        state.wanted = false;
        state.uncertain = true;
        state.active = true;
        Ok(Some(asking))
    }

    /// A take was answered: with these events, whether there may be more, and when the next one is due.
    pub(super) fn took(&self, numbers: impl Iterator<Item = Number>, more: bool, next_due: Option<Instant>) {
        let mut state = self.lock();
        state.in_hand.extend(numbers);
        state.wanted |= more;
        state.next_due = next_due;
        state.silent &= more;
        state.uncertain = false;
    }

    /// It was answered, but Redis may have heard it twice.
    pub(super) fn doubt(&self) {
        self.lock().uncertain = true;
        self.more.notify_one();
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.lock().next_due
    }

    pub(super) fn in_hand(&self) -> Vec<Number> {
        self.lock().in_hand.iter().copied().collect()
    }

    /// Somebody else may have it by now.
    pub(super) fn forget(&self, number: Number) {
        self.lock().in_hand.remove(&number);
    }

    /// An attempt has to be recorded.
    pub(super) fn record(&self, attempt: Unrecorded) {
        self.lock().unrecorded.push_back(attempt);
        self.tried.notify_one();
    }

    /// The first attempts that have to be recorded.
    pub(super) fn unrecorded(&self, max: usize) -> Vec<Unrecorded> {
        self.lock().unrecorded.iter().take(max).cloned().collect()
    }

    /// So many of them were recorded.
    pub(super) fn recorded(&self, count: usize) {
        let mut state = self.lock();
        let State { unrecorded, in_hand, wanted, .. } = &mut *state;
        let mut more = false;
        for attempt in unrecorded.drain(..count.min(unrecorded.len())) {
            in_hand.remove(&attempt.number);
            more |= attempt.leaves_more();
        }
        *wanted |= more;
        drop(state);
        if more {
            self.more.notify_one();
        }
        self.recorded.notify_waiters();
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.lock().unrecorded.is_empty()
    }

    /// Whether Redis was asked since this was last called.
    pub(super) fn was_active(&self) -> bool {
        std::mem::take(&mut self.lock().active)
    }

    /// What a look has shown.
    pub(super) fn looked(&self, counts: Counts, work: bool) {
        let mut state = self.lock();
        state.counts = counts;
        if work {
            state.wanted = true;
            state.silent = true;
            drop(state);
            self.more.notify_one();
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        let queue = Queue { source: "shop".to_owned(), ordered: false, keep: Duration::from_secs(3600) };
        Local::new(&queue, 10, Clock::System)
    }

    fn is_asked(local: &Local) -> bool {
        local.begin().expect("few events in hand").is_some()
    }

    #[test]
    fn redis_is_asked_once_and_not_again_while_there_is_nothing() {
        let local = local();
        assert!(is_asked(&local), "something may have been left");
        local.took(std::iter::empty(), false, None);
        assert!(!is_asked(&local));
        local.wake();
        assert!(is_asked(&local));
        local.took(std::iter::empty(), true, None);
        assert!(is_asked(&local), "there is more");
    }

    #[test]
    fn an_event_that_is_queued_during_a_take_is_taken_by_the_next_one() {
        let local = local();
        assert!(is_asked(&local));
        local.wake();
        local.took(std::iter::empty(), false, None);
        assert!(is_asked(&local));
    }

    #[test]
    fn redis_is_asked_again_when_an_answer_was_lost() {
        let local = local();
        assert!(is_asked(&local));
        assert!(is_asked(&local));
        local.took(std::iter::empty(), false, None);
        local.doubt();
        assert!(is_asked(&local));
    }
}
