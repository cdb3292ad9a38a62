//! Parses requests that tools export as JSON: HTTP archives (HAR), AWS Lambda events, request inspectors.

use std::collections::HashMap;

use base64::Engine as _;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Capture;
use super::add;
use super::wire;
use crate::base::time::Format;
use crate::base::time::Moment;
use crate::explain::json_styles::Members;

/// The members of a JSON object, with unparsed values.
type Object<'j> = HashMap<String, &'j RawValue>;

const EXPECTED: &str = "is JSON, but no captured request: an object with \"method\", \"url\", \"headers\" and \"body\" (or \
                        \"body_base64\") is, and so is an HTTP archive (HAR)";

/// Members of exports that contain the request, or a list of requests.
const WRAPPERS: [&str; 6] = ["requests", "request", "data", "event", "trigger", "items"];
/// Members that contain the headers.
const HEADERS: [&str; 2] = ["multiValueHeaders", "headers"];
/// The deepest level of a request in an export.
const MAX_DEPTH: usize = 4;

pub(super) fn read(bytes: &[u8]) -> Result<Capture, String> {
    let text = std::str::from_utf8(bytes).map_err(|_bytes| "is not UTF-8, and no HTTP request")?;
    let whole: &RawValue =
        serde_json::from_str(text).map_err(|error| format!("is not JSON as it should be: {error}"))?;
    let found = find_in_har(whole).unwrap_or_else(|| find(whole));
    let request = object(found.request).ok_or(EXPECTED)?;
    let mut capture = match text_of(&request, &["raw"]) {
        Some(raw) => wire::raw(&decoded(&raw)?)?,
        None => from_parts(&request, found.url)?,
    };
    let at = text_of(&request, &TIMES).or(found.at);
    capture.at = at.and_then(|at| moment(&at));
    if found.others > 0 {
        capture
            .notes
            .push(format!("the capture has {} requests; this is the first of them that has a body", found.others + 1));
    }
    Ok(capture)
}

/// A request with members for its parts; `outer_url` is the URL of the object around it.
fn from_parts(request: &Object<'_>, outer_url: Option<String>) -> Result<Capture, String> {
    let method = text_of(request, &["method", "httpMethod", "http_method"]).or_else(|| lambda_method(request));
    let non_null = |name: &&str| request.get(*name).filter(|value| value.get() != "null").copied();
    let headers = match HEADERS.iter().find_map(non_null) {
        Some(value) => headers(value)?,
        None => flat_headers(request).ok_or(EXPECTED)?,
    };
    let (body, note) = body(request)?;
    let url = url(request).or(outer_url);
    let mut capture = Capture::new(method.as_deref().unwrap_or("POST"), url.as_deref().unwrap_or("/"), headers, body)?;
    capture.has_address = url.is_some();
    if url.is_none() {
        capture.notes.push("the capture has no address".to_owned());
    }
    capture.notes.extend(note);
    Ok(capture)
}

/// A request in an export, with the members of the objects around it.
struct Found<'j> {
    request: &'j RawValue,
    at: Option<String>,
    url: Option<String>,
    /// The number of other requests.
    others: usize,
}

/// Members that contain the time of the request.
const TIMES: [&str; 7] = ["at", "time", "timestamp", "created_at", "delivered_at", "start", "startedDateTime"];

/// The first request of an HTTP archive that has a body.
fn find_in_har(whole: &RawValue) -> Option<Found<'_>> {
    let log = object(get(&object(whole)?, &["log"])?)?;
    let entries: Vec<&RawValue> = parse(get(&log, &["entries"])?)?;
    let entries = entries.into_iter().filter_map(object);
    let entries: Vec<Object<'_>> = entries.filter(|entry| entry.contains_key("request")).collect();
    let has_body = |entry: &&Object<'_>| {
        get(entry, &["request"]).and_then(object).is_some_and(|request| request.contains_key("postData"))
    };
    let entry = entries.iter().find(has_body).or_else(|| entries.first())?;
    let (request, at) = (get(entry, &["request"])?, text_of(entry, &TIMES));
    Some(Found { request, at, url: None, others: entries.len() - 1 })
}

/// The request in an export; of several, the first that has a body.
fn find(whole: &RawValue) -> Found<'_> {
    let mut found = Found { request: whole, at: None, url: None, others: 0 };
    for _level in 0..MAX_DEPTH {
        if let Some(list) = parse::<Vec<&RawValue>>(found.request) {
            let with_body = |request: &&&RawValue| has_body(request);
            let Some(first) = list.iter().find(with_body).or_else(|| list.first()) else { break };
            (found.request, found.others) = (*first, list.len() - 1);
        }
        let Some(members) = object(found.request).filter(|members| !is_request(members)) else { break };
        let Some(inner) = inner(&members) else { break };
        found.at = text_of(&members, &TIMES).or(found.at);
        found.url = text_of(&members, &["url"]).or(found.url);
        found.request = inner;
    }
    found
}

fn is_request(members: &Object<'_>) -> bool {
    HEADERS.iter().chain(&["raw"]).any(|name| members.contains_key(*name))
}

/// The object or list in one of the [`WRAPPERS`].
fn inner<'j>(members: &Object<'j>) -> Option<&'j RawValue> {
    let is_composite = |value: &&&RawValue| value.get().starts_with(['{', '[']);
    WRAPPERS.iter().find_map(|name| members.get(*name).filter(is_composite).copied())
}

fn has_body(request: &RawValue) -> bool {
    let found = unwrap_request(request);
    found.is_some_and(|request| match text_of(&request, &["raw"]) {
        Some(raw) => decoded(&raw).and_then(|raw| wire::raw(&raw)).is_ok_and(|capture| !capture.body.is_empty()),
        None => body(&request).is_ok_and(|(body, _)| !body.is_empty()),
    })
}

/// The request in one entry of a list.
fn unwrap_request(entry: &RawValue) -> Option<Object<'_>> {
    let mut members = object(entry)?;
    for _level in 0..MAX_DEPTH {
        if is_request(&members) {
            break;
        }
        let Some(inner) = inner(&members).and_then(object) else { break };
        members = inner;
    }
    Some(members)
}

/// The method in events of Lambda function URLs and HTTP APIs.
fn lambda_method(request: &Object<'_>) -> Option<String> {
    text_of(&object(get(&object(get(request, &["requestContext"])?)?, &["http"])?)?, &["method"])
}

/// Path and query, or the whole URL if it is known.
fn url(request: &Object<'_>) -> Option<String> {
    const NAMES: [&str; 5] = ["url", "uri", "target", "rawPath", "path"];
    let url = text_of(request, &NAMES);
    let query = text_of(request, &["query", "rawQueryString", "query_string"]).or_else(|| parameters(request));
    match query.filter(|query| !query.is_empty()) {
        Some(query) if url.as_ref().is_none_or(|url| !url.contains('?')) => {
            Some(format!("{}?{}", url.as_deref().unwrap_or("/"), query.trim_start_matches('?')))
        }
        _ => url,
    }
}

/// The query of a Lambda event, from its parameters in their order. A load balancer leaves them percent-encoded; an API
/// gateway has decoded them.
fn parameters(request: &Object<'_>) -> Option<String> {
    let Members(value) = parse(
        get(request, &["multiValueQueryStringParameters", "queryStringParameters"]).filter(|it| it.get() != "null")?,
    )?;
    let context = get(request, &["requestContext"]).and_then(object).unwrap_or_default();
    let written = |text: &str| match context.contains_key("elb") {
        true => text.to_owned(),
        false => form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20"),
    };
    let mut pairs = Vec::new();
    for (name, values) in value {
        let values = parse::<Vec<String>>(values).or_else(|| Some(vec![parse(values)?]))?;
        pairs.extend(values.iter().map(|value| format!("{}={}", written(&name), written(value))));
    }
    Some(pairs.join("&"))
}

/// The headers of an event of smee.io, which are members of the event like `body`, `query` and `timestamp`.
fn flat_headers(request: &Object<'_>) -> Option<HeaderMap> {
    let has_headers = ["host", "user-agent", "content-type"].iter().any(|name| request.contains_key(*name));
    if !has_headers || !request.contains_key("body") {
        return None;
    }
    let mut map = HeaderMap::new();
    for (name, value) in request.iter().filter(|(name, _)| !["body", "query", "timestamp"].contains(&name.as_str())) {
        if let Some(value) = parse::<String>(value) {
            add(&mut map, name, &header_bytes(&value)).ok()?;
        }
    }
    Some(map)
}

/// Headers as an object of texts or lists, as pairs, or as objects of `name` and `value`.
fn headers(value: &RawValue) -> Result<HeaderMap, String> {
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
    let headers: Headers = parse(value).ok_or(
        "has headers that are neither an object such as { \"x-signature\": \"…\" } nor a list of names and values",
    )?;
    let mut map = HeaderMap::new();
    let mut put = |name: &str, value: &str| add(&mut map, name, &header_bytes(value));
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

/// The bytes of a header that was exported as text: ISO 8859-1 if possible, UTF-8 otherwise.
fn header_bytes(value: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = value.chars().map(|character| u8::try_from(character).ok()).collect();
    bytes.unwrap_or_else(|| value.as_bytes().to_vec())
}

/// Members that contain the body; those that contain it as text are first.
const BODIES: [&str; 8] = ["rawBody", "raw_body", "bodyRaw", "body_raw", "body", "content", "payload", "data"];

/// The body, and a note for the reader.
fn body(request: &Object<'_>) -> Result<(Vec<u8>, Option<String>), String> {
    if let Some(text) = text_of(request, &["body_base64", "bodyBase64", "rawBodyBase64", "base64"]) {
        return Ok((decoded(&text)?, None));
    }
    let posted = get(request, &["postData"]).and_then(object).unwrap_or_default();
    let value = get(request, &BODIES).or_else(|| get(&posted, &["text"]));
    let encoded = get(request, &["isBase64Encoded"]).is_some_and(|yes| yes.get() == "true")
        || text_of(&posted, &["encoding"]).is_some_and(|encoding| encoding == "base64");
    let Some(value) = value.filter(|value| value.get() != "null") else {
        return Ok((Vec::new(), Some("the capture has no body".to_owned())));
    };
    match parse::<String>(value) {
        Some(text) if encoded => Ok((decoded(&text)?, None)),
        Some(text) => Ok((text.into_bytes(), None)),
        None => {
            let note =
                "the body stands in the capture as a JSON value and not as text: how its bytes were written is lost";
            Ok((value.get().as_bytes().to_vec(), Some(note.to_owned())))
        }
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    base64::engine::general_purpose::STANDARD
        .decode(text.trim_ascii())
        .map_err(|_bad| "has a body that is said to be base64, and is not".to_owned())
}

/// A time as exports write it: RFC 3339, or Unix seconds or milliseconds.
fn moment(text: &str) -> Option<Moment> {
    let number = if text.len() > 11 { Format::UnixMs } else { Format::UnixFloat };
    // webhook.site writes UTC without an offset.
    let utc = || Format::Rfc3339.parse(&format!("{}Z", text.replacen(' ', "T", 1)));
    Format::Rfc3339Lenient.parse(text).or_else(|| number.parse(text)).or_else(utc)
}

fn parse<'j, T: Deserialize<'j>>(value: &'j RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
}

fn object(value: &RawValue) -> Option<Object<'_>> {
    parse(value)
}

fn get<'j>(object: &Object<'j>, names: &[&str]) -> Option<&'j RawValue> {
    names.iter().find_map(|name| object.get(*name).copied())
}

/// A text, or a number as text.
fn text_of(object: &Object<'_>, names: &[&str]) -> Option<String> {
    let value = get(object, names)?;
    parse(value).or_else(|| parse::<serde_json::Number>(value).map(|number| number.to_string()))
}
