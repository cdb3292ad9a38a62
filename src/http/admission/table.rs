//! The table of a listener's connections: how many there are in total and by address, and in which order those that
//! wait are closed for new ones.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use super::Origin;
use super::status::Phase;
use super::status::Status;
use super::status::Verdict;

/// The connections of one listener by slot.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Connections but for those that were displaced and are about to end.
    counted: usize,
    addresses: HashMap<Origin, usize>,
    /// Slots with turns of those that wait, the longest first: strangers, and those on which a request was verified.
    /// What is here may have become busy since, or wait somewhere further back.
    waiting: [VecDeque<(usize, u64)>; 2],
    turns: u64,
    /// Those that cannot be closed for others yet, because what was sent with them has not been looked at.
    fresh: usize,
}

#[derive(Debug)]
struct Entry {
    status: Arc<Status>,
    /// Absent where it does not count.
    origin: Option<Origin>,
    /// Its turn among those that wait.
    turn: u64,
    counted: bool,
    waker: Option<Waker>,
}

impl Table {
    /// The number of connections that count.
    pub(super) fn counted(&self) -> usize {
        self.counted
    }

    /// The number of connections of an address.
    pub(super) fn counted_of(&self, origin: Origin) -> usize {
        self.addresses.get(&origin).copied().unwrap_or(0)
    }

    /// The number of those that cannot be closed for others yet.
    pub(super) fn fresh(&self) -> usize {
        self.fresh
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.entries.len()
    }

    /// Adds a connection, and returns its slot.
    pub(super) fn insert(&mut self, status: Arc<Status>, origin: Option<Origin>) -> usize {
        let slot = self.free.pop().unwrap_or(self.entries.len());
        let entry = Entry { status, origin, turn: 0, counted: true, waker: None };
        match self.entries.get_mut(slot) {
            Some(place) => *place = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        self.counted += 1;
        self.fresh += 1;
        if let Some(origin) = origin {
            *self.addresses.entry(origin).or_default() += 1;
        }
        slot
    }

    /// Removes a connection; its waker is for the caller to drop when nothing is locked any more.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Waker> {
        self.uncount(slot);
        let entry = self.entries.get_mut(slot).and_then(Option::take)?;
        self.free.push(slot);
        if entry.waker.is_none() {
            self.fresh -= 1;
        }
        entry.waker
    }

    /// Sets the waker of the task that serves a connection; from here on it can be closed for others.
    pub(super) fn set_waker(&mut self, slot: usize, waker: Waker) {
        if let Some(Some(entry)) = self.entries.get_mut(slot) {
            entry.waker = Some(waker);
            self.fresh -= 1;
        }
        self.queue(slot);
    }

    /// The connection that has waited longest, of this address if there is one: strangers before others.
    pub(super) fn longest_waiting(&mut self, origin: Option<Origin>) -> Option<usize> {
        let entries = &self.entries;
        let waits = |(slot, turn): &(usize, u64)| {
            entries.get(*slot)?.as_ref().filter(|entry| entry.turn == *turn && entry.status.phase() != Phase::Busy)
        };
        // A burst of strangers closes none that was verified: some of them can be closed in a moment.
        let queues = if self.fresh > 0 { 1 } else { 2 };
        for queue in self.waiting.iter_mut().take(queues) {
            // What does not wait any more is skipped once only; it queues again when it waits again.
            while queue.front().is_some_and(|waiting| waits(waiting).is_none()) {
                queue.pop_front();
            }
            let of_origin = |waiting: &&(usize, u64)| {
                waits(waiting).is_some_and(|entry| origin.is_none() || entry.origin == origin)
            };
            if let Some((slot, _)) = queue.iter().find(of_origin) {
                return Some(*slot);
            }
        }
        None
    }

    /// Puts a connection behind the others that wait.
    pub(super) fn queue(&mut self, slot: usize) {
        self.turns += 1;
        let Some(Some(entry)) = self.entries.get_mut(slot) else { return };
        entry.turn = self.turns;
        let verified = entry.status.is_verified();
        let entries = &self.entries;
        let [strangers, others] = &mut self.waiting;
        let queue = if verified { others } else { strangers };
        queue.push_back((slot, self.turns));
        // Left-overs of those that moved on take at most as much room as there are connections.
        if queue.len() > entries.len() * 2 + 64 {
            queue.retain(|(slot, turn)| matches!(entries.get(*slot), Some(Some(entry)) if entry.turn == *turn));
        }
    }

    /// Has a connection closed for another one.
    pub(super) fn displace(&mut self, slot: usize) {
        self.uncount(slot);
        if let Some(Some(entry)) = self.entries.get_mut(slot) {
            entry.turn = 0;
            entry.close(Verdict::Displaced);
        }
    }

    /// Has those connections closed that are late.
    pub(super) fn time_out(&self, is_late: impl Fn(&Status) -> bool) {
        let late = self.entries.iter().flatten().filter(|entry| is_late(&entry.status));
        late.for_each(|entry| entry.close(Verdict::TimedOut));
    }

    /// Wakes the tasks of all connections.
    pub(super) fn wake_all(&self) {
        self.entries.iter().flatten().for_each(Entry::wake);
    }

    fn uncount(&mut self, slot: usize) {
        let Some(Some(entry)) = self.entries.get_mut(slot) else { return };
        if !std::mem::replace(&mut entry.counted, false) {
            return;
        }
        self.counted -= 1;
        if let Some(origin) = entry.origin
            && let Some(count) = self.addresses.get_mut(&origin)
        {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&origin);
            }
        }
    }

    /// How much is kept of connections that may have ended: entries of queues, and addresses.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.waiting.iter().map(VecDeque::len).sum(), self.addresses.len())
    }
}

impl Entry {
    fn close(&self, verdict: Verdict) {
        // The first verdict counts.
        if self.status.decide(verdict) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
