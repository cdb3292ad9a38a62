//! Reads a request with its whole body into an [`Inbound`], which is not verified. Refuses what is malformed, over a
//! limit, or could be read in two ways.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::Uri;
use http::Version;
use http::header;
use hyper::body::Body as _;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use crate::base::time::Moment;
use crate::http::admission::Connection;
use crate::http::admission::Full;
use crate::http::admission::Reserved;
use crate::http::content_coding::Coding;
use crate::http::content_coding::Decoder;
use crate::http::content_coding::Garbled;
use crate::http::content_coding::SLICE;
use crate::http::content_coding::Unsupported;
use crate::http::origin::Admitted;
use crate::http::origin::Client;
use crate::profile::ContentEncoding;

pub use crate::http::admission::Budget;

/// Most bytes of memory that are set aside for a body before they have come.
const MAX_AHEAD: usize = 128 * 1024;

thread_local! {
    static DECOMPRESSIONS: Arc<Decompressions> = Arc::new(Decompressions { turn: Semaphore::new(1), count: AtomicUsize::new(0) });
}

/// The bodies that a worker decompresses, which anybody can ask for: one at a time, with other requests between its slices.
#[derive(Debug)]
struct Decompressions {
    turn: Semaphore,
    /// The one whose turn it is, and those that wait.
    count: AtomicUsize,
}

/// A body that is decompressed or waits for it; counted until this is dropped.
struct Counted(Arc<Decompressions>);

impl Counted {
    fn new(max: usize) -> Result<Self, Unreadable> {
        let counted = Self(DECOMPRESSIONS.with(Arc::clone));
        if counted.0.count.fetch_add(1, Relaxed) < max { Ok(counted) } else { Err(Unreadable::Overloaded) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
    }
}

/// A request with its whole body, not verified yet. Boxed, because it is moved often.
#[derive(Debug)]
pub struct Inbound(Box<Request>);

#[derive(Debug)]
struct Request {
    method: Method,
    target: Uri,
    headers: HeaderMap,
    /// The body as sent.
    sent: Bytes,
    coding: Option<Coding>,
    /// Before its compression, once it is decompressed.
    plain: Option<Bytes>,
    signed: ContentEncoding,
    client: Option<Client>,
    received_at: Moment,
    reserved: Option<Reserved>,
}

impl Inbound {
    /// A recorded request, for looking at it again; it was admitted by nobody. Nothing of its head is checked; see [`head`].
    pub fn recorded(method: Method, target: Uri, headers: HeaderMap, body: Bytes, received_at: Moment) -> Self {
        let coding = Coding::of(&headers).ok().flatten();
        Self(Box::new(Request {
            method,
            target,
            headers,
            sent: body,
            coding,
            plain: None,
            signed: ContentEncoding::SignedPlain,
            client: None,
            received_at,
            reserved: None,
        }))
    }

    /// The same with what its body was before its compression.
    #[must_use]
    pub fn compressed(mut self, plain: Bytes) -> Self {
        self.0.plain = Some(plain);
        self
    }

    /// The method as sent.
    pub fn method(&self) -> &Method {
        &self.0.method
    }

    /// The path and the query of the request's target as sent, without scheme and host where it had them.
    pub fn target(&self) -> &str {
        path_and_query(&self.0.target)
    }

    /// The query of the request's target as sent, without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.0.target.query()
    }

    /// The headers as sent, but for those with `_` in their names, which only a recorded request has: no profile reads them.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The body as sent, byte for byte: what is delivered.
    pub fn sent(&self) -> &Bytes {
        &self.0.sent
    }

    /// The body before its compression: what is read.
    pub fn body(&self) -> &Bytes {
        self.0.plain.as_ref().unwrap_or(&self.0.sent)
    }

    /// The body as it is signed: as sent, or before its compression.
    pub fn signed(&self) -> &Bytes {
        match self.0.signed {
            ContentEncoding::SignedPlain => self.body(),
            ContentEncoding::SignedAsSent => self.sent(),
        }
    }

    /// Whether the body is compressed, so that it may be signed in two ways, and decompressed.
    pub fn is_compressed(&self) -> bool {
        self.0.plain.is_some()
    }

    /// Whether the body is compressed and still has to be decompressed, before anything of it is read.
    pub fn is_packed(&self) -> bool {
        self.0.coding.is_some() && self.0.plain.is_none()
    }

    /// Decompresses the body. What it was before its compression counts like bytes that are sent.
    ///
    /// # Errors
    /// [`Unreadable`] for what is too large, or not what its coding makes, and when too many wait for it.
    pub async fn decompress(&mut self, limits: &Limits) -> Result<(), Unreadable> {
        let Some(coding) = self.0.coding else { return Ok(()) };
        let counted = Counted::new(limits.max_decompressions)?;
        // Never closed.
        let _turn = counted.0.turn.acquire().await.ok();
        let mut decoder = Decoder::new(coding, &self.0.sent)?;
        let mut plain = BytesMut::new();
        let mut slice = vec![0; SLICE];
        while let Some(next) = decoder.next(&mut slice)? {
            let length = plain.len() + next.len();
            if length > limits.max_body {
                return Err(Unreadable::TooLarge);
            }
            if let Some(reserved) = &mut self.0.reserved {
                reserved.grow(next.len())?;
            }
            plain.extend_from_slice(next);
            tokio::task::yield_now().await;
        }
        self.0.plain = Some(plain.freeze());
        Ok(())
    }

    /// In which way the body is taken for signed.
    pub fn signed_as(&self) -> ContentEncoding {
        self.0.signed
    }

    /// Takes the body for signed in this way; unless this is said, before its compression.
    pub fn take_as(&mut self, signed: ContentEncoding) {
        self.0.signed = signed;
    }

    /// The admitted client; `None` in a recorded request.
    pub fn client(&self) -> Option<&Client> {
        self.0.client.as_ref()
    }

    /// When its head had been read.
    pub fn received_at(&self) -> Moment {
        self.0.received_at
    }

    /// What its body takes of the budget, for whoever holds that until the answer; nothing when it was taken before.
    pub fn take_reserved(&mut self) -> Option<Reserved> {
        self.0.reserved.take()
    }

    /// Takes it apart. Its room in the budget is given back, unless it was taken.
    pub fn into_parts(self) -> Parts {
        let Request { method, target, headers, sent, client, received_at, .. } = *self.0;
        Parts { method, target, headers, body: sent, client, received_at }
    }
}

/// A request in parts.
#[derive(Debug)]
pub struct Parts {
    /// The method as sent.
    pub method: Method,
    target: Uri,
    /// The headers as sent.
    pub headers: HeaderMap,
    /// The body as sent, byte for byte.
    pub body: Bytes,
    /// The admitted client; `None` in a recorded request.
    pub client: Option<Client>,
    /// When its head had been read.
    pub received_at: Moment,
}

impl Parts {
    /// The path and the query of the request's target as sent.
    pub fn target(&self) -> &str {
        path_and_query(&self.target)
    }
}

fn path_and_query(target: &Uri) -> &str {
    target.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

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
pub struct Stranger<'s> {
    /// The connection that it comes on.
    pub connection: &'s Connection,
    /// The client's address.
    pub address: Option<IpAddr>,
}

/// Drops headers whose names have `_`: where a name becomes a variable, `X_Forwarded_For` would pass for
/// `X-Forwarded-For`. nginx does the same.
fn drop_underscored(headers: &mut HeaderMap) {
    let dropped = |name: &HeaderName| name.as_str().as_bytes().contains(&b'_');
    if !headers.keys().any(dropped) {
        return;
    }
    // Removing one by one would not keep the order of the others.
    let mut kept = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| !dropped(name)) {
        kept.append(name.clone(), value.clone());
    }
    *headers = kept;
}

/// Reads a request of an admitted client that came on this connection; a compressed body is not decompressed yet. `single`
/// names the headers that the source's profile reads: each may be there once.
///
/// # Errors
/// [`Unreadable`] says whose fault it is.
pub async fn read(
    request: http::Request<Incoming>,
    admitted: Admitted,
    single: &[HeaderName],
    limits: &Limits,
    connection: &Connection,
) -> Result<Inbound, Unreadable> {
    let received_at = Moment::now();
    let (mut head, body) = request.into_parts();
    let client = admitted.into_client();
    if head.version >= Version::HTTP_11 && !head.headers.contains_key(header::HOST) {
        return Err(Unreadable::HostMissing);
    }
    drop_underscored(&mut head.headers);
    let Announced { length, coding } = announced(&head.headers, single, limits)?;
    let stranger = Stranger { connection, address: client.address() };
    let (sent, reserved) = within(body, length, limits, Some(stranger)).await?;
    let client = Some(client);
    Ok(Inbound(Box::new(Request {
        method: head.method,
        target: head.uri,
        headers: head.headers,
        sent,
        coding,
        plain: None,
        signed: ContentEncoding::SignedPlain,
        client,
        received_at,
        reserved: Some(reserved),
    })))
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

async fn within(
    body: Incoming,
    length: Option<usize>,
    limits: &Limits,
    stranger: Option<Stranger<'_>>,
) -> Result<(Bytes, Reserved), Unreadable> {
    // Bytes count as they come: what is only announced takes no room from others.
    let mut reserved = Reserved::new(&limits.budget);
    let body = tokio::time::timeout(limits.body_timeout, collect(body, length, &mut reserved, limits, stranger))
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
    stranger: Option<Stranger<'_>>,
) -> Result<Bytes, Unreadable> {
    let mut whole = BytesMut::new();
    let mut first = Bytes::new();
    loop {
        let next = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending => {
                let closed = stranger.is_some_and(|stranger| stranger.connection.verdict().is_some());
                if closed || reserved.is_displaced() {
                    return Poll::Ready(Err(Unreadable::Displaced));
                }
                reserved.wait(stranger.and_then(|stranger| stranger.address), cx.waker())?;
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
