//! The admin port: health probes, metrics, draining and the API. It has a listener of its own.

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
use super::access::RefusalLog;
use super::api;
use super::api::Api;
use super::connection;
use super::endpoints::View;
use super::reload::Reloader;
use super::stream::Stream;

/// How long a connection may be idle between two requests, unless another one needs its slot.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The pause after the system refused to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The interval at which the time limit of a drain is checked.
const DRAIN_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The service of the admin port.
#[derive(Debug)]
pub(super) struct Admin {
    shared: Arc<Shared>,
    /// The store handles of the workers.
    views: Vec<View>,
    api: Api,
    refusals: Arc<RefusalLog>,
}

impl Admin {
    pub(super) fn new(shared: Arc<Shared>, reloader: Arc<Reloader>, views: Vec<View>) -> Self {
        let refusals = Arc::new(RefusalLog::new(&shared.settings.log));
        let api = Api::new(Arc::clone(&shared), reloader, Arc::clone(&refusals));
        Self { shared, views, api, refusals }
    }

    /// Serves on the current runtime, until that ends.
    pub(super) fn start(self: Arc<Self>, listener: TcpListener) {
        let (supervisor, listener) = (self.shared.supervisor.clone(), Arc::new(listener));
        let admin = Arc::clone(&self);
        supervisor.task(Task::Drain, move || {
            let admin = Arc::clone(&admin);
            async move { admin.end_drains().await }
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
            // There is no limit for each address, so this does not fail.
            let Ok(slot) = connections.enter(Some(peer.ip())) else { continue };
            let (admin, connection) = (Arc::clone(self), Arc::clone(slot.connection()));
            let service = tower::service_fn(move |request: Request<Incoming>| {
                // Bodies are read only after the token is checked, so the connection need not be displaced.
                connection.body_complete();
                let (admin, connection) = (Arc::clone(&admin), Arc::clone(&connection));
                async move {
                    let response = admin.answer(request, peer).await;
                    connection.mark_idle();
                    Ok::<_, Infallible>(response)
                }
            });
            tasks.spawn("admin-connection", async move {
                // The client may hang up early.
                let _end = connection::serve(Stream::Tcp(stream), slot, TowerToHyperService::new(service)).await;
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
            idle_timeout: IDLE_TIMEOUT,
        }
    }

    /// Ends drains whose time limit has passed; never returns.
    async fn end_drains(&self) -> Result<(), TaskError> {
        loop {
            tokio::time::sleep(DRAIN_CHECK_INTERVAL).await;
            if self.shared.end_drain(Instant::now()) {
                tracing::warn!("nobody stopped the gateway after it was asked to drain: it is ready again");
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        if access::is_cross_site(request.headers()) {
            self.refusals.record(peer, "the admin port was asked by a page on the web, and refused");
            return text(StatusCode::FORBIDDEN, "no page on the web may ask the admin port\n");
        }
        if request.uri().path().starts_with(api::ROOT) {
            return self.api.answer(request, peer).await;
        }
        let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
        match request.uri().path() {
            "/livez" if is_read => health(self.live()),
            "/readyz" if is_read => health(self.ready()),
            "/metrics" if is_read => self.metrics(),
            "/drain" if request.method() == Method::POST => self.drain(request.headers(), peer),
            "/livez" | "/readyz" | "/metrics" => not_allowed("GET, HEAD"),
            "/drain" => not_allowed("POST"),
            _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics, /drain and /api/v1\n"),
        }
    }

    /// Begins a drain, for clients on this machine or with the token.
    fn drain(&self, headers: &HeaderMap, peer: SocketAddr) -> Response<Full<Bytes>> {
        let generation = self.shared.current.load();
        let admin = &generation.settings.admin;
        let presented = access::bearer_token(headers);
        let has_token = || presented.is_some_and(|presented| access::is_token(presented, &admin.tokens));
        if !access::is_local(peer) && !has_token() {
            self.refusals.record(peer, "somebody without the token of admin.token asked to drain from another machine");
            return refused(!admin.tokens.is_empty());
        }
        let time = admin.max_drain;
        let duration = humantime::format_duration(time);
        if self.shared.drain_for(time, Instant::now()) {
            tracing::info!(%peer, time = %duration, "draining: not ready any more, and still taking what comes");
        } else {
            tracing::info!(%peer, time = %duration, "asked again to drain: the time begins anew");
        }
        health(Ok(()))
    }

    /// Liveness: fails in states that only a restart ends, such as a task that died twice, or a store that could not be
    /// written.
    fn live(&self) -> Result<(), String> {
        self.shared.supervisor.live()?;
        self.check_stores(Store::sound)
    }

    fn ready(&self) -> Result<(), String> {
        if self.shared.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        self.shared.supervisor.ready()?;
        // With `on_outage = "accept"` the gateway also works without its store.
        let needs_store = self.shared.settings.store.terms.on_outage == OnOutage::Reject;
        self.check_stores(|store| store.ready(needs_store))
    }

    /// Checks the store handle of each worker.
    fn check_stores(&self, check: impl Fn(&Store) -> Result<(), Unavailable>) -> Result<(), String> {
        let workers = self.views.iter().filter_map(|view| view.load_full());
        workers.into_iter().try_for_each(|worker| check(&worker.store)).map_err(|unavailable| unavailable.0)
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

fn health(result: Result<(), String>) -> Response<Full<Bytes>> {
    match result {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// The answer to a client on another machine without the token; `has_token` tells whether a token is configured.
fn refused(has_token: bool) -> Response<Full<Bytes>> {
    if !has_token {
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
