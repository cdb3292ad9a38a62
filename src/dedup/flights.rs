//! Events that this process is handling right now, and those that wait for their outcome.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::store::KeyMap;
use crate::store::Keys;
use crate::store::Token;

/// Most requests that wait for the outcome of one event; more are told to come back.
const MAX_WAITING: usize = 64;

/// All flights of the process.
#[derive(Debug)]
pub struct Flights {
    table: Mutex<KeyMap<State>>,
    process: u64,
    attempts: AtomicU64,
}

#[derive(Debug)]
enum State {
    /// Somebody is at it, with others waiting.
    Flying { until: Instant, waiting: Vec<oneshot::Sender<bool>> },
    /// Nobody is at it, but it may have been delivered.
    Held { until: Instant },
}

/// The place of the one who handles an event. When it is dropped without a verb, those who wait are told to come back.
#[derive(Debug)]
#[must_use = "an event without its outcome keeps others waiting"]
pub struct Flight {
    flights: Arc<Flights>,
    keys: Keys,
    landed: bool,
}

/// What a request finds when it comes with an event.
#[derive(Debug)]
pub(super) enum Entered {
    /// Nobody is at it: go on.
    Lead(Flight),
    /// Somebody is: this tells whether it was finished.
    Follow(oneshot::Receiver<bool>),
    /// Come back after this time.
    Busy(Duration),
}

impl Flights {
    /// No flights; `process` is a random number that tells this process from others on the same store.
    pub fn new(process: u64) -> Self {
        Self { table: Mutex::default(), process, attempts: AtomicU64::new(0) }
    }

    /// A name for one attempt, used never again.
    pub(super) fn token(&self) -> Token {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        Token((u128::from(self.process) << 64) | u128::from(attempt))
    }

    pub(super) fn enter(self: &Arc<Self>, keys: Keys, lease: Duration) -> Entered {
        let now = Instant::now();
        let mut table = self.table();
        for key in keys.iter() {
            match table.get_mut(&key) {
                Some(State::Flying { until, waiting }) if now < *until => {
                    if waiting.len() >= MAX_WAITING {
                        return Entered::Busy(until.duration_since(now));
                    }
                    let (sender, receiver) = oneshot::channel();
                    waiting.push(sender);
                    return Entered::Follow(receiver);
                }
                Some(State::Held { until }) if now < *until => return Entered::Busy(until.duration_since(now)),
                // A lease that has run out, or a hold that is over, is no claim any more.
                Some(State::Flying { .. } | State::Held { .. }) | None => {}
            }
        }
        for key in keys.iter() {
            table.insert(key, State::Flying { until: now + lease, waiting: Vec::new() });
        }
        drop(table);
        Entered::Lead(Flight { flights: Arc::clone(self), keys, landed: false })
    }

    fn end(&self, keys: Keys, finished: bool, hold: Option<Duration>) {
        let hold = hold.map(|duration| Instant::now() + duration);
        let mut table = self.table();
        for key in keys.iter() {
            let state = match hold {
                Some(until) => table.insert(key, State::Held { until }),
                None => table.remove(&key),
            };
            if let Some(State::Flying { waiting, .. }) = state {
                for waiter in waiting {
                    // Whoever stopped waiting does not need to know.
                    let _gone = waiter.send(finished);
                }
            }
        }
        if hold.is_some() {
            // Holds are rare; the ones that are over go when the next one comes.
            let now = Instant::now();
            table.retain(|_, state| match state {
                State::Held { until } => now < *until,
                State::Flying { .. } => true,
            });
        }
    }

    fn table(&self) -> MutexGuard<'_, KeyMap<State>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// It is over; those who wait learn whether the event is finished.
    pub fn land(mut self, finished: bool) {
        self.landed = true;
        self.flights.end(self.keys, finished, None);
    }

    /// It is over, but nobody knows how: others have to wait for this long.
    pub fn hold(mut self, duration: Duration) {
        self.landed = true;
        self.flights.end(self.keys, false, Some(duration));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            self.flights.end(self.keys, false, None);
        }
    }
}
