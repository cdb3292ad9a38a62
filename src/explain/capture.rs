//! Reads a captured request: as it went over the wire, or as tools export it.

use std::collections::HashMap;

use base64::Engine as _;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::header;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::time::Format;
use crate::time::Moment;

/// Most headers of a captured request.
const MAX_HEADERS: usize = 256;

/// A request that somebody captured.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    /// The whole address, where the capture has it or a `Host`.
    pub address: Option<String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte as far as the capture has kept it.
    pub body: Bytes,
    /// When it was sent, where the capture says so.
    pub at: Option<Moment>,
    /// What the reader should know of the capture itself, a sentence each.
    pub notes: Vec<String>,
}

impl Capture {
    /// Reads raw HTTP/1 text, or JSON: an object with `method`, `url`, `headers` and `body` or `body_base64`, an HTTP
    /// archive (HAR), what `doorward sign --json` prints, and the exports of common request inspectors and of AWS Lambda.
    ///
    /// # Errors
    /// What is wrong with it, and what it should look like.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match bytes.trim_ascii_start().first() {
            None => Err("is empty".to_owned()),
            Some(b'{' | b'[') => exported(bytes),
            Some(_) => raw(bytes.trim_ascii_start()),
        }
    }

    fn new(method: &str, url: &str, headers: HeaderMap, body: Vec<u8>) -> Result<Self, String> {
        let method = method.parse().map_err(|_bad| format!("has a method that is none: {method:?}"))?;
        // A query may have a secret in it.
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
        Ok(Self { method, target, address, headers, body: body.into(), at: None, notes: Vec::new() })
    }
}

const NO_REQUEST: &str = "is neither JSON nor an HTTP request, which begins with a line such as POST /webhooks HTTP/1.1, then \
                          headers, an empty line and the body";

/// A request as it goes over the wire (RFC 9112); lines may end with a line feed alone, as editors leave them.
fn raw(bytes: &[u8]) -> Result<Capture, String> {
    let bytes = version_1(bytes);
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(&bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if request.path.is_some() => {
            return Err("ends before the empty line that stands between headers and body".to_owned());
        }
        Ok(httparse::Status::Partial) => return Err(NO_REQUEST.to_owned()),
        Err(error) => return Err(format!("{NO_REQUEST}: {error}")),
    };
    let mut map = HeaderMap::new();
    for header in request.headers.iter() {
        add(&mut map, header.name, header.value)?;
    }
    let rest = bytes.get(length..).unwrap_or_default().to_vec();
    let (body, note) = framed(&map, rest);
    let mut capture = Capture::new(request.method.unwrap_or_default(), request.path.unwrap_or_default(), map, body)?;
    capture.notes.extend(note);
    Ok(capture)
}

/// The same with the version that the parser knows: captures of HTTP/2 are written in the form of HTTP/1.
fn version_1(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(end);
    let text = String::from_utf8_lossy(line);
    let line = text.trim_end();
    let line = match line.rsplit_once(" HTTP/") {
        Some((before, _)) => format!("{before} HTTP/1.1"),
        // A browser's "copy as text" leaves the version out.
        None if line.split(' ').count() == 2 => format!("{line} HTTP/1.1"),
        None => line.to_owned(),
    };
    [line.as_bytes(), rest].concat()
}

/// The body out of what follows the head, and what is odd about it.
fn framed(headers: &HeaderMap, rest: Vec<u8>) -> (Vec<u8>, Option<String>) {
    let chunked = headers.get(header::TRANSFER_ENCODING).is_some_and(|coding| coding == "chunked");
    if chunked && let Some(body) = unchunked(&rest) {
        return (body, Some("its chunks were joined".to_owned()));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) if rest.len() > length => {
            let note = format!(
                "the file has {} bytes after the {length} that Content-Length counts; they are left out",
                rest.len() - length
            );
            (rest.get(..length).unwrap_or_default().to_vec(), Some(note))
        }
        Some(length) if rest.len() < length => {
            let note = format!(
                "Content-Length counts {length} bytes, and the file has {} of the body: the capture has lost some, such as \
                 the carriage returns of its lines",
                rest.len()
            );
            (rest, Some(note))
        }
        _ => (rest, None),
    }
}

/// A body without its chunked framing (RFC 9112 section 7.1); `None` when it has none.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((head, size)) = httparse::parse_chunk_size(rest).ok()? else { return None };
        let size = usize::try_from(size).ok()?;
        if size == 0 {
            return Some(body);
        }
        let end = head.checked_add(size)?;
        body.extend_from_slice(rest.get(head..end)?);
        let after = rest.get(end..)?;
        rest = after.strip_prefix(b"\r\n").or_else(|| after.strip_prefix(b"\n"))?;
    }
}

fn add(map: &mut HeaderMap, name: &str, value: &[u8]) -> Result<(), String> {
    // Pseudo-headers of HTTP/2 repeat the first line.
    if name.starts_with(':') {
        return Ok(());
    }
    let bad = || format!("has a header that is none: {name:?}");
    let name = HeaderName::try_from(name).map_err(|_bad| bad())?;
    map.append(name, HeaderValue::from_bytes(value).map_err(|_bad| bad())?);
    Ok(())
}

/// The members of a JSON object, as they are written.
type Object<'j> = HashMap<String, &'j RawValue>;

const EXPECTED: &str = "is JSON, but no captured request: an object with \"method\", \"url\", \"headers\" and \"body\" (or \
                        \"body_base64\") is, and so is an HTTP archive (HAR)";

fn exported(bytes: &[u8]) -> Result<Capture, String> {
    let text = std::str::from_utf8(bytes).map_err(|_bytes| "is not UTF-8, and no HTTP request")?;
    let whole: &RawValue =
        serde_json::from_str(text).map_err(|error| format!("is not JSON as it should be: {error}"))?;
    let (request, at, others) = archived(whole).unwrap_or_else(|| {
        let (request, others) = first_of_list(whole);
        (request, None, others)
    });
    let request = object(request).ok_or(EXPECTED)?;
    let method = text_of(&request, &["method", "httpMethod", "http_method"]).or_else(|| lambda(&request));
    let headers = headers(get(&request, &["headers"]).ok_or(EXPECTED)?)?;
    let (body, note) = body(&request)?;
    let url = url(&request);
    let mut capture = Capture::new(method.as_deref().unwrap_or("POST"), url.as_deref().unwrap_or("/"), headers, body)?;
    capture.at =
        at.or_else(|| text_of(&request, &["at", "time", "timestamp", "created_at"])).and_then(|at| moment(&at));
    if url.is_none() {
        capture.notes.push("the capture has no address".to_owned());
    }
    if others > 0 {
        capture
            .notes
            .push(format!("the capture has {} requests; this is the first of them that has a body", others + 1));
    }
    capture.notes.extend(note);
    Ok(capture)
}

/// The first request of an HTTP archive that has a body, when it was sent, and how many others there are.
fn archived(whole: &RawValue) -> Option<(&RawValue, Option<String>, usize)> {
    let log = object(get(&object(whole)?, &["log"])?)?;
    let entries: Vec<&RawValue> = read(get(&log, &["entries"])?)?;
    let entries = entries.into_iter().filter_map(object);
    let entries: Vec<Object<'_>> = entries.filter(|entry| entry.contains_key("request")).collect();
    let posted = |entry: &&Object<'_>| {
        get(entry, &["request"]).and_then(object).is_some_and(|request| request.contains_key("postData"))
    };
    let entry = entries.iter().find(posted).or_else(|| entries.first())?;
    Some((get(entry, &["request"])?, text_of(entry, &["startedDateTime"]), entries.len() - 1))
}

/// Exports of several requests: the first that has a body, and how many others there are.
fn first_of_list(whole: &RawValue) -> (&RawValue, usize) {
    let inside = object(whole).filter(|whole| !whole.contains_key("headers"));
    let inside = inside.and_then(|whole| get(&whole, &["data", "requests", "request"])).unwrap_or(whole);
    let Some(list) = read::<Vec<&RawValue>>(inside) else { return (inside, 0) };
    let posted = |request: &&&RawValue| {
        object(request).is_some_and(|request| body(&request).is_ok_and(|(body, _)| !body.is_empty()))
    };
    let first = list.iter().find(posted).or_else(|| list.first());
    first.map_or((inside, 0), |first| (*first, list.len() - 1))
}

/// The method in the form of Lambda function URLs and HTTP APIs.
fn lambda(request: &Object<'_>) -> Option<String> {
    text_of(&object(get(&object(get(request, &["requestContext"])?)?, &["http"])?)?, &["method"])
}

fn url(request: &Object<'_>) -> Option<String> {
    let url = text_of(request, &["url", "uri", "target", "rawPath", "path"]).unwrap_or_else(|| "/".to_owned());
    let query = text_of(request, &["query", "rawQueryString", "query_string"]).filter(|query| !query.is_empty());
    let known = ["url", "uri", "target", "rawPath", "path"].iter().any(|name| request.contains_key(*name));
    match query {
        Some(query) if !url.contains('?') => Some(format!("{url}?{}", query.trim_start_matches('?'))),
        _ => known.then_some(url),
    }
}

/// Headers as an object of texts or lists, as pairs, or as objects of `name` and `value`.
fn headers(said: &RawValue) -> Result<HeaderMap, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Header {
        Pair(String, String),
        Named { name: String, value: String },
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Values {
        One(String),
        Several(Vec<String>),
        Number(serde_json::Number),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Headers {
        List(Vec<Header>),
        Map(HashMap<String, Values>),
    }
    let headers: Headers = read(said).ok_or(
        "has headers that are neither an object such as { \"x-signature\": \"…\" } nor a list of names and values",
    )?;
    let mut map = HeaderMap::new();
    let mut put = |name: &str, value: &str| add(&mut map, name, &latin(value));
    match headers {
        Headers::List(list) => {
            for header in &list {
                let (Header::Pair(name, value) | Header::Named { name, value }) = header;
                put(name, value)?;
            }
        }
        Headers::Map(named) => {
            for (name, values) in &named {
                match values {
                    Values::One(value) => put(name, value)?,
                    Values::Several(values) => values.iter().try_for_each(|value| put(name, value))?,
                    Values::Number(number) => put(name, &number.to_string())?,
                }
            }
        }
    }
    Ok(map)
}

/// The bytes that a header had before they were text: ISO 8859-1 where that is possible.
fn latin(value: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = value.chars().map(|character| u8::try_from(character).ok()).collect();
    bytes.unwrap_or_else(|| value.as_bytes().to_vec())
}

/// The body, and what is odd about it.
fn body(request: &Object<'_>) -> Result<(Vec<u8>, Option<String>), String> {
    let decode = |text: &str| {
        base64::engine::general_purpose::STANDARD
            .decode(text.trim_ascii())
            .map_err(|_bad| "has a body that is said to be base64, and is not".to_owned())
    };
    if let Some(text) = text_of(request, &["body_base64", "bodyBase64", "rawBodyBase64", "base64"]) {
        return Ok((decode(&text)?, None));
    }
    let posted = get(request, &["postData"]).and_then(object).unwrap_or_default();
    let said = get(request, &["body", "rawBody", "raw_body", "content", "data"]).or_else(|| get(&posted, &["text"]));
    let encoded = get(request, &["isBase64Encoded"]).is_some_and(|yes| yes.get() == "true")
        || text_of(&posted, &["encoding"]).is_some_and(|encoding| encoding == "base64");
    let Some(said) = said.filter(|said| said.get() != "null") else {
        return Ok((Vec::new(), Some("the capture has no body".to_owned())));
    };
    match read::<String>(said) {
        Some(text) if encoded => Ok((decode(&text)?, None)),
        Some(text) => Ok((text.into_bytes(), None)),
        None => {
            let note =
                "the body stands in the capture as a JSON value and not as text: how its bytes were written is lost";
            Ok((said.get().as_bytes().to_vec(), Some(note.to_owned())))
        }
    }
}

/// A time as exports write it: RFC 3339, or Unix seconds or milliseconds.
fn moment(text: &str) -> Option<Moment> {
    let number = if text.len() > 11 { Format::UnixMs } else { Format::UnixFloat };
    Format::Rfc3339.parse(text).or_else(|| number.parse(text))
}

fn read<'j, T: Deserialize<'j>>(value: &'j RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
}

fn object(value: &RawValue) -> Option<Object<'_>> {
    read(value)
}

fn get<'j>(object: &Object<'j>, names: &[&str]) -> Option<&'j RawValue> {
    names.iter().find_map(|name| object.get(*name).copied())
}

/// A text, or a number as text.
fn text_of(object: &Object<'_>, names: &[&str]) -> Option<String> {
    let value = get(object, names)?;
    read(value).or_else(|| read::<serde_json::Number>(value).map(|number| number.to_string()))
}
