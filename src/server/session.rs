//! One connection from its acceptance to its end: what its listener speaks before HTTP, and then HTTP.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use prometheus::IntGauge;

use super::Shared;
use super::connection;
use super::connection::End;
use super::endpoints::Serving;
use super::listener::Accepted;
use super::listener::Terms;
use super::service::FuturePool;
use super::service::Handler;
use super::stream::Stream;
use crate::base::supervisor::Background;
use crate::base::supervisor::Task;
use crate::gateway::Caller;
use crate::gateway::Gateway;
use crate::http::admission::CloseReason;
use crate::http::admission::ConnectionSlot;
use crate::http::origin::Peer;
use crate::http::proxy_protocol;
use crate::http::proxy_protocol::Forwarded;
use crate::http::unserved::Unserved;

/// What one connection is served with.
pub(super) struct Session {
    pub(super) serving: Arc<Serving>,
    /// Runs the requests whose connection was closed.
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
        let Accepted { mut stream, mut peer, terms } = accepted;
        let opened = if terms.is_plain() {
            Ok(())
        } else {
            // Boxed, because the plain path does not need it.
            Box::pin(self.open(&mut stream, &mut peer, &terms, &mut slot)).await
        };
        let client = peer.address();
        let end = match opened {
            Ok(()) => {
                let handler = self.handler(peer, &slot);
                connection::serve(stream, slot, handler).await
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
        stream: &mut Stream,
        peer: &mut Peer,
        terms: &Terms,
        slot: &mut ConnectionSlot,
    ) -> Result<(), Closed> {
        if terms.proxy_protocol.is_some() {
            let max = self.shared.limits.edge.max_proxy_header;
            let header = unless_closed(slot, async {
                match proxy_protocol::read(stream, max).await {
                    Ok(forwarded) => forwarded.ok_or(None),
                    Err(invalid) => Err(Some(invalid.into())),
                }
            });
            match header.await? {
                Forwarded::Client(address) => {
                    *peer = Peer::new(address);
                    slot.connection().identify(address.ip()).map_err(|busy| {
                        connection::answer_busy(stream);
                        Some(busy.into())
                    })?;
                }
                Forwarded::Itself => {}
                Forwarded::Unknown => *peer = Peer::unknown(),
            }
        }
        Ok(())
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
pub(super) fn turn_away(gateway: &Gateway, accepted: &Accepted, why: Unserved) {
    if let (Unserved::Busy(_), true) = (why, accepted.terms.is_plain()) {
        connection::answer_busy(&accepted.stream);
    }
    gateway.unserved(accepted.peer.address(), why, &[]);
}
