//! Serialises a JSON body in the styles of common libraries, to recognise a body that something between the provider
//! and the gateway has parsed and serialised: its spacing, escapes and number formats change.

use std::fmt::Write as _;

use serde_json::Number;
use serde_json::value::RawValue;

/// The largest body that is rewritten, in bytes.
pub(super) const MAX_BODY: usize = 1024 * 1024;

/// How a library serialises JSON.
#[derive(Debug, Clone, Copy)]
struct Style {
    /// Between two members, and between a name and its value.
    separators: (&'static str, &'static str),
    /// The indentation of a level, if every member has a line of its own.
    indent: Option<&'static str>,
    /// Characters that are escaped although JSON does not require it.
    escaped: Escaped,
    /// Whether a slash is escaped.
    slash: bool,
    numbers: Numbers,
    /// Whether the members of objects are sorted by name.
    sorted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escaped {
    Nothing,
    NotAscii,
    /// `<`, `>` and `&`.
    Html,
    /// Characters beyond ASCII, and `<`, `>` and `&`.
    All,
}

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// As they are in the body.
    Unchanged,
    /// As parsed and formatted with the fewest digits; a float keeps its point (`1.0`).
    Reformatted,
    /// Like `Reformatted`, but without the point of a float without decimals (`1`).
    Shortest,
}

const COMPACT: Style = Style {
    separators: (",", ":"),
    indent: None,
    escaped: Escaped::Nothing,
    slash: false,
    numbers: Numbers::Unchanged,
    sorted: false,
};
const SPACED: Style = Style { separators: (", ", ": "), ..COMPACT };
const LINES: Style = Style { separators: (",", ": "), ..COMPACT };
const TWO: Option<&str> = Some("  ");
const FOUR: Option<&str> = Some("    ");

/// The number of common styles, which are first in [`STYLES`].
const COMMON: usize = 6;

/// The styles, with descriptions for people.
const STYLES: [(&str, Style); 14] = [
    ("without blanks, as JavaScript's JSON.stringify writes it", Style { numbers: Numbers::Shortest, ..COMPACT }),
    ("without blanks", COMPACT),
    ("as Python's json.dumps writes it", Style { escaped: Escaped::NotAscii, ..SPACED }),
    ("as Python's json.dumps writes it with ensure_ascii=False", SPACED),
    ("without blanks and in ASCII", Style { escaped: Escaped::NotAscii, ..COMPACT }),
    ("as PHP's json_encode writes it", Style { escaped: Escaped::NotAscii, slash: true, ..COMPACT }),
    ("as PHP's json_encode writes it with JSON_UNESCAPED_UNICODE", Style { slash: true, ..COMPACT }),
    ("as Go's encoding/json writes it", Style { escaped: Escaped::Html, ..COMPACT }),
    ("without blanks, in ASCII and with <, > and & escaped", Style { escaped: Escaped::All, ..COMPACT }),
    ("indented by two blanks", Style { indent: TWO, ..LINES }),
    ("indented by four blanks", Style { indent: FOUR, ..LINES }),
    ("indented by tabs", Style { indent: Some("\t"), ..LINES }),
    ("indented by two blanks and in ASCII", Style { indent: TWO, escaped: Escaped::NotAscii, ..LINES }),
    ("indented by four blanks and in ASCII", Style { indent: FOUR, escaped: Escaped::NotAscii, ..LINES }),
];

/// The same JSON in other styles, with their descriptions; nothing when the body is no JSON, or larger than
/// [`MAX_BODY`].
pub(super) fn rewritten(body: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> + use<> {
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= MAX_BODY);
    let node = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok()).and_then(Node::read);
    node.into_iter().flat_map(|node| {
        let named = |name: &str, style| (name.to_owned(), style);
        let plain = STYLES.iter().map(move |(name, style)| named(name, *style));
        let reformatted =
            STYLES.iter().filter(|(_, style)| style.numbers == Numbers::Unchanged).map(move |(name, style)| {
                named(
                    &format!("{name}, with its numbers written anew"),
                    Style { numbers: Numbers::Reformatted, ..*style },
                )
            });
        let sorted = STYLES.iter().map(move |(name, style)| {
            named(&format!("{name}, with its members sorted"), Style { sorted: true, ..*style })
        });
        plain.chain(sorted).chain(reformatted).map(move |(name, style)| {
            let mut out = String::new();
            node.write(&mut out, style, 0);
            (name, out.into_bytes())
        })
    })
}

/// The same JSON in the styles that keep the order of members.
pub(super) fn in_all_styles(body: &[u8]) -> impl Iterator<Item = Vec<u8>> + use<> {
    rewritten(body).take(STYLES.len()).map(|(_, bytes)| bytes)
}

/// A value in the common styles.
pub(super) fn in_common_styles(node: &Node) -> impl Iterator<Item = Vec<u8>> + use<> {
    let written: Vec<_> = STYLES
        .iter()
        .take(COMMON)
        .map(|(_, style)| {
            let mut out = String::new();
            node.write(&mut out, *style, 0);
            out.into_bytes()
        })
        .collect();
    written.into_iter()
}

/// A JSON value that keeps the order of members.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A number, `true`, `false` or `null`, as in the text.
    Word(String),
    Text(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Node {
    /// Parses a value. Recursion is limited, because `serde_json` has accepted the whole text, with its limit on depth.
    pub(super) fn read(value: &RawValue) -> Option<Self> {
        let text = value.get();
        Some(match text.as_bytes().first()? {
            b'"' => Self::Text(serde_json::from_str(text).ok()?),
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Self::Array(items.into_iter().map(Self::read).collect::<Option<_>>()?)
            }
            b'{' => {
                let Members(members) = serde_json::from_str(text).ok()?;
                let member = |(name, value): (String, &RawValue)| Some((name, Self::read(value)?));
                Self::Object(members.into_iter().map(member).collect::<Option<_>>()?)
            }
            _ => Self::Word(text.to_owned()),
        })
    }

    fn write(&self, out: &mut String, style: Style, level: usize) {
        match self {
            Self::Word(word) => out.push_str(&number(word, style.numbers)),
            Self::Text(text) => string(out, text, style),
            Self::Array(items) => {
                let write = |out: &mut String, item: &Self| item.write(out, style, level + 1);
                list(out, ("[", "]"), items.iter(), (style, level), write);
            }
            Self::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if style.sorted {
                    members.sort_by(|(one, _), (other, _)| one.cmp(other));
                }
                list(out, ("{", "}"), members.into_iter(), (style, level), |out, (name, value)| {
                    string(out, name, style);
                    out.push_str(style.separators.1);
                    value.write(out, style, level + 1);
                });
            }
        }
    }
}

/// The members of an object in their order, including repeated ones.
pub(super) struct Members<'j>(pub(super) Vec<(String, &'j RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> serde::de::Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        input.deserialize_map(Read)
    }
}

fn list<T>(
    out: &mut String,
    (open, close): (&str, &str),
    items: impl Iterator<Item = T>,
    (style, level): (Style, usize),
    write: impl Fn(&mut String, T),
) {
    let line = |out: &mut String, level: usize| {
        if let Some(indent) = style.indent {
            out.push('\n');
            out.push_str(&indent.repeat(level));
        }
    };
    out.push_str(open);
    let mut empty = true;
    for item in items {
        if !empty {
            out.push_str(style.separators.0);
        }
        empty = false;
        line(out, level + 1);
        write(out, item);
    }
    if !empty {
        line(out, level);
    }
    out.push_str(close);
}

/// Formats a number; other words stay as they are.
fn number(word: &str, numbers: Numbers) -> String {
    let read =
        || serde_json::from_str::<Number>(word).map_or_else(|_word| word.to_owned(), |number| number.to_string());
    match numbers {
        Numbers::Unchanged => word.to_owned(),
        Numbers::Reformatted => read(),
        Numbers::Shortest => {
            let read = read();
            read.strip_suffix(".0").unwrap_or(&read).to_owned()
        }
    }
}

fn string(out: &mut String, text: &str, style: Style) {
    out.push('"');
    for character in text.chars() {
        let html = matches!(character, '<' | '>' | '&') && matches!(style.escaped, Escaped::Html | Escaped::All);
        let beyond = !character.is_ascii() && matches!(style.escaped, Escaped::NotAscii | Escaped::All);
        let short = match character {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            '\u{8}' => Some("\\b"),
            '\u{c}' => Some("\\f"),
            '/' if style.slash => Some("\\/"),
            _ => None,
        };
        match short {
            Some(short) => out.push_str(short),
            None if html || beyond || character < ' ' => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    // Writing to a text cannot fail.
                    let _written = write!(out, "\\u{unit:04x}").is_ok();
                }
            }
            None => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(description: &str, body: &str) -> String {
        let variant = rewritten(body.as_bytes()).find(|(style, _)| style == description);
        String::from_utf8(variant.expect(description).1).expect("UTF-8")
    }

    #[test]
    fn json_is_written_as_the_libraries_write_it() {
        let body = "{ \"b\": [1.0, {}, [], 2.50, 1e-05], \"a\": \"\u{e9}/<\\n\\u0001\" }";
        for (description, expected) in [
            (
                "without blanks, as JavaScript's JSON.stringify writes it",
                "{\"b\":[1,{},[],2.5,0.00001],\"a\":\"\u{e9}/<\\n\\u0001\"}",
            ),
            ("without blanks", "{\"b\":[1.0,{},[],2.50,1e-05],\"a\":\"\u{e9}/<\\n\\u0001\"}"),
            ("as Python's json.dumps writes it", "{\"b\": [1.0, {}, [], 2.50, 1e-05], \"a\": \"\\u00e9/<\\n\\u0001\"}"),
            ("as PHP's json_encode writes it", "{\"b\":[1.0,{},[],2.50,1e-05],\"a\":\"\\u00e9\\/<\\n\\u0001\"}"),
            (
                "as Go's encoding/json writes it, with its members sorted",
                "{\"a\":\"\u{e9}/\\u003c\\n\\u0001\",\"b\":[1.0,{},[],2.50,1e-05]}",
            ),
            (
                "as Python's json.dumps writes it, with its numbers written anew",
                "{\"b\": [1.0, {}, [], 2.5, 0.00001], \"a\": \"\\u00e9/<\\n\\u0001\"}",
            ),
            (
                "indented by two blanks",
                "{\n  \"b\": [\n    1.0,\n    {},\n    [],\n    2.50,\n    1e-05\n  ],\n  \"a\": \"\u{e9}/<\\n\\u0001\"\n}",
            ),
        ] {
            assert_eq!(written(description, body), expected, "{description}");
        }
        assert_eq!(rewritten(b"a=1").count(), 0);
        assert!(rewritten("[".repeat(100_000).as_bytes()).next().is_none());
    }
}
