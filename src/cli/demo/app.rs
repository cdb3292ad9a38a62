//! The app behind the demo's gateway: accepts every event and remembers its source and id.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::base::supervisor::Background;

/// The app behind the gateway.
pub(super) struct App {
    address: SocketAddr,
    events: Arc<Mutex<Vec<ReceivedEvent>>>,
    _server: Background,
}

/// An event that the app received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReceivedEvent {
    pub(super) source: String,
    pub(super) id: String,
}

impl App {
    pub(super) async fn start() -> Result<Self, String> {
        let events = Arc::new(Mutex::default());
        let recorded = Arc::clone(&events);
        let (address, server) = serve(move |request| record(&recorded, request)).await?;
        Ok(Self { address, events, _server: server })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ids of the events that it received from a source.
    pub(super) fn received_from(&self, source: &str) -> Vec<String> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|event| event.source == source).map(|event| event.id.clone()).collect()
    }
}

fn record(events: &Mutex<Vec<ReceivedEvent>>, request: &Request<Incoming>) -> Bytes {
    let header = |name| {
        let value = request.headers().get(name).map(http::HeaderValue::as_bytes);
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    let event = ReceivedEvent { source: header("doorward-source"), id: header("doorward-event-id") };
    events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    Bytes::from_static(b"{\"taken\":true}")
}

/// Serves JSON on a free port of this machine, until the returned task is dropped.
pub(super) async fn serve(
    answer: impl Fn(&Request<Incoming>) -> Bytes + Clone + Send + 'static,
) -> Result<(SocketAddr, Background), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let (server, connections) = (Background::default(), Background::default());
    server.spawn("demo-app", async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let mut response = Response::new(Full::new(answer(&request)));
                let json = http::HeaderValue::from_static("application/json");
                response.headers_mut().insert(http::header::CONTENT_TYPE, json);
                async move { Ok::<_, Infallible>(response) }
            });
            connections.spawn("demo-app-connection", async move {
                // The client may hang up early.
                let _end = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok((address, server))
}
