//! Handles one request, from its head to its answer: `receive` finds its source, reads and verifies it, `forward`
//! deduplicates its event and delivers or queues it.

mod request_log;
pub mod route;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus::Histogram;

use self::request_log::RequestLog;
use crate::base::time::Moment;
use crate::dedup::Claim;
use crate::dedup::Dedup;
use crate::gateway::route::Routes;
use crate::http::admission::Connection;
use crate::http::body;
use crate::http::body::Inbound;
use crate::http::origin::Peer;
use crate::http::origin::TrustedProxies;
use crate::message::Credentials;
use crate::message::Keys;
use crate::message::Message;
use crate::source::Source;
use crate::source::Want;
use crate::source::refusal::Refusal;
use crate::source::refusal::Unserved;
use crate::source::reply::Outcome;
use crate::store::Earlier;
use crate::store::Enqueued;
use crate::store::Keyspace;
use crate::store::Known;
use crate::store::Noted;
use crate::store::Queue;
use crate::store::Route;
use crate::target::Attempt;
use crate::target::Target;
use crate::telemetry::Metrics;
use crate::telemetry::Sampler;
use crate::telemetry::SourceMetrics;
use crate::verify::handshake;
use crate::verify::identity::Event;
use crate::verify::identity::Lane;

/// Everything one worker needs to handle requests.
#[derive(Debug)]
pub struct Gateway {
    /// The endpoints by path.
    pub routes: Routes<Arc<Endpoint>>,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub proxies: TrustedProxies,
    /// Lets each event through once.
    pub dedup: Dedup,
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The endpoint under which requests to paths of no source are counted and logged.
    pub unmatched: Arc<Endpoint>,
}

/// A source with the connections of one worker.
#[derive(Debug)]
pub struct Endpoint {
    /// The source; absent for paths of no source.
    pub source: Option<(Arc<Source>, Way)>,
    /// The metrics of the source.
    pub metrics: SourceMetrics,
    /// Chooses the lines of the log among those of requests that nobody verified.
    pub sampler: Arc<Sampler>,
}

/// How a source hands its messages on.
#[derive(Debug)]
pub enum Way {
    /// To the target, before the provider is answered.
    Sync(Target),
    /// To this queue of the store, from which they are delivered.
    Queue(Queue),
}

/// Where a request comes from.
#[derive(Debug)]
pub struct Caller {
    /// The other end of the connection.
    pub peer: Peer,
    /// The connection that the request came on.
    pub connection: Arc<Connection>,
}

impl Gateway {
    /// Handles one request, whatever becomes of it. Must be polled to its end: a sender that hangs up does not interrupt
    /// the delivery of an event that is claimed.
    pub async fn handle(self: Arc<Self>, caller: &Caller, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut request_log = RequestLog::begin(&self, request.uri());
        let result = match self.receive(caller, request, &mut request_log).await {
            Ok(received) => self.forward(received, &mut request_log).await,
            Err(refusal) => Err(refusal),
        };
        request_log.end(result)
    }

    /// Logs and counts what came from this address and was no request, or none that could be read; `start` is its first bytes, as
    /// far as they are known.
    pub fn unserved(&self, client: IpAddr, why: Unserved, start: &[u8]) {
        RequestLog::unserved(self, client, start).end(Err(why.into()));
    }

    /// The targets of sources that do not queue.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.routes.all().filter_map(|endpoint| match &endpoint.source {
            Some((_, Way::Sync(target))) => Some(target),
            Some((_, Way::Queue(_))) | None => None,
        })
    }

    async fn receive(
        &self,
        caller: &Caller,
        request: Request<Incoming>,
        request_log: &mut RequestLog,
    ) -> Result<Received, Refusal> {
        let connection = &caller.connection;
        let client = self.proxies.client(&caller.peer, request.headers());
        request_log.facts.client = client.address();
        let endpoint = Arc::clone(&request_log.endpoint);
        let (source, _) = endpoint.source.as_ref().ok_or(Refusal::NotFound)?;
        let event = request.method() == Method::POST;
        if !event && !source.handshakes.methods().any(|method| method == request.method()) {
            return Err(Refusal::MethodNotAllowed);
        }
        let admitted = source.allowlist.admit(client)?;
        let mut inbound = body::read(request, admitted, &source.single_headers, &source.limits, connection).await?;
        // What is complete is not closed for others any more, and counts until it is answered.
        connection.complete();
        request_log.permit = Some(source.in_flight.permit().ok_or(Refusal::Overloaded)?);
        if inbound.is_packed() {
            // Rare and large: it stays out of the way of all other requests.
            Box::pin(source.decompress(&mut inbound)).await?;
        }
        if let Some(answer) = source.handshakes.before(&inbound).await? {
            return Ok(Received::Handshake(answer));
        }
        if !event && !source.handshakes.take_signed(inbound.method()) {
            return Err(Refusal::MethodNotAllowed);
        }
        let verified = match source.authenticator.verify(inbound, Moment::now()).await {
            Ok(verified) => verified,
            Err(rejected) if source.observe && event => {
                return Ok(request_log.unverified(rejected.failure.into(), rejected.inbound));
            }
            Err(rejected) => return Err(rejected.failure.into()),
        };
        request_log.verified(verified.secret(), verified.skew());
        connection.verify();
        if let Some(answer) = source.handshakes.after(verified.inbound(), verified.values()).await? {
            return Ok(Received::Handshake(answer));
        }
        if !event {
            return Err(Refusal::MethodNotAllowed);
        }
        match source.identity.identify(source.name.as_str(), verified) {
            Ok(mut event) => {
                request_log.facts.event = Some((event.id.clone(), event.kind.clone()));
                request_log.reserved = event.inbound.take_reserved();
                Ok(Received::Event(event))
            }
            Err(nameless) if source.observe => Ok(request_log.unverified(nameless.why.into(), nameless.inbound)),
            Err(nameless) => Err(nameless.why.into()),
        }
    }

    async fn forward(&self, received: Received, request_log: &mut RequestLog) -> Result<Outcome, Refusal> {
        let endpoint = Arc::clone(&request_log.endpoint);
        let (source, way) = endpoint.source.as_ref().ok_or(Refusal::NotFound)?;
        let received = match received {
            Received::Event(event) => Admitted::event(event, source),
            Received::Observed(inbound) => Admitted::observed(inbound, source),
            Received::Handshake(answer) => return Ok(Outcome::Handshake(answer)),
        };
        match source.wanted.judge(&received.message) {
            Want::Wanted => {}
            Want::Unwanted => return self.ignore(&source.keyspace, &received, request_log).await,
            Want::Untyped => {
                let outcome = self.ignore(&source.keyspace, &received, request_log).await?;
                if matches!(outcome, Outcome::Ignored) {
                    request_log.untyped();
                }
                return Ok(outcome);
            }
        }
        match way {
            Way::Sync(target) => self.pass_on(target, &source.keyspace, &received, request_log).await,
            // In a box, so that the others do not carry room for it.
            Way::Queue(queue) => Box::pin(self.enqueue((source, queue), received, request_log)).await,
        }
    }

    /// Lets go of an event whose type is not wanted. Where the type is not signed, it is remembered, so that the event cannot
    /// come again as one that is.
    async fn ignore(
        &self,
        space: &Keyspace,
        received: &Admitted,
        request_log: &mut RequestLog,
    ) -> Result<Outcome, Refusal> {
        let message = &received.message;
        let Some(ignored) = message.keys.and_then(|keys| keys.ignored) else { return Ok(Outcome::Ignored) };
        let mut watch = Stopwatch::start();
        let noted = self.dedup.ignore(space, ignored, received.ahead).await;
        watch.lap(&self.metrics.store.ignore);
        match noted? {
            Noted::New => self.dedup.note(message),
            Noted::Again => {}
            Noted::OtherType => return Ok(self.duplicate(message.keys, Known::Content, request_log)),
        }
        Ok(Outcome::Ignored)
    }

    /// What becomes of an event that came earlier.
    fn earlier(&self, keys: Option<Keys>, earlier: Earlier, request_log: &mut RequestLog) -> Result<Outcome, Refusal> {
        match earlier {
            Earlier::Finished(known) => Ok(self.duplicate(keys, known, request_log)),
            Earlier::InFlight(remaining) => Err(Refusal::InFlight(remaining)),
        }
    }

    /// What becomes of an event that is finished, or was ignored as another type.
    fn duplicate(&self, keys: Option<Keys>, known: Known, request_log: &mut RequestLog) -> Outcome {
        match known {
            Known::Id => Outcome::Duplicate(None),
            Known::Content => request_log.guarded(keys.and_then(|keys| self.dedup.first(keys))),
        }
    }

    async fn pass_on(
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
                self.dedup.note(message);
                self.dedup.commit(lease).await;
            }
            Err(failure) if failure.is_ambiguous() => self.dedup.cool_down(lease).await,
            Err(_) => self.dedup.release(lease).await,
        }
        watch.lap(if delivered.is_ok() { &store.commit } else { &store.release });
        Ok(Outcome::Delivered(delivered?))
    }

    /// Puts a message on its queue, together with what keeps it from being put there twice.
    async fn enqueue(
        &self,
        (source, queue): (&Source, &Queue),
        received: Admitted,
        request_log: &mut RequestLog,
    ) -> Result<Outcome, Refusal> {
        let message = Arc::new(received.message);
        let to = [Route { queue: queue.clone(), lane: received.lane }];
        let leader = match message.keys {
            Some(keys) => match self.dedup.enter(keys).await {
                Ok(leader) => Some(leader),
                Err(earlier) => return self.earlier(message.keys, earlier, request_log),
            },
            None => None,
        };
        let mut watch = Stopwatch::start();
        let once = message.keys.map(|keys| self.dedup.once(&source.keyspace, keys, received.ahead));
        let published = self.dedup.store().enqueue(Arc::clone(&message), &to, once.as_ref()).await;
        watch.lap(&self.metrics.store.enqueue);
        if let Ok(Enqueued::Stored) = published {
            self.dedup.note(&message);
        }
        if let Some(leader) = leader {
            leader.complete(matches!(published, Ok(Enqueued::Stored | Enqueued::Earlier(Earlier::Finished(_)))));
        }
        match published? {
            Enqueued::Stored => Ok(Outcome::Queued),
            Enqueued::Earlier(earlier) => self.earlier(message.keys, earlier, request_log),
        }
    }
}

/// What a request turned out to be.
enum Received {
    Event(Event),
    /// What could not be verified or identified, of a source that only observes.
    Observed(Inbound),
    Handshake(handshake::Answer),
}

/// A message that is delivered or queued, unless its event came earlier.
struct Admitted {
    message: Message,
    credentials: Credentials,
    /// How far ahead of now its signed time is.
    ahead: Option<Duration>,
    /// What it has in common with those that are delivered before and after it.
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

/// Measures one step after the other.
struct Stopwatch(Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now())
    }

    /// What the step that ends now took.
    fn lap(&mut self, histogram: &Histogram) -> Duration {
        let now = Instant::now();
        let took = now.duration_since(std::mem::replace(&mut self.0, now));
        histogram.observe(took.as_secs_f64());
        took
    }
}
