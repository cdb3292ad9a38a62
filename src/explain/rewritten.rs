//! The ways in which the same JSON is written by what lies between a provider and whoever verifies.

use std::io;
use std::io::Write;

use serde_json::ser::Formatter;

/// How a library writes JSON.
#[derive(Debug, Clone, Copy)]
struct Style {
    /// Between two members, and between a name and its value.
    separators: (&'static str, &'static str),
    /// What each level is indented by, where every member has a line of its own.
    indent: Option<&'static str>,
    /// Which characters are escaped although they need not be.
    escaped: Escaped,
    /// Whether a slash is escaped.
    slash: bool,
    /// Whether a number without decimals loses its point.
    whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escaped {
    Nothing,
    NotAscii,
    /// `<`, `>` and `&`.
    Html,
    /// Both.
    All,
}

const COMPACT: Style =
    Style { separators: (",", ":"), indent: None, escaped: Escaped::Nothing, slash: false, whole: false };
const SPACED: Style = Style { separators: (", ", ": "), ..COMPACT };
const LINES: Style = Style { separators: (",", ": "), ..COMPACT };

/// The writers with how they are named to people.
const STYLES: [(&str, Style); 14] = [
    ("without blanks, as JavaScript's JSON.stringify writes it", Style { whole: true, ..COMPACT }),
    ("without blanks", COMPACT),
    ("as Python's json.dumps writes it", Style { escaped: Escaped::NotAscii, ..SPACED }),
    ("as Python's json.dumps writes it with ensure_ascii=False", SPACED),
    ("without blanks and in ASCII", Style { escaped: Escaped::NotAscii, ..COMPACT }),
    ("as PHP's json_encode writes it", Style { escaped: Escaped::NotAscii, slash: true, ..COMPACT }),
    ("as PHP's json_encode writes it with JSON_UNESCAPED_UNICODE", Style { slash: true, ..COMPACT }),
    ("as Go's encoding/json writes it", Style { escaped: Escaped::Html, ..COMPACT }),
    ("without blanks, in ASCII and with <, > and & escaped", Style { escaped: Escaped::All, ..COMPACT }),
    ("indented by two blanks", Style { indent: Some("  "), ..LINES }),
    ("indented by four blanks", Style { indent: Some("    "), ..LINES }),
    ("indented by tabs", Style { indent: Some("\t"), ..LINES }),
    ("indented by two blanks and in ASCII", Style { indent: Some("  "), escaped: Escaped::NotAscii, ..LINES }),
    ("indented by four blanks and in ASCII", Style { indent: Some("    "), escaped: Escaped::NotAscii, ..LINES }),
];

/// The same JSON in other words, each with how it is written; nothing when it is no JSON.
pub(super) fn rewritten(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else { return Vec::new() };
    let mut ways = Vec::new();
    for (words, style) in STYLES {
        let mut kept = Vec::new();
        let mut writer = serde_json::Serializer::with_formatter(&mut kept, Writer::new(style));
        let read = serde_transcode::transcode(&mut serde_json::Deserializer::from_slice(body), &mut writer);
        if read.is_ok() {
            ways.push((words.to_owned(), kept));
        }
    }
    for (words, style) in STYLES {
        let mut sorted = Vec::new();
        let mut writer = serde_json::Serializer::with_formatter(&mut sorted, Writer::new(style));
        if serde::Serialize::serialize(&value, &mut writer).is_ok() {
            ways.push((format!("{words}, with its members sorted"), sorted));
        }
    }
    ways
}

struct Writer {
    style: Style,
    level: usize,
    empty: bool,
}

impl Writer {
    fn new(style: Style) -> Self {
        Self { style, level: 0, empty: true }
    }

    fn open<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level += 1;
        self.empty = true;
        writer.write_all(bracket)
    }

    fn close<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level = self.level.saturating_sub(1);
        if !self.empty {
            self.line(writer)?;
        }
        self.empty = false;
        writer.write_all(bracket)
    }

    fn member<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.empty = false;
        if !first {
            writer.write_all(self.style.separators.0.as_bytes())?;
        }
        self.line(writer)
    }

    /// A new line, where there are any.
    fn line<W: Write + ?Sized>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = self.style.indent else { return Ok(()) };
        writer.write_all(b"\n")?;
        (0..self.level).try_for_each(|_| writer.write_all(indent.as_bytes()))
    }
}

impl Formatter for Writer {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.member(writer, first)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.member(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.style.separators.1.as_bytes())
    }

    fn write_f64<W: Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let text = serde_json::Number::from_f64(value).map_or_else(|| "null".to_owned(), |number| number.to_string());
        let whole = text.strip_suffix(".0").filter(|_| self.style.whole);
        writer.write_all(whole.unwrap_or(&text).as_bytes())
    }

    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let Style { escaped, slash, .. } = self.style;
        for character in fragment.chars() {
            let html = matches!(character, '<' | '>' | '&') && matches!(escaped, Escaped::Html | Escaped::All);
            let beyond = !character.is_ascii() && matches!(escaped, Escaped::NotAscii | Escaped::All);
            if html || beyond {
                let mut units = [0; 2];
                character.encode_utf16(&mut units).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?;
            } else if character == '/' && slash {
                writer.write_all(b"\\/")?;
            } else {
                writer.write_all(character.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(words: &str, body: &str) -> String {
        let way = rewritten(body.as_bytes()).into_iter().find(|(known, _)| known == words);
        String::from_utf8(way.expect(words).1).expect("UTF-8")
    }

    #[test]
    fn json_is_written_as_the_libraries_write_it() {
        let body = "{ \"b\": [1.0, {}, []], \"a\": \"é/<\" }";
        for (words, expected) in [
            ("without blanks, as JavaScript's JSON.stringify writes it", r#"{"b":[1,{},[]],"a":"é/<"}"#),
            ("as Python's json.dumps writes it", r#"{"b": [1.0, {}, []], "a": "\u00e9/<"}"#),
            ("as PHP's json_encode writes it", r#"{"b":[1.0,{},[]],"a":"\u00e9\/<"}"#),
            ("as Go's encoding/json writes it, with its members sorted", r#"{"a":"é/\u003c","b":[1.0,{},[]]}"#),
            ("indented by two blanks", "{\n  \"b\": [\n    1.0,\n    {},\n    []\n  ],\n  \"a\": \"é/<\"\n}"),
        ] {
            assert_eq!(written(words, body), expected, "{words}");
        }
        assert!(rewritten(b"a=1").is_empty());
    }
}
