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
    taken: Arc<Mutex<Vec<Taken>>>,
    _server: Background,
}

/// An event as the app was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) source: String,
    pub(super) id: String,
}

impl App {
    pub(super) async fn start() -> Result<Self, String> {
        let taken = Arc::new(Mutex::default());
        let noting = Arc::clone(&taken);
        let (address, server) = serve(move |request| note(&noting, request)).await?;
        Ok(Self { address, taken, _server: server })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ids of the events that it was given from a source.
    pub(super) fn taken_from(&self, source: &str) -> Vec<String> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().filter(|taken| taken.source == source).map(|taken| taken.id.clone()).collect()
    }
}

fn note(taken: &Mutex<Vec<Taken>>, request: &Request<Incoming>) -> Bytes {
    let header = |name| {
        let value = request.headers().get(name).map(http::HeaderValue::as_bytes);
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    let event = Taken { source: header("doorward-source"), id: header("doorward-event-id") };
    taken.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    Bytes::from_static(b"{\"taken\":true}")
}

/// Serves JSON on a free port of this machine, until what it returns is dropped.
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
                // Whoever hangs up early does not want the answer.
                let _early = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok((address, server))
}
