//! The location of a value in a request: a header, a value of the JSON body, a form field or a query parameter.

use http::HeaderName;
use serde::Deserializer;

use super::Encoding;
use super::Item;
use super::deserialize;
use super::deserialize::deserialize_as;
use crate::base::json::Pointer;

/// The location of a value in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The part of the request that holds the value.
    pub carrier: Carrier,
    /// Which entry of a list, if the carrier holds a list.
    pub item: Option<Item>,
}

impl Location {
    /// A header, whole.
    pub fn header(name: HeaderName) -> Self {
        Self { carrier: Carrier::Header(vec![name]), item: None }
    }

    /// Whether it is a value of the JSON body.
    pub fn is_json(&self) -> bool {
        matches!(self.carrier, Carrier::Json(_))
    }

    /// Whether it is read from the body.
    pub fn is_in_body(&self) -> bool {
        matches!(self.carrier, Carrier::Json(_) | Carrier::Form(_))
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(item) = &self.item {
            write!(f, "{:?} in ", item.key)?;
        }
        match &self.carrier {
            Carrier::Header(names) => {
                let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
                write!(f, "header {}", names.join(" or "))
            }
            Carrier::Numbered(name) => write!(f, "headers {name}-1, -2, …"),
            Carrier::Json(pointer) => write!(f, "body {pointer}"),
            Carrier::Form(field) => write!(f, "form field {field}"),
            Carrier::Query(name) => write!(f, "query parameter {name}"),
        }
    }
}

/// The part of a request that holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// The first of these headers that is present.
    Header(Vec<HeaderName>),
    /// The headers `NAME-1`, `NAME-2` and so on, each with a value.
    Numbered(HeaderName),
    /// A value of the JSON body.
    Json(Pointer),
    /// A field of a body in `application/x-www-form-urlencoded`.
    Form(String),
    /// A parameter of the request's query.
    Query(String),
}

/// The location of a value after a fixed prefix, such as a signature after `sha256=` or a token after `Bearer `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixedLocation {
    /// The location of the prefix and the value.
    pub location: Location,
    /// The prefix, compared exactly; may be empty.
    pub prefix: String,
}

/// The location of a signature, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLocation {
    /// The location of the prefix and the signature.
    pub location: Location,
    /// The prefix, such as `sha256=`, compared exactly; may be empty.
    pub prefix: String,
    /// The encoding of its bytes.
    pub encoding: Encoding,
}

/// The keys of a table that describe a location: `{ header = "X-Signature", prefix = "sha256=", encoding = "hex" }`.
/// Which keys are allowed depends on the type that the table is converted to.
#[derive(Debug)]
pub(super) struct RawLocation {
    pub(super) header: Option<Vec<HeaderName>>,
    pub(super) numbered: bool,
    pub(super) json: Option<Pointer>,
    pub(super) form: Option<String>,
    pub(super) query: Option<String>,
    pub(super) item: Option<String>,
    pub(super) separator: Option<char>,
    pub(super) assign: Option<char>,
    pub(super) prefix: Option<String>,
    pub(super) encoding: Option<Encoding>,
}

impl RawLocation {
    /// Whether it has a header, a pointer, a field or a parameter.
    pub(super) fn has_carrier(&self) -> bool {
        self.header.is_some() || self.json.is_some() || self.form.is_some() || self.query.is_some()
    }

    /// The location of a value that has neither a prefix nor an encoding.
    pub(super) fn plain(self) -> Result<Location, String> {
        if self.encoding.is_some() || self.prefix.is_some() {
            return Err("prefix and encoding belong to a signature; this value is taken as it stands".to_owned());
        }
        self.location()
    }

    /// The location, without regard to `prefix` and `encoding`.
    fn location(self) -> Result<Location, String> {
        let item = match (self.item, self.separator, self.assign) {
            (Some(key), separator, assign) => {
                Some(Item { key, separator: separator.unwrap_or(','), assign: assign.unwrap_or('=') }.validated()?)
            }
            (None, None, None) => None,
            (None, _, _) => return Err("separator and assign go with item, the key to look for in a list".to_owned()),
        };
        let mut carriers = Vec::new();
        if let Some(names) = self.header {
            carriers.push(header(names, self.numbered)?);
        } else if self.numbered {
            return Err("numbered goes with header".to_owned());
        }
        carriers.extend(self.json.map(Carrier::Json));
        carriers.extend(self.form.map(|name| non_empty("form", name).map(Carrier::Form)).transpose()?);
        carriers.extend(self.query.map(|name| non_empty("query", name).map(Carrier::Query)).transpose()?);
        match (carriers.pop(), carriers.is_empty()) {
            (Some(carrier), true) => Ok(Location { carrier, item }),
            (Some(_), false) => Err("a value has one place: header, json, form or query".to_owned()),
            (None, _) => {
                Err("says no place; write header = \"X-Name\", json = \"/pointer\", form = \"field\" or query = \
                              \"name\""
                    .to_owned())
            }
        }
    }
}

/// Declares the type of a TOML table that has the keys of a location and the given other keys.
macro_rules! location_table {
    ($(#[$about:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$attribute])* $field: $type,)*
            #[serde(default, deserialize_with = "crate::profile::location::headers")]
            header: Option<Vec<http::HeaderName>>,
            #[serde(default)]
            numbered: bool,
            json: Option<$crate::base::json::Pointer>,
            form: Option<String>,
            query: Option<String>,
            item: Option<String>,
            separator: Option<char>,
            assign: Option<char>,
            prefix: Option<String>,
            encoding: Option<$crate::profile::Encoding>,
        }

        impl $name {
            fn location(&mut self) -> $crate::profile::location::RawLocation {
                $crate::profile::location::RawLocation {
                    header: self.header.take(),
                    numbered: self.numbered,
                    json: self.json.take(),
                    form: self.form.take(),
                    query: self.query.take(),
                    item: self.item.take(),
                    separator: self.separator,
                    assign: self.assign,
                    prefix: self.prefix.take(),
                    encoding: self.encoding,
                }
            }
        }
    };
}
pub(super) use location_table;

location_table!(
    /// The keys of a location and no others.
    LocationTable {}
);

deserialize_as!(Location, LocationTable, "a place such as { header = \"X-Name\" } or { json = \"/pointer\" }");
deserialize_as!(PrefixedLocation, LocationTable, "a place such as { header = \"X-Token\", prefix = \"Bearer \" }");
deserialize_as!(SignatureLocation, LocationTable, "a place such as { header = \"X-Signature\", encoding = \"hex\" }");

impl TryFrom<LocationTable> for Location {
    type Error = String;

    fn try_from(mut table: LocationTable) -> Result<Self, String> {
        table.location().plain()
    }
}

impl TryFrom<LocationTable> for PrefixedLocation {
    type Error = String;

    fn try_from(mut table: LocationTable) -> Result<Self, String> {
        if table.encoding.is_some() {
            return Err("encoding belongs to a signature; this value is compared as it stands".to_owned());
        }
        let prefix = prefix(table.prefix.take())?;
        Ok(Self { location: table.location().location()?, prefix })
    }
}

impl TryFrom<LocationTable> for SignatureLocation {
    type Error = String;

    fn try_from(mut table: LocationTable) -> Result<Self, String> {
        let encoding =
            table.encoding.ok_or("says no encoding; write encoding = \"hex\", \"base64\" or \"base64url\"")?;
        let prefix = prefix(table.prefix.take())?;
        Ok(Self { location: table.location().location()?, prefix, encoding })
    }
}

pub(super) fn headers<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<HeaderName>>, D::Error> {
    deserialize::texts(input, "a header name, or a list of them", header_name).map(Some)
}

/// Parses the name of a header that requests may have.
///
/// # Errors
/// The name is not valid, or has an underscore: such headers are dropped from every request.
pub fn header_name(name: &str) -> Result<HeaderName, String> {
    if name.contains('_') {
        return Err(format!(
            "{name:?} has a \"_\": such headers are dropped from every request, because to many apps X_Name is X-Name; have \
             the sender write \"-\""
        ));
    }
    HeaderName::try_from(name).map_err(|_bad| format!("{name:?} is not a header name"))
}

fn non_empty(key: &str, name: String) -> Result<String, String> {
    if name.is_empty() {
        return Err(format!("{key} is empty; write {key} = \"name\""));
    }
    Ok(name)
}

fn header(mut names: Vec<HeaderName>, numbered: bool) -> Result<Carrier, String> {
    let twice = |(at, name): (usize, &HeaderName)| names.iter().take(at).any(|earlier| earlier == name);
    if let Some(at) = names.iter().enumerate().position(twice) {
        let name = names.get(at).map(HeaderName::as_str).unwrap_or_default();
        return Err(format!("header names {name} twice, of which the second is never read; leave it out"));
    }
    match (names.len(), numbered) {
        (0, _) => Err("header names none; write header = \"X-Name\"".to_owned()),
        (1, true) => names.pop().map(Carrier::Numbered).ok_or_else(|| "header names none".to_owned()),
        (_, true) => Err("numbered goes with one header name".to_owned()),
        (_, false) => Ok(Carrier::Header(names)),
    }
}

/// The prefix of a value; empty when the key is absent.
fn prefix(written: Option<String>) -> Result<String, String> {
    match written.as_deref() {
        Some("") => Err("prefix is empty; leave it out where nothing stands before the value".to_owned()),
        _ => Ok(written.unwrap_or_default()),
    }
}
