//! What a store with queues promises, as maps: what was enqueued, how far each delivery has come, who has it in hand,
//! until when.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use doorward::store::State;

use super::process::QUEUES;
use super::process::source_of;

/// Why a history is none that a store may show.
pub type Check = Result<(), String>;

/// What names one delivery: the number of its queue, and of its message in the order in which they came.
pub type Name = (usize, u32);

/// One message for one destination.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub lane: Option<u64>,
    pub size: usize,
    pub state: State,
    pub attempts: u32,
    pub before_replay: u32,
    pub replayed: bool,
    /// Not before this time it may be handed out, and from this time on it must, in milliseconds of the store's clock.
    pub due: (i64, i64),
    /// When the last attempt was recorded.
    pub settled: i64,
    pub claim: Option<Claim>,
}

/// Somebody has a delivery in hand, or had it when their process ended.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The number of the process; none when it is gone.
    pub by: Option<usize>,
    /// From this time on somebody else may have it, and from this time on it must be handed out.
    pub ends: (i64, i64),
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// To be tried again after so many milliseconds.
    Retry(i64),
    Dead,
    /// Nobody says.
    Dropped,
}

/// An attempt as the one who makes it knows it.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub name: Name,
    pub by: usize,
    pub attempts: u32,
    pub before_replay: u32,
}

#[derive(Debug)]
pub struct Model {
    /// For how long, in milliseconds, nobody else is given what somebody has in hand; for ever when absent.
    pub lease: Option<i64>,
    pub deliveries: BTreeMap<Name, Delivery>,
    keys: BTreeSet<(usize, u32)>,
}

impl Delivery {
    pub fn is_open(&self) -> bool {
        self.state.is_open()
    }

    /// Whether it may be handed out at this time.
    fn may_go(&self, now: i64) -> bool {
        matches!(self.state, State::Queued | State::Retrying)
            && self.due.0 <= now
            && self.claim.is_none_or(|claim| claim.ends.0 <= now)
    }

    /// Whether it has to be handed out at this time, but for a millisecond.
    fn must_go(&self, now: i64) -> bool {
        matches!(self.state, State::Queued | State::Retrying)
            && self.due.1 < now
            && self.claim.is_none_or(|claim| claim.ends.1 < now)
    }
}

impl Model {
    pub fn new(lease: Option<i64>) -> Self {
        Self { lease, deliveries: BTreeMap::new(), keys: BTreeSet::new() }
    }

    /// A message comes for queues of one source; whether it is new.
    pub fn enqueue(&mut self, queues: &[usize], serial: u32, (key, lane, size): (u32, Option<u64>, usize)) -> bool {
        let Some(first) = queues.first() else { return false };
        let new = self.keys.insert((source_of(*first), key));
        if new {
            for queue in queues {
                let state = if self.is_busy(*queue, lane) { State::Blocked } else { State::Queued };
                let (attempts, before_replay, replayed, due, settled, claim) = (0, 0, false, (0, 0), 0, None);
                let delivery = Delivery { lane, size, state, attempts, before_replay, replayed, due, settled, claim };
                self.deliveries.insert((*queue, serial), delivery);
            }
        }
        new
    }

    fn of_lane(&mut self, queue: usize, lane: Option<u64>) -> impl Iterator<Item = &mut Delivery> {
        let same = move |name: &Name, it: &Delivery| name.0 == queue && lane.is_some() && it.lane == lane;
        self.deliveries.iter_mut().filter_map(move |(name, it)| same(name, it).then_some(it))
    }

    fn is_busy(&mut self, queue: usize, lane: Option<u64>) -> bool {
        self.of_lane(queue, lane).any(|it| it.is_open())
    }

    /// A delivery has ended: the oldest that is blocked in its lane follows.
    fn promote(&mut self, queue: usize, lane: Option<u64>, now: i64) {
        if let Some(next) = self.of_lane(queue, lane).find(|it| it.state == State::Blocked) {
            next.state = if next.replayed { State::Retrying } else { State::Queued };
            next.due = (0, now);
        }
    }

    /// A take was answered, with these deliveries.
    pub fn took(&mut self, by: usize, (max, bytes): (usize, usize), taken: &[Attempt], now: i64) -> Check {
        if taken.len() > max {
            return Err(format!("{} are handed out to somebody who asked for {max}", taken.len()));
        }
        let mut before_last = 0;
        let mut last = 0;
        for attempt in taken {
            let name = attempt.name;
            let Some(delivery) = self.deliveries.get_mut(&name) else {
                return Err(format!("{name:?} is handed out and is not stored"));
            };
            if !delivery.may_go(now) {
                return Err(format!("{name:?} is handed out at {now}: {delivery:?}"));
            }
            if delivery.claim.is_some_and(|claim| claim.by == Some(by)) {
                return Err(format!("{name:?} is handed to the process that still has it in hand"));
            }
            if (attempt.attempts, attempt.before_replay) != (delivery.attempts, delivery.before_replay) {
                return Err(format!("{attempt:?} is handed out: {delivery:?}"));
            }
            let ends = self.lease.map_or((i64::MAX, i64::MAX), |lease| (now + lease, now + lease));
            delivery.claim = Some(Claim { by: Some(by), ends });
            before_last += last;
            last = delivery.size;
        }
        if taken.len() > 1 && before_last >= bytes {
            return Err(format!("{} of {before_last} bytes and more are handed out for {bytes}", taken.len()));
        }
        if let Some(lease) = self.lease {
            // What a process still has in hand when its lease is over may be its for another lease from now.
            for it in self.deliveries.values_mut() {
                if let Some(claim) = it.claim.as_mut().filter(|claim| claim.by == Some(by) && claim.ends.0 <= now) {
                    claim.ends.1 = now + lease;
                }
            }
        }
        Ok(())
    }

    /// Whether the process holds something that may be somebody else's by now, or that it would lose with the answer to
    /// a take.
    pub fn has_lost(&self, by: usize, held: impl Iterator<Item = Name>, now: i64, losing: bool) -> bool {
        held.filter_map(|name| self.deliveries.get(&name))
            .filter(|it| it.is_open())
            .any(|it| it.claim.is_none_or(|claim| claim.by != Some(by) || losing && claim.ends.0 <= now))
    }

    /// The answer to a take may have been lost: what could be taken may be in the hands of nobody.
    pub fn lost_take(&mut self, queue: usize, now: i64) {
        let lease = self.lease.unwrap_or(0);
        for (name, it) in &mut self.deliveries {
            if name.0 == queue && it.may_go(now) {
                it.due.1 = it.due.1.max(now + lease);
                if let Some(claim) = &mut it.claim {
                    claim.ends.1 = now + lease;
                }
            }
        }
    }

    /// It is recorded what came of an attempt. A success always counts; anything else only from the one who has it. It
    /// may be attempted again from the first of the two times on, and must from the second on.
    pub fn settle(&mut self, attempt: Attempt, outcome: Outcome, now: i64, due: (i64, i64)) {
        let Some(delivery) = self.deliveries.get_mut(&attempt.name) else { return };
        let same = delivery.before_replay == attempt.before_replay;
        let mine = same
            && delivery.is_open()
            && delivery.attempts == attempt.attempts
            && delivery.claim.is_some_and(|claim| claim.by == Some(attempt.by));
        let counts = match outcome {
            Outcome::Delivered => same && delivery.state != State::Delivered,
            Outcome::Retry(_) | Outcome::Dead | Outcome::Dropped => mine,
        };
        if !counts {
            return;
        }
        delivery.claim = None;
        if outcome == Outcome::Dropped {
            delivery.due = (0, now);
            return;
        }
        let was_open = delivery.is_open();
        delivery.attempts = attempt.attempts + 1;
        (delivery.settled, delivery.due) = (now, due);
        delivery.state = match outcome {
            Outcome::Delivered => State::Delivered,
            Outcome::Retry(_) | Outcome::Dropped => State::Retrying,
            Outcome::Dead => State::Dead,
        };
        if was_open && !delivery.is_open() {
            let lane = delivery.lane;
            self.promote(attempt.name.0, lane, now);
        }
    }

    /// A process is gone. What it had in hand is given to others when its lease is over; at once where there are none.
    pub fn gone(&mut self, by: usize) {
        for it in self.deliveries.values_mut() {
            if let Some(claim) = it.claim.as_mut().filter(|claim| claim.by == Some(by)) {
                claim.by = None;
            }
            if self.lease.is_none() {
                it.claim = None;
            }
        }
    }

    /// A file is opened at this time of a clock that may have been put back: pauses that would begin later begin now.
    pub fn forgive_clock(&mut self, now: i64) {
        let late = |it: &&mut Delivery| it.state == State::Retrying && it.due.1 > now && it.settled > now;
        for it in self.deliveries.values_mut().filter(late) {
            let shift = now - it.settled;
            it.due = (it.due.0 + shift, it.due.1 + shift);
            it.settled = now;
        }
    }

    /// Somebody wants a delivery made again that has ended.
    pub fn replay(&mut self, name: Name, now: i64) {
        let Some(lane) = self.deliveries.get(&name).map(|it| it.lane) else { return };
        let state = if self.is_busy(name.0, lane) { State::Blocked } else { State::Retrying };
        if let Some(it) = self.deliveries.get_mut(&name) {
            (it.claim, it.state, it.replayed, it.before_replay) = (None, state, true, it.attempts);
            it.due = (0, now);
        }
    }

    /// The deliveries of a queue in one of these states, the oldest first.
    pub fn names(&self, queue: usize, states: &[State]) -> Vec<Name> {
        let those = |(name, it): (&Name, &Delivery)| (name.0 == queue && states.contains(&it.state)).then_some(*name);
        self.deliveries.iter().filter_map(those).collect()
    }

    /// The deliveries of a message, by the number of the queue.
    pub fn of_message(&self, source: usize, serial: u32) -> Vec<Name> {
        (0..QUEUES)
            .map(|queue| (queue, serial))
            .filter(|name| source_of(name.0) == source && self.deliveries.contains_key(name))
            .collect()
    }

    /// A delivery of the queue that has to be handed out to whoever asks.
    pub fn waits(&self, queue: usize, now: i64) -> Option<Name> {
        self.deliveries.iter().find(|(name, it)| name.0 == queue && it.must_go(now)).map(|(name, _)| *name)
    }

    /// When something has to be handed out next that need not be now.
    pub fn next_time(&self, now: i64) -> Option<i64> {
        let waiting = self.deliveries.values().filter(|it| matches!(it.state, State::Queued | State::Retrying));
        let times = waiting.flat_map(|it| it.claim.map(|claim| claim.ends.1).into_iter().chain([it.due.1]));
        times.filter(|time| *time >= now && *time < i64::MAX / 2).min()
    }

    /// Whether the store breaks the rule of lanes cannot be seen from here; whether the model does, can.
    pub fn check_lanes(&self) -> Check {
        let mut heads = BTreeSet::new();
        for (name, it) in &self.deliveries {
            if let Some(lane) = it.lane.filter(|_| it.is_open() && it.state != State::Blocked)
                && !heads.insert((name.0, lane))
            {
                return Err(format!("lane {lane} of queue {} has two that are not blocked", name.0));
            }
        }
        Ok(())
    }
}
