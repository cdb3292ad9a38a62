//! Where in a request a value stands, and how a signature there is written.

use http::HeaderName;
use serde::Deserialize;

use crate::json::Pointer;

/// A place in a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PlaceTable")]
pub enum Place {
    /// In a header, whole or one item of a list.
    Header(HeaderPlace),
    /// In the JSON body.
    Json(Pointer),
}

/// A header, or an item of the list that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderPlace {
    /// The header's name; it may stand in a request once.
    pub name: HeaderName,
    /// Which item of the list, when the header holds one.
    pub item: Option<Item>,
}

/// One key of a header such as `t=1492774577,v1=5257a8…` (Stripe) or `v1,g0hM9S… v1,…` (Standard Webhooks).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: String,
    /// What stands between two items.
    pub separator: char,
    /// What stands between key and value.
    pub assign: char,
}

impl Item {
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

/// A signature's place with its form.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PlaceTable")]
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
}

impl Encoding {
    /// Decodes into `buffer`, which must be filled exactly; `false` when `text` is anything else.
    pub fn decode(self, text: &[u8], buffer: &mut [u8]) -> bool {
        match self {
            // Without the length, the decoder would take a leading `0x`.
            Self::Hex => text.len() == 2 * buffer.len() && const_hex::decode_to_slice(text, buffer).is_ok(),
            Self::Base64 => {
                use base64::Engine as _;
                // The engine wants room for whole groups of three.
                let mut room = [0_u8; 66];
                match base64::engine::general_purpose::STANDARD.decode_slice(text, &mut room) {
                    Ok(length) if length == buffer.len() => {
                        room.get(..length).map(|decoded| buffer.copy_from_slice(decoded)).is_some()
                    }
                    _ => false,
                }
            }
        }
    }

    /// Writes bytes as text.
    pub fn encode(self, bytes: &[u8]) -> String {
        use base64::Engine as _;
        match self {
            Self::Hex => const_hex::encode(bytes),
            Self::Base64 => base64::engine::general_purpose::STANDARD.encode(bytes),
        }
    }
}

/// Either of the above as written: `{ header = "X-Signature", prefix = "sha256=", encoding = "hex" }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceTable {
    header: Option<String>,
    json: Option<Pointer>,
    item: Option<String>,
    separator: Option<char>,
    assign: Option<char>,
    prefix: Option<String>,
    encoding: Option<Encoding>,
}

impl PlaceTable {
    fn place(&mut self) -> Result<Place, String> {
        let item = match (self.item.take(), self.separator, self.assign) {
            (Some(key), separator, assign) => {
                Some(Item { key, separator: separator.unwrap_or(','), assign: assign.unwrap_or('=') })
            }
            (None, None, None) => None,
            (None, _, _) => return Err("separator and assign go with item, the key to look for in a list".to_owned()),
        };
        match (self.header.take(), self.json.take(), item) {
            (Some(name), None, item) => {
                let name = HeaderName::try_from(&name).map_err(|_bad| format!("{name:?} is not a header name"))?;
                Ok(Place::Header(HeaderPlace { name, item }))
            }
            (None, Some(pointer), None) => Ok(Place::Json(pointer)),
            (None, Some(_), Some(_)) => Err("item picks from a header's list; a JSON pointer has none".to_owned()),
            (Some(_), Some(_), _) => Err("a value has one place: header or json, not both".to_owned()),
            (None, None, _) => Err("says no place; write header = \"X-Name\" or json = \"/pointer\"".to_owned()),
        }
    }
}

impl TryFrom<PlaceTable> for Place {
    type Error = String;

    fn try_from(mut table: PlaceTable) -> Result<Self, String> {
        if table.encoding.is_some() || table.prefix.is_some() {
            return Err("prefix and encoding belong to a signature; this value is taken as it stands".to_owned());
        }
        table.place()
    }
}

impl TryFrom<PlaceTable> for SignaturePlace {
    type Error = String;

    fn try_from(mut table: PlaceTable) -> Result<Self, String> {
        let place = table.place()?;
        let encoding = table.encoding.ok_or("says no encoding; write encoding = \"hex\" or \"base64\"")?;
        Ok(Self { place, prefix: table.prefix.unwrap_or_default(), encoding })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(HeaderPlace { name, item: None }) => write!(f, "header {name}"),
            Self::Header(HeaderPlace { name, item: Some(item) }) => write!(f, "{:?} in header {name}", item.key),
            Self::Json(pointer) => write!(f, "body {pointer}"),
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
    }
}
