//! Places: where in a request a value stands (header, JSON body, form field or query), which entry of a list it is, and
//! how a signature there is encoded.

use http::HeaderName;
use serde::Deserialize;
use serde::Deserializer;

use super::deserialize;
use super::deserialize::written_as;
use crate::base::json::Pointer;

/// A place in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What holds the value.
    pub holder: Holder,
    /// Which entry of the list, when the holder holds one.
    pub item: Option<Item>,
}

/// What holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The first of these headers that is there.
    Header(Vec<HeaderName>),
    /// The headers `NAME-1`, `NAME-2` and so on, each of which holds one.
    Numbered(HeaderName),
    /// The JSON body.
    Json(Pointer),
    /// A field of a body in `application/x-www-form-urlencoded`.
    Form(String),
    /// A parameter of the request's query.
    Query(String),
}

/// One key of a list such as `t=1492774577,v1=5257a8…` (Stripe) or `v1,g0hM9S… v1,…` (Standard Webhooks).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The key; `{name}` stands for a parameter of the source.
    pub key: String,
    /// What stands between two items.
    pub separator: char,
    /// What stands between key and value.
    pub assign: char,
}

impl Item {
    /// Checks that an entry of a list can have this key.
    fn findable(self) -> Result<Self, String> {
        let Self { key, separator, assign } = &self;
        if key.is_empty() {
            return Err(
                "item is empty, and no entry of a list has such a key; write item = \"v1\", or leave it out where the \
                        value stands alone"
                    .to_owned(),
            );
        }
        if separator == assign {
            return Err(format!(
                "separator and assign are both {assign:?}, so that no entry has a key; name what stands between two entries, \
                 and what between key and value"
            ));
        }
        // A parameter in it is filled in later.
        if let Some(ends) = key.chars().find(|character| character == separator || character == assign) {
            let what = if ends == *separator { "separator" } else { "assign" };
            return Err(format!(
                "item {key:?} has {ends:?} in it, which ends a key in such a list ({what}): none is ever found"
            ));
        }
        Ok(self)
    }

    /// The value of one entry of the list, if it is for this key; blanks around the entry do not count.
    pub fn value<'v>(&self, entry: &'v str) -> Option<&'v str> {
        let (key, value) = entry.trim_matches(' ').split_once(self.assign)?;
        (key == self.key).then_some(value)
    }

    /// The values that the list gives this key, in order.
    pub fn values<'v>(&'v self, list: &'v str) -> impl Iterator<Item = &'v str> + Clone {
        list.split(self.separator).filter_map(|entry| self.value(entry))
    }
}

/// A place whose value has something before it that does not count, such as a signature after `sha256=` or a token after
/// `Bearer `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixedPlace {
    /// Where it is.
    pub place: Place,
    /// What stands before it; compared exactly.
    pub prefix: String,
}

/// A signature's place with its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignaturePlace {
    /// Where it is.
    pub place: Place,
    /// What stands before it, such as `sha256=`; compared exactly.
    pub prefix: String,
    /// How its bytes are written.
    pub encoding: Encoding,
}

/// How bytes are written as text (RFC 4648).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Section 8, either case.
    Hex,
    /// Section 4, with padding.
    Base64,
    /// Section 5, with or without padding.
    Base64url,
}

impl Encoding {
    /// Decodes into `buffer`, which must be filled exactly; `false` when `text` is anything else.
    pub fn decode(self, text: &[u8], buffer: &mut [u8]) -> bool {
        use base64::engine::general_purpose::STANDARD;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        match self {
            // Without the length, the decoder would take a leading `0x`.
            Self::Hex => text.len() == 2 * buffer.len() && const_hex::decode_to_slice(text, buffer).is_ok(),
            Self::Base64 => decode_exactly(&STANDARD, text, buffer),
            Self::Base64url => decode_exactly(&URL_SAFE_NO_PAD, unpadded(text), buffer),
        }
    }

    /// Decodes a text that stands for at most `max` bytes.
    pub fn decode_vec(self, text: &[u8], max: usize) -> Option<Vec<u8>> {
        use base64::Engine as _;
        // No encoding takes more room; what is longer need not be looked at.
        if text.len() > max * 2 + 4 {
            return None;
        }
        let bytes = match self {
            // The decoder would take a leading `0x` or `0X`.
            Self::Hex if !text.iter().all(u8::is_ascii_hexdigit) => None,
            Self::Hex => const_hex::decode(text).ok(),
            Self::Base64 => base64::engine::general_purpose::STANDARD.decode(text).ok(),
            Self::Base64url => base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(unpadded(text)).ok(),
        };
        bytes.filter(|bytes| bytes.len() <= max)
    }

    /// Writes bytes as text.
    pub fn encode(self, bytes: &[u8]) -> String {
        use base64::Engine as _;
        match self {
            Self::Hex => const_hex::encode(bytes),
            Self::Base64 => base64::engine::general_purpose::STANDARD.encode(bytes),
            Self::Base64url => base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        }
    }

    /// How this encoding is named to people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Hex => "hexadecimal",
            Self::Base64 => "base64",
            Self::Base64url => "base64url",
        }
    }
}

fn decode_exactly(engine: &impl base64::Engine, text: &[u8], buffer: &mut [u8]) -> bool {
    // The engine wants room for whole groups of three.
    let mut room = [0_u8; 66];
    match engine.decode_slice(text, &mut room) {
        Ok(length) if length == buffer.len() => {
            room.get(..length).map(|decoded| buffer.copy_from_slice(decoded)).is_some()
        }
        _ => false,
    }
}

/// The text without its padding, which fills up the last group of four: it is there whole or not at all.
fn unpadded(text: &[u8]) -> &[u8] {
    if !text.len().is_multiple_of(4) {
        return text;
    }
    text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text)
}

/// What a table with a place says of it: `{ header = "X-Signature", prefix = "sha256=", encoding = "hex" }`. Which of it
/// belongs there is decided by what the table becomes.
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

/// A table with a place and with other keys besides.
macro_rules! place_table {
    ($(#[$about:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$attribute])* $field: $type,)*
            #[serde(default, deserialize_with = "crate::profile::place::headers")]
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
            encoding: Option<$crate::profile::place::Encoding>,
        }

        impl $name {
            fn spot(&mut self) -> $crate::profile::place::RawLocation {
                $crate::profile::place::RawLocation {
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
pub(super) use place_table;

place_table!(
    /// A place and nothing else.
    PlaceTable {}
);

pub(super) fn headers<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<HeaderName>>, D::Error> {
    deserialize::texts(input, "a header name, or a list of them", header_name).map(Some)
}

/// The name of a header that requests may have.
///
/// # Errors
/// What is wrong with the name, or that such headers are dropped before anything reads them.
pub fn header_name(name: &str) -> Result<HeaderName, String> {
    if name.contains('_') {
        return Err(format!(
            "{name:?} has a \"_\": such headers are dropped from every request, because to many apps X_Name is X-Name; have \
             the sender write \"-\""
        ));
    }
    HeaderName::try_from(name).map_err(|_bad| format!("{name:?} is not a header name"))
}

impl RawLocation {
    /// Whether any place is said.
    pub(super) fn is_said(&self) -> bool {
        self.header.is_some() || self.json.is_some() || self.form.is_some() || self.query.is_some()
    }

    /// The place of a value that is taken as it stands.
    pub(super) fn plain(self) -> Result<Place, String> {
        if self.encoding.is_some() || self.prefix.is_some() {
            return Err("prefix and encoding belong to a signature; this value is taken as it stands".to_owned());
        }
        self.place()
    }

    fn place(self) -> Result<Place, String> {
        let item = match (self.item, self.separator, self.assign) {
            (Some(key), separator, assign) => {
                Some(Item { key, separator: separator.unwrap_or(','), assign: assign.unwrap_or('=') }.findable()?)
            }
            (None, None, None) => None,
            (None, _, _) => return Err("separator and assign go with item, the key to look for in a list".to_owned()),
        };
        let mut holders = Vec::new();
        if let Some(names) = self.header {
            holders.push(header(names, self.numbered)?);
        } else if self.numbered {
            return Err("numbered goes with header".to_owned());
        }
        holders.extend(self.json.map(Holder::Json));
        holders.extend(self.form.map(|name| named("form", name).map(Holder::Form)).transpose()?);
        holders.extend(self.query.map(|name| named("query", name).map(Holder::Query)).transpose()?);
        match (holders.pop(), holders.is_empty()) {
            (Some(holder), true) => Ok(Place { holder, item }),
            (Some(_), false) => Err("a value has one place: header, json, form or query".to_owned()),
            (None, _) => {
                Err("says no place; write header = \"X-Name\", json = \"/pointer\", form = \"field\" or query = \
                              \"name\""
                    .to_owned())
            }
        }
    }
}

fn named(key: &str, name: String) -> Result<String, String> {
    if name.is_empty() {
        return Err(format!("{key} is empty; write {key} = \"name\""));
    }
    Ok(name)
}

fn header(mut names: Vec<HeaderName>, numbered: bool) -> Result<Holder, String> {
    let twice = |(at, name): (usize, &HeaderName)| names.iter().take(at).any(|earlier| earlier == name);
    if let Some(at) = names.iter().enumerate().position(twice) {
        let name = names.get(at).map(HeaderName::as_str).unwrap_or_default();
        return Err(format!("header names {name} twice, of which the second is never read; leave it out"));
    }
    match (names.len(), numbered) {
        (0, _) => Err("header names none; write header = \"X-Name\"".to_owned()),
        (1, true) => names.pop().map(Holder::Numbered).ok_or_else(|| "header names none".to_owned()),
        (_, true) => Err("numbered goes with one header name".to_owned()),
        (_, false) => Ok(Holder::Header(names)),
    }
}

written_as!(Place, PlaceTable, "a place such as { header = \"X-Name\" } or { json = \"/pointer\" }");
written_as!(PrefixedPlace, PlaceTable, "a place such as { header = \"X-Token\", prefix = \"Bearer \" }");
written_as!(SignaturePlace, PlaceTable, "a place such as { header = \"X-Signature\", encoding = \"hex\" }");

impl TryFrom<PlaceTable> for Place {
    type Error = String;

    fn try_from(mut table: PlaceTable) -> Result<Self, String> {
        table.spot().plain()
    }
}

impl TryFrom<PlaceTable> for PrefixedPlace {
    type Error = String;

    fn try_from(mut table: PlaceTable) -> Result<Self, String> {
        if table.encoding.is_some() {
            return Err("encoding belongs to a signature; this value is compared as it stands".to_owned());
        }
        let prefix = prefix(table.prefix.take())?;
        Ok(Self { place: table.spot().place()?, prefix })
    }
}

/// What stands before a value; nothing when it is not said.
fn prefix(said: Option<String>) -> Result<String, String> {
    match said.as_deref() {
        Some("") => Err("prefix is empty; leave it out where nothing stands before the value".to_owned()),
        _ => Ok(said.unwrap_or_default()),
    }
}

impl TryFrom<PlaceTable> for SignaturePlace {
    type Error = String;

    fn try_from(mut table: PlaceTable) -> Result<Self, String> {
        let encoding =
            table.encoding.ok_or("says no encoding; write encoding = \"hex\", \"base64\" or \"base64url\"")?;
        let prefix = prefix(table.prefix.take())?;
        Ok(Self { place: table.spot().place()?, prefix, encoding })
    }
}

impl Place {
    /// A header, whole.
    pub fn header(name: HeaderName) -> Self {
        Self { holder: Holder::Header(vec![name]), item: None }
    }

    /// Whether it is a value of the JSON body.
    pub fn is_json(&self) -> bool {
        matches!(self.holder, Holder::Json(_))
    }

    /// Whether it is read from the body.
    pub fn is_in_body(&self) -> bool {
        matches!(self.holder, Holder::Json(_) | Holder::Form(_))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(item) = &self.item {
            write!(f, "{:?} in ", item.key)?;
        }
        match &self.holder {
            Holder::Header(names) => {
                let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
                write!(f, "header {}", names.join(" or "))
            }
            Holder::Numbered(name) => write!(f, "headers {name}-1, -2, …"),
            Holder::Json(pointer) => write!(f, "body {pointer}"),
            Holder::Form(field) => write!(f, "form field {field}"),
            Holder::Query(name) => write!(f, "query parameter {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_a_list_are_found_by_key() {
        let stripe = Item { key: "v1".to_owned(), separator: ',', assign: '=' };
        assert_eq!(stripe.values("t=1,v1=a, v1=b,v0=c,v1").collect::<Vec<_>>(), ["a", "b"]);
        let standard = Item { key: "v1".to_owned(), separator: ' ', assign: ',' };
        assert_eq!(standard.values("v1,a= v2,b v1,c").collect::<Vec<_>>(), ["a=", "c"]);
    }

    #[test]
    fn decoding_takes_the_exact_length_only() {
        let mut two = [0; 2];
        assert!(Encoding::Hex.decode(b"0aFf", &mut two) && two == [0x0a, 0xff]);
        for bad in [&b""[..], b"0a", b"0aff00", b"0af", b"0agg", " 0aff".as_bytes(), "0a\u{e9}".as_bytes()] {
            assert!(!Encoding::Hex.decode(bad, &mut two), "{bad:?}");
        }
        assert!(Encoding::Base64.decode(b"Cv8=", &mut two) && two == [0x0a, 0xff]);
        for bad in [&b""[..], b"Cv8", b"Cv9=", b"CvAA", b"Cv8=\n", &[b'A'; 4096]] {
            assert!(!Encoding::Base64.decode(bad, &mut two), "{bad:?}");
        }
        for good in [&b"-_8="[..], b"-_8"] {
            assert!(Encoding::Base64url.decode(good, &mut two) && two == [0xfb, 0xff], "{good:?}");
        }
        assert!(!Encoding::Base64url.decode(b"+/8=", &mut two));
    }

    #[test]
    fn padding_is_there_whole_or_not_at_all() {
        let decoded = |text: &str| Encoding::Base64url.decode_vec(text.as_bytes(), 8);
        for (bytes, good) in
            [(&b""[..], ""), (b"a", "YQ"), (b"a", "YQ=="), (b"ab", "YWI"), (b"ab", "YWI="), (b"abc", "YWJj")]
        {
            assert_eq!(decoded(good).as_deref(), Some(bytes), "{good:?}");
        }
        for bad in ["=", "==", "YQ=", "YQ===", "YWI==", "YWJj=", "YWJj==", "YWJj====", "Y===", "YQ==YQ=="] {
            assert_eq!(decoded(bad), None, "{bad:?} is padded as no encoder pads");
            assert!(!Encoding::Base64url.decode(bad.as_bytes(), &mut [0; 1]), "{bad:?}");
        }
    }

    #[test]
    fn neither_prefixes_nor_more_than_was_asked_for_is_decoded() {
        for bad in ["0x", "0X", "0x61", "0X61"] {
            assert_eq!(Encoding::Hex.decode_vec(bad.as_bytes(), 8), None, "{bad:?} is not all digits");
        }
        for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64url] {
            let longest = encoding.decode_vec(encoding.encode(&[7; 64]).as_bytes(), 64);
            assert_eq!(longest, Some(vec![7; 64]), "{encoding:?}");
            let longer = encoding.decode_vec(encoding.encode(&[7; 65]).as_bytes(), 64);
            assert_eq!(longer, None, "{encoding:?} gives more bytes than were asked for");
        }
    }
}
