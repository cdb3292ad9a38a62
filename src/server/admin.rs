//! The admin port: probes, metrics, the drain switch and the API. It never shares a listener with providers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::base::supervisor::Background;
use crate::base::supervisor::Task;
use crate::base::supervisor::TaskError;
use crate::dedup::OnOutage;
use crate::http::admission::ConnectionLimits;
use crate::http::admission::Connections;
use crate::http::origin::TrustedProxies;
use crate::store::Store;
use crate::store::Unavailable;

use super::Shared;
use super::access;
use super::access::Refusals;
use super::api;
use super::api::Api;
use super::connection;
use super::worker::View;

/// How long a connection may lie idle between two requests, where nobody else needs its place.
const IDLE: Duration = Duration::from_secs(75);
/// How long to wait when connections cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it is looked whether a drain has lasted too long.
const ROUND: Duration = Duration::from_secs(2);

/// Answers the requests of operators and of the kubelet.
#[derive(Debug)]
pub(super) struct Admin {
    shared: Arc<Shared>,
    views: Vec<View>,
    api: Api,
    refusals: Arc<Refusals>,
}

impl Admin {
    pub(super) fn new(shared: Arc<Shared>, views: Vec<View>) -> Self {
        let settings = &shared.settings;
        let refusals = Arc::new(Refusals::new(&settings.log));
        let store = Some(shared.store.local()).filter(Store::has_queues);
        let queued = (store, Arc::clone(&shared.breakers));
        let api = Api::new(queued, settings.admin.token.clone(), Arc::clone(&refusals), &settings.sources);
        Self { shared, views, api, refusals }
    }

    /// Answers until the runtime ends that this is called on.
    pub(super) fn start(self: Arc<Self>, listener: TcpListener) {
        let (supervisor, listener) = (self.shared.supervisor.clone(), Arc::new(listener));
        let admin = Arc::clone(&self);
        supervisor.task(Task::Drain, move || {
            let admin = Arc::clone(&admin);
            async move { admin.watch().await }
        });
        supervisor.task(Task::Admin, move || {
            let (admin, listener) = (Arc::clone(&self), Arc::clone(&listener));
            async move { admin.serve(&listener).await }
        });
    }

    async fn serve(self: Arc<Self>, listener: &TcpListener) -> Result<(), TaskError> {
        let connections = Connections::new(self.limits());
        tokio::select! {
            never = self.accept(listener, &connections) => match never {},
            never = connections.sweep_forever() => match never {},
        }
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener, connections: &Arc<Connections>) -> Infallible {
        let tasks = Background::default();
        loop {
            connections.wait_for_capacity().await;
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // No address has a limit of its own, so that none is turned away.
            let Ok(place) = connections.enter(peer.ip()) else { continue };
            let (admin, connection) = (Arc::clone(self), Arc::clone(place.connection()));
            let service = tower::service_fn(move |request: Request<Incoming>| {
                // Only what comes with the token has its body read, so whoever is here need not give way.
                connection.body_complete();
                let (admin, connection) = (Arc::clone(&admin), Arc::clone(&connection));
                async move {
                    let response = admin.answer(request, peer).await;
                    connection.mark_idle();
                    Ok::<_, Infallible>(response)
                }
            });
            tasks.spawn("admin-connection", async move {
                // Whoever hangs up early does not want the answer.
                let _end = connection::serve(stream, place, TowerToHyperService::new(service)).await;
            });
        }
    }

    fn limits(&self) -> ConnectionLimits {
        let settings = &self.shared.settings.admin;
        ConnectionLimits {
            max: settings.max_connections,
            max_per_address: usize::MAX,
            trusted_proxies: TrustedProxies::default(),
            header_timeout: settings.header_timeout,
            idle_timeout: IDLE,
        }
    }

    /// Ends drains that last too long.
    async fn watch(&self) -> Result<(), TaskError> {
        loop {
            tokio::time::sleep(ROUND).await;
            if self.shared.end_drain(Instant::now()) {
                tracing::warn!("nobody stopped the gateway after it was asked to drain: it is ready again");
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        if access::is_from_a_page(request.headers()) {
            self.refusals.note(peer, "the admin port was asked by a page on the web, and refused");
            return text(StatusCode::FORBIDDEN, "no page on the web may ask the admin port\n");
        }
        if request.uri().path().starts_with(api::ROOT) {
            return self.api.answer(request, peer).await;
        }
        let reads = request.method() == Method::GET || request.method() == Method::HEAD;
        match request.uri().path() {
            "/livez" if reads => verdict(self.live()),
            "/readyz" if reads => verdict(self.ready()),
            "/metrics" if reads => self.metrics(),
            "/drain" if request.method() == Method::POST => self.drain(request.headers(), peer),
            "/livez" | "/readyz" | "/metrics" => not_allowed("GET, HEAD"),
            "/drain" => not_allowed("POST"),
            _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics, /drain and /api/v1\n"),
        }
    }

    /// Takes the gateway out of service for whoever is on this machine or has the token.
    fn drain(&self, headers: &HeaderMap, peer: SocketAddr) -> Response<Full<Bytes>> {
        let (shown, token) = (access::bearer(headers), self.shared.settings.admin.token.as_ref());
        let has_token = || shown.zip(token).is_some_and(|(shown, token)| access::is_token(shown, token));
        if !access::is_local(peer) && !has_token() {
            self.refusals.note(peer, "somebody without the token of admin.token asked to drain from another machine");
            return refused(token.is_some());
        }
        let time = self.shared.settings.admin.max_drain;
        let time_said = humantime::format_duration(time);
        if self.shared.drain_for(time, Instant::now()) {
            tracing::info!(%peer, time = %time_said, "draining: not ready any more, and still taking what comes");
        } else {
            tracing::info!(%peer, time = %time_said, "asked again to drain: the time begins anew");
        }
        verdict(Ok(()))
    }

    /// A task that died twice does not come back by itself, nor does a store that could not be written.
    fn live(&self) -> Result<(), String> {
        self.shared.supervisor.live()?;
        self.of_stores(Store::sound)
    }

    fn ready(&self) -> Result<(), String> {
        if self.shared.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        self.shared.supervisor.ready()?;
        // Where events are delivered all the same while they cannot be remembered, others would not do better.
        let remembering = self.shared.settings.store.terms.on_outage == OnOutage::Reject;
        self.of_stores(|store| store.ready(remembering))
    }

    /// What the store says, as each worker sees it.
    fn of_stores(&self, check: impl Fn(&Store) -> Result<(), Unavailable>) -> Result<(), String> {
        let stores = self.views.iter().filter_map(|view| view.load_full());
        stores.into_iter().try_for_each(|store| check(&store)).map_err(|unavailable| unavailable.0)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.shared.metrics.registry.text() {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                let format = HeaderValue::from_static(prometheus::TEXT_FORMAT);
                response.headers_mut().insert(header::CONTENT_TYPE, format);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn verdict(verdict: Result<(), String>) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// The answer to somebody from elsewhere who may not drain; a token would change that, if there is one.
fn refused(token: bool) -> Response<Full<Bytes>> {
    if !token {
        let how = "drain from this machine, as \"doorward drain\" does, or set admin.token and send it\n";
        return text(StatusCode::FORBIDDEN, how);
    }
    let how = "drain from this machine, or send the token that admin.token names: \"Authorization: Bearer TOKEN\"\n";
    let mut response = text(StatusCode::UNAUTHORIZED, how);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {methods}\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
