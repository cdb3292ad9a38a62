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
use crate::limits;
use crate::message::Message;
use crate::store::queued::Tries;

/// An event with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) row: i64,
    pub(super) event: Arc<Message>,
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
    limits: limits::Sqlite,
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
    /// The latest time for which somebody asked what is due, whose answer may still be under way.
    asked: i64,
    next_due: Option<i64>,
    in_hand: HashSet<i64>,
    tracks: HashMap<Lane, Track>,
    behind: usize,
    /// Rows whose lane has become free.
    freed: VecDeque<(i64, Lane)>,
}

impl Line {
    /// The line of a source whose file has these retrying events, those that were replayed behind the others, and perhaps
    /// some that wait for their first attempt.
    pub(super) fn new(
        limits: &limits::Sqlite,
        ordered: bool,
        retrying: impl IntoIterator<Item = (i64, Option<Lane>)>,
    ) -> Self {
        let mut tracks: HashMap<Lane, Track> = HashMap::new();
        if ordered {
            for (row, lane) in retrying {
                // A second one of a lane was replayed; it finds its place when it is due.
                lane.map(|lane| tracks.entry(lane).or_insert_with(|| Track { holder: row, ..Track::default() }));
            }
        }
        Self {
            limits: limits.clone(),
            ordered,
            window: VecDeque::new(),
            weight: 0,
            caught_up: false,
            next: 1,
            written: 0,
            scanned: (0, 0),
            asked: 0,
            next_due: Some(0),
            in_hand: HashSet::new(),
            tracks,
            behind: 0,
            freed: VecDeque::new(),
        }
    }

    /// An event has been written; rows come in their order.
    pub(super) fn arrived(&mut self, row: i64, event: &Arc<Message>) {
        self.written = self.written.max(row);
        if !self.caught_up || row < self.next {
            return;
        }
        if self.window.len() >= self.limits.window || self.weight >= self.limits.window_bytes {
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
        while taken.len() < max && self.behind < self.limits.max_behind {
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
    pub(super) fn wants(&mut self, now: i64) -> Option<Load> {
        self.asked = self.asked.max(now);
        if let Some((row, lane)) = self.freed.front() {
            return Some(Load::Row(*row, *lane));
        }
        if self.behind >= self.limits.max_behind {
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

    /// The moment at which an event may be tried again: as asked for, but never one that has been scanned already, or is
    /// being scanned.
    pub(super) fn due(&self, due: i64) -> i64 {
        due.max(self.scanned.0.max(self.asked) + 1)
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
        // While too many are behind others, nothing that is due can be taken.
        self.next_due.filter(|_| self.behind < self.limits.max_behind)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What may happen to a line.
    #[derive(Debug, Clone)]
    enum Step {
        Arrive(Option<u64>),
        /// Somebody takes; this many events arrive while the file is read.
        Take {
            max: usize,
            meanwhile: usize,
        },
        /// One of those in hand is delivered or dead.
        Finish(usize),
        /// One of those in hand has to be tried again after this time.
        Retry(usize, i64),
        /// One of those that are finished is replayed.
        Replay(usize),
        Wait(i64),
        /// The gateway is killed and started again.
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => proptest::option::of(0..4_u64).prop_map(Step::Arrive),
            4 => (1..5_usize, 0..3_usize).prop_map(|(max, meanwhile)| Step::Take { max, meanwhile }),
            4 => any::<usize>().prop_map(Step::Finish),
            2 => (any::<usize>(), 0..50_i64).prop_map(|(which, pause)| Step::Retry(which, pause)),
            1 => any::<usize>().prop_map(Step::Replay),
            2 => (0..60_i64).prop_map(Step::Wait),
            1 => Just(Step::Restart),
        ]
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum State {
        Queued,
        Retrying(i64),
        Finished,
    }

    /// The file as a map, and a line over it.
    struct World {
        ordered: bool,
        line: Line,
        file: BTreeMap<i64, (State, Option<Lane>)>,
        /// Events that never were replayed, which order holds for.
        fresh: HashSet<i64>,
        in_hand: Vec<i64>,
        now: i64,
    }

    /// Small, so that there is often more than one part.
    const PART: usize = 3;

    impl World {
        fn new(ordered: bool) -> Self {
            let (file, fresh) = (BTreeMap::new(), HashSet::new());
            Self {
                ordered,
                line: Line::new(&limits::Sqlite::default(), ordered, []),
                file,
                fresh,
                in_hand: Vec::new(),
                now: 1,
            }
        }

        fn event(lane: Option<Lane>) -> Arc<Message> {
            Arc::new(Message { lane, ..Message::example() })
        }

        fn standing(&self, row: i64) -> Standing {
            Standing { row, event: Self::event(self.file[&row].1), tries: Tries::default() }
        }

        fn arrive(&mut self, lane: Option<u64>) {
            let row = self.file.keys().next_back().copied().unwrap_or(0) + 1;
            let lane = lane.map(Lane);
            self.file.insert(row, (State::Queued, lane));
            self.fresh.insert(row);
            self.line.arrived(row, &Self::event(lane));
        }

        fn read(&self, load: &Load) -> Loaded {
            let mut found: Vec<(i64, i64)> = match load {
                Load::Next { from } => self.rows(|row, state| (state == State::Queued && row >= *from).then_some(0)),
                Load::Row(wanted, _) => {
                    self.rows(|row, state| (row == *wanted && state != State::Finished).then_some(0))
                }
                Load::Due { behind, now } => self.rows(|row, state| match state {
                    State::Retrying(due) => ((due, row) > *behind && due <= *now).then_some(due),
                    State::Queued | State::Finished => None,
                }),
            };
            found.sort_unstable();
            let complete = found.len() < PART;
            found.truncate(PART);
            let next_due = match load {
                Load::Due { now, .. } => self
                    .rows(|_, state| match state {
                        State::Retrying(due) => (due > *now).then_some(due),
                        State::Queued | State::Finished => None,
                    })
                    .into_iter()
                    .map(|(due, _)| due)
                    .min(),
                Load::Next { .. } | Load::Row(..) => None,
            };
            let events = found.iter().map(|(_, row)| self.standing(*row)).collect();
            Loaded { events, scanned: found.last().copied(), complete, next_due }
        }

        fn rows(&self, pick: impl Fn(i64, State) -> Option<i64>) -> Vec<(i64, i64)> {
            self.file.iter().filter_map(|(row, (state, _))| Some((pick(*row, *state)?, *row))).collect()
        }

        fn take(&mut self, max: usize, mut meanwhile: usize) {
            let mut taken = Vec::new();
            while taken.len() < max {
                let Some(load) = self.line.wants(self.now) else {
                    taken.extend(self.line.take(max - taken.len()));
                    break;
                };
                self.line.begin(&load);
                let loaded = self.read(&load);
                // The writer reads what is due itself, so nothing arrives meanwhile.
                if matches!(load, Load::Next { .. } | Load::Row(..)) {
                    (0..std::mem::take(&mut meanwhile))
                        .for_each(|lane| self.arrive(Some(u64::try_from(lane).unwrap())));
                }
                taken.extend(self.line.loaded(&load, loaded));
            }
            for standing in taken {
                let row = standing.row;
                assert!(!self.in_hand.contains(&row), "{row} is handed out twice");
                let (state, lane) = self.file[&row];
                assert_ne!(state, State::Finished, "{row} is finished");
                if let (true, Some(lane)) = (self.ordered, lane) {
                    let same = |other: &i64| self.file[other].1 == Some(lane);
                    assert!(!self.in_hand.iter().any(same), "two of a lane are in hand");
                    let earlier = self
                        .fresh
                        .range_before(row)
                        .any(|other| same(&other) && self.file[&other].0 != State::Finished);
                    assert!(!(self.fresh.contains(&row) && earlier), "{row} goes before an earlier one of its lane");
                }
                self.in_hand.push(row);
            }
        }

        fn finish(&mut self, which: usize) {
            if self.in_hand.is_empty() {
                return;
            }
            let row = self.in_hand.swap_remove(which % self.in_hand.len());
            let lane = self.file[&row].1;
            self.file.insert(row, (State::Finished, lane));
            self.line.finished(row, lane);
        }

        fn retry(&mut self, which: usize, pause: i64) {
            if !self.in_hand.is_empty() {
                let row = self.in_hand.swap_remove(which % self.in_hand.len());
                self.wait_until(row, pause);
            }
        }

        fn replay(&mut self, which: usize) {
            let finished = self.rows(|_, state| (state == State::Finished).then_some(0));
            if let Some((_, row)) = finished.get(which % finished.len().max(1)).copied() {
                self.fresh.remove(&row);
                self.wait_until(row, 0);
            }
        }

        fn wait_until(&mut self, row: i64, pause: i64) {
            let due = self.line.due(self.now + pause);
            self.file.insert(row, (State::Retrying(due), self.file[&row].1));
            self.line.retrying(row, due);
        }

        fn restart(&mut self) {
            self.in_hand.clear();
            let replayed = |row| i64::from(!self.fresh.contains(&row));
            let mut retrying = self.rows(|row, state| matches!(state, State::Retrying(_)).then_some(replayed(row)));
            retrying.sort_unstable();
            self.line = Line::new(
                &limits::Sqlite::default(),
                self.ordered,
                retrying.into_iter().map(|(_, row)| (row, self.file[&row].1)),
            );
        }

        fn run(&mut self, step: &Step) {
            match step {
                Step::Arrive(lane) => self.arrive(*lane),
                Step::Take { max, meanwhile } => self.take(*max, *meanwhile),
                Step::Finish(which) => self.finish(*which),
                Step::Retry(which, pause) => self.retry(*which, *pause),
                Step::Replay(which) => self.replay(*which),
                Step::Wait(time) => self.now += time,
                Step::Restart => self.restart(),
            }
        }
    }

    /// Rows before another one.
    trait RangeBefore {
        fn range_before(&self, row: i64) -> impl Iterator<Item = i64>;
    }

    impl RangeBefore for HashSet<i64> {
        fn range_before(&self, row: i64) -> impl Iterator<Item = i64> {
            self.iter().copied().filter(move |other| *other < row)
        }
    }

    /// A line whose file is empty, as it knows.
    fn empty(limits: &limits::Sqlite) -> Line {
        let mut line = Line::new(limits, true, []);
        while let Some(load) = line.wants(1) {
            line.begin(&load);
            line.loaded(&load, Loaded { events: Vec::new(), scanned: None, complete: true, next_due: None });
        }
        line
    }

    /// Whether, after this many events have arrived and were taken, one of them has to be read from the file.
    fn has_to_read(limits: &limits::Sqlite, arrived: i64) -> bool {
        let mut line = empty(limits);
        (1..=arrived).for_each(|row| line.arrived(row, &World::event(None)));
        line.take(10);
        line.wants(1).is_some()
    }

    #[test]
    fn as_many_events_and_bytes_as_the_limits_say_are_kept_in_memory_and_the_next_is_read() {
        let weight = World::event(None).weight();
        for limits in [
            limits::Sqlite { window: 2, ..limits::Sqlite::default() },
            limits::Sqlite { window_bytes: 2 * weight, ..limits::Sqlite::default() },
        ] {
            assert!(!has_to_read(&limits, 2), "{limits:?}");
            assert!(has_to_read(&limits, 3), "{limits:?}");
        }
    }

    #[test]
    fn nothing_more_is_taken_when_as_many_as_the_limit_says_are_behind_others_of_their_lane() {
        for (max_behind, taken) in [(3, vec![1, 4]), (2, vec![1])] {
            let mut line = empty(&limits::Sqlite { max_behind, ..limits::Sqlite::default() });
            for (row, lane) in [(1, 7), (2, 7), (3, 7), (4, 8)] {
                line.arrived(row, &World::event(Some(Lane(lane))));
            }
            let rows: Vec<_> = line.take(10).iter().map(|standing| standing.row).collect();
            assert_eq!(rows, taken, "with at most {max_behind}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_event_is_handed_out_in_its_order_one_at_a_time_until_it_is_finished(
            ordered in any::<bool>(),
            steps in proptest::collection::vec(step(), 0..120),
        ) {
            let mut world = World::new(ordered);
            steps.iter().for_each(|step| world.run(step));
            // From now on everything that is taken is delivered: nothing may be left.
            for _ in 0..400 {
                world.now += 10;
                world.take(4, 0);
                world.finish(0);
                world.finish(0);
            }
            let left = world.rows(|_, state| (state != State::Finished).then_some(0));
            prop_assert!(left.is_empty(), "{left:?} are never handed out");
        }
    }
}
