//! A request with its complete body, before it is verified: read from an admitted client, or a recorded one.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::Version;
use http::header;
use hyper::body::Incoming;

use crate::base::time::Moment;
use crate::http::admission::Connection;
use crate::http::admission::Reserved;
use crate::http::body;
use crate::http::body::BodyHead;
use crate::http::body::BodySender;
use crate::http::body::Limits;
use crate::http::body::Unreadable;
use crate::http::content_coding::Coding;
use crate::http::decompression;
use crate::http::http2_head;
use crate::http::origin::Admitted;
use crate::http::origin::Client;
use crate::profile::ContentEncoding;

/// A request with its complete body, not verified yet. Boxed, because it is moved often.
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
    /// The decompressed body, once there is one.
    plain: Option<Bytes>,
    /// Which of the two counts as signed.
    signed: ContentEncoding,
    client: Option<Client>,
    received_at: Moment,
    reserved: Option<Reserved>,
}

impl Inbound {
    /// Reads a request of an admitted client on this connection. A compressed body is not decompressed yet. `single`
    /// names the headers that may occur only once, because the source's profile reads them.
    ///
    /// # Errors
    /// [`Unreadable`] when the head or the body is refused.
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
        // Of HTTP/1.1, the one head of a connection is limited by the limit of connections.
        let mut head_bytes = 0;
        if head.version == Version::HTTP_2 {
            http2_head::normalize(&head.uri, &mut head.headers)?;
            head_bytes = http2_head::size(&head.uri, &head.headers);
        } else {
            override_host(&head.uri, &mut head.headers)?;
        }
        if head.version >= Version::HTTP_11 && !head.headers.contains_key(header::HOST) {
            return Err(Unreadable::HostMissing);
        }
        drop_underscored(&mut head.headers);
        let BodyHead { length, coding } = body::check_head(&head.headers, single, limits)?;
        let sender = BodySender { connection, address: client.address(), head: head_bytes };
        let (sent, reserved) = body::read_within(body, length, limits, Some(sender)).await?;
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

    /// A recorded request, to verify again. It has no client, and its head is not checked.
    pub fn recorded(method: Method, target: Uri, headers: HeaderMap, body: Bytes, received_at: Moment) -> Self {
        let coding = Coding::from_headers(&headers).ok().flatten();
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

    /// The same request with its decompressed body.
    #[must_use]
    pub fn with_decompressed(mut self, plain: Bytes) -> Self {
        self.0.plain = Some(plain);
        self
    }

    /// The method as sent.
    pub fn method(&self) -> &Method {
        &self.0.method
    }

    /// The path and the query of the request's target as sent, without scheme and host.
    pub fn target(&self) -> &str {
        path_and_query(&self.0.target)
    }

    /// The query of the request's target as sent, without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.0.target.query()
    }

    /// The headers as sent, without those with `_` in their names. A recorded request keeps those, but no profile reads
    /// them.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The body as sent, which is the one that is delivered.
    pub fn sent(&self) -> &Bytes {
        &self.0.sent
    }

    /// The decompressed body, from which values are read. The body as sent when it is not compressed.
    pub fn body(&self) -> &Bytes {
        self.0.plain.as_ref().unwrap_or(&self.0.sent)
    }

    /// The body that counts as signed: as sent, or decompressed.
    pub fn signed(&self) -> &Bytes {
        match self.0.signed {
            ContentEncoding::SignedPlain => self.body(),
            ContentEncoding::SignedAsSent => self.sent(),
        }
    }

    /// Whether the body was compressed and has been decompressed, so that either form may be the signed one.
    pub fn is_compressed(&self) -> bool {
        self.0.plain.is_some()
    }

    /// Whether the body is compressed and not decompressed yet.
    pub fn needs_decompression(&self) -> bool {
        self.0.coding.is_some() && self.0.plain.is_none()
    }

    /// Decompresses the body. The decompressed bytes count against the budget, too.
    ///
    /// # Errors
    /// [`Unreadable`] when the result is too large, the body is not valid in its coding, or too many bodies wait.
    pub async fn decompress(&mut self, limits: &Limits) -> Result<(), Unreadable> {
        if let Some(coding) = self.0.coding {
            self.0.plain = Some(decompression::decompress(&self.0.sent, coding, &mut self.0.reserved, limits).await?);
        }
        Ok(())
    }

    /// Which form of the body counts as signed.
    pub fn signed_as(&self) -> ContentEncoding {
        self.0.signed
    }

    /// Sets which form of the body counts as signed. Default: decompressed.
    pub fn set_signed_as(&mut self, signed: ContentEncoding) {
        self.0.signed = signed;
    }

    /// The admitted client; `None` in a recorded request.
    pub fn client(&self) -> Option<&Client> {
        self.0.client.as_ref()
    }

    /// When its head was complete.
    pub fn received_at(&self) -> Moment {
        self.0.received_at
    }

    /// Takes the reservation of its body, for the caller to hold until the answer; `None` when it was taken before.
    pub fn take_reserved(&mut self) -> Option<Reserved> {
        self.0.reserved.take()
    }

    /// Takes the request apart. Releases the reservation of its body, unless that was taken.
    pub fn into_parts(self) -> Parts {
        let Request { method, target, headers, sent, client, received_at, .. } = *self.0;
        Parts { method, target, headers, body: sent, client, received_at }
    }
}

/// Makes `Host` that of a target in absolute form, which overrides it (RFC 9112 section 3.2.2). One that is missing, or
/// there twice, stays so and is refused.
fn override_host(target: &Uri, headers: &mut HeaderMap) -> Result<(), Unreadable> {
    let Some(authority) = target.authority().map(http::uri::Authority::as_str) else { return Ok(()) };
    let host = HeaderValue::from_str(authority).ok().filter(|_| !authority.contains('@'));
    let host = host.ok_or(Unreadable::HostMismatch)?;
    if headers.get_all(header::HOST).iter().count() == 1 {
        headers.insert(header::HOST, host);
    }
    Ok(())
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
    /// When its head was complete.
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

/// Drops headers whose names have `_`: applications that turn names into variables (CGI, WSGI) cannot tell
/// `X_Forwarded_For` from `X-Forwarded-For`. nginx does the same.
fn drop_underscored(headers: &mut HeaderMap) {
    let dropped = |name: &HeaderName| name.as_str().as_bytes().contains(&b'_');
    if !headers.keys().any(dropped) {
        return;
    }
    // `HeaderMap::remove` would change the order of the other headers.
    let mut remaining = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| !dropped(name)) {
        remaining.append(name.clone(), value.clone());
    }
    *headers = remaining;
}
