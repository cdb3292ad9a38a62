//! Reads the body of a request within limits. Refuses what is malformed, over a limit, or could be read in two ways.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
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

/// Most bytes of memory that are set aside for a body before they have come.
const MAX_AHEAD: usize = 128 * 1024;

/// What one request may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one body.
    pub max_body: usize,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// Bytes of all bodies that are held at one time.
    pub budget: Arc<Budget>,
    /// Compressed bodies that one worker decompresses, or that wait for it, at one time.
    pub max_decompressions: usize,
}

impl Limits {
    /// Nothing is let through: for looking at sources when the limits themselves cannot be told.
    pub fn none() -> Self {
        Self { max_body: 0, body_timeout: Duration::ZERO, budget: Arc::new(Budget::new(0)), max_decompressions: 0 }
    }
}

/// Why a request could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The body is longer than allowed.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// The body has another content encoding than those that are taken, or several.
    #[error(transparent)]
    Encoded(#[from] Unsupported),
    /// The body is not what its content encoding says.
    #[error(transparent)]
    Garbled(#[from] Garbled),
    /// A header that may stand once stands twice.
    #[error("a header that may be there once is there twice")]
    HeaderRepeated,
    /// Both ways of framing a body at once, or a transfer coding besides `chunked` (RFC 9112 section 6.1).
    #[error("where the body ends would be read in two ways")]
    Framing,
    /// The sender stopped before the end.
    #[error("the body ended before its end")]
    Incomplete,
    /// The sender was too slow.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// All bodies together are at their limit.
    #[error("too many bytes are in flight")]
    Overloaded,
    /// The body had waited longest when another one needed its room, or its connection.
    #[error("the body was not complete when its room was needed for others")]
    Displaced,
    /// A request of HTTP/1.1 that does not say which host it is for (RFC 9112 section 3.2).
    #[error("there is no Host header, which HTTP/1.1 requires")]
    HostMissing,
}

impl From<Full> for Unreadable {
    fn from(full: Full) -> Self {
        match full {
            Full::Exhausted => Self::Overloaded,
            Full::Displaced => Self::Displaced,
        }
    }
}

/// Whose body is read, as far as that is known before it is verified.
#[derive(Debug, Clone, Copy)]
pub struct BodySender<'s> {
    /// The connection that it comes on.
    pub connection: &'s Connection,
    /// The client's address.
    pub address: Option<IpAddr>,
}

/// Reads the body of a request that is no sender's.
///
/// # Errors
/// [`Unreadable`] for what cannot be read within the limits.
pub async fn plain(request: http::Request<Incoming>, limits: &Limits) -> Result<Bytes, Unreadable> {
    let Announced { length, coding } = announced(request.headers(), &[], limits)?;
    if coding.is_some() {
        return Err(Unsupported.into());
    }
    within(request.into_body(), length, limits, None).await.map(|(body, _reserved)| body)
}

/// Reads a body of this length, where that is known; of a stranger it may have to give way to others.
pub(super) async fn within(
    body: Incoming,
    length: Option<usize>,
    limits: &Limits,
    sender: Option<BodySender<'_>>,
) -> Result<(Bytes, Reserved), Unreadable> {
    // Bytes count as they come: what is only announced takes no room from others.
    let mut reserved = Reserved::new(&limits.budget);
    let body = tokio::time::timeout(limits.body_timeout, collect(body, length, &mut reserved, limits, sender))
        .await
        .map_err(|_elapsed| Unreadable::TimedOut)??;
    reserved.complete()?;
    Ok((body, reserved))
}

/// What the head of a request says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Its bytes as sent, where that is said.
    pub length: Option<usize>,
    /// What it is compressed with.
    pub coding: Option<Coding>,
}

/// Judges the head of a request.
///
/// # Errors
/// [`Unreadable`] for what would be read in two ways, cannot be read, or is too large.
pub fn announced(headers: &HeaderMap, single: &[HeaderName], limits: &Limits) -> Result<Announced, Unreadable> {
    // Fewer names than values: only then is there anything to look for.
    let repeated = headers.keys_len() < headers.len();
    let twice = |name: &HeaderName| repeated && headers.get_all(name).iter().nth(1).is_some();
    if single.iter().any(twice) || twice(&header::HOST) || twice(&header::CONTENT_TYPE) {
        return Err(Unreadable::HeaderRepeated);
    }
    let coding = Coding::of(headers)?;
    let mut transfer = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(transferred) = transfer.next() {
        // Anything else than `chunked` alone would be read in two ways, or not at all (RFC 9112 section 6.1).
        let chunked = transferred.as_bytes().eq_ignore_ascii_case(b"chunked") && transfer.next().is_none();
        return if chunked && !headers.contains_key(header::CONTENT_LENGTH) {
            Ok(Announced { length: None, coding })
        } else {
            Err(Unreadable::Framing)
        };
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) if length > limits.max_body => Err(Unreadable::TooLarge),
        _ => Ok(Announced { length, coding }),
    }
}

async fn collect(
    mut body: Incoming,
    length: Option<usize>,
    reserved: &mut Reserved,
    limits: &Limits,
    sender: Option<BodySender<'_>>,
) -> Result<Bytes, Unreadable> {
    let mut whole = BytesMut::new();
    let mut first = Bytes::new();
    loop {
        let next = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending => {
                let closed = sender.is_some_and(|sender| sender.connection.verdict().is_some());
                if closed || reserved.is_displaced() {
                    return Poll::Ready(Err(Unreadable::Displaced));
                }
                reserved.wait(sender.and_then(|sender| sender.address), cx.waker())?;
                Poll::Pending
            }
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
        });
        let Some(frame) = next.await? else { break };
        // Trailers are read and dropped: nothing of them is signed.
        let Ok(data) = frame.map_err(|_broken| Unreadable::Incomplete)?.into_data() else { continue };
        let so_far = first.len() + whole.len() + data.len();
        if so_far > limits.max_body {
            return Err(Unreadable::TooLarge);
        }
        reserved.grow(data.len())?;
        if first.is_empty() && whole.is_empty() {
            // A body that arrived in one piece is taken as it is, without a copy.
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(length.unwrap_or(so_far * 2).min(MAX_AHEAD));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}
