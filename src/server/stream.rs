//! The stream of a connection: of TCP, of TCP with TLS, or of a Unix socket.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_rustls::server::TlsStream;

use crate::http::tls;

/// The stream of a connection. An enum, because a trait object would cost the plain path.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Calls a method of the stream that there is.
macro_rules! on {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::Tls($inner) => $call,
        }
    };
}

impl Stream {
    /// Sets the options of a new connection. `unread` is how long its peer may leave unread what is sent.
    pub(super) fn set_options(&self, unread: Duration) {
        if let Self::Tcp(stream) = self {
            // An answer is written as a whole, so Nagle's algorithm would only delay it.
            let _unset = stream.set_nodelay(true);
            // A client that does not read its answer must not keep its slot for ever.
            #[cfg(target_os = "linux")]
            let _unset = SockRef::from(stream).set_tcp_user_timeout(Some(unread));
        }
    }

    /// Whether the client chose HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2))
    }

    /// Sends an answer without waiting. It fits into the socket's buffer, which is empty.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Tcp(stream) => drop(SockRef::from(&*stream).send(bytes)),
            Self::Unix(stream) => drop(SockRef::from(&*stream).send(bytes)),
            Self::Tls(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                let _gone = Pin::new(&mut *stream).poll_write(&mut cx, bytes);
                let _gone = Pin::new(stream).poll_shutdown(&mut cx);
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on!(&mut *self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on!(&mut *self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(&mut *self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(&mut *self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(&mut *self, stream => Pin::new(stream).poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        on!(self, stream => stream.is_write_vectored())
    }
}
