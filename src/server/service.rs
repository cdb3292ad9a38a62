//! The service that hyper calls for each request. A request whose connection is closed is finished in the background;
//! answers have `connection: close` while the gateway drains.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::runtime::Handle;
use tokio_util::sync::ReusableBoxFuture;

use super::Shared;
use super::endpoints::Serving;
use crate::base::supervisor::Background;
use crate::gateway::Caller;

/// Most allocations that a worker keeps, of 4 KiB each.
const MAX_UNUSED: usize = 256;

/// The service of one connection.
pub(super) struct Handler {
    pub(super) serving: Arc<Serving>,
    pub(super) caller: Arc<Caller>,
    /// Runs the requests whose connection was closed.
    pub(super) orphans: Arc<Background>,
    pub(super) shared: Arc<Shared>,
    pub(super) futures: Arc<FuturePool>,
}

/// The allocations of finished requests of a worker, for the next ones: they are large, and an allocator is slow where
/// many are in use.
#[derive(Debug, Default)]
pub(super) struct FuturePool(Mutex<Vec<ResponseFuture>>);

impl FuturePool {
    /// Allocates a future, or reuses an allocation.
    fn allocate(&self, future: impl Future<Output = Response<Full<Bytes>>> + Send + 'static) -> ResponseFuture {
        let Some(mut unused) = self.unused().pop() else { return ReusableBoxFuture::new(future) };
        unused.set(future);
        unused
    }

    /// Keeps the allocation of a future that is finished.
    fn keep(&self, finished: ResponseFuture) {
        let mut unused = self.unused();
        if unused.len() < MAX_UNUSED {
            unused.push(finished);
        }
    }

    fn unused(&self) -> MutexGuard<'_, Vec<ResponseFuture>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service<Request<Incoming>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = RunToCompletion;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.begin(Arc::clone(&self.caller), request)
    }
}

impl Handler {
    /// Reports the request here, not at the first poll: the sender may hang up in between.
    fn begin(&self, caller: Arc<Caller>, request: Request<Incoming>) -> RunToCompletion {
        caller.connection.head_complete();
        let (gateway, handled) = (self.serving.gateway(), Arc::clone(&caller));
        RunToCompletion {
            future: Some(self.futures.allocate(async move { gateway.handle(&handled, request).await })),
            caller,
            orphans: Arc::clone(&self.orphans),
            shared: Arc::clone(&self.shared),
            futures: Arc::clone(&self.futures),
        }
    }
}

/// The same for a connection with several streams.
pub(super) struct StreamHandler(pub(super) Handler);

impl Service<Request<Incoming>> for StreamHandler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = RunToCompletion;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Caller { peer, connection } = &*self.0.caller;
        let caller = Caller { peer: peer.clone(), connection: Arc::new(connection.new_stream()) };
        self.0.begin(Arc::new(caller), request)
    }
}

/// The future of the answer to one request.
type ResponseFuture = ReusableBoxFuture<'static, Response<Full<Bytes>>>;

/// The answer to a request; dropped before it is ready, it continues in the background.
pub(super) struct RunToCompletion {
    future: Option<ResponseFuture>,
    caller: Arc<Caller>,
    orphans: Arc<Background>,
    shared: Arc<Shared>,
    futures: Arc<FuturePool>,
}

impl Future for RunToCompletion {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Taken out, so that a future that panics is not polled again when this is dropped.
        let Some(mut future) = self.future.take() else { return Poll::Pending };
        let Poll::Ready(mut response) = future.poll(cx) else {
            self.future = Some(future);
            return Poll::Pending;
        };
        self.futures.keep(future);
        // Reported here, and not by the request's future, which may outlive the connection.
        self.caller.connection.mark_idle();
        // Senders reconnect, and the load balancer sends them to another replica.
        if self.shared.draining.load(Ordering::Relaxed) && !self.caller.connection.end_after_answers() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}

impl Drop for RunToCompletion {
    fn drop(&mut self) {
        if self.future.is_some() {
            self.caller.connection.abandon_stream();
        }
        // Without a runtime the process is ending, and the drain timeout is over.
        if let (Some(future), Ok(_runtime)) = (self.future.take(), Handle::try_current()) {
            self.orphans.spawn("request", async move { drop(future.await) });
        }
    }
}
