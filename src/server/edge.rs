//! Around the gateway, what knows nothing of webhooks: the limit on requests in flight, and carrying on when a sender
//! hangs up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tower::BoxError;
use tower::Service;
use tower::ServiceBuilder;
use tower::ServiceExt as _;
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::gateway::Gateway;
use crate::origin::Peer;

/// A request with the connection it came on.
type Call = (Arc<Peer>, Request<Incoming>);

/// Refuses at once what comes while as many requests as allowed are in flight.
pub(super) fn limited(
    gateway: &Arc<Gateway>,
    in_flight: Arc<Semaphore>,
) -> impl Service<Call, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send> + Clone + Send + 'static {
    let gateway = Arc::clone(gateway);
    ServiceBuilder::new().load_shed().layer(GlobalConcurrencyLimitLayer::with_semaphore(in_flight)).service_fn(
        move |(peer, request): Call| {
            let gateway = Arc::clone(&gateway);
            async move { Ok::<_, BoxError>(gateway.handle(&peer, request).await) }
        },
    )
}

/// Answers one request to its end, whether or not the sender waits for it.
pub(super) fn answer<S>(
    gateway: Arc<Gateway>,
    limited: S,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Persistent<Response<Full<Bytes>>>
where
    S: Service<Call, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send> + Send + 'static,
{
    let target = request.uri().clone();
    Persistent::new(async move {
        // The gateway itself does not fail: an error is the limit's.
        limited.oneshot((peer, request)).await.unwrap_or_else(|_overloaded| gateway.shed(&target))
    })
}

/// A future that is carried on in the background when the one who waits for it goes away.
pub(super) struct Persistent<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Persistent<T> {
    fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<T: Send + 'static> Future for Persistent<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Persistent<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the deadline of the drain has passed.
        if let (Some(future), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            drop(runtime.spawn(future));
        }
    }
}
