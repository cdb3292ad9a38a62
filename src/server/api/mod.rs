//! The API on the admin port, for clients with the token: lists, shows, replays and purges queued events, copies the
//! store's file and recovers a damaged one, and reads the configuration again. `config/openapi.json` describes it.

mod configuration;
mod request;
mod response;
mod route;

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::Value;
use serde_json::json;

use crate::base::escape;
use crate::base::time::Moment;
use crate::http::body;
use crate::http::body::Budget;
use crate::http::body::Limits;
use crate::source::refusal::Refusal;
use crate::source::reply;
use crate::source::reply::Answers;
use crate::store::AdminError;
use crate::store::DestinationId;
use crate::store::Done;
use crate::store::Filter;
use crate::store::MessageId;
use crate::store::Recovered;
use crate::store::Store;
use crate::store::Summary;

use self::request::PageRequest;
use self::request::Recover;
use self::route::Operation;
use self::route::Route;
use super::Shared;
use super::access;
use super::access::RefusalLog;
use super::reload::Reloader;

/// The prefix of its paths.
pub(super) const ROOT: &str = "/api/";
/// Most bytes of a request's body.
const MAX_BODY: usize = 16 * 1024;
/// Most bytes of all bodies at one time.
const MAX_BODIES: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The value of `Retry-After` when the store does not answer, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

const DESCRIPTION: &str = include_str!("../../../config/openapi.json");

/// The service of the API.
#[derive(Debug)]
pub(super) struct Api {
    /// The store, if it has queues.
    store: Option<Store>,
    shared: Arc<Shared>,
    reloader: Arc<Reloader>,
    refusals: Arc<RefusalLog>,
    limits: Limits,
}

/// Why a request failed.
#[derive(Debug)]
enum ApiError {
    /// This status and detail.
    Problem(StatusCode, String),
    /// An error of the store.
    Store(AdminError),
    /// The body cannot be read.
    Unreadable(body::Unreadable),
}

impl Api {
    pub(super) fn new(shared: Arc<Shared>, reloader: Arc<Reloader>, refusals: Arc<RefusalLog>) -> Self {
        let limits = Limits {
            max_body: MAX_BODY,
            body_timeout: BODY_TIMEOUT,
            budget: Arc::new(Budget::new(MAX_BODIES)),
            ..Limits::none()
        };
        let store = Some(shared.store.local()).filter(Store::has_queues);
        Self { store, shared, reloader, refusals, limits }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let Some(route) = Route::at(&path) else {
            let paths = "there are /api/v1/events and, which describes what there is, /api/v1/openapi.json";
            return problem(StatusCode::NOT_FOUND, paths);
        };
        if !route.allows().split(", ").any(|method| method == request.method().as_str()) {
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, format_args!("use {}", route.allows()));
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(route.allows()));
            return response;
        }
        let needs_token = match route {
            Route::Description => false,
            Route::Configuration(_) => !(access::is_local(peer) && access::names_no_domain(request.headers())),
            Route::Store(_) => true,
        };
        if needs_token && let Some(refused) = self.refuse(&request, peer) {
            return refused;
        }
        let operation = match route {
            Route::Description => return json(DESCRIPTION),
            Route::Configuration(asked) => return self.configuration(asked, peer).await,
            Route::Store(operation) => operation,
        };
        let Some(store) = &self.store else {
            return problem(
                StatusCode::NOT_FOUND,
                "no source of this gateway has a queue; give one deliver.queue, and a store that keeps it: sqlite:PATH or Redis",
            );
        };
        self.act(store, operation, request, peer).await.unwrap_or_else(ApiError::response)
    }

    /// The answer to a request without the token; `None` when it has it.
    fn refuse(&self, request: &Request<Incoming>, peer: SocketAddr) -> Option<Response<Full<Bytes>>> {
        let generation = self.shared.current.load();
        let tokens = &generation.settings.admin.tokens;
        if tokens.is_empty() {
            let how = "the API is off; set admin.token to a secret, such as \"env:DOORWARD_TOKEN\", and reload or restart the gateway";
            return Some(problem(StatusCode::FORBIDDEN, how));
        }
        let bearer = access::bearer_token(request.headers());
        if bearer.is_some_and(|presented| access::is_token(presented, tokens)) {
            return None;
        }
        self.refusals.record(peer, "the API was asked without the token of admin.token, or with another");
        let detail = match bearer {
            Some(_) => "this is not the token that admin.token names",
            None => "send the token that admin.token names, in the header \"Authorization: Bearer TOKEN\"",
        };
        let mut response = problem(StatusCode::UNAUTHORIZED, detail);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Some(response)
    }

    async fn act(
        &self,
        store: &Store,
        operation: Operation<'_>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        match operation {
            Operation::Events => {
                let PageRequest { filter, after, limit } =
                    request::query(request.uri().query().unwrap_or_default()).map_err(bad)?;
                let page = store.list(&filter, after, limit).await?;
                Ok(answer(&response::page(&page, |summary| self.open_until(summary))))
            }
            Operation::Event(source, number) => {
                let details = store.show(source, parse(number)?).await?;
                let open_until = |summary: &Summary| self.open_until(summary);
                let generation = self.shared.current.load();
                Ok(answer(&response::details(&details, generation.withheld.for_source(source), open_until)))
            }
            Operation::EventReplay(source, number) => {
                let number = parse(number)?;
                let destination = self.read(request, request::destination).await?;
                let deliveries = self.replay(store, source, number, destination.as_deref()).await?;
                tracing::info!(%peer, source, %number, destination, deliveries, "replayed through the API");
                Ok(answer(&response::done(Done { deliveries, next: None })))
            }
            Operation::Replay => {
                let page = self.read(request, request::body).await?;
                let done = self.replay_all(store, &page).await?;
                log_operation("replayed through the API", peer, &page.filter, done);
                Ok(answer(&response::done(done)))
            }
            Operation::Purge => {
                let PageRequest { filter, after, limit } = self.read(request, request::body).await?;
                let done = store.purge(&filter, after, limit).await?;
                log_operation("purged through the API", peer, &filter, done);
                Ok(answer(&response::done(done)))
            }
            Operation::Recover => {
                let Recover { file, after } = self.read(request, request::recover).await?;
                let recovered = store.recover(&file, after).await?;
                let Recovered { imported, present, record_lost, lost, next } = recovered;
                let more = next.is_some();
                tracing::info!(%peer, file, imported, present, record_lost, lost, more, "recovered through the API");
                Ok(answer(&response::recovered(recovered)))
            }
            Operation::Backup => {
                let folder = self.read(request, request::folder).await?;
                let path = store.backup(&folder).await?;
                tracing::info!(%peer, path = %path.display(), "copied through the API");
                Ok(answer(&json!({ "path": path.to_string_lossy() })))
            }
        }
    }

    /// Replays one event, if its source has a queue: nobody would deliver it otherwise.
    async fn replay(&self, store: &Store, source: &str, id: MessageId, to: Option<&str>) -> Result<u64, AdminError> {
        if !self.shared.current.load_full().queues.contains_key(source) {
            store.show(source, id).await?;
            return Err(AdminError::NoQueue(source.to_owned()));
        }
        store.replay(source, id, to).await
    }

    /// Replays events of sources that have a queue.
    async fn replay_all(&self, store: &Store, page: &PageRequest) -> Result<Done, AdminError> {
        let generation = self.shared.current.load_full();
        let served = |id: &DestinationId| generation.queues.contains_key(&id.source);
        store.replay_all(&page.filter, page.after, page.limit, served).await
    }

    /// Until when the circuit breaker of a delivery's endpoint is open.
    fn open_until(&self, summary: &Summary) -> Option<Moment> {
        self.shared.current.load().breaker(&summary.destination_id())?.open_until()
    }

    async fn read<T>(
        &self,
        request: Request<Incoming>,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, ApiError> {
        let body = body::read_uncompressed(request, &self.limits).await.map_err(ApiError::Unreadable)?;
        parse(&body).map_err(bad)
    }
}

/// Logs an operation on many deliveries: the client, the filter and the number.
fn log_operation(message: &str, peer: SocketAddr, filter: &Filter, done: Done) {
    let Filter { source, destination, state, kind, id, from, until } = filter;
    tracing::info!(
        %peer,
        events = done.deliveries,
        source = source.as_deref(),
        destination = destination.as_deref(),
        state = state.map(|state| state.name()),
        event_type = kind.as_deref(),
        event_id = id.as_deref(),
        from = from.map(|from| tracing::field::display(from.rfc3339())),
        until = until.map(|until| tracing::field::display(until.rfc3339())),
        "{message}"
    );
}

fn parse(number: &str) -> Result<MessageId, ApiError> {
    number.parse().map_err(|wrong: String| bad(format!("number: {wrong}")))
}

fn bad(what: String) -> ApiError {
    ApiError::Problem(StatusCode::BAD_REQUEST, what)
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        Self::Store(error)
    }
}

impl ApiError {
    fn response(self) -> Response<Full<Bytes>> {
        match self {
            Self::Problem(status, what) => problem(status, what),
            Self::Unreadable(unreadable) => reply::refused(Refusal::Unreadable(unreadable), &Answers::default()),
            Self::Store(error) => match &error {
                AdminError::Unavailable(_) => {
                    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, &error);
                    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
                    response
                }
                AdminError::NoSuchEvent(..) => problem(StatusCode::NOT_FOUND, &error),
                AdminError::NoQueue(_) | AdminError::Waiting(_) => problem(StatusCode::CONFLICT, &error),
                AdminError::NoSuchSource(..) => problem(StatusCode::BAD_REQUEST, format_args!("source: {error}")),
                AdminError::NoSuchDestination(..) => {
                    problem(StatusCode::BAD_REQUEST, format_args!("destination: {error}"))
                }
                AdminError::NotReplayed(_) | AdminError::NotPurged(_) => {
                    problem(StatusCode::BAD_REQUEST, format_args!("state: {error}"))
                }
                AdminError::BadCursor(_) => problem(StatusCode::BAD_REQUEST, format_args!("cursor: {error}")),
                AdminError::NotThisStore(_) | AdminError::BadPath(_) => problem(StatusCode::BAD_REQUEST, &error),
            },
        }
    }
}

fn problem(status: StatusCode, detail: impl Display) -> Response<Full<Bytes>> {
    let mut response = json(reply::problem(status, &detail.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, reply::PROBLEM);
    response
}

/// A JSON answer. It is escaped for terminals, as it may contain what a sender wrote.
fn answer(value: &Value) -> Response<Full<Bytes>> {
    json(escape::json(&value.to_string()).into_owned())
}

/// A JSON answer. It may contain what senders and upstreams wrote: browsers must not sniff it as HTML, nor caches
/// store it.
fn json(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, reply::JSON);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
