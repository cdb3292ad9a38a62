//! What the targets share.

pub mod parsers;
pub mod provider;

use doorward::base::time::Moment;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Uri;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use tokio::runtime::Runtime;

/// A request as text: the request line, headers, an empty line and the body.
#[derive(Debug, Clone)]
pub struct Request<'b> {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// Everything after the empty line.
    pub body: &'b [u8],
}

impl<'b> Request<'b> {
    /// Reads it; `None` when there could be no such request.
    pub fn parse(bytes: &'b [u8]) -> Option<Self> {
        let (line, mut rest) = cut(bytes, b'\n')?;
        let (method, target) = cut(line, b' ')?;
        let mut headers = HeaderMap::new();
        loop {
            let (header, after) = cut(rest, b'\n')?;
            rest = after;
            if header.is_empty() {
                break;
            }
            let (name, value) = cut(header, b':')?;
            let value = HeaderValue::from_bytes(value.trim_ascii()).ok()?;
            headers.append(HeaderName::from_bytes(name).ok()?, value);
        }
        let target = Uri::try_from(target).ok()?;
        Some(Self { method: Method::from_bytes(method).ok()?, target, headers, body: rest })
    }
}

/// What stands before and after the first of these bytes.
pub fn cut(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// A JSON document in which nothing that is there twice got lost.
#[derive(Debug, Clone)]
pub enum Json {
    /// `null`
    Null,
    /// A string.
    Text(String),
    /// A number without fraction and exponent that fits into 64 bits, as it is written.
    Integer(String),
    /// Another number, not as it is written.
    Float(String),
    /// `true` or `false`.
    Bool,
    /// An array.
    Array(Vec<Self>),
    /// An object.
    Object(Vec<(String, Self)>),
}

/// An object has a name twice.
#[derive(Debug, Clone, Copy)]
pub struct Twice;

impl Json {
    /// The one member of this name.
    pub fn member(&self, name: &str) -> Result<Option<&Self>, Twice> {
        let Self::Object(members) = self else { return Ok(None) };
        let mut found = members.iter().filter(|(known, _)| known == name);
        let first = found.next();
        if found.next().is_some() { Err(Twice) } else { Ok(first.map(|(_, value)| value)) }
    }

    /// Whether there is a number in it of which it is not known how it is written.
    pub fn has_floats(&self) -> bool {
        match self {
            Self::Array(items) => items.iter().any(Self::has_floats),
            Self::Object(members) => members.iter().any(|(_, value)| value.has_floats()),
            Self::Float(_) => true,
            Self::Null | Self::Text(_) | Self::Integer(_) | Self::Bool => false,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Float(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Integer(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Integer(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

/// When everything happens.
pub fn now() -> Moment {
    Moment::from_unix(1_735_812_000)
}

/// Runs a future to its end.
pub fn wait<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
