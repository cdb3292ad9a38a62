//! The table of a worker's connections: their number in total and by address, and the order in which waiting ones are
//! displaced.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use super::Origin;
use super::status::CloseReason;
use super::status::Phase;
use super::status::Status;

/// The connections of one worker by slot.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    /// Free slots.
    free: Vec<usize>,
    /// The number of connections, without those that were displaced and have not ended yet.
    counted: usize,
    /// The same by address. Addresses without any are not in it.
    addresses: HashMap<Origin, usize>,
    /// Two queues of waiting connections, the longest waiting first: of unverified clients, and with a verified
    /// request. Each element is a slot with the turn of its entry. It is stale if the entry has another turn by now, or
    /// is busy.
    waiting: [VecDeque<(usize, u64)>; 2],
    /// The last turn.
    turns: u64,
    /// The number of connections that were not polled yet, and so cannot be displaced.
    fresh: usize,
}

#[derive(Debug)]
struct Entry {
    status: Arc<Status>,
    /// `None` when it is not limited by address.
    origin: Option<Origin>,
    /// The turn of its latest element in a queue; 0 when it was displaced or never queued.
    turn: u64,
    /// Whether it is in the counts: not after it was displaced.
    counted: bool,
    /// `None` while it is fresh.
    waker: Option<Waker>,
}

impl Table {
    /// The number of connections, without displaced ones.
    pub(super) fn counted(&self) -> usize {
        self.counted
    }

    /// The number of connections of an address, without displaced ones.
    pub(super) fn counted_of(&self, origin: Origin) -> usize {
        self.addresses.get(&origin).copied().unwrap_or(0)
    }

    /// The number of connections that were not polled yet.
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

    /// Counts a connection for an address.
    pub(super) fn set_origin(&mut self, slot: usize, origin: Option<Origin>) {
        let Some(Some(entry)) = self.entries.get_mut(slot) else { return };
        if let Some(origin) = origin.filter(|_| entry.counted && entry.origin.is_none()) {
            entry.origin = Some(origin);
            *self.addresses.entry(origin).or_default() += 1;
        }
    }

    /// Removes a connection, and returns its waker, which the caller must drop after releasing the lock.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Waker> {
        self.uncount(slot);
        let entry = self.entries.get_mut(slot).and_then(Option::take)?;
        self.free.push(slot);
        if entry.waker.is_none() {
            self.fresh -= 1;
        }
        entry.waker
    }

    /// Sets the waker of the task that serves a connection. From now on it can be displaced.
    pub(super) fn set_waker(&mut self, slot: usize, waker: Waker) {
        if let Some(Some(entry)) = self.entries.get_mut(slot) {
            entry.waker = Some(waker);
            self.fresh -= 1;
        }
        self.queue(slot);
    }

    /// The connection that has waited longest, unverified clients first. With an `origin`, only those of that address.
    pub(super) fn longest_waiting(&mut self, origin: Option<Origin>) -> Option<usize> {
        let entries = &self.entries;
        let waits = |(slot, turn): &(usize, u64)| {
            entries.get(*slot)?.as_ref().filter(|entry| entry.turn == *turn && entry.status.phase() != Phase::Busy)
        };
        // While there are fresh connections, no verified one is displaced: a fresh one can be displaced in a moment.
        let queues = if self.fresh > 0 { 1 } else { 2 };
        for queue in self.waiting.iter_mut().take(queues) {
            // Stale elements are removed: a connection queues again when it waits again.
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

    /// Puts a connection at the end of its queue, if it is still there.
    pub(super) fn queue_if_present(&mut self, slot: usize, status: &Arc<Status>) {
        let entry = self.entries.get(slot).and_then(Option::as_ref);
        if entry.is_some_and(|entry| Arc::ptr_eq(&entry.status, status)) {
            self.queue(slot);
        }
    }

    /// Puts a connection at the end of its queue.
    pub(super) fn queue(&mut self, slot: usize) {
        self.turns += 1;
        let Some(Some(entry)) = self.entries.get_mut(slot) else { return };
        entry.turn = self.turns;
        let verified = entry.status.is_verified();
        let entries = &self.entries;
        let [unverified_queue, verified_queue] = &mut self.waiting;
        let queue = if verified { verified_queue } else { unverified_queue };
        queue.push_back((slot, self.turns));
        // Limits the memory of stale elements to the number of connections.
        if queue.len() > entries.len() * 2 + 64 {
            queue.retain(|(slot, turn)| matches!(entries.get(*slot), Some(Some(entry)) if entry.turn == *turn));
        }
    }

    /// Closes a connection because another one needs its slot.
    pub(super) fn displace(&mut self, slot: usize) {
        self.uncount(slot);
        if let Some(Some(entry)) = self.entries.get_mut(slot) {
            entry.turn = 0;
            entry.close(CloseReason::Displaced);
        }
    }

    /// Closes connections that are late.
    pub(super) fn time_out(&self, is_late: impl Fn(&Status) -> bool) {
        let late = self.entries.iter().flatten().filter(|entry| is_late(&entry.status));
        late.for_each(|entry| entry.close(CloseReason::TimedOut));
    }

    /// Wakes the tasks of all connections.
    pub(super) fn wake_all(&self) {
        self.entries.iter().flatten().for_each(Entry::wake);
    }

    /// Takes a connection out of the counts.
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

    /// The number of elements of the queues, and of addresses.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.waiting.iter().map(VecDeque::len).sum(), self.addresses.len())
    }
}

impl Entry {
    fn close(&self, close_reason: CloseReason) {
        // The first reason counts.
        if self.status.set_close_reason(close_reason) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
