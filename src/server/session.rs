//! One connection from its acceptance to its end: what its listener speaks before HTTP, and then HTTP.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use prometheus::IntGauge;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::connection;
use super::connection::End;
use super::endpoints::Serving;
use super::http2;
use super::http2::Streams;
use super::listener::Accepted;
use super::listener::Terms;
use super::service::FuturePool;
use super::service::Handler;
use super::service::StreamHandler;
use super::stream::Stream;
use crate::base::supervisor::Background;
use crate::base::supervisor::Task;
use crate::gateway::Caller;
use crate::gateway::Gateway;
use crate::http::admission::CloseReason;
use crate::http::admission::ConnectionSlot;
use crate::http::origin::CertificateNames;
use crate::http::origin::Peer;
use crate::http::proxy_protocol;
use crate::http::proxy_protocol::Forwarded;
use crate::http::tls::Outcome;
use crate::http::tls::Tls;
use crate::http::unserved::Unserved;

/// What one connection is served with.
pub(super) struct Session {
    pub(super) serving: Arc<Serving>,
    /// Runs streams, and requests whose connection was closed.
    pub(super) orphans: Arc<Background>,
    pub(super) shared: Arc<Shared>,
    pub(super) futures: Arc<FuturePool>,
    /// Dropped also when the task panics.
    pub(super) _open: OpenConnection,
}

/// Counts one open connection until it is dropped.
pub(super) struct OpenConnection(IntGauge);

impl OpenConnection {
    pub(super) fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Why a connection ended before HTTP; `None` when nothing has to be told.
type Closed = Option<Unserved>;

impl Session {
    /// Serves the connection until it ends.
    pub(super) async fn run(self, accepted: Accepted, mut slot: ConnectionSlot) {
        self.shared.supervisor.panic_if_injected(Task::Connection);
        let Accepted { stream, mut peer, terms } = accepted;
        let opened = if terms.is_plain() {
            Ok(stream)
        } else {
            // Boxed, because the plain path does not need it.
            Box::pin(self.open(stream, &mut peer, &terms, &mut slot)).await
        };
        let client = peer.address();
        let end = match opened {
            Ok(stream) => {
                let handler = self.handler(peer, &slot);
                if stream.is_http2() {
                    // Boxed, because the plain path does not need it.
                    Box::pin(self.serve_http2(stream, slot, handler)).await
                } else {
                    connection::serve(stream, slot, handler).await
                }
            }
            Err(closed) => {
                let displaced = matches!(closed, Some(Unserved::Displaced));
                End { displaced, unserved: closed.map(|why| (why, Vec::new())) }
            }
        };
        if end.displaced {
            self.shared.metrics.displaced_connections.inc();
        }
        if let Some((why, start)) = end.unserved {
            self.serving.gateway().unserved(client, why, &start);
        }
    }

    async fn serve_http2(&self, stream: Stream, slot: ConnectionSlot, handler: Handler) -> End {
        let streams = Streams(Arc::clone(&self.orphans));
        http2::serve(stream, slot, (StreamHandler(handler), streams), &self.shared.limits.edge).await
    }

    fn handler(&self, peer: Peer, slot: &ConnectionSlot) -> Handler {
        Handler {
            serving: Arc::clone(&self.serving),
            caller: Arc::new(Caller { peer, connection: Arc::clone(slot.connection()) }),
            orphans: Arc::clone(&self.orphans),
            shared: Arc::clone(&self.shared),
            futures: Arc::clone(&self.futures),
        }
    }

    /// Reads what comes before HTTP. It counts in the timeout of the first head.
    async fn open(
        &self,
        mut stream: Stream,
        peer: &mut Peer,
        terms: &Terms,
        slot: &mut ConnectionSlot,
    ) -> Result<Stream, Closed> {
        if terms.proxy_protocol.is_some() {
            let max = self.shared.limits.edge.max_proxy_header;
            let header = unless_closed(slot, async {
                match proxy_protocol::read(&mut stream, max).await {
                    Ok(forwarded) => forwarded.ok_or(None),
                    Err(invalid) => Err(Some(invalid.into())),
                }
            });
            match header.await? {
                Forwarded::Client(address) => {
                    *peer = Peer::new(address);
                    slot.connection().identify(address.ip()).map_err(|busy| {
                        if terms.tls.is_none() {
                            connection::answer_busy(&mut stream);
                        }
                        Some(busy.into())
                    })?;
                }
                Forwarded::Itself => {}
                Forwarded::Unknown => *peer = Peer::unknown(),
            }
        }
        match (&terms.tls, stream) {
            (Some(tls), Stream::Tcp(stream)) => {
                let stream = self.encrypt(tls, stream, slot).await?;
                let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                peer.set_encrypted(certificate.map(|certificate| CertificateNames::read(certificate)));
                Ok(Stream::Tls(Box::new(stream)))
            }
            (_, stream) => Ok(stream),
        }
    }

    /// Negotiates TLS.
    async fn encrypt(
        &self,
        tls: &Tls,
        stream: TcpStream,
        slot: &mut ConnectionSlot,
    ) -> Result<TlsStream<TcpStream>, Closed> {
        let encrypted = unless_closed(slot, async {
            let mut first = [0];
            match stream.peek(&mut first).await {
                // Somebody looked whether the port is open.
                Ok(0) | Err(_) => return Err(None),
                // A request, or a header of the PROXY protocol.
                Ok(_) if matches!(first, [b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n']) => {
                    connection::answer_plain(&mut Stream::Tcp(stream));
                    return Err(Some(Unserved::TlsExpected));
                }
                Ok(_) => {}
            }
            tls.acceptor().accept(stream).await.map_err(|error| Some(Unserved::TlsHandshake(error.to_string())))
        });
        let encrypted = encrypted.await;
        let outcome = match &encrypted {
            Ok(_) => Some(Outcome::Completed),
            Err(None) => None,
            Err(Some(Unserved::TimedOut)) => Some(Outcome::TimedOut),
            Err(Some(Unserved::Displaced)) => Some(Outcome::Displaced),
            Err(Some(_)) => Some(Outcome::Failed),
        };
        outcome.into_iter().for_each(|outcome| self.shared.metrics.tls.count(outcome));
        encrypted
    }
}

/// Runs this until admission closes the connection.
async fn unless_closed<T>(
    slot: &mut ConnectionSlot,
    work: impl Future<Output = Result<T, Closed>>,
) -> Result<T, Closed> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        slot.register(cx.waker());
        let polled = work.as_mut().poll(cx);
        match slot.connection().close_reason() {
            Some(reason) if polled.is_pending() => Poll::Ready(Err(Some(match reason {
                CloseReason::Displaced => Unserved::Displaced,
                CloseReason::TimedOut => Unserved::TimedOut,
            }))),
            _ => polled,
        }
    })
    .await
}

/// Closes a connection that is not served.
pub(super) fn turn_away(gateway: &Gateway, mut accepted: Accepted, why: Unserved) {
    if matches!(why, Unserved::Busy(_)) && accepted.terms.is_plain() {
        connection::answer_busy(&mut accepted.stream);
    }
    gateway.unserved(accepted.peer.address(), why, &[]);
}
