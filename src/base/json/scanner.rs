//! Finds where the values of a JSON text (RFC 8259) begin and end, without decoding them.
//!
//! Brackets, separators, literals, numbers and escapes are checked, so that an accepted text is one value with one
//! structure. No character is decoded and no number is converted. Nesting takes one bit per level, without recursion.

use std::ops::Range;

use super::Malformed;

/// UTF-8 of the byte order mark, which RFC 8259 section 8.1 lets readers skip.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A string, number or literal, with the range of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar {
    String(Quoted),
    Number(Range<usize>),
    Bool,
    Null,
}

/// A string, not decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quoted {
    /// The range between the quotation marks.
    pub(super) inner: Range<usize>,
    /// Whether there are escapes in it.
    pub(super) escaped: bool,
}

/// A text, and the offset of the next byte to read.
#[derive(Debug)]
pub(super) struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Scanner<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        Self { text, at: if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 } }
    }

    /// The text in this range.
    pub(super) fn text(&self, range: Range<usize>) -> &'t [u8] {
        self.text.get(range).unwrap_or_default()
    }

    /// Skips white space, and returns the next byte without skipping it.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Skips white space and this byte, if it follows; returns whether it did.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let matches = self.peek() == Some(byte);
        self.at += usize::from(matches);
        matches
    }

    /// Skips a comma, if another member or item follows, or else the closing bracket.
    pub(super) fn has_next(&mut self, close: u8) -> Result<bool, Malformed> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ if close == b'}' => Err(self.expected("a comma or a closing brace")),
            _ => Err(self.expected("a comma or a closing bracket")),
        }
    }

    /// Reads the name of a member, and skips the colon after it.
    pub(super) fn name(&mut self) -> Result<Quoted, Malformed> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a name in double quotation marks"));
        }
        let name = self.string()?;
        if self.take(b':') { Ok(name) } else { Err(self.expected("a colon")) }
    }

    /// Reads a value that is neither an object nor an array.
    pub(super) fn scalar(&mut self) -> Result<Scalar, Malformed> {
        match self.peek() {
            Some(b'"') => self.string().map(Scalar::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Scalar::Number),
            Some(b't') => self.literal(b"true", Scalar::Bool),
            Some(b'f') => self.literal(b"false", Scalar::Bool),
            Some(b'n') => self.literal(b"null", Scalar::Null),
            _ => Err(self.expected("a value")),
        }
    }

    /// Skips a value, whatever it is and however deep.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        let mut open = Open::default();
        loop {
            match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    if !self.take(b'}') {
                        open.push(true);
                        self.name()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    if !self.take(b']') {
                        open.push(false);
                        continue;
                    }
                }
                _ => {
                    self.scalar()?;
                }
            }
            loop {
                let Some(object) = open.last() else { return Ok(()) };
                if self.has_next(if object { b'}' } else { b']' })? {
                    if object {
                        self.name()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    /// Checks that only white space is left.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        if self.peek().is_none() { Ok(()) } else { Err(self.expected("nothing more")) }
    }

    fn string(&mut self) -> Result<Quoted, Malformed> {
        self.at += 1;
        let begin = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_length(self.text.get(self.at..).unwrap_or_default());
            match self.text.get(self.at) {
                Some(b'"') => {
                    let inner = begin..self.at;
                    self.at += 1;
                    return Ok(Quoted { inner, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.expected("an escape: a control character may not stand in a string")),
                None => return Err(self.expected("the end of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        self.at += 1;
        match self.text.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                return Ok(());
            }
            Some(b'u') => self.at += 1,
            _ => return Err(self.expected("one of \"\\/bfnrtu behind a backslash")),
        }
        for _ in 0..4 {
            if !self.text.get(self.at).is_some_and(u8::is_ascii_hexdigit) {
                return Err(self.expected("four hexadecimal digits behind \\u"));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Range<usize>, Malformed> {
        let begin = self.at;
        self.skip_one(b"-");
        // No digit may follow a leading zero.
        if !self.skip_one(b"0") {
            self.digits()?;
        }
        if self.skip_one(b".") {
            self.digits()?;
        }
        if self.skip_one(b"eE") {
            self.skip_one(b"+-");
            self.digits()?;
        }
        Ok(begin..self.at)
    }

    fn skip_one(&mut self, of: &[u8]) -> bool {
        let matches = self.text.get(self.at).is_some_and(|byte| of.contains(byte));
        self.at += usize::from(matches);
        matches
    }

    /// Skips at least one digit.
    fn digits(&mut self) -> Result<(), Malformed> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn literal(&mut self, word: &[u8], scalar: Scalar) -> Result<Scalar, Malformed> {
        if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(scalar)
    }

    /// The error that something else follows than what is expected.
    fn expected(&self, what: &str) -> Malformed {
        let ends = if self.at >= self.text.len() { ", where the body ends" } else { "" };
        Malformed(format!("{}{ends}: expected {what}", self.place(self.at)))
    }

    /// Describes an offset for people. Bytes, lines and columns are counted from 1, columns in bytes.
    pub(super) fn place(&self, at: usize) -> String {
        let before = self.text(0..at);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        format!("at byte {} (line {line}, column {column})", at + 1)
    }
}

/// The number of bytes before the first quotation mark, backslash or control character. Tests eight bytes at a time.
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let each = |byte: u8| ONES * u64::from(byte);
    let (words, rest) = text.as_chunks::<8>();
    for (count, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let controls = word.wrapping_sub(each(b' ')) & !word;
        // The lowest marked byte is always right; a borrow may mark the byte above it, too.
        let marked = (controls | zeros(word ^ each(b'"')) | zeros(word ^ each(b'\\'))) & each(0x80);
        if marked != 0 {
            return count * 8 + usize::try_from(marked.trailing_zeros() / 8).unwrap_or_default();
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

/// The stack of open brackets: one bit each, set for an object.
#[derive(Debug, Default)]
struct Open {
    levels: usize,
    /// The innermost brackets, the last one in the lowest bit.
    inner: u64,
    /// The other brackets, 64 in each word, the outermost first.
    outer: Vec<u64>,
}

impl Open {
    fn push(&mut self, object: bool) {
        if self.levels > 0 && self.levels.is_multiple_of(64) {
            self.outer.push(std::mem::take(&mut self.inner));
        }
        self.inner = self.inner << 1 | u64::from(object);
        self.levels += 1;
    }

    fn last(&self) -> Option<bool> {
        (self.levels > 0).then_some(self.inner & 1 == 1)
    }

    fn pop(&mut self) {
        self.levels = self.levels.saturating_sub(1);
        self.inner >>= 1;
        if self.levels > 0 && self.levels.is_multiple_of(64) {
            self.inner = self.outer.pop().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(text: &[u8]) -> Result<(), Malformed> {
        let mut scanner = Scanner::new(text);
        scanner.skip()?;
        scanner.end()
    }

    #[test]
    fn what_no_parser_takes_is_not_skipped() {
        let good =
            r#"0 -0 -0.0 10.50e+3 1E-2 1e400 "" "\u00e9\\\/" "\ud800" true null [] {} [[],{}] {"":[]} {"a":1,"a":1}"#;
        let spaced = [" [ 1 , { \"a\" : false } ]\r\n\t", "\"\u{7f}\u{e9}\u{a0}\""];
        for good in good.split_whitespace().chain(spaced) {
            assert!(skipped(good.as_bytes()).is_ok(), "{good}");
        }
        let bad = r#"- +1 01 -01 1. .5 1.e3 1e 1e+ 0x1 1_0 NaN Infinity -Infinity tru True nulll " "a "\" "\x" "\u12" "\u12g4" 'a'
            [ ] [1 [1, [1,] [,1] [} {] { {,} {"a"} {"a":} {"a":1,} {a:1} {1:1} [1]] {}{} [1]//"#;
        let spaced = ["", " ", "\"\t\"", "\"\n\"", "[1 2]", "{\"a\" 1}", "{\"a\":1 \"b\":1}", "1 2"];
        let blanks = ["\u{a0}1", "\u{c}1", "\u{b}1", "\0", "1\0"];
        for bad in bad.split_whitespace().chain(spaced).chain(blanks) {
            assert!(skipped(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped_once() {
        assert!(skipped("\u{feff}1".as_bytes()).is_ok());
        for bad in ["\u{feff}", "\u{feff}\u{feff}1", " \u{feff}1", "1\u{feff}", "[\u{feff}]"] {
            assert!(skipped(bad.as_bytes()).is_err(), "{}", bad.escape_unicode());
        }
        assert!(skipped(b"\xef\xbb1").is_err());
    }

    #[test]
    fn strings_end_where_they_end() {
        for length in 0..40 {
            for special in ["", "\\\"", "\\\\", "\\u0022", "\u{ff}", "\u{7f}!#[]"] {
                for at in 0..=length {
                    let inner = format!("{}{special}{}", "x".repeat(at), "y".repeat(length - at));
                    let text = format!("\"{inner}\"]");
                    let quoted = Scanner::new(text.as_bytes()).string().expect("a string");
                    assert_eq!(quoted, Quoted { inner: 1..inner.len() + 1, escaped: special.starts_with('\\') });
                    for control in ['\0', '\n', '\u{1f}'] {
                        let text = format!("\"{}{control}{inner}\"", "x".repeat(at));
                        assert!(Scanner::new(text.as_bytes()).string().is_err(), "{text:?}");
                    }
                }
            }
        }
        assert!(skipped(b"\"\x80\xff\xed\xa0\x80\xc3\"").is_ok(), "no character is decoded");
        assert!(skipped(b"\"\xc3\"\"").is_err(), "no character takes a quotation mark with it");
    }

    #[test]
    fn brackets_match_at_every_depth() {
        for depth in [1, 2, 63, 64, 65, 127, 128, 129, 1000, 100_000] {
            for unit in ["[", "{\"a\":", "[{\"a\":", "{\"a\":[{\"a\":"] {
                let close = |open: &str| -> String {
                    open.bytes()
                        .rev()
                        .filter_map(|byte| match byte {
                            b'[' => Some(']'),
                            b'{' => Some('}'),
                            _ => None,
                        })
                        .collect()
                };
                let open = unit.repeat(depth);
                let mut text = format!("{open}1{}", close(&open));
                assert!(skipped(text.as_bytes()).is_ok(), "{unit} {depth}");
                let last = text.pop().expect("a bracket");
                assert!(skipped(text.as_bytes()).is_err(), "{unit} {depth} is open");
                text.push(if last == ']' { '}' } else { ']' });
                assert!(skipped(text.as_bytes()).is_err(), "{unit} {depth} is closed otherwise");
                text.pop();
                text.extend([last, last]);
                assert!(skipped(text.as_bytes()).is_err(), "{unit} {depth} is closed twice");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("", "at byte 1 (line 1, column 1), where the body ends: expected a value"),
            ("{\n  \"a\": 1\n  \"b\": 2}", "at byte 14 (line 3, column 3): expected a comma or a closing brace"),
            ("[1", "at byte 3 (line 1, column 3), where the body ends: expected a comma or a closing bracket"),
            ("{\"a\" 1}", "at byte 6 (line 1, column 6): expected a colon"),
            ("{\"a\":1,}", "at byte 8 (line 1, column 8): expected a name in double quotation marks"),
            ("\u{feff}[1.]", "at byte 7 (line 1, column 7): expected a digit"),
            ("\"\\x\"", "at byte 3 (line 1, column 3): expected one of \"\\/bfnrtu behind a backslash"),
            ("{} {}", "at byte 4 (line 1, column 4): expected nothing more"),
        ] {
            assert_eq!(skipped(text.as_bytes()).map_err(|malformed| malformed.to_string()), Err(expected.to_owned()));
        }
    }
}
