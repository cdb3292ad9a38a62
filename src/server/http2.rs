//! Serves one connection of HTTP/2: hyper serves it until admission closes the connection. Each request is a stream,
//! which runs as a task of its own.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::time::Instant;

use super::connection::End;
use super::stream::Stream;
use crate::base::limits::Edge;
use crate::base::supervisor::Background;
use crate::http::admission::CloseReason;
use crate::http::admission::ConnectionSlot;
use crate::http::admission::Phase;
use crate::http::unserved::Unserved;

/// Runs streams.
#[derive(Debug, Clone)]
pub(super) struct Streams(pub(super) Arc<Background>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.spawn("stream", stream);
    }
}

/// Serves a connection until it ends, or admission closes it. The service has to report when a stream begins and when it
/// is answered.
pub(super) async fn serve<S>(
    stream: Stream,
    mut slot: ConnectionSlot,
    (service, streams): (S, Streams),
    limits: &Edge,
) -> End
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let connection = Arc::clone(slot.connection());
    let mut http = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(limits.http2_header_list)
        .initial_stream_window_size(limits.http2_stream_window)
        .initial_connection_window_size(limits.http2_connection_window)
        .keep_alive_interval(limits.http2_ping_every)
        .keep_alive_timeout(limits.http2_ping_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut finishing = false;
    // A client need not heed that it shall connect anew.
    let mut grace = pin!(tokio::time::sleep(limits.http2_goaway_grace));
    let ended = poll_fn(|cx| {
        slot.register(cx.waker());
        let is_ending = slot.is_finishing() || connection.is_ending() || connection.close_reason().is_some();
        if is_ending && !finishing {
            finishing = true;
            Pin::new(&mut http).graceful_shutdown();
            grace.as_mut().reset(Instant::now() + limits.http2_goaway_grace);
        }
        let polled = Pin::new(&mut http).poll(cx).map(Some);
        let has_no_stream = || matches!(connection.phase(), Phase::Silent | Phase::Idle);
        let is_late = finishing && grace.as_mut().poll(cx).is_ready() && has_no_stream();
        let is_closed = is_late || connection.close_reason().is_some() && connection.phase() != Phase::Busy;
        let is_closed = is_closed && polled.is_pending();
        if is_closed { Poll::Ready(None) } else { polled }
    })
    .await;
    let displaced = connection.close_reason() == Some(CloseReason::Displaced);
    let unserved = match (ended, connection.phase()) {
        (Some(Err(error)), _) => {
            tracing::debug!(%error, "a connection ended early");
            violation(&error)
        }
        (None, Phase::Silent) if connection.close_reason().is_some() => {
            Some(if displaced { Unserved::Displaced } else { Unserved::TimedOut })
        }
        _ => None,
    };
    End { displaced, unserved: unserved.map(|why| (why, Vec::new())) }
}

/// What the client did wrong, if it was that.
fn violation(error: &hyper::Error) -> Option<Unserved> {
    let error = error.source()?.downcast_ref::<h2::Error>()?;
    let by_us = error.is_library() && (error.is_go_away() || error.is_reset());
    let why = error.reason().map(|reason| reason.description().to_owned());
    by_us.then(|| Unserved::Http2Error(why.unwrap_or_default()))
}
