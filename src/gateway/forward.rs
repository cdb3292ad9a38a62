//! Handles an event after the decision: ignores it, recognises a duplicate, delivers it while the provider waits, or
//! enqueues it. (`impl Gateway` here, because `mod.rs` would be too long.)

use std::sync::Arc;
use std::time::Duration;

use super::DeliveryMode;
use super::Gateway;
use super::Received;
use super::request_log::RequestLog;
use crate::base::metrics::Stopwatch;
use crate::dedup::Claim;
use crate::http::inbound::Inbound;
use crate::message::Credentials;
use crate::message::Keys;
use crate::message::Message;
use crate::source::FilterResult;
use crate::source::Source;
use crate::source::refusal::Refusal;
use crate::source::reply::Outcome;
use crate::store::Earlier;
use crate::store::Enqueued;
use crate::store::IgnoreResult;
use crate::store::Keyspace;
use crate::store::KnownBy;
use crate::store::Queue;
use crate::store::Route;
use crate::target::Attempt;
use crate::target::Target;
use crate::verify::event_key::Lane;
use crate::verify::identity::Event;

impl Gateway {
    pub(super) async fn forward(&self, received: Received, request_log: &mut RequestLog) -> Result<Outcome, Refusal> {
        let endpoint = Arc::clone(&request_log.endpoint);
        let (source, mode) = endpoint.source()?;
        let received = match received {
            Received::Event(event) => Admitted::event(event, source),
            Received::Observed(inbound) => Admitted::observed(inbound, source),
            Received::Handshake(answer) => return Ok(Outcome::Handshake(answer)),
        };
        match source.filter.check(&received.message) {
            FilterResult::Wanted => {}
            FilterResult::Unwanted => return self.ignore(&source.keyspace, &received, request_log).await,
            FilterResult::Untyped => {
                let outcome = self.ignore(&source.keyspace, &received, request_log).await?;
                if matches!(outcome, Outcome::Ignored) {
                    request_log.untyped();
                }
                return Ok(outcome);
            }
        }
        match mode {
            DeliveryMode::Sync(target) => self.deliver(target, &source.keyspace, &received, request_log).await,
            // Boxed, because this future is large.
            DeliveryMode::Queue(queue) => Box::pin(self.enqueue((source, queue), received, request_log)).await,
        }
    }

    /// Ignores an event whose type is not wanted. Where the type is not signed, the event is remembered, so that a
    /// replay with a wanted type is recognised.
    async fn ignore(
        &self,
        space: &Keyspace,
        received: &Admitted,
        request_log: &mut RequestLog,
    ) -> Result<Outcome, Refusal> {
        let message = &received.message;
        let Some(ignored) = message.keys.and_then(|keys| keys.ignored) else { return Ok(Outcome::Ignored) };
        let mut watch = Stopwatch::start();
        let result = self.dedup.ignore(space, ignored, received.ahead).await;
        watch.lap(&self.metrics.store.ignore);
        match result? {
            IgnoreResult::New => self.dedup.record_first_seen(message),
            IgnoreResult::Again => {}
            IgnoreResult::OtherType => return Ok(self.duplicate(message.keys, KnownBy::Content, request_log)),
        }
        Ok(Outcome::Ignored)
    }

    /// The outcome for an event that came earlier.
    fn earlier(&self, keys: Option<Keys>, earlier: Earlier, request_log: &mut RequestLog) -> Result<Outcome, Refusal> {
        match earlier {
            Earlier::Finished(known_by) => Ok(self.duplicate(keys, known_by, request_log)),
            Earlier::InFlight(remaining) => Err(Refusal::InFlight(remaining)),
        }
    }

    /// The outcome for an event that is finished, or was ignored as another type.
    fn duplicate(&self, keys: Option<Keys>, known_by: KnownBy, request_log: &mut RequestLog) -> Outcome {
        match known_by {
            KnownBy::Id => Outcome::Duplicate(None),
            KnownBy::Content => request_log.guarded(keys.and_then(|keys| self.dedup.first_seen(keys))),
        }
    }

    /// Delivers a message while the provider waits, with a claim if it has keys.
    async fn deliver(
        &self,
        target: &Target,
        space: &Keyspace,
        received: &Admitted,
        request_log: &mut RequestLog,
    ) -> Result<Outcome, Refusal> {
        let store = &self.metrics.store;
        let Admitted { message, credentials, ahead, lane: _ } = received;
        let attempt = |deduplicated| Attempt { number: 1, deduplicated, credentials: Some(credentials) };
        let mut watch = Stopwatch::start();
        let Some(keys) = message.keys else {
            let delivered = target.deliver(message, &attempt(false)).await;
            request_log.facts.upstream = Some(watch.lap(&request_log.endpoint.metrics.upstream_duration));
            return Ok(Outcome::Delivered(delivered?));
        };
        let claim = self.dedup.claim(space, keys, *ahead).await;
        watch.lap(&store.claim);
        let lease = match claim? {
            Claim::Fresh(lease) => lease,
            Claim::Earlier(earlier) => return self.earlier(message.keys, earlier, request_log),
        };
        if !lease.is_stored() {
            request_log.endpoint.metrics.undeduplicated.inc();
        }
        let delivered = target.deliver(message, &attempt(lease.is_stored())).await;
        request_log.facts.upstream = Some(watch.lap(&request_log.endpoint.metrics.upstream_duration));
        match &delivered {
            Ok(_) => {
                self.dedup.record_first_seen(message);
                self.dedup.commit(lease).await;
            }
            Err(failure) if failure.is_ambiguous() => self.dedup.cool_down(lease).await,
            Err(_) => self.dedup.release(lease).await,
        }
        watch.lap(if delivered.is_ok() { &store.commit } else { &store.release });
        Ok(Outcome::Delivered(delivered?))
    }

    /// Stores a message on its queue, together with its dedupe records.
    async fn enqueue(
        &self,
        (source, queue): (&Source, &Queue),
        received: Admitted,
        request_log: &mut RequestLog,
    ) -> Result<Outcome, Refusal> {
        let message = Arc::new(received.message);
        let routes = [Route { queue: queue.clone(), lane: received.lane }];
        let leader = match message.keys {
            Some(keys) => match self.dedup.enter(keys).await {
                Ok(leader) => Some(leader),
                Err(earlier) => return self.earlier(message.keys, earlier, request_log),
            },
            None => None,
        };
        let mut watch = Stopwatch::start();
        let once = message.keys.map(|keys| self.dedup.once(&source.keyspace, keys, received.ahead));
        let enqueued = self.dedup.store().enqueue(Arc::clone(&message), &routes, once.as_ref()).await;
        watch.lap(&self.metrics.store.enqueue);
        if let Ok(Enqueued::Stored) = enqueued {
            self.dedup.record_first_seen(&message);
        }
        if let Some(leader) = leader {
            leader.complete(matches!(enqueued, Ok(Enqueued::Stored | Enqueued::Earlier(Earlier::Finished(_)))));
        }
        match enqueued? {
            Enqueued::Stored => Ok(Outcome::Queued),
            Enqueued::Earlier(earlier) => self.earlier(message.keys, earlier, request_log),
        }
    }
}

/// A message to be delivered or queued.
struct Admitted {
    message: Message,
    credentials: Credentials,
    /// How far ahead of now its signed time is.
    ahead: Option<Duration>,
    /// The lane of its delivery, with `order_by`.
    lane: Option<Lane>,
}

impl Admitted {
    fn event(event: Event, source: &Source) -> Self {
        let (ahead, lane) = (event.ahead, event.lane);
        let (message, credentials) = Message::verified(event, source.name.header(), &source.credentials);
        Self { message, credentials, ahead, lane }
    }

    fn observed(inbound: Inbound, source: &Source) -> Self {
        let (message, credentials) = Message::observed(inbound, source.name.header(), &source.credentials);
        Self { message, credentials, ahead: None, lane: None }
    }
}
