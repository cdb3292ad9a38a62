//! Parses a captured request: raw HTTP, the output of curl, the text of GitHub's delivery page, or a JSON export.

mod curl;
mod export;
mod github_page;
mod wire;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::header;

use crate::base::json::BYTE_ORDER_MARK;
use crate::base::time::Moment;

/// A captured request.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    /// The whole URL, if the capture has it or a `Host`.
    pub address: Option<String>,
    /// Whether the capture has the path.
    pub has_address: bool,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte as far as the capture preserves it.
    pub body: Bytes,
    /// Whether the request had a body that the capture lacks.
    pub lacks_body: bool,
    /// When it was sent, if the capture has it.
    pub at: Option<Moment>,
    /// Notes about the capture for the reader, one sentence each.
    pub notes: Vec<String>,
}

impl Capture {
    /// Reads raw HTTP/1 text, the output of `curl -v`, `--trace` and `--trace-ascii`, the text of GitHub's page of a
    /// delivery, or JSON: an object with `method`, `url`, `headers` and `body` or `body_base64`, an HTTP archive (HAR),
    /// the output of `doorward sign --json`, and exports of common request inspectors and of AWS Lambda.
    ///
    /// # Errors
    /// What is wrong with it, and what it should look like.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        match bytes.trim_ascii_start().first() {
            None => Err("is empty".to_owned()),
            Some(b'{' | b'[') => export::read(bytes),
            Some(_) => {
                let bytes = bytes.trim_ascii_start();
                curl::read(bytes).or_else(|| github_page::read(bytes)).unwrap_or_else(|| wire::raw(bytes))
            }
        }
    }

    fn new(method: &str, url: &str, headers: HeaderMap, body: Vec<u8>) -> Result<Self, String> {
        let method = method.parse().map_err(|_bad| format!("has a method that is none: {method:?}"))?;
        // A query may contain a secret.
        let shown = url.split(['?', '#']).next().unwrap_or_default();
        let bad = |_bad| format!("has an address that is none: {shown:?}");
        let uri: Uri = url.split('#').next().unwrap_or(url).parse().map_err(bad)?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let address = match (uri.scheme(), host) {
            (Some(_), _) => Some(uri.to_string()),
            (None, Some(host)) => {
                let scheme = headers.get("x-forwarded-proto").and_then(|scheme| scheme.to_str().ok());
                Some(format!("{}://{host}{target}", scheme.unwrap_or("https")))
            }
            (None, None) => None,
        };
        let target = target.parse().map_err(bad)?;
        Ok(Self {
            method,
            target,
            address,
            has_address: true,
            headers,
            body: body.into(),
            lacks_body: false,
            at: None,
            notes: Vec::new(),
        })
    }
}

fn add(map: &mut HeaderMap, name: &str, value: &[u8]) -> Result<(), String> {
    // Pseudo-headers of HTTP/2 repeat the request line.
    if name.starts_with(':') {
        return Ok(());
    }
    let bad = || format!("has a header that is none: {name:?}");
    let name = HeaderName::try_from(name).map_err(|_bad| bad())?;
    map.append(name, HeaderValue::from_bytes(value).map_err(|_bad| bad())?);
    Ok(())
}
