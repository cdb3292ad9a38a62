//! Reads the body of a request within limits. Refuses bodies that are malformed, over a limit, or framed ambiguously.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::header;
use hyper::body::Body as _;
use hyper::body::Incoming;

use crate::http::admission::Connection;
use crate::http::admission::Full;
use crate::http::admission::Reserved;
use crate::http::content_coding::Coding;
use crate::http::content_coding::Garbled;
use crate::http::content_coding::Unsupported;

pub use crate::http::admission::Budget;

/// The most bytes of memory that are allocated for a body before they have arrived.
const MAX_AHEAD: usize = 128 * 1024;

/// Limits of the bodies of one source.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most bytes of one body, also when decompressed.
    pub max_body: usize,
    /// The longest time from the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// The budget for the bytes of all bodies in memory.
    pub budget: Arc<Budget>,
    /// The most compressed bodies that one worker decompresses, or that wait for that, at a time.
    pub max_decompressions: usize,
}

impl Limits {
    /// Limits that refuse every body. For checks of sources whose `[server]` section is not valid.
    pub fn none() -> Self {
        Self { max_body: 0, body_timeout: Duration::ZERO, budget: Arc::new(Budget::new(0)), max_decompressions: 0 }
    }
}

/// Why the body of a request could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The body is longer than allowed.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// The body has a content coding other than gzip and deflate, or several.
    #[error(transparent)]
    Encoded(#[from] Unsupported),
    /// The body is not valid in its content coding.
    #[error(transparent)]
    Garbled(#[from] Garbled),
    /// A header that may occur only once occurs twice.
    #[error("a header that may be there once is there twice")]
    HeaderRepeated,
    /// The framing is ambiguous: both `Content-Length` and `Transfer-Encoding`, or a transfer coding other than
    /// `chunked` (RFC 9112 section 6.1).
    #[error("where the body ends would be read in two ways")]
    Framing,
    /// The sender stopped before the end of the body.
    #[error("the body ended before its end")]
    Incomplete,
    /// The body did not arrive within the timeout.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The budget for all bodies, or the limit of decompressions, is used up.
    #[error("too many bytes are in flight")]
    Overloaded,
    /// The body had waited longest when another one needed its memory or its connection.
    #[error("the body was not complete when its room was needed for others")]
    Displaced,
    /// A request of HTTP/1.1 without `Host` (RFC 9112 section 3.2).
    #[error("there is no Host header, which HTTP/1.1 requires")]
    HostMissing,
    /// A request of HTTP/2 whose `:authority` is another one than its `Host`, or has a user (RFC 9113 section 8.3.1).
    #[error("it names two hosts, or a user beside the host")]
    HostMismatch,
    /// A request of HTTP/2 with a value that HTTP/1.1 would read in another way (RFC 9113 section 8.2.1).
    #[error("a header begins or ends with white space")]
    HeadMalformed,
    /// A request of HTTP/2 with more headers than one of HTTP/1.1 may have.
    #[error("the request has too many headers")]
    HeadTooLarge,
}

impl From<Full> for Unreadable {
    fn from(full: Full) -> Self {
        match full {
            Full::Exhausted => Self::Overloaded,
            Full::Displaced => Self::Displaced,
        }
    }
}

/// The unverified sender of a body, which other senders may displace.
#[derive(Debug, Clone, Copy)]
pub struct BodySender<'s> {
    /// The connection of the request.
    pub connection: &'s Connection,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The bytes of the head that count with the body.
    pub head: usize,
}

/// Reads the body of a request to the admin API, which must not be compressed and is not displaced.
///
/// # Errors
/// [`Unreadable`] when it cannot be read within the limits.
pub async fn read_uncompressed(request: http::Request<Incoming>, limits: &Limits) -> Result<Bytes, Unreadable> {
    let BodyHead { length, coding } = check_head(request.headers(), &[], limits)?;
    if coding.is_some() {
        return Err(Unsupported.into());
    }
    read_within(request.into_body(), length, limits, None).await.map(|(body, _reserved)| body)
}

/// Reads a body of this length, where that is known. With a `sender`, bodies of others may displace it.
pub(super) async fn read_within(
    body: Incoming,
    length: Option<usize>,
    limits: &Limits,
    sender: Option<BodySender<'_>>,
) -> Result<(Bytes, Reserved), Unreadable> {
    // Bytes are reserved as they arrive: a large `Content-Length` alone uses up no budget.
    let mut reserved = Reserved::new(&limits.budget);
    if let Some(sender) = sender.filter(|sender| sender.head > 0) {
        reserved.grow(sender.head)?;
    }
    let body = {
        let mut collecting = pin!(collect(body, length, &mut reserved, limits, sender));
        // Most bodies have arrived with their head, and need no timer.
        match poll_fn(|cx| Poll::Ready(collecting.as_mut().poll(cx))).await {
            Poll::Ready(collected) => collected,
            Poll::Pending => {
                let timeout = tokio::time::timeout(limits.body_timeout, collecting);
                timeout.await.map_err(|_elapsed| Unreadable::TimedOut)?
            }
        }
    }?;
    reserved.complete()?;
    Ok((body, reserved))
}

/// What the head of a request says about its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHead {
    /// Its bytes as sent; `None` when it is chunked.
    pub length: Option<usize>,
    /// Its content coding; `None` when it is not compressed.
    pub coding: Option<Coding>,
}

/// Checks the head of a request. `single` names headers that may occur only once.
///
/// # Errors
/// [`Unreadable`] when the head is ambiguous, or the body cannot be decompressed or is too large.
pub fn check_head(headers: &HeaderMap, single: &[HeaderName], limits: &Limits) -> Result<BodyHead, Unreadable> {
    // A name is repeated only if there are fewer names than values.
    let repeated = headers.keys_len() < headers.len();
    let twice = |name: &HeaderName| repeated && headers.get_all(name).iter().nth(1).is_some();
    if single.iter().any(twice) || twice(&header::HOST) || twice(&header::CONTENT_TYPE) {
        return Err(Unreadable::HeaderRepeated);
    }
    let coding = Coding::from_headers(headers)?;
    let mut transfer = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(transferred) = transfer.next() {
        let chunked = transferred.as_bytes().eq_ignore_ascii_case(b"chunked") && transfer.next().is_none();
        return if chunked && !headers.contains_key(header::CONTENT_LENGTH) {
            Ok(BodyHead { length: None, coding })
        } else {
            Err(Unreadable::Framing)
        };
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) if length > limits.max_body => Err(Unreadable::TooLarge),
        _ => Ok(BodyHead { length, coding }),
    }
}

/// Why a body ended early: perhaps because its connection was closed for others.
fn incomplete(sender: Option<BodySender<'_>>) -> Unreadable {
    let closed = sender.is_some_and(|sender| sender.connection.close_reason().is_some());
    if closed { Unreadable::Displaced } else { Unreadable::Incomplete }
}

async fn collect(
    mut body: Incoming,
    length: Option<usize>,
    reserved: &mut Reserved,
    limits: &Limits,
    sender: Option<BodySender<'_>>,
) -> Result<Bytes, Unreadable> {
    let mut collected = BytesMut::new();
    let mut first = Bytes::new();
    loop {
        let next = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending => {
                let closed = sender.is_some_and(|sender| sender.connection.close_reason().is_some());
                if closed || reserved.is_displaced() {
                    return Poll::Ready(Err(Unreadable::Displaced));
                }
                reserved.mark_waiting(sender.and_then(|sender| sender.address), cx.waker())?;
                Poll::Pending
            }
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
        });
        let Some(frame) = next.await? else { break };
        // Trailers are dropped: no signature covers them.
        let Ok(data) = frame.map_err(|_broken| incomplete(sender))?.into_data() else { continue };
        let so_far = first.len() + collected.len() + data.len();
        if so_far > limits.max_body {
            return Err(Unreadable::TooLarge);
        }
        reserved.grow(data.len())?;
        if first.is_empty() && collected.is_empty() {
            // A body that arrives in one piece is not copied.
            first = data;
            continue;
        }
        if collected.is_empty() {
            collected.reserve(length.unwrap_or(so_far * 2).min(MAX_AHEAD));
            collected.extend_from_slice(&std::mem::take(&mut first));
        }
        collected.extend_from_slice(&data);
    }
    Ok(if collected.is_empty() { first } else { collected.freeze() })
}
