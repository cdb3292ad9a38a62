//! Deduplication: delivers each event once. The record of an event is absent, claimed, or finished.
//!
//! An event is claimed before its delivery. The claim is committed after success and released after a definite failure;
//! after an ambiguous one, such as a timeout, it cools down first. [`SingleFlight`] holds the claims of this process,
//! so that a duplicate of an event in flight waits for its outcome; a [`Store`] holds those of all processes and the
//! finished events. A store that fails may cause a duplicate, never a loss.

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
    /// How long a finished event is remembered, at least.
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

/// The right to deliver an event, for [`Terms::lease`]. Pass it to exactly one of [`Dedup::commit`], [`Dedup::release`]
/// and [`Dedup::cool_down`]; when it is dropped, the claim in the store expires with the lease.
#[derive(Debug)]
#[must_use = "a claim that nobody ends blocks the event until its lease runs out"]
pub struct Lease {
    leader: Leader,
    once: Once,
    /// `false` when the store did not answer and the event is delivered without deduplication.
    stored: bool,
}

impl Lease {
    /// Whether the store holds the claim; without that the event may be delivered twice.
    pub fn is_stored(&self) -> bool {
        self.stored
    }
}

impl Dedup {
    /// Deduplication over this store; all workers of the process share `single_flight` and `first_seen`.
    pub fn new(single_flight: Arc<SingleFlight>, first_seen: Arc<FirstSeenCache>, store: Store, terms: Terms) -> Self {
        Self { single_flight, first_seen, store, terms }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How long an event is remembered whose signed time is `ahead` of now: until a replay of it is refused as stale,
    /// and for a lease longer, because a replay may be verified just before that and looked up after it.
    fn ttl(&self, ahead: Option<Duration>) -> Duration {
        let extension = ahead.map_or(Duration::ZERO, |ahead| ahead.saturating_add(self.terms.lease));
        self.terms.ttl.saturating_add(extension)
    }

    /// Claims an event whose signed time is `ahead` of now. Waits while the same event is in flight in this process.
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

    /// Claims an event in this process only, without asking the store.
    ///
    /// # Errors
    /// [`Earlier`] when another request of this process handled the event until now, or still does.
    pub async fn enter(&self, keys: Keys) -> Result<Leader, Earlier> {
        match self.single_flight.enter(keys, self.terms.lease) {
            Entry::Leader(leader) => Ok(leader),
            Entry::Busy(remaining) => Err(Earlier::InFlight(remaining)),
            Entry::Follower { outcome, same_id } => Err(match tokio::time::timeout(self.terms.lease, outcome).await {
                Ok(Ok(true)) if same_id => Earlier::Finished(KnownBy::Id),
                Ok(Ok(true)) => Earlier::Finished(KnownBy::Content),
                // The leader failed or was dropped: the provider's next attempt may succeed.
                _ => Earlier::InFlight(Duration::from_secs(1)),
            }),
        }
    }

    /// Records that the event was delivered. A failure of the store is only logged, as the delivery cannot be undone; a
    /// slow store is not waited for long.
    pub async fn commit(&self, lease: Lease) {
        if let Err(error) = self.store.commit(&lease.once, lease.stored).await {
            tracing::error!(%error, "an event was delivered but could not be remembered; a retry of it would be \
                            delivered again");
        }
        lease.leader.complete(true);
    }

    /// Ends a claim whose event was definitely not delivered: the next attempt may claim it at once.
    pub async fn release(&self, lease: Lease) {
        if lease.stored {
            self.store.release(&lease.once, Duration::ZERO).await;
        }
        lease.leader.complete(false);
    }

    /// Ends a claim whose event may have been delivered: it can be claimed again after
    /// [`limits::Dedup::ambiguous`](crate::base::limits::Dedup::ambiguous).
    pub async fn cool_down(&self, lease: Lease) {
        if lease.stored {
            self.store.release(&lease.once, self.single_flight.ambiguous()).await;
        }
        lease.leader.cool_down();
    }

    /// The dedupe records that one attempt writes; `ahead` as for [`Dedup::claim`].
    pub fn once(&self, space: &Keyspace, keys: Keys, ahead: Option<Duration>) -> Once {
        Once { space: space.clone(), keys, token: self.single_flight.token(), ttl: self.ttl(ahead) }
    }

    /// Remembers an event whose type is not wanted, so that a replay with another type is recognised. Atomic in the
    /// store. While the store does not answer, and the settings say to accept then, the event is not remembered.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer and the settings say to refuse then.
    pub async fn ignore(
        &self,
        space: &Keyspace,
        ignored: Ignored,
        ahead: Option<Duration>,
    ) -> Result<IgnoreResult, Unavailable> {
        match self.store.ignore(space, ignored, self.ttl(ahead)).await {
            Err(_) if self.terms.on_outage == OnOutage::Accept => Ok(IgnoreResult::New),
            result => result,
        }
    }

    /// Records the first arrival of an event, for the log.
    pub fn record_first_seen(&self, message: &Message) {
        if let Some(content) = message.keys.and_then(Keys::content) {
            self.first_seen.record(content, message);
        }
    }

    /// The first arrival of an event, by its content; `None` when another process took it, or the cache evicted it.
    pub fn first_seen(&self, keys: Keys) -> Option<FirstSeen> {
        self.first_seen.get(keys.content()?)
    }
}
