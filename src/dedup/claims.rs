//! The claims of this process: the events in flight, and the requests that wait for their outcomes. A state machine
//! without lock and clock: the caller passes the time.

use std::time::Duration;
use std::time::Instant;

use crate::message::Keys;
use crate::store::KeyMap;
use crate::verify::event_key::Key;

/// The claims of a process. `W` is a waiter: the handle by which a request learns the outcome of an event.
#[derive(Debug)]
pub(super) struct Claims<W> {
    table: KeyMap<State<W>>,
    /// The number of the last holder.
    last_holder: u64,
    /// Most waiters for one event; further requests are answered [`Entry::Busy`].
    max_waiting: usize,
}

/// Identifies the request that holds a claim, so that no other one releases it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder(u64);

#[derive(Debug)]
enum State<W> {
    /// The event is in flight. After `until` the lease has expired, and the next request takes the claim.
    InFlight { until: Instant, holder: Holder, waiting: Vec<W> },
    /// No request handles the event, but it may have been delivered: nobody tries before `until`.
    CoolingDown { until: Instant },
}

/// The answer to [`Claims::enter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry<L, O> {
    /// The event was not in flight: the caller holds its claim now.
    Leader(L),
    /// The event is in flight: `outcome` will tell whether it was finished. `same_id` tells whether the event in flight
    /// has the same id, or only the same content.
    Follower { outcome: O, same_id: bool },
    /// The event is in flight with the most waiters, or cooling down: come back after this time.
    Busy(Duration),
}

/// How a claim ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The event was delivered, or is a duplicate.
    Finished,
    /// It was not delivered: the next request may try at once.
    Released,
    /// It may have been delivered: nobody tries before `until`.
    CoolDown { now: Instant, until: Instant },
}

impl<W> Claims<W> {
    /// No claims; at most `max_waiting` requests wait for one event.
    pub(super) fn new(max_waiting: usize) -> Self {
        Self { table: KeyMap::default(), last_holder: 0, max_waiting }
    }

    /// Claims an event for `lease`. For a follower, `wait` makes the waiter and the receiver of the outcome.
    pub(super) fn enter<O>(
        &mut self,
        keys: Keys,
        now: Instant,
        lease: Duration,
        wait: impl FnOnce() -> (W, O),
    ) -> Entry<Holder, O> {
        for key in keys.iter() {
            match self.table.get_mut(&key) {
                Some(State::InFlight { until, waiting, .. }) if now < *until => {
                    if waiting.len() >= self.max_waiting {
                        return Entry::Busy(until.duration_since(now));
                    }
                    let (waiter, outcome) = wait();
                    waiting.push(waiter);
                    return Entry::Follower { outcome, same_id: key == keys.id };
                }
                Some(State::CoolingDown { until }) if now < *until => return Entry::Busy(until.duration_since(now)),
                // Expired.
                Some(State::InFlight { .. } | State::CoolingDown { .. }) | None => {}
            }
        }
        self.last_holder += 1;
        let holder = Holder(self.last_holder);
        for key in keys.iter() {
            self.table.insert(key, State::InFlight { until: now + lease, holder, waiting: Vec::new() });
        }
        Entry::Leader(holder)
    }

    /// Ends a claim, and returns its waiters. [`End::Finished`] ends the claim of any holder; the other ends have no
    /// effect on a claim that another holder took after the lease had expired.
    pub(super) fn end(&mut self, keys: Keys, holder: Holder, end: End) -> Vec<W> {
        let mut woken = Vec::new();
        for key in keys.iter() {
            let own =
                matches!(self.table.get(&key), Some(State::InFlight { holder: current, .. }) if *current == holder);
            if own || end == End::Finished {
                woken.extend(self.replace(key, end));
            }
        }
        if let End::CoolDown { now, .. } = end {
            // Cool-downs are rare; expired ones are removed when the next one begins.
            self.table.retain(|_, state| match state {
                State::CoolingDown { until } => now < *until,
                State::InFlight { .. } => true,
            });
        }
        woken
    }

    /// Replaces the state of one key, and returns the waiters.
    fn replace(&mut self, key: Key, end: End) -> Vec<W> {
        let before = match end {
            End::CoolDown { until, .. } => self.table.insert(key, State::CoolingDown { until }),
            End::Finished | End::Released => self.table.remove(&key),
        };
        match before {
            Some(State::InFlight { waiting, .. }) => waiting,
            Some(State::CoolingDown { .. }) | None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    #[derive(Debug, Clone)]
    enum Step {
        /// Somebody comes with an event, which is known by one id and perhaps by what is signed.
        Enter(u8, Option<u8>),
        End(usize, Ending),
        Wait(u64),
    }

    #[derive(Debug, Clone, Copy)]
    enum Ending {
        Finished,
        Released,
        Held,
    }

    fn step() -> impl Strategy<Value = Step> {
        let ending = prop_oneof![Just(Ending::Finished), Just(Ending::Released), Just(Ending::Held)];
        prop_oneof![
            4 => (0..3_u8, proptest::option::of(0..3_u8)).prop_map(|(id, guard)| Step::Enter(id, guard)),
            3 => (any::<usize>(), ending).prop_map(|(which, ending)| Step::End(which, ending)),
            1 => (0..40_u64).prop_map(Step::Wait),
        ]
    }

    fn keys(id: u8, guard: Option<u8>) -> Keys {
        Keys { id: Key([id; 16]), guard: guard.map(|guard| Key([100 + guard; 16])), ignored: None }
    }

    #[test]
    fn as_many_as_the_limit_says_wait_for_one_event_and_the_next_is_told_to_come_back() {
        let (mut claims, now) = (Claims::new(2), Instant::now());
        let Entry::Leader(holder) = claims.enter(keys(1, None), now, LEASE, || (0, ())) else {
            panic!("nobody is at it")
        };
        let later = now + Duration::from_secs(10);
        let follow = Entry::Follower { outcome: (), same_id: true };
        for waiter in [1, 2] {
            assert_eq!(claims.enter(keys(1, None), later, LEASE, || (waiter, ())), follow);
        }
        assert_eq!(claims.enter(keys(1, None), later, LEASE, || (3, ())), Entry::Busy(Duration::from_secs(20)));
        assert_eq!(claims.enter(keys(2, None), later, LEASE, || (4, ())), Entry::Leader(Holder(2)), "of another event");
        assert_eq!(claims.end(keys(1, None), holder, End::Finished), [1, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The model: for each key, who has the latest claim on it, and until when.
        #[test]
        fn no_event_has_two_holders_within_a_lease_and_everybody_who_waits_is_told_once(
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut claims = Claims::new(usize::MAX);
            let mut now = Instant::now();
            let mut held: HashMap<Key, (Option<Holder>, Instant)> = HashMap::new();
            let mut single_flight: Vec<(Keys, Holder)> = Vec::new();
            let (mut waiters, mut woken) = (0_u32, Vec::new());
            for step in steps {
                match step {
                    Step::Enter(id, guard) => {
                        let keys = keys(id, guard);
                        let blocked = keys.iter().any(|key| held.get(&key).is_some_and(|(_, until)| now < *until));
                        let entry = claims.enter(keys, now, LEASE, || (waiters, ()));
                        match entry {
                            Entry::Leader(holder) => {
                                prop_assert!(!blocked, "two are at it");
                                for key in keys.iter() {
                                    held.insert(key, (Some(holder), now + LEASE));
                                }
                                single_flight.push((keys, holder));
                            }
                            Entry::Follower { outcome: (), same_id } => {
                                prop_assert!(blocked);
                                let id = held.get(&keys.id);
                                prop_assert_eq!(same_id, id.is_some_and(|(_, until)| now < *until));
                                waiters += 1;
                            }
                            Entry::Busy(remaining) => {
                                prop_assert!(blocked && remaining <= LEASE);
                            }
                        }
                    }
                    Step::End(which, ending) if !single_flight.is_empty() => {
                        let (keys, holder) = single_flight.swap_remove(which % single_flight.len());
                        let end = match ending {
                            Ending::Finished => End::Finished,
                            Ending::Released => End::Released,
                            Ending::Held => End::CoolDown { now, until: now + Duration::from_secs(2) },
                        };
                        woken.extend(claims.end(keys, holder, end));
                        for key in keys.iter() {
                            let own = held.get(&key).is_some_and(|(latest, _)| *latest == Some(holder));
                            match end {
                                End::CoolDown { until, .. } if own => {
                                    held.insert(key, (None, until));
                                }
                                End::Finished | End::Released if own || end == End::Finished => {
                                    held.remove(&key);
                                }
                                End::Finished | End::Released | End::CoolDown { .. } => {}
                            }
                        }
                    }
                    Step::End(..) => {}
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                }
            }
            woken.sort_unstable();
            let mut once = woken.clone();
            once.dedup();
            prop_assert_eq!(once, woken, "somebody is told twice");
        }
    }
}
