//! Around the gateway, what knows nothing of webhooks: carrying on when a sender hangs up.

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
use tower::Service;

use crate::gateway::Caller;
use crate::gateway::Gateway;
use crate::supervisor::Background;

/// The gateway as the requests of one connection reach it.
#[derive(Clone)]
pub(super) struct Handler {
    pub(super) gateway: Arc<Gateway>,
    pub(super) caller: Arc<Caller>,
    /// Where requests go on whose sender hung up.
    pub(super) orphans: Arc<Background>,
}

impl Service<Request<Incoming>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Persistent<Result<Self::Response, Infallible>>;

    /// Always: what is too much is refused by the gateway, which knows whose it is.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Begins at once and not when it is first polled: a sender that hangs up has sent its request all the same.
    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Self { gateway, caller, orphans } = self.clone();
        Persistent::new(orphans, async move { Ok(gateway.handle(&caller, request).await) })
    }
}

/// A future that is carried on in the background when the one who waits for it goes away.
pub(super) struct Persistent<T: Send + 'static> {
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    orphans: Arc<Background>,
}

impl<T: Send + 'static> Persistent<T> {
    fn new(orphans: Arc<Background>, future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { future: Some(Box::pin(future)), orphans }
    }
}

impl<T: Send + 'static> Future for Persistent<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(future) = &mut self.future else { return Poll::Pending };
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            self.future = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Persistent<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the deadline of the drain has passed.
        if let (Some(future), Ok(_runtime)) = (self.future.take(), Handle::try_current()) {
            self.orphans.spawn("request", async move { drop(future.await) });
        }
    }
}
