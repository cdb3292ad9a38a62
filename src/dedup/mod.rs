//! Lets each event through once: absent → pending → done.
//!
//! A claim is taken before delivery, committed after success and released after a definite failure; after a failure
//! that may have been a success it is held a little longer. Claims of one process stand in [`Flights`], so that a
//! duplicate in flight can wait for the outcome; what is finished stands in a [`Store`]. A failing store may cause a
//! duplicate, never a loss.

mod claims;
mod flights;

use std::sync::Arc;
use std::time::Duration;

use self::flights::Entered;
pub use self::flights::Flight;
pub use self::flights::Flights;
use crate::store::Answer;
use crate::store::Keys;
use crate::store::Keyspace;
use crate::store::Store;
use crate::store::Token;
use crate::store::Unavailable;

/// What happens while the store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// The provider is asked to try again.
    Reject,
    /// Events are delivered without deduplication.
    Accept,
}

/// The settings of deduplication.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long a finished event is remembered.
    pub ttl: Duration,
    /// How long one attempt may hold a claim.
    pub lease: Duration,
    /// What happens while the store does not answer.
    pub on_outage: OnOutage,
}

/// How long a claim is kept after a delivery that may have succeeded. Long enough for an upstream that is just slow,
/// short enough for the second retry of a provider that gives up after seconds.
pub const AMBIGUOUS: Duration = Duration::from_secs(2);

/// The answer to a claim.
#[derive(Debug)]
pub enum Claim {
    /// Deliver it.
    Fresh(Lease),
    /// It was finished before, or just now while this request waited.
    Finished,
    /// Somebody else is at it, or it may have been delivered a moment ago: ask again after this time.
    InFlight(Duration),
}

/// Deduplication as one worker sees it.
#[derive(Debug)]
pub struct Dedup {
    flights: Arc<Flights>,
    store: Store,
    terms: Terms,
}

/// The right to deliver an event now. Ends with exactly one of its verbs; when it is dropped without one, the claim
/// ends with its time.
#[derive(Debug)]
#[must_use = "a claim that nobody ends blocks the event until its lease runs out"]
pub struct Lease {
    flight: Flight,
    space: Keyspace,
    keys: Keys,
    token: Token,
    /// `false` when the store was out and the event is delivered without deduplication.
    stored: bool,
}

impl Lease {
    /// Whether the store holds the claim; without that the event may be delivered twice.
    pub fn is_stored(&self) -> bool {
        self.stored
    }
}

impl Dedup {
    /// Deduplication over this store; `flights` is shared by all workers of the process.
    pub fn new(flights: Arc<Flights>, store: Store, terms: Terms) -> Self {
        Self { flights, store, terms }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Asks to deliver an event. Waits while the same event is in flight in this process.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer and the settings say to refuse then.
    pub async fn claim(&self, space: &Keyspace, keys: Keys) -> Result<Claim, Unavailable> {
        let flight = match self.enter(keys).await {
            Ok(flight) => flight,
            Err(claim) => return Ok(claim),
        };
        let token = self.flights.token();
        let lease = |flight, stored| Claim::Fresh(Lease { flight, space: space.clone(), keys, token, stored });
        let answer = match &self.store {
            Store::Memory(remembered) => Ok(remembered.answer(keys)),
            Store::Sqlite(sqlite) => sqlite.healthy().map(|()| sqlite.remembered().answer(keys)),
            Store::Redis(redis) => redis.claim(space, keys, token, self.terms.lease).await,
        };
        match answer {
            Ok(Answer::Fresh) => Ok(lease(flight, true)),
            Ok(Answer::Finished) => {
                flight.land(true);
                Ok(Claim::Finished)
            }
            Ok(Answer::InFlight(remaining)) => Ok(Claim::InFlight(remaining)),
            Err(_) if self.terms.on_outage == OnOutage::Accept => Ok(lease(flight, false)),
            Err(error) => Err(error),
        }
    }

    /// Takes the place of the one who handles an event in this process, without asking the store.
    ///
    /// # Errors
    /// The claim's answer when somebody else has it.
    pub async fn enter(&self, keys: Keys) -> Result<Flight, Claim> {
        match self.flights.enter(keys, self.terms.lease) {
            Entered::Lead(flight) => Ok(flight),
            Entered::Busy(remaining) => Err(Claim::InFlight(remaining)),
            Entered::Follow(landing) => Err(match tokio::time::timeout(self.terms.lease, landing).await {
                Ok(Ok(true)) => Claim::Finished,
                // The first attempt failed or is gone: the provider's next one is welcome.
                _ => Claim::InFlight(Duration::from_secs(1)),
            }),
        }
    }

    /// The event was delivered: remember it. The delivery stands whatever the store says, so this reports to the log
    /// only, and does not wait for a slow store for long.
    pub async fn commit(&self, lease: Lease) {
        let stored = match &self.store {
            Store::Memory(remembered) => {
                lease.keys.iter().for_each(|key| remembered.insert(key, self.terms.ttl));
                Ok(())
            }
            // Without room for more, what is delivered nevertheless must not fill it either.
            Store::Sqlite(sqlite) if !lease.stored => {
                lease.keys.iter().for_each(|key| sqlite.remembered().insert(key, self.terms.ttl));
                Ok(())
            }
            Store::Sqlite(sqlite) => sqlite.commit(lease.keys, self.terms.ttl).await,
            Store::Redis(redis) => redis.commit(&lease.space, lease.keys, lease.token, self.terms.ttl).await,
        };
        if let Err(error) = stored {
            tracing::error!(%error, "an event was delivered but could not be remembered; a retry of it would be \
                            delivered again");
        }
        lease.flight.land(true);
    }

    /// The event was definitely not delivered: the next attempt may have it at once.
    pub async fn release(&self, lease: Lease) {
        if let Store::Redis(redis) = &self.store
            && lease.stored
        {
            redis.release(&lease.space, lease.keys, lease.token).await;
        }
        lease.flight.land(false);
    }

    /// The event may have been delivered: others wait for [`AMBIGUOUS`] before they try.
    pub async fn hold(&self, lease: Lease) {
        if let Store::Redis(redis) = &self.store
            && lease.stored
        {
            redis.hold(&lease.space, lease.keys, lease.token, AMBIGUOUS).await;
        }
        lease.flight.hold(AMBIGUOUS);
    }

    /// The token and time for an event that is published and remembered in one step.
    pub fn publication(&self) -> (Token, Duration) {
        (self.flights.token(), self.terms.ttl)
    }
}
