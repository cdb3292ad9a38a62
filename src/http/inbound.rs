//! A request with its whole body, before it is verified: read from an admitted client, or taken from a recording.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::Uri;
use http::Version;
use http::header;
use hyper::body::Incoming;

use crate::base::time::Moment;
use crate::http::admission::Connection;
use crate::http::admission::Reserved;
use crate::http::body;
use crate::http::body::Announced;
use crate::http::body::BodySender;
use crate::http::body::Limits;
use crate::http::body::Unreadable;
use crate::http::content_coding::Coding;
use crate::http::decompression;
use crate::http::origin::Admitted;
use crate::http::origin::Client;
use crate::profile::ContentEncoding;

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
    /// Reads a request of an admitted client that came on this connection; a compressed body is not decompressed yet.
    /// `single` names the headers that the source's profile reads: each may be there once.
    ///
    /// # Errors
    /// [`Unreadable`] says whose fault it is.
    pub async fn read(
        request: http::Request<Incoming>,
        admitted: Admitted,
        single: &[HeaderName],
        limits: &Limits,
        connection: &Connection,
    ) -> Result<Self, Unreadable> {
        let received_at = Moment::now();
        let (mut head, body) = request.into_parts();
        let client = admitted.into_client();
        if head.version >= Version::HTTP_11 && !head.headers.contains_key(header::HOST) {
            return Err(Unreadable::HostMissing);
        }
        drop_underscored(&mut head.headers);
        let Announced { length, coding } = body::announced(&head.headers, single, limits)?;
        let stranger = BodySender { connection, address: client.address() };
        let (sent, reserved) = body::within(body, length, limits, Some(stranger)).await?;
        let client = Some(client);
        Ok(Self(Box::new(Request {
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

    /// A recorded request, for looking at it again; it was admitted by nobody, and nothing of its head is checked.
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

    /// The headers as sent, but for those with `_` in their names, which only a recorded request has: no profile reads
    /// them.
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
        if let Some(coding) = self.0.coding {
            self.0.plain = Some(decompression::decompress(&self.0.sent, coding, &mut self.0.reserved, limits).await?);
        }
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
