//! Events that this process is handling right now, and those that wait for their outcome.

use std::ops::DerefMut;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::oneshot;

use super::claims::Claims;
use super::claims::End;
use super::claims::Entry;
use super::claims::Holder;
use crate::base::clock::Clock;
use crate::base::limits;
use crate::base::sync::AtomicU64;
use crate::base::sync::Mutex;
use crate::base::sync::Ordering;
use crate::message::Keys;
use crate::store::Token;

/// All flights of the process. None is given up for another, so that no source crowds out another one.
#[derive(Debug)]
pub struct Flights {
    claims: Mutex<Claims<oneshot::Sender<bool>>>,
    process: u64,
    attempts: AtomicU64,
    /// How long a claim is kept after a delivery that may have succeeded.
    ambiguous: Duration,
    clock: Clock,
}

/// The place of the one who handles an event. When it is dropped without a verb, those who wait are told to come back.
#[derive(Debug)]
#[must_use = "an event without its outcome keeps others waiting"]
pub struct Flight {
    flights: Arc<Flights>,
    keys: Keys,
    holder: Holder,
    landed: bool,
}

impl Flights {
    /// No flights; `process` is a random number that tells this process from others on the same store.
    pub fn new(process: u64, limits: &limits::Dedup, clock: Clock) -> Self {
        let claims = Mutex::new(Claims::new(limits.max_waiting));
        Self { claims, process, attempts: AtomicU64::new(0), ambiguous: limits.ambiguous, clock }
    }

    /// How long a claim is kept after a delivery that may have succeeded.
    pub(super) fn ambiguous(&self) -> Duration {
        self.ambiguous
    }

    /// A name for one attempt, used never again.
    pub(super) fn token(&self) -> Token {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        Token((u128::from(self.process) << 64) | u128::from(attempt))
    }

    pub(super) fn enter(self: &Arc<Self>, keys: Keys, lease: Duration) -> Entry<Flight, oneshot::Receiver<bool>> {
        let entry = self.claims().enter(keys, self.clock.instant(), lease, oneshot::channel);
        match entry {
            Entry::Lead(holder) => Entry::Lead(Flight { flights: Arc::clone(self), keys, holder, landed: false }),
            Entry::Follow { outcome, same_id } => Entry::Follow { outcome, same_id },
            Entry::Busy(remaining) => Entry::Busy(remaining),
        }
    }

    fn claims(&self) -> impl DerefMut<Target = Claims<oneshot::Sender<bool>>> + '_ {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// It is over; those who wait learn whether the event is finished.
    pub fn land(mut self, finished: bool) {
        self.end(if finished { End::Finished } else { End::Released });
    }

    /// It is over, but nobody knows how: others have to wait for a while.
    pub fn hold(mut self) {
        self.end(End::Held(self.flights.clock.instant() + self.flights.ambiguous));
    }

    fn end(&mut self, end: End) {
        self.landed = true;
        let waiting = self.flights.claims().end(self.keys, self.holder, end, self.flights.clock.instant());
        for waiter in waiting {
            // Whoever stopped waiting does not need to know.
            let _gone = waiter.send(end == End::Finished);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            self.end(End::Released);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Moment;
    use crate::verify::identity::Key;

    #[test]
    fn an_event_that_may_have_been_delivered_is_claimed_again_after_the_time_that_the_limit_says() {
        let limits = limits::Dedup { ambiguous: Duration::from_millis(700), ..limits::Dedup::default() };
        let (clock, hand) = Clock::manual(Moment::from_unix(1_000));
        let flights = Arc::new(Flights::new(1, &limits, clock));
        let keys = Keys { id: Key([1; 16]), guard: None, ignored: None };
        let enter = || flights.enter(keys, Duration::from_secs(30));
        let Entry::Lead(flight) = enter() else { panic!("nobody is at it") };
        flight.hold();
        hand.advance(Duration::from_millis(699));
        assert!(matches!(enter(), Entry::Busy(left) if left == Duration::from_millis(1)));
        hand.advance(Duration::from_millis(1));
        assert!(matches!(enter(), Entry::Lead(_)));
    }
}
