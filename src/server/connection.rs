//! Serves one connection: hyper serves HTTP/1 until admission closes the connection. This file answers timeouts, and
//! reports requests that hyper cannot parse.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use super::stream::Stream;
use crate::http::admission::CloseReason;
use crate::http::admission::Connection;
use crate::http::admission::ConnectionSlot;
use crate::http::admission::Phase;
use crate::http::unserved::Unserved;

/// Most bytes that the head of a request may take.
const MAX_HEAD: usize = 64 * 1024;
/// Most bytes of the beginning of a head that are kept for the log.
const MAX_START: usize = 256;

const TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// Tells whoever speaks plain HTTP that TLS is spoken here.
pub(super) fn answer_plain(stream: &mut Stream) {
    stream.send(PLAIN);
}

/// How a connection ended.
#[derive(Debug, Default)]
pub(super) struct End {
    /// It was closed because another one needed its slot.
    pub(super) displaced: bool,
    /// Why its last request could not be served, with the beginning of its bytes.
    pub(super) unserved: Option<(Unserved, Vec<u8>)>,
}

/// Serves a connection until it ends, or admission closes it. The service has to report when a head is complete and
/// when it is answered ([`Connection::head_complete`], [`Connection::mark_idle`]).
pub(super) async fn serve<S>(stream: Stream, mut slot: ConnectionSlot, service: S) -> End
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let connection = Arc::clone(slot.connection());
    let socket = MonitoredSocket { stream, connection: Arc::clone(&connection), start: Vec::with_capacity(MAX_START) };
    // Admission keeps the timeout for heads. A sender that hangs up does not end its delivery: the socket is not read
    // while one is under way (`half_close`), and keeps its slot until the answer.
    let mut http = http1::Builder::new()
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(MAX_HEAD)
        .max_header_size(MAX_HEAD)
        .serve_connection(TokioIo::new(socket), service);
    let mut finishing = false;
    let ended = poll_fn(|cx| {
        slot.register(cx.waker());
        if !finishing && slot.is_finishing() {
            finishing = true;
            Pin::new(&mut http).graceful_shutdown();
        }
        // Bytes that have arrived are handled first. A request whose body is read is still answered.
        let polled = Pin::new(&mut http).poll(cx).map(Some);
        let awaits_head = || !matches!(connection.phase(), Phase::Body | Phase::Busy);
        let is_closed = polled.is_pending() && connection.close_reason().is_some() && awaits_head();
        if is_closed { Poll::Ready(None) } else { polled }
    })
    .await;
    let mut socket = http.into_parts().io.into_inner();
    let displaced = connection.close_reason() == Some(CloseReason::Displaced);
    // A head that arrived in one read with an earlier request was not recorded.
    let start = if connection.phase() == Phase::Head { socket.start } else { Vec::new() };
    let unserved = match (ended, connection.phase()) {
        (Some(Err(error)), _) => {
            tracing::debug!(%error, "a connection ended early");
            error.is_parse().then(|| Unserved::from_first_bytes(&start, error.is_parse_too_large()))
        }
        (None, Phase::Silent | Phase::Head) => {
            socket.stream.send(TIMED_OUT);
            Some(if displaced { Unserved::Displaced } else { Unserved::TimedOut })
        }
        // Between requests there is nothing to answer.
        _ => None,
    };
    End { displaced, unserved: unserved.map(|why| (why, start)) }
}

/// Answers a connection that is refused, because its address has the most connections already.
pub(super) fn answer_busy(stream: &mut Stream) {
    stream.send(BUSY);
}

/// The socket: reports to admission when bytes arrive, and records the beginning of heads.
struct MonitoredSocket {
    stream: Stream,
    connection: Arc<Connection>,
    /// The beginning of the last head.
    start: Vec<u8>,
}

impl MonitoredSocket {
    fn record(&mut self, bytes: &[u8]) {
        match self.connection.phase() {
            Phase::Silent | Phase::Idle => {
                self.start.clear();
                self.connection.bytes_received();
            }
            Phase::Head => {}
            Phase::Body | Phase::Busy => return,
        }
        let room = MAX_START - self.start.len();
        self.start.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }
}

impl AsyncRead for MonitoredSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(new) = buffer.filled().get(before..).filter(|new| !new.is_empty()) {
            self.record(new);
        }
        polled
    }
}

impl AsyncWrite for MonitoredSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
