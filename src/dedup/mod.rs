//! Deduplication: lets each event through once (absent → pending → done).
//!
//! A claim is taken before delivery, committed after success and released after a definite failure; after a failure
//! that may have been a success it is held a little longer. The claims of one process are in [`SingleFlight`], so that
//! a duplicate of an event in flight can wait for its outcome; finished events are in a [`Store`]. A store that fails
//! may cause a duplicate, never a loss.

mod claims;
mod first_seen;
mod single_flight;

use std::sync::Arc;
use std::time::Duration;

use self::claims::Entry;
pub use self::first_seen::FirstSeen;
pub use self::first_seen::FirstSeenCache;
pub use self::single_flight::Leader;
pub use self::single_flight::SingleFlight;
use crate::message::Keys;
use crate::message::Message;
use crate::store::Earlier;
use crate::store::IgnoreResult;
use crate::store::Keyspace;
use crate::store::KnownBy;
use crate::store::Once;
use crate::store::Store;
use crate::store::Unavailable;
use crate::verify::event_key::Ignored;

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

/// The answer to a claim.
#[derive(Debug)]
pub enum Claim {
    /// The event is new: deliver it.
    Fresh(Lease),
    /// The event came earlier.
    Earlier(Earlier),
}

/// Deduplication, with the store handle of one worker.
#[derive(Debug)]
pub struct Dedup {
    single_flight: Arc<SingleFlight>,
    first_seen: Arc<FirstSeenCache>,
    store: Store,
    terms: Terms,
}

/// The right to deliver an event now. To be passed to exactly one of [`Dedup::commit`], [`Dedup::release`] and
/// [`Dedup::cool_down`]; when it is dropped, the claim ends when its time is over.
#[derive(Debug)]
#[must_use = "a claim that nobody ends blocks the event until its lease runs out"]
pub struct Lease {
    leader: Leader,
    once: Once,
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
    pub fn new(single_flight: Arc<SingleFlight>, first_seen: Arc<FirstSeenCache>, store: Store, terms: Terms) -> Self {
        Self { single_flight, first_seen, store, terms }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How long an event is remembered, whose signed time is `ahead` of now: until every request with this time is
    /// refused. One may have been judged just before that, and take as long as an attempt until it is looked up.
    fn kept(&self, ahead: Option<Duration>) -> Duration {
        let longer = ahead.map_or(Duration::ZERO, |ahead| ahead.saturating_add(self.terms.lease));
        self.terms.ttl.saturating_add(longer)
    }

    /// Asks to deliver an event, whose signed time is `ahead` of now. Waits while the same event is in flight in this
    /// process.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer and the settings say to refuse then.
    pub async fn claim(&self, space: &Keyspace, keys: Keys, ahead: Option<Duration>) -> Result<Claim, Unavailable> {
        let leader = match self.enter(keys).await {
            Ok(leader) => leader,
            Err(earlier) => return Ok(Claim::Earlier(earlier)),
        };
        let once = self.once(space, keys, ahead);
        let answer = self.store.claim(&once, self.terms.lease).await;
        match answer {
            Ok(None) => Ok(Claim::Fresh(Lease { leader, once, stored: true })),
            Ok(Some(earlier)) => {
                leader.complete(matches!(earlier, Earlier::Finished(_)));
                Ok(Claim::Earlier(earlier))
            }
            Err(_) if self.terms.on_outage == OnOutage::Accept => {
                Ok(Claim::Fresh(Lease { leader, once, stored: false }))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the place of the one who handles an event in this process, without asking the store.
    ///
    /// # Errors
    /// What became of it when somebody else has it, or had it until now.
    pub async fn enter(&self, keys: Keys) -> Result<Leader, Earlier> {
        match self.single_flight.enter(keys, self.terms.lease) {
            Entry::Leader(leader) => Ok(leader),
            Entry::Busy(remaining) => Err(Earlier::InFlight(remaining)),
            Entry::Follower { outcome, same_id } => Err(match tokio::time::timeout(self.terms.lease, outcome).await {
                Ok(Ok(true)) if same_id => Earlier::Finished(KnownBy::Id),
                Ok(Ok(true)) => Earlier::Finished(KnownBy::Content),
                // The first attempt failed or is gone: the provider's next one is welcome.
                _ => Earlier::InFlight(Duration::from_secs(1)),
            }),
        }
    }

    /// The event was delivered: remember it. The delivery stands whatever the store says, so this reports to the log
    /// only, and does not wait for a slow store for long.
    pub async fn commit(&self, lease: Lease) {
        if let Err(error) = self.store.commit(&lease.once, lease.stored).await {
            tracing::error!(%error, "an event was delivered but could not be remembered; a retry of it would be \
                            delivered again");
        }
        lease.leader.complete(true);
    }

    /// The event was definitely not delivered: the next attempt may have it at once.
    pub async fn release(&self, lease: Lease) {
        if lease.stored {
            self.store.release(&lease.once, Duration::ZERO).await;
        }
        lease.leader.complete(false);
    }

    /// The event may have been delivered: others wait for
    /// [`limits::Dedup::ambiguous`](crate::base::limits::Dedup::ambiguous) before they try.
    pub async fn cool_down(&self, lease: Lease) {
        if lease.stored {
            self.store.release(&lease.once, self.single_flight.ambiguous()).await;
        }
        lease.leader.cool_down();
    }

    /// By what one attempt to let an event through is known; `ahead` as for a claim.
    pub fn once(&self, space: &Keyspace, keys: Keys, ahead: Option<Duration>) -> Once {
        Once { space: space.clone(), keys, token: self.single_flight.token(), ttl: self.kept(ahead) }
    }

    /// Remembers an event whose type is not wanted, so that nobody can bring it again as another type: one step of the
    /// store. While the store does not answer, and the settings say to accept then, it is not remembered.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer and the settings say to refuse then.
    pub async fn ignore(
        &self,
        space: &Keyspace,
        ignored: Ignored,
        ahead: Option<Duration>,
    ) -> Result<IgnoreResult, Unavailable> {
        match self.store.ignore(space, ignored, self.kept(ahead)).await {
            Err(_) if self.terms.on_outage == OnOutage::Accept => Ok(IgnoreResult::New),
            noted => noted,
        }
    }

    /// Notes under which id and as which type an event came first.
    pub fn note(&self, message: &Message) {
        if let Some(content) = message.keys.and_then(Keys::content) {
            self.first_seen.note(content, message);
        }
    }

    /// How an event came first that is known by its content; nothing when another process took it, or too many came
    /// since.
    pub fn first(&self, keys: Keys) -> Option<FirstSeen> {
        self.first_seen.get(keys.content()?)
    }
}
