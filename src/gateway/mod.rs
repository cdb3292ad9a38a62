//! Handles one request, from its head to its answer. [`Gateway::handle`] finds the source and reads the request,
//! `decide` verifies it, and `forward` deduplicates the event and delivers or queues it.

pub mod decide;
mod forward;
mod metrics;
mod request_log;
pub mod route;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;

use self::decide::Rejection;
use self::decide::Verdict;
use self::decide::decide;
pub use self::metrics::Metrics;
pub use self::metrics::SecretMetrics;
pub use self::metrics::SourceMetrics;
use self::request_log::RequestLog;
use crate::base::time::Moment;
use crate::dedup::Dedup;
use crate::gateway::route::Routes;
use crate::http::admission::Connection;
use crate::http::inbound::Inbound;
use crate::http::origin::Peer;
use crate::http::origin::TrustedProxies;
use crate::http::unserved::Unserved;
use crate::source::Source;
use crate::source::refusal::Refusal;
use crate::store::Queue;
use crate::target::Target;
use crate::telemetry::Sampler;
use crate::verify::handshake;
use crate::verify::identity::Event;

/// Everything one worker needs to handle requests.
#[derive(Debug)]
pub struct Gateway {
    /// The endpoints by path and host.
    pub routes: Routes<Arc<Endpoint>>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub proxies: TrustedProxies,
    /// Deduplication, with the store handle of the worker.
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
    pub source: Option<(Arc<Source>, DeliveryMode)>,
    /// Whether the path is that of a source that is left out, because a secret is missing.
    pub is_left_out: bool,
    /// The metrics of the source.
    pub metrics: SourceMetrics,
    /// The rate limit for log lines about unverified requests.
    pub sampler: Arc<Sampler>,
}

/// How the messages of a source are delivered.
#[derive(Debug)]
pub enum DeliveryMode {
    /// To the target, before the provider is answered.
    Sync(Target),
    /// By way of this queue of the store.
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

impl Endpoint {
    /// The source with its delivery mode.
    ///
    /// # Errors
    /// Why there is none.
    fn source(&self) -> Result<&(Arc<Source>, DeliveryMode), Refusal> {
        let missing = if self.is_left_out { Refusal::LeftOut } else { Refusal::NotFound };
        self.source.as_ref().ok_or(missing)
    }
}

impl Gateway {
    /// Handles one request. The future must be polled to its end, even when the sender hangs up, so that the delivery
    /// of a claimed event is not interrupted.
    pub async fn handle(self: Arc<Self>, caller: &Caller, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut request_log = RequestLog::begin(&self, request.uri(), request.headers());
        let result = match self.receive(caller, request, &mut request_log).await {
            Ok(received) => self.forward(received, &mut request_log).await,
            Err(refusal) => Err(refusal),
        };
        request_log.end(result)
    }

    /// Logs and counts bytes from this address that were no request that can be served; `start` is their beginning, as
    /// far as it is known.
    pub fn unserved(&self, client: Option<IpAddr>, why: Unserved, start: &[u8]) {
        RequestLog::unserved(self, client, start).end(Err(why.into()));
    }

    /// The targets of sources that do not queue.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.routes.all().filter_map(|endpoint| match &endpoint.source {
            Some((_, DeliveryMode::Sync(target))) => Some(target),
            Some((_, DeliveryMode::Queue(_))) | None => None,
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
        let (source, _) = endpoint.source()?;
        let verifier = &source.verifier;
        decide::check_method(verifier, request.method())?;
        let admitted = source.allowlist.admit(client)?;
        source.rates.admit(request_log.facts.client, request_log.begun)?;
        let inbound = Inbound::read(request, admitted, &verifier.single_headers, &source.limits, connection).await?;
        // From now on the connection cannot be displaced, and the request counts as in flight until it is answered.
        connection.body_complete();
        request_log.permit = Some(source.in_flight.permit().ok_or(Refusal::Overloaded)?);
        let received_at = inbound.received_at();
        let decision = decide(verifier, source.name.as_str(), &source.limits, inbound, Moment::now).await;
        if let Some(proof) = decision.proof {
            request_log.verified(proof, received_at);
            connection.mark_verified();
        }
        match decision.verdict {
            Ok(Verdict::Handshake(answer)) => Ok(Received::Handshake(answer)),
            Ok(Verdict::Event(mut event)) => {
                request_log.facts.event = Some((event.id.clone(), event.kind.clone()));
                if let Some(last_event) = &endpoint.metrics.last_event {
                    last_event.set(received_at.unix());
                }
                source.rates.count(Instant::now)?;
                request_log.reserved = event.inbound.take_reserved();
                Ok(Received::Event(event))
            }
            Err(Rejection { refusal, observable: Some(inbound) }) if source.observe => {
                source.rates.count(Instant::now)?;
                Ok(request_log.unverified(refusal, inbound))
            }
            Err(rejection) => Err(rejection.refusal),
        }
    }
}

/// A request that was not refused.
enum Received {
    Event(Event),
    /// A request that could not be verified or identified, of a source in observe mode.
    Observed(Inbound),
    Handshake(handshake::Answer),
}
