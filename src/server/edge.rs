//! Around the gateway, what knows nothing of webhooks: the limit on requests in flight, and carrying on when a sender
//! hangs up.

use std::convert::Infallible;
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
use tower::Service;

use crate::gateway::Gateway;
use crate::origin::Peer;

/// A request with the connection it came on.
pub(super) type Call = (Arc<Peer>, Request<Incoming>);

/// The gateway, as many times at once as its permits allow.
#[derive(Clone)]
pub(super) struct Limited {
    gateway: Arc<Gateway>,
    in_flight: Arc<Semaphore>,
}

impl Limited {
    pub(super) fn new(gateway: Arc<Gateway>, in_flight: Arc<Semaphore>) -> Self {
        Self { gateway, in_flight }
    }
}

impl Service<Call> for Limited {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Persistent<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Refuses at once what comes while as many requests as allowed are in flight.
    fn call(&mut self, (peer, request): Call) -> Self::Future {
        let gateway = Arc::clone(&self.gateway);
        let permit = Arc::clone(&self.in_flight).try_acquire_owned();
        Persistent::new(async move {
            Ok(match permit {
                // Kept until the delivery is over, even when the sender is gone before.
                Ok(_permit) => gateway.handle(&peer, request).await,
                Err(_none_left) => gateway.shed(request.uri()),
            })
        })
    }
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
