//! The order in which the queued events of one source are taken: pure bookkeeping over what stands in the file.
//!
//! The file has every event; a line keeps the next few in memory, so that an event that is delivered at once is never read
//! back, and knows where reading goes on when there are more. Everything below `next` that waits for its first attempt is
//! in the window, in hand, or behind another one in its lane; everything retrying that was due at `scanned` or before is in
//! hand or behind another one.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::Lane;
use crate::store::queued::QueuedEvent;
use crate::store::queued::Tries;

/// Most events that are kept in memory for a source, and about how many bytes they may take.
const WINDOW: usize = 512;
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Most events that wait in memory, as numbers, for another one of their lane.
const MAX_BEHIND: usize = 100_000;

/// An event with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) row: i64,
    pub(super) event: Arc<QueuedEvent>,
    pub(super) tries: Tries,
}

/// What has to be read from the file before more can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Load {
    /// Events that wait for their first attempt, from this row on.
    Next { from: i64 },
    /// Retrying events that are due until `now` (milliseconds since 1970), behind this time and row.
    Due { behind: (i64, i64), now: i64 },
    /// This one, whose lane is free.
    Row(i64, Lane),
}

/// What was read.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    /// In the order asked for.
    pub(super) events: Vec<Standing>,
    /// The time, for [`Load::Due`], and row of the last one that was looked at, damaged ones included.
    pub(super) scanned: Option<(i64, i64)>,
    /// Whether there is no more of what was asked for.
    pub(super) complete: bool,
    /// When the next one is due, for [`Load::Due`].
    pub(super) next_due: Option<i64>,
}

/// The events of one lane.
#[derive(Debug, Default)]
struct Track {
    /// The one that goes first.
    holder: i64,
    behind: VecDeque<i64>,
}

/// The line of one source.
#[derive(Debug)]
pub(super) struct Line {
    ordered: bool,
    window: VecDeque<Standing>,
    weight: usize,
    /// Whether nothing waits for its first attempt beyond the window.
    caught_up: bool,
    /// Where reading goes on.
    next: i64,
    /// The last row that was written.
    written: i64,
    /// Retrying events up to this time and row have been read.
    scanned: (i64, i64),
    next_due: Option<i64>,
    in_hand: HashSet<i64>,
    tracks: HashMap<Lane, Track>,
    behind: usize,
    /// Rows whose lane has become free.
    freed: VecDeque<(i64, Lane)>,
}

impl Line {
    /// The line of a source whose file has these retrying events, in the order of their rows, and perhaps others that
    /// wait for their first attempt.
    pub(super) fn new(ordered: bool, retrying: impl IntoIterator<Item = (i64, Option<Lane>)>) -> Self {
        let mut tracks: HashMap<Lane, Track> = HashMap::new();
        if ordered {
            for (row, lane) in retrying {
                // A second one of a lane was replayed; it finds its place when it is due.
                lane.map(|lane| tracks.entry(lane).or_insert_with(|| Track { holder: row, ..Track::default() }));
            }
        }
        Self {
            ordered,
            window: VecDeque::new(),
            weight: 0,
            caught_up: false,
            next: 1,
            written: 0,
            scanned: (0, 0),
            next_due: Some(0),
            in_hand: HashSet::new(),
            tracks,
            behind: 0,
            freed: VecDeque::new(),
        }
    }

    /// An event has been written; rows come in their order.
    pub(super) fn arrived(&mut self, row: i64, event: &Arc<QueuedEvent>) {
        self.written = self.written.max(row);
        if !self.caught_up || row < self.next {
            return;
        }
        if self.window.len() >= WINDOW || self.weight >= WINDOW_BYTES {
            self.caught_up = false;
            return;
        }
        self.next = row + 1;
        self.push(Standing { row, event: Arc::clone(event), tries: Tries::default() });
    }

    fn push(&mut self, standing: Standing) {
        self.weight += standing.event.weight();
        self.window.push_back(standing);
    }

    /// Takes at most `max` events.
    pub(super) fn take(&mut self, max: usize) -> Vec<Standing> {
        let mut taken = Vec::new();
        while taken.len() < max && self.behind < MAX_BEHIND {
            let Some(standing) = self.window.pop_front() else { break };
            self.weight = self.weight.saturating_sub(standing.event.weight());
            if self.may_go(standing.row, standing.event.lane) {
                self.in_hand.insert(standing.row);
                taken.push(standing);
            }
        }
        taken
    }

    /// Whether nothing of its lane goes before it; otherwise it is noted behind the others.
    fn may_go(&mut self, row: i64, lane: Option<Lane>) -> bool {
        let Some(lane) = lane.filter(|_| self.ordered) else { return true };
        let track = self.tracks.entry(lane).or_insert_with(|| Track { holder: row, ..Track::default() });
        if track.holder == row {
            return true;
        }
        track.behind.push_back(row);
        self.behind += 1;
        false
    }

    /// What to read, so that there is more to take; `now` is in milliseconds since 1970.
    pub(super) fn wants(&self, now: i64) -> Option<Load> {
        if let Some((row, lane)) = self.freed.front() {
            return Some(Load::Row(*row, *lane));
        }
        if self.behind >= MAX_BEHIND {
            return None;
        }
        if self.next_due.is_some_and(|due| due <= now) {
            return Some(Load::Due { behind: self.scanned, now });
        }
        (!self.caught_up && self.window.is_empty()).then_some(Load::Next { from: self.next })
    }

    /// Begins to read; what changes meanwhile is not missed.
    pub(super) fn begin(&mut self, load: &Load) {
        match load {
            Load::Row(..) => drop(self.freed.pop_front()),
            Load::Due { .. } => self.next_due = None,
            Load::Next { .. } => {}
        }
    }

    /// Takes in what was read. Retrying and freed events are handed out at once: they have waited longest.
    pub(super) fn loaded(&mut self, load: &Load, loaded: Loaded) -> Vec<Standing> {
        match load {
            Load::Next { .. } => {
                if let Some((_, row)) = loaded.scanned {
                    self.next = self.next.max(row + 1);
                }
                loaded.events.into_iter().for_each(|standing| self.push(standing));
                // What was written while the file was read may be missing.
                self.caught_up = loaded.complete && self.written < self.next;
                Vec::new()
            }
            Load::Due { now, .. } => {
                self.scanned = loaded.scanned.unwrap_or(self.scanned).max(self.scanned);
                let next = if loaded.complete { loaded.next_due } else { Some(*now) };
                self.next_due = [self.next_due, next].into_iter().flatten().min();
                let mut due = loaded.events;
                due.retain(|standing| self.may_go(standing.row, standing.event.lane));
                self.in_hand.extend(due.iter().map(|standing| standing.row));
                due
            }
            Load::Row(row, lane) => {
                if loaded.events.is_empty() {
                    // It cannot be read, and nobody behind it shall wait for that.
                    self.finished(*row, Some(*lane));
                }
                self.in_hand.extend(loaded.events.iter().map(|standing| standing.row));
                loaded.events
            }
        }
    }

    /// Reading failed; it is tried again.
    pub(super) fn unread(&mut self, load: &Load) {
        match load {
            Load::Row(row, lane) => self.freed.push_front((*row, *lane)),
            Load::Due { now, .. } => self.next_due = Some(*now),
            Load::Next { .. } => {}
        }
    }

    /// The moment at which an event may be tried again: as asked for, but never one that has been scanned already.
    pub(super) fn due(&self, due: i64) -> i64 {
        due.max(self.scanned.0 + 1)
    }

    /// It was written that an event has to be tried again, or for the first time after a replay.
    pub(super) fn retrying(&mut self, row: i64, due: i64) {
        self.in_hand.remove(&row);
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }

    /// It was written that an event is delivered, or dead.
    pub(super) fn finished(&mut self, row: i64, lane: Option<Lane>) {
        self.in_hand.remove(&row);
        let Some(lane) = lane.filter(|_| self.ordered) else { return };
        let Some(track) = self.tracks.get_mut(&lane).filter(|track| track.holder == row) else { return };
        match track.behind.pop_front() {
            Some(next) => {
                track.holder = next;
                self.behind -= 1;
                self.freed.push_back((next, lane));
            }
            None => drop(self.tracks.remove(&lane)),
        }
    }

    /// When the next event is due, in milliseconds since 1970.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.next_due
    }
}
