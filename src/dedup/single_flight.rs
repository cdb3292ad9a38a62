//! Single flight: of the concurrent requests for one event, one handles it (the leader), and the others (followers)
//! wait for its outcome.

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

/// The events in flight in this process. There is no limit on their number and no eviction, so that no source displaces
/// the events of another.
#[derive(Debug)]
pub struct SingleFlight {
    claims: Mutex<Claims<oneshot::Sender<bool>>>,
    /// A random number that tells this process from others on the same store.
    process: u64,
    attempts: AtomicU64,
    /// How long a claim is kept after a delivery that may have succeeded.
    ambiguous: Duration,
    clock: Clock,
}

/// The claim of the request that handles an event. Dropped without an outcome, it is released, and the followers are
/// told to come back.
#[derive(Debug)]
#[must_use = "an event without its outcome keeps others waiting"]
pub struct Leader {
    single_flight: Arc<SingleFlight>,
    keys: Keys,
    holder: Holder,
    completed: bool,
}

impl SingleFlight {
    /// No event in flight; `process` is a random number that tells this process from others on the same store.
    pub fn new(process: u64, limits: &limits::Dedup, clock: Clock) -> Self {
        let claims = Mutex::new(Claims::new(limits.max_waiting));
        Self { claims, process, attempts: AtomicU64::new(0), ambiguous: limits.ambiguous, clock }
    }

    /// How long a claim is kept after a delivery that may have succeeded.
    pub(super) fn ambiguous(&self) -> Duration {
        self.ambiguous
    }

    /// A token for one attempt, unique across processes and never reused.
    pub(super) fn token(&self) -> Token {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        Token((u128::from(self.process) << 64) | u128::from(attempt))
    }

    pub(super) fn enter(self: &Arc<Self>, keys: Keys, lease: Duration) -> Entry<Leader, oneshot::Receiver<bool>> {
        let entry = self.claims().enter(keys, self.clock.instant(), lease, oneshot::channel);
        match entry {
            Entry::Leader(holder) => {
                Entry::Leader(Leader { single_flight: Arc::clone(self), keys, holder, completed: false })
            }
            Entry::Follower { outcome, same_id } => Entry::Follower { outcome, same_id },
            Entry::Busy(remaining) => Entry::Busy(remaining),
        }
    }

    fn claims(&self) -> impl DerefMut<Target = Claims<oneshot::Sender<bool>>> + '_ {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leader {
    /// Ends the claim; the followers learn whether the event is finished.
    pub fn complete(mut self, finished: bool) {
        self.end(if finished { End::Finished } else { End::Released });
    }

    /// Ends the claim with an unknown outcome: the event cannot be claimed for a while.
    pub fn cool_down(mut self) {
        let now = self.single_flight.clock.instant();
        self.end(End::CoolDown { now, until: now + self.single_flight.ambiguous });
    }

    fn end(&mut self, end: End) {
        self.completed = true;
        let waiting = self.single_flight.claims().end(self.keys, self.holder, end);
        for waiter in waiting {
            // The follower may have stopped waiting.
            let _gone = waiter.send(end == End::Finished);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.completed {
            self.end(End::Released);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Moment;
    use crate::verify::event_key::Key;

    #[test]
    fn an_event_that_may_have_been_delivered_is_claimed_again_after_the_time_that_the_limit_says() {
        let limits = limits::Dedup { ambiguous: Duration::from_millis(700), ..limits::Dedup::default() };
        let (clock, hand) = Clock::manual(Moment::from_unix(1_000));
        let single_flight = Arc::new(SingleFlight::new(1, &limits, clock));
        let keys = Keys { id: Key([1; 16]), guard: None, ignored: None };
        let enter = || single_flight.enter(keys, Duration::from_secs(30));
        let Entry::Leader(leader) = enter() else { panic!("nobody is at it") };
        leader.cool_down();
        hand.advance(Duration::from_millis(699));
        assert!(matches!(enter(), Entry::Busy(left) if left == Duration::from_millis(1)));
        hand.advance(Duration::from_millis(1));
        assert!(matches!(enter(), Entry::Leader(_)));
    }
}
