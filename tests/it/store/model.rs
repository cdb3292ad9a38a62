//! What a store with queues promises, as maps: what was queued, how far it has come, who has it in hand, and until when.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use doorward::store::queued::State;

/// Why a history is none that a store may show.
pub type Check = Result<(), String>;

/// What names one delivery: the number of its queue, and of its message in the order in which they came.
pub type Name = (usize, u32);

/// What a store may do and another may not.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// For how long, in milliseconds, nobody else is given what somebody has in hand; for ever when absent.
    pub lease: Option<i64>,
    /// Bytes of bodies that one take hands out; one event in any case. Any when absent.
    pub take_bytes: Option<usize>,
    /// A process may be given again what it has in hand, when the lease of that is over.
    pub again: bool,
}

/// One message on one queue.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub lane: Option<u64>,
    pub size: usize,
    pub state: State,
    pub attempts: u32,
    /// Attempts before the last replay.
    pub spent: u32,
    pub replayed: bool,
    /// Not before this time it may be attempted, and from this time on it must, in milliseconds of the store's clock.
    pub due: i64,
    pub ready: i64,
    /// When the last attempt was recorded.
    pub settled: i64,
    pub claims: Vec<Claim>,
}

/// Somebody has a delivery in hand.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The number of the process.
    pub by: usize,
    pub at: i64,
    /// It will never say what came of it.
    pub dropped: bool,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// To be tried again after so many milliseconds.
    Retry(i64),
    Dead,
}

/// An attempt as the one who makes it knows it.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub name: Name,
    pub by: usize,
    pub attempts: u32,
    pub spent: u32,
}

#[derive(Debug)]
pub struct Model {
    pub rules: Rules,
    pub deliveries: BTreeMap<Name, Delivery>,
    keys: BTreeSet<(usize, u32)>,
}

impl Delivery {
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Queued | State::Retrying)
    }

    fn is_held(&self, lease: Option<i64>, now: i64) -> bool {
        self.claims.iter().any(|claim| !claim.dropped && lease.is_none_or(|lease| now - claim.at < lease))
    }
}

impl Model {
    pub fn new(rules: Rules) -> Self {
        Self { rules, deliveries: BTreeMap::new(), keys: BTreeSet::new() }
    }

    /// A message comes; whether it is new.
    pub fn enqueue(&mut self, name: Name, key: u32, lane: Option<u64>, size: usize) -> bool {
        let new = self.keys.insert((name.0, key));
        if new {
            let (state, claims) = (State::Queued, Vec::new());
            let (attempts, spent, replayed, due, ready, settled) = (0, 0, false, 0, 0, 0);
            let delivery = Delivery { lane, size, state, attempts, spent, replayed, due, ready, settled, claims };
            self.deliveries.insert(name, delivery);
        }
        new
    }

    fn others_of_lane(&self, name: Name) -> impl Iterator<Item = (Name, &Delivery)> {
        let lane = self.deliveries.get(&name).and_then(|delivery| delivery.lane);
        self.deliveries.iter().filter_map(move |(other, delivery)| {
            let same = other.0 == name.0 && *other != name && lane.is_some() && delivery.lane == lane;
            (same && delivery.is_open()).then_some((*other, delivery))
        })
    }

    /// Why a delivery may not be handed to somebody at this time.
    fn may_take(&self, by: usize, name: Name, now: i64) -> Check {
        let delivery =
            self.deliveries.get(&name).ok_or_else(|| format!("{name:?} is handed out and was never queued"))?;
        let lease = self.rules.lease;
        if !delivery.is_open() {
            return Err(format!("{name:?} is handed out and is {}", delivery.state.name()));
        }
        if delivery.due > now {
            return Err(format!("{name:?} is handed out {} ms too early", delivery.due - now));
        }
        let over = |claim: &Claim| self.rules.again && lease.is_some_and(|lease| now - claim.at >= lease);
        if delivery.claims.iter().any(|claim| claim.by == by && !claim.dropped && !over(claim)) {
            return Err(format!("{name:?} is handed to the process that still has it in hand"));
        }
        // What was dropped comes back at once where nobody else could take it.
        let kept = |claim: &Claim| lease.is_some_and(|lease| claim.by != by && now - claim.at < lease);
        if delivery.is_held(lease, now) || delivery.claims.iter().any(kept) {
            return Err(format!("{name:?} is handed out while somebody has it in hand"));
        }
        for (other, it) in self.others_of_lane(name) {
            if it.is_held(lease, now) {
                return Err(format!("{name:?} is handed out while {other:?} of its lane is in hand"));
            }
            if !delivery.replayed && !it.replayed && other < name {
                return Err(format!("{name:?} is handed out before {other:?} of its lane"));
            }
        }
        Ok(())
    }

    /// A take was answered, with deliveries and their attempts.
    pub fn took(&mut self, by: usize, max: usize, taken: &[Attempt], now: i64) -> Check {
        if taken.len() > max {
            return Err(format!("{} are handed out to somebody who asked for {max}", taken.len()));
        }
        let mut bytes = 0;
        for attempt in taken {
            self.may_take(by, attempt.name, now)?;
            let Some(delivery) = self.deliveries.get_mut(&attempt.name) else { continue };
            if (attempt.attempts, attempt.spent) != (delivery.attempts, delivery.spent) {
                let told = (attempt.attempts, attempt.spent);
                return Err(format!("{:?} is handed out with attempts {told:?}: {delivery:?}", attempt.name));
            }
            bytes += delivery.size;
            delivery.claims.retain(|claim| claim.by != by);
            delivery.claims.push(Claim { by, at: now, dropped: false });
        }
        match self.rules.take_bytes {
            Some(most) if bytes > most && taken.len() > 1 => {
                Err(format!("{} with {bytes} bytes are handed out at once, more than {most}", taken.len()))
            }
            _ => Ok(()),
        }
    }

    /// It is recorded what came of an attempt. A success always counts; what else came of it counts from the last one who was
    /// given the delivery.
    /// It may be attempted again at the first of the two times, and must from the second on.
    pub fn settle(&mut self, attempt: Attempt, outcome: Outcome, now: i64, due: (i64, i64)) {
        let Some(delivery) = self.deliveries.get_mut(&attempt.name) else { return };
        let owns = delivery.claims.last().is_some_and(|claim| claim.by == attempt.by);
        let same = delivery.spent == attempt.spent;
        let counts = match outcome {
            Outcome::Delivered => same && delivery.state != State::Delivered,
            Outcome::Retry(_) | Outcome::Dead => {
                same && owns && delivery.is_open() && delivery.attempts == attempt.attempts
            }
        };
        if !counts {
            // Whoever has lost it knows that it is none of theirs.
            delivery.claims.retain(|claim| claim.by != attempt.by || owns);
            return;
        }
        delivery.claims.clear();
        delivery.attempts = attempt.attempts + 1;
        delivery.settled = now;
        (delivery.due, delivery.ready) = due;
        delivery.state = match outcome {
            Outcome::Delivered => State::Delivered,
            Outcome::Retry(_) => State::Retrying,
            Outcome::Dead => State::Dead,
        };
    }

    /// An attempt ends without a word.
    pub fn drop_attempt(&mut self, attempt: Attempt) {
        let Some(delivery) = self.deliveries.get_mut(&attempt.name) else { return };
        delivery.claims.iter_mut().filter(|claim| claim.by == attempt.by).for_each(|claim| claim.dropped = true);
    }

    /// Whether an attempt at something that is open ended without a word.
    pub fn has_dropped(&self) -> bool {
        let open = self.deliveries.values().filter(|delivery| delivery.is_open());
        open.flat_map(|delivery| &delivery.claims).any(|claim| claim.dropped)
    }

    /// A process is gone. What it had in hand is given to others when its lease is over; at once where there are none.
    pub fn gone(&mut self, by: usize) {
        for delivery in self.deliveries.values_mut() {
            match self.rules.lease {
                Some(_) => {
                    delivery.claims.iter_mut().filter(|claim| claim.by == by).for_each(|claim| claim.dropped = true);
                }
                None => delivery.claims.clear(),
            }
        }
    }

    /// A clock is about to be set that says this: what is due may have been taken already by somebody who does not know it,
    /// because an answer was lost, and is due for whoever is given it next.
    pub fn keep_due(&mut self, now: i64) {
        let due = self.deliveries.values_mut().filter(|delivery| delivery.due <= now);
        due.for_each(|delivery| delivery.due = 0);
    }

    /// Somebody who is gone may have had anything in hand without knowing it, because an answer was lost.
    pub fn suspect_claims(&mut self, now: i64) {
        let over = now + self.rules.lease.unwrap_or(0);
        self.deliveries.values_mut().for_each(|delivery| delivery.ready = delivery.ready.max(over));
    }

    /// What is kept beside the messages is lost: nobody has anything in hand, and everything is due.
    pub fn forget_claims(&mut self) {
        for delivery in self.deliveries.values_mut() {
            delivery.claims.clear();
            (delivery.due, delivery.ready) = (0, 0);
        }
    }

    /// A file is opened at this time of a clock that may have been put back: pauses that would begin later begin now.
    pub fn forgive_clock(&mut self, now: i64) {
        for delivery in self.deliveries.values_mut().filter(|delivery| delivery.ready > now && delivery.settled > now) {
            delivery.due = delivery.due - delivery.settled + now;
            (delivery.ready, delivery.settled) = (delivery.ready - delivery.settled + now, now);
        }
    }

    /// Somebody wants a delivery made again; whether it is.
    pub fn replay(&mut self, name: Name, now: i64) -> bool {
        let Some(delivery) = self.deliveries.get_mut(&name).filter(|delivery| !delivery.is_open()) else {
            return false;
        };
        delivery.claims.clear();
        (delivery.state, delivery.replayed, delivery.spent) = (State::Retrying, true, delivery.attempts);
        (delivery.due, delivery.ready) = (0, now);
        true
    }

    /// The deliveries of a queue in one of these states.
    pub fn names(&self, queue: usize, states: &[State]) -> Vec<Name> {
        let those = |(name, delivery): (&Name, &Delivery)| {
            (name.0 == queue && states.contains(&delivery.state)).then_some(*name)
        };
        self.deliveries.iter().filter_map(those).collect()
    }

    /// A delivery of the queue that has to be handed out to whoever asks, whatever the store thinks of the order of those
    /// that were replayed. A millisecond is not looked at.
    pub fn waits(&self, queue: usize, now: i64) -> Option<Name> {
        let ready = |delivery: &Delivery| delivery.ready < now && delivery.claims.is_empty();
        let open = self.deliveries.iter().filter(|(name, delivery)| name.0 == queue && delivery.is_open());
        let mut waiting = open.filter(|(name, delivery)| {
            let mut others = self.others_of_lane(**name).peekable();
            if others.peek().is_none() {
                return ready(delivery);
            }
            let all_fresh = !delivery.replayed && self.others_of_lane(**name).all(|(_, other)| !other.replayed);
            ready(delivery)
                && others.all(|(other, it)| {
                    let behind = all_fresh && other > **name;
                    it.claims.is_empty() && (behind || !all_fresh && ready(it))
                })
        });
        waiting.next().map(|(name, _)| *name)
    }

    /// When the next delivery of the queue is due, or can be taken from somebody who is gone, after now.
    pub fn next_time(&self, now: i64) -> Option<i64> {
        let open = self.deliveries.values().filter(|delivery| delivery.is_open());
        let times = open.flat_map(|delivery| {
            let ends = delivery.claims.iter().map(|claim| claim.at + self.rules.lease.unwrap_or(0));
            ends.chain([delivery.ready])
        });
        times.filter(|time| *time > now).min()
    }
}
