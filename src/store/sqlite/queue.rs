//! The claims of one queue, in memory: the deliveries that are being attempted, and those that are ready to be taken.
//!
//! The file is authoritative. A delivery is claimed from the moment when the writer has read that it may be attempted
//! until its outcome is committed; only the writer adds and removes claims, between two commits. Invariant: when
//! nothing is ready here, and no refill is needed ([`Need`]), no delivery may be attempted.

use std::collections::HashSet;
use std::collections::VecDeque;

use crate::base::sync::Mutex;

/// The file is read again if nothing is ready this many milliseconds after the last refill, even if no change is known.
pub(super) const STALE: i64 = 1000;

/// A claimed delivery, as in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The id of its message.
    pub(super) id: i64,
    pub(super) lane: Option<u64>,
    pub(super) attempts: u32,
    pub(super) before_replay: u32,
    /// When it was last replayed, in milliseconds since 1970.
    pub(super) replayed: Option<i64>,
}

/// Whether the writer has to refill a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// No refill is needed.
    Nothing,
    /// Yes, but there is something to take until it has.
    Soon,
    /// A refill is needed before anything can be taken.
    Now,
}

/// The numbers of deliveries by state, except delivered ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) blocked: u64,
    pub(super) queued: u64,
    pub(super) retrying: u64,
    pub(super) dead: u64,
}

/// The claims of one queue.
#[derive(Debug)]
pub(super) struct Claims {
    /// Most deliveries that are ready.
    ahead: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// All claimed deliveries: being attempted, ready, or with an uncommitted outcome.
    claimed: HashSet<i64>,
    /// Claimed deliveries that can be taken.
    ready: VecDeque<Entry>,
    /// Whether the file may have other deliveries that may be attempted.
    more: bool,
    /// When the next unclaimed delivery is due.
    next_due: Option<i64>,
    /// Whether a refill was requested and is not done yet.
    requested: bool,
    /// When the last refill was done.
    refilled: i64,
    /// Messages up to this one were in a quarantined file.
    gone: i64,
    counts: Counts,
}

impl Claims {
    /// No claims; the file has not been read yet.
    pub(super) fn new(ahead: usize) -> Self {
        Self { ahead: ahead.max(1), inner: Mutex::new(Inner { more: true, ..Inner::default() }) }
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = Inner> + '_ {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes at most `max` ready deliveries. The caller has to request a refill if one is needed.
    pub(super) fn take(&self, max: usize, now: i64) -> (VecDeque<Entry>, Need) {
        let mut inner = self.lock();
        let count = max.min(inner.ready.len());
        let taken: VecDeque<_> = inner.ready.drain(..count).collect();
        let due = inner.next_due.is_some_and(|due| due <= now) && inner.ready.len() < self.ahead;
        let low = inner.more && inner.ready.len() <= self.ahead / 2;
        let stale = max > 0 && taken.is_empty() && now.saturating_sub(inner.refilled) >= STALE;
        let need = match (due || low || stale, taken.is_empty()) {
            (true, true) => Need::Now,
            (true, false) if !inner.requested => Need::Soon,
            (true, false) | (false, _) => Need::Nothing,
        };
        inner.requested |= need != Need::Nothing;
        (taken, need)
    }

    /// When there may be more to take, by the clock of due times: now, or when the next unclaimed delivery is due.
    pub(super) fn next_due(&self, now: i64) -> Option<i64> {
        let inner = self.lock();
        if inner.more || !inner.ready.is_empty() { Some(now) } else { inner.next_due }
    }

    /// Puts back deliveries that were not attempted, before all others and in their order.
    pub(super) fn give_back(&self, entries: VecDeque<Entry>) {
        let mut inner = self.lock();
        entries.into_iter().rev().for_each(|entry| inner.put_back(entry, 0));
    }

    /// Puts back deliveries that could not be read, after all others.
    pub(super) fn put_behind(&self, entries: VecDeque<Entry>) {
        let mut inner = self.lock();
        for entry in entries {
            let end = inner.ready.len();
            inner.put_back(entry, end);
        }
    }

    /// Puts back a delivery that was not attempted, in the order of ids.
    pub(super) fn give_back_one(&self, entry: Entry) {
        let mut inner = self.lock();
        let at = inner.ready.iter().take_while(|ready| ready.id < entry.id).count();
        inner.put_back(entry, at);
    }

    /// How many more may be ready, and how many are claimed. A refill reads that many deliveries together, so that
    /// enough unclaimed ones are among them.
    pub(super) fn wanted(&self) -> (usize, usize) {
        let inner = self.lock();
        (self.ahead.saturating_sub(inner.ready.len()), inner.claimed.len())
    }

    /// Whether a refill is worthwhile.
    pub(super) fn is_low(&self) -> bool {
        let inner = self.lock();
        inner.more && inner.ready.len() <= self.ahead / 2
    }

    /// The ids that are not claimed.
    pub(super) fn unclaimed(&self, mut ids: Vec<i64>) -> Vec<i64> {
        let inner = self.lock();
        ids.retain(|id| !inner.claimed.contains(id));
        ids
    }

    /// Claims deliveries that were read now. `more` tells whether there may be others.
    pub(super) fn refill(&self, entries: Vec<Entry>, more: bool, next_due: Option<i64>, now: i64) {
        let mut inner = self.lock();
        for entry in entries {
            if inner.claimed.insert(entry.id) {
                inner.ready.push_back(entry);
            }
        }
        (inner.more, inner.next_due, inner.requested, inner.refilled) = (more, next_due, false, now);
    }

    /// Claims a delivery that was just stored, if there is room and all earlier ones that may be attempted are claimed.
    pub(super) fn arrived(&self, entry: Entry) {
        let mut inner = self.lock();
        if !inner.more && inner.ready.len() < self.ahead && inner.claimed.insert(entry.id) {
            inner.ready.push_back(entry);
        } else {
            inner.more = true;
        }
    }

    /// Records that the file may have deliveries that may be attempted.
    pub(super) fn changed(&self) {
        self.lock().more = true;
    }

    /// Ends a claim: its outcome is committed, with the time when the next attempt is due.
    pub(super) fn settled(&self, id: i64, due: Option<i64>) {
        let mut inner = self.lock();
        inner.claimed.remove(&id);
        inner.next_due = inner.next_due.into_iter().chain(due).min();
    }

    /// Drops the claims of ready deliveries after the file was reopened. Messages up to `gone` are no longer in the
    /// file.
    pub(super) fn reset(&self, gone: i64, counts: Counts) {
        let mut inner = self.lock();
        for entry in std::mem::take(&mut inner.ready) {
            inner.claimed.remove(&entry.id);
        }
        (inner.more, inner.requested, inner.next_due) = (true, false, None);
        inner.gone = inner.gone.max(gone);
        inner.counts = counts;
    }

    /// The numbers of deliveries.
    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Changes the numbers.
    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.lock().counts);
    }
}

impl Inner {
    fn put_back(&mut self, entry: Entry, at: usize) {
        if entry.id <= self.gone {
            // If it was recovered into the file, a refill finds it.
            self.claimed.remove(&entry.id);
            self.more = true;
        } else if self.claimed.contains(&entry.id) {
            self.ready.insert(at, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i64) -> Entry {
        Entry { id, lane: None, attempts: 0, before_replay: 0, replayed: None }
    }

    fn ids(entries: &VecDeque<Entry>) -> Vec<i64> {
        entries.iter().map(|entry| entry.id).collect()
    }

    fn claims(ahead: usize, ready: std::ops::Range<i64>, more: bool) -> Claims {
        let claims = Claims::new(ahead);
        claims.refill(ready.map(entry).collect(), more, None, 0);
        claims
    }

    #[test]
    fn a_queue_that_was_not_read_has_to_be_and_then_an_empty_one_is_empty() {
        let claims = Claims::new(4);
        assert_eq!(claims.take(9, 0).1, Need::Now);
        claims.refill(Vec::new(), false, Some(10), 0);
        assert_eq!(claims.take(9, 9).1, Need::Nothing);
        assert_eq!(claims.take(9, 10).1, Need::Now, "one is due");
        claims.refill(Vec::new(), false, None, 10);
        assert_eq!(claims.take(9, 9 + STALE).1, Need::Nothing);
        assert_eq!(claims.take(0, 10 + STALE).1, Need::Nothing, "nothing is wanted");
        assert_eq!(claims.take(9, 10 + STALE).1, Need::Now, "nobody has looked for a while");
    }

    #[test]
    fn a_refill_is_asked_for_once_when_half_are_taken() {
        let claims = claims(4, 1..5, true);
        assert_eq!(claims.take(1, 0).1, Need::Nothing);
        let (taken, need) = claims.take(1, 0);
        assert_eq!((ids(&taken), need), (vec![2], Need::Soon));
        assert_eq!(claims.take(1, 0).1, Need::Nothing, "it was asked for");
        assert_eq!(claims.take(1, 0).1, Need::Nothing);
        assert_eq!(claims.take(1, 0).1, Need::Now, "nothing is left");
        assert_eq!(claims.wanted(), (4, 4));
    }

    #[test]
    fn what_is_due_is_asked_for_though_much_is_ready_unless_there_is_no_room() {
        let claims = claims(4, 1..5, false);
        claims.settled(9, Some(10));
        claims.settled(9, Some(20));
        assert_eq!(claims.next_due(5), Some(5), "four are ready");
        assert_eq!(claims.take(0, 10).1, Need::Nothing, "all four are ready");
        assert_eq!(claims.take(1, 9).1, Need::Nothing, "it is not due");
        assert_eq!(claims.take(1, 10).1, Need::Soon);
    }

    #[test]
    fn what_is_given_back_is_the_first_again_and_stays_claimed() {
        let claims = claims(4, 1..4, false);
        let (taken, _) = claims.take(2, 0);
        claims.give_back(taken);
        assert_eq!(claims.unclaimed(vec![1, 2, 3, 4]), [4]);
        assert_eq!(ids(&claims.take(9, 0).0), [1, 2, 3]);
        [entry(2), entry(1), entry(3)].into_iter().for_each(|entry| claims.give_back_one(entry));
        assert_eq!(ids(&claims.take(9, 0).0), [1, 2, 3]);
        claims.settled(2, None);
        assert_eq!(claims.unclaimed(vec![1, 2, 3]), [2]);
    }

    #[test]
    fn what_arrives_is_ready_at_once_unless_others_come_before_it() {
        let claims = claims(2, 1..2, false);
        claims.arrived(entry(2));
        assert_eq!(claims.take(0, 0).1, Need::Nothing);
        claims.arrived(entry(3));
        assert_eq!(ids(&claims.take(9, 0).0), [1, 2], "there was no room");
        claims.arrived(entry(4));
        assert_eq!(claims.take(9, 0), (VecDeque::new(), Need::Now), "the third comes first");
    }

    #[test]
    fn a_file_that_was_opened_anew_is_read_anew_but_for_what_is_in_hand() {
        let claims = claims(4, 1..4, false);
        let (taken, _) = claims.take(1, 0);
        claims.reset(0, Counts::default());
        assert_eq!(claims.unclaimed(vec![1, 2, 3]), [2, 3]);
        claims.give_back(taken.clone());
        assert_eq!(claims.take(9, 0).0, taken);
        claims.reset(1, Counts::default());
        claims.give_back(taken);
        assert_eq!(claims.take(9, 0), (VecDeque::new(), Need::Now), "its file is gone");
        assert_eq!(claims.unclaimed(vec![1]), [1]);
    }
}
