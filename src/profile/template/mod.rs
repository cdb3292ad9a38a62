//! Templates of signed texts and other composed values, such as `{timestamp}.{body}`: their types and their parser.

mod coverage;

use http::HeaderName;
use serde::Deserialize;
use serde::Deserializer;

use super::Encoding;
use super::deserialize;
use super::hash::Hash;
use super::location::Carrier;
use super::location::Location;
use super::location::header_name;
use crate::base::json::Pointer;
use crate::base::problem::closest;

/// A template: a sequence of parts, each of which may be optional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// A sequence of pieces. If one of its optional values is absent, the whole part is omitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part(Vec<Piece>);

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A fixed text.
    Literal(String),
    /// The body as received.
    Body,
    /// The text of the timestamp as received.
    Timestamp,
    /// The request's method.
    Method,
    /// The public address of the endpoint, from the source's parameter `url`.
    Url,
    /// The same with the other form of its port: added where it has none, removed where it has the scheme's default.
    UrlWithPort,
    /// The request's query with its question mark, as received; empty when there is none.
    Query,
    /// The fields of a form sorted by name, each name followed by its value. Of a repeated name, each distinct value
    /// once, sorted.
    SortedForm,
    /// A parameter of the source.
    Param(String),
    /// The value at a location; empty when absent.
    Location(Location),
    /// The same, but the whole part is omitted when the value is absent.
    Optional(Location),
    /// Another entry of the list that has the signature.
    Item(String),
    /// The result of a function of other pieces.
    Call(Function, Vec<Self>),
}

/// A function in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// A hash, encoded as text.
    Digest(Hash, Encoding),
    /// An HMAC with the source's first secret, encoded as text; for the replies of handshakes.
    Hmac(Hash, Encoding),
    /// CRC-32 (ISO 3309), in decimal.
    Crc32,
}

/// Functions by name.
const FUNCTIONS: &[(&str, Function)] = &[
    ("sha256_hex", Function::Digest(Hash::Sha256, Encoding::Hex)),
    ("sha256_base64", Function::Digest(Hash::Sha256, Encoding::Base64)),
    ("sha1_hex", Function::Digest(Hash::Sha1, Encoding::Hex)),
    ("sha512_hex", Function::Digest(Hash::Sha512, Encoding::Hex)),
    ("crc32", Function::Crc32),
    ("hmac_sha256_hex", Function::Hmac(Hash::Sha256, Encoding::Hex)),
    ("hmac_sha256_base64", Function::Hmac(Hash::Sha256, Encoding::Base64)),
    ("hmac_sha1_hex", Function::Hmac(Hash::Sha1, Encoding::Hex)),
    ("hmac_sha512_hex", Function::Hmac(Hash::Sha512, Encoding::Hex)),
];

/// The deepest nesting of functions, because the parser is recursive.
const MAX_FUNCTIONS: usize = 8;

/// The variables, which take no argument.
pub(super) const VARIABLES: &[&str] = &["body", "timestamp", "method", "url", "url_with_port", "query", "sorted_form"];

/// All that a template may have, for error messages.
const SYNTAX: &str = "a template takes {body}, {timestamp}, {method}, {url}, {url_with_port}, {query}, {sorted_form}, \
                     {header:NAME}, {header:NAME|OTHER}, {json:/pointer}, {form:FIELD}, {query:NAME}, {item:KEY}, {param:NAME}, functions such as \
                     {sha256_hex:body}, and declared parameters";

impl Piece {
    /// This piece and, recursively, its arguments.
    pub fn walk(&self) -> Box<dyn Iterator<Item = &Self> + '_> {
        let inside = if let Self::Call(_, arguments) = self { arguments.as_slice() } else { &[] };
        Box::new(std::iter::once(self).chain(inside.iter().flat_map(Self::walk)))
    }

    /// The location that this piece is read from.
    pub fn location(&self) -> Option<&Location> {
        if let Self::Location(location) | Self::Optional(location) = self { Some(location) } else { None }
    }
}

impl Part {
    /// The pieces in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }
}

impl Template {
    /// The parts in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The pieces of all parts, without the arguments of functions.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter().flat_map(Part::pieces)
    }

    /// All pieces, with the arguments of functions.
    pub fn walk(&self) -> impl Iterator<Item = &Piece> {
        self.pieces().flat_map(Piece::walk)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        deserialize::texts(input, "a template such as \"{timestamp}.{body}\", or a list of its parts", parse_part)
            .map(Self)
    }
}

impl std::str::FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_part(text).map(|part| Self(vec![part]))
    }
}

fn parse_part(text: &str) -> Result<Part, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.to_owned()));
        }
        let (name, after) = after.split_once('}').ok_or_else(|| format!("{text:?} has a {{ without its }}"))?;
        pieces.push(parse_variable(name, 0)?);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    Ok(Part(pieces))
}

/// Parses what is between braces. `depth`: the number of functions around it.
fn parse_variable(name: &str, depth: usize) -> Result<Piece, String> {
    let unknown = || match suggestion(name) {
        Some(near) => format!("{{{name}}} is not known here; did you mean {{{near}}}?"),
        None => format!("{{{name}}} is not known here; {SYNTAX}"),
    };
    let Some((kind, argument)) = name.split_once(':') else {
        return match name {
            "body" => Ok(Piece::Body),
            "timestamp" => Ok(Piece::Timestamp),
            "method" => Ok(Piece::Method),
            "url" => Ok(Piece::Url),
            "url_with_port" => Ok(Piece::UrlWithPort),
            "query" => Ok(Piece::Query),
            "sorted_form" => Ok(Piece::SortedForm),
            _ if is_name(name) => Ok(Piece::Param(name.to_owned())),
            _ => Err(unknown()),
        };
    };
    if let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == kind) {
        if argument.is_empty() {
            return Err(format!("{{{name}}} is made of nothing; write {{{kind}:body}}"));
        }
        if depth >= MAX_FUNCTIONS {
            return Err(format!("a function stands inside {MAX_FUNCTIONS} others, which is deeper than is read"));
        }
        return argument
            .split('+')
            .map(|argument| parse_variable(argument, depth + 1))
            .collect::<Result<Vec<_>, _>>()
            .map(|arguments| Piece::Call(*function, arguments));
    }
    match kind {
        "item" if !argument.is_empty() => return Ok(Piece::Item(argument.to_owned())),
        "param" if is_name(argument) => return Ok(Piece::Param(argument.to_owned())),
        _ => {}
    }
    let (argument, optional) = argument.strip_suffix('?').map_or((argument, false), |argument| (argument, true));
    let carrier = match kind {
        "header" => Carrier::Header(argument.split('|').map(header_name).collect::<Result<_, _>>()?),
        "json" => Carrier::Json(Pointer::parse(argument)?),
        "form" if !argument.is_empty() => Carrier::Form(argument.to_owned()),
        "query" if !argument.is_empty() => Carrier::Query(argument.to_owned()),
        _ => return Err(unknown()),
    };
    let location = Location { carrier, item: None };
    Ok(if optional { Piece::Optional(location) } else { Piece::Location(location) })
}

/// The known variable or function closest to an unknown one.
fn suggestion(name: &str) -> Option<String> {
    let small = name.to_lowercase();
    match small.split_once(':') {
        Some((kind, argument)) if !argument.is_empty() => {
            let kinds = ["header", "json", "form", "query", "item", "param"];
            let kind = closest(kind, kinds.into_iter().chain(FUNCTIONS.iter().map(|(known, _)| *known)))?;
            Some(format!("{kind}:{}", name.split_once(':')?.1))
        }
        Some(_) => None,
        None => closest(&small, VARIABLES.iter().copied()).map(str::to_owned),
    }
}

/// Whether this can be the name of a parameter.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(&text.replace('\n', "\\n")),
            Self::Call(function, arguments) => {
                let name = FUNCTIONS.iter().find(|(_, known)| known == function).map_or("", |(name, _)| *name);
                let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
                // Only the outer braces of an argument are removed: a name may have others.
                let bare = |text: &String| {
                    text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text).to_owned()
                };
                write!(f, "{{{name}:{}}}", arguments.iter().map(bare).collect::<Vec<_>>().join("+"))
            }
            Self::Body => f.write_str("{body}"),
            Self::Timestamp => f.write_str("{timestamp}"),
            Self::Method => f.write_str("{method}"),
            Self::Url => f.write_str("{url}"),
            Self::UrlWithPort => f.write_str("{url_with_port}"),
            Self::Query => f.write_str("{query}"),
            Self::SortedForm => f.write_str("{sorted_form}"),
            // A parameter may have the name of a variable.
            Self::Param(name) if VARIABLES.contains(&name.as_str()) => write!(f, "{{param:{name}}}"),
            Self::Param(name) => write!(f, "{{{name}}}"),
            Self::Item(key) => write!(f, "{{item:{key}}}"),
            Self::Location(location) => write!(f, "{{{}}}", location_name(location)),
            Self::Optional(location) => write!(f, "{{{}?}}", location_name(location)),
        }
    }
}

fn location_name(location: &Location) -> String {
    match &location.carrier {
        Carrier::Header(names) => {
            let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
            format!("header:{}", names.join("|"))
        }
        Carrier::Numbered(name) => format!("header:{name}"),
        Carrier::Json(pointer) => format!("json:{pointer}"),
        Carrier::Form(field) => format!("form:{field}"),
        Carrier::Query(name) => format!("query:{name}"),
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pieces().try_for_each(|piece| piece.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_read_as_they_are_written() {
        for text in [
            "{body}",
            "{header:svix-id|webhook-id}",
            "{timestamp}.{body}",
            "{header:webhook-id}.{timestamp}.{body}",
            "v0:{timestamp}:{body}",
            "{method}{url}{body}{timestamp}",
            "{url_with_port}{query}{sorted_form}",
            "{json:/signature/token}{form:x}{query:y}{item:t}{json:/Subject?}",
            "{header:a}|{webhook_id}|{crc32:body}",
            "{sha256_hex:query:code+verify_token+url}",
            "{hmac_sha256_hex:json:/payload/plainToken}",
            "{param:body}{sha256_hex:param:timestamp+body}",
            "{sha256_hex:form:{x}{form:{{x}",
        ] {
            assert_eq!(text.parse::<Template>().expect("a template").to_string(), text);
        }
        for bad in
            ["{body", "{BODY}", "{header:}", "{json:id}", "{header:a b}", "{sha256_hex:}", "{md5_hex:body}", "{}"]
        {
            assert!(bad.parse::<Template>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn functions_are_not_nested_without_end() {
        let nested = |depth: usize| format!("{{{}body}}", "crc32:".repeat(depth)).parse::<Template>();
        assert!(nested(MAX_FUNCTIONS).is_ok());
        for depth in [MAX_FUNCTIONS + 1, 200_000] {
            let message = nested(depth).expect_err("the stack overflowed, and the program was gone");
            assert!(message.contains("deeper than is read"), "{message:.200}");
        }
    }
}
