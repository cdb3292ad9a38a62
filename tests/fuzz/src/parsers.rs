//! Three JSON parsers that others use, and what they find.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;

use bytes::Bytes;
use doorward::base::json::BYTE_ORDER_MARK;
use doorward::base::json::Pointer;
use doorward::base::json::Value;
use serde::Deserialize;

use crate::Json;
use crate::Twice;

/// What stands where a pointer leads.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// Nothing.
    Absent,
    /// `null`
    Null,
    /// A string that is Unicode text.
    Text(String),
    /// A number, as it is written or as the parser writes it.
    Number(String),
    /// Another string, `true`, `false`, an array or an object.
    Other,
    /// What stands in each item of an array.
    Each(Vec<Self>),
}

/// What a parser says that takes the body.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// A name on the way is there twice.
    Twice,
    /// This, in the order of the pointers.
    Found(Vec<Found>),
}

impl Found {
    /// Whether both are the same value, for whoever reads numbers as numbers.
    pub fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) => is_same_number(one, other),
            (Self::Each(one), Self::Each(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.agrees(other))
            }
            _ => self == other,
        }
    }

    /// Whether ours is this value. A parser that is `exact` says how numbers are written.
    pub fn is(&self, ours: &Value, exact: bool) -> bool {
        match (self, ours) {
            (Self::Absent, Value::Absent) | (Self::Null, Value::Null) | (Self::Other, Value::Other) => true,
            (Self::Text(text), Value::Text(ours)) => text.as_bytes() == ours,
            (Self::Number(text), Value::Text(ours)) if exact => text.as_bytes() == ours,
            (Self::Number(text), Value::Text(ours)) => {
                std::str::from_utf8(ours).is_ok_and(|ours| is_same_number(text, ours))
            }
            (Self::Each(items), Value::Each(ours)) => {
                ends_alike(items, ours) && items.iter().zip(ours).all(|(item, ours)| item.is(ours, exact))
            }
            _ => false,
        }
    }

    /// The same, or ours is no value that anybody could use.
    pub fn is_or_unusable(&self, ours: &Value, exact: bool) -> bool {
        match (self, ours) {
            (_, Value::Other) => true,
            (Self::Each(items), Value::Each(ours)) => {
                ends_alike(items, ours) && items.iter().zip(ours).all(|(item, ours)| item.is_or_unusable(ours, exact))
            }
            _ => self.is(ours, exact),
        }
    }
}

/// Whether ours are all items, or those up to the first that is no text.
fn ends_alike(items: &[Found], ours: &[Value]) -> bool {
    let stopped = ours.last().is_some_and(|last| !matches!(last, Value::Text(_)));
    ours.len() == items.len() || stopped && ours.len() < items.len()
}

/// Whether two texts are the same number in 64 bits; `serde_json` may be wrong in the last digit.
fn is_same_number(one: &str, other: &str) -> bool {
    match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(one), Ok(other)) => one == other || ((one - other) / one).abs() < 1e-14,
        _ => false,
    }
}

/// A parser in another program.
#[derive(Debug)]
pub struct Parser {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Parser {
    /// Starts `find.py` or `find.js` in the folder `parsers`.
    pub fn start(program: &str, script: &str) -> Self {
        let script = format!("{}/parsers/{script}", env!("CARGO_MANIFEST_DIR"));
        let child = Command::new(program).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { _child: child, input, output }
    }

    /// Asks, and does not wait for the answer.
    pub fn ask(&mut self, pointers: &[Pointer], body: &[u8]) {
        let tokens: Vec<_> = pointers.iter().map(Pointer::tokens).collect();
        let mut question = serde_json::to_vec(&tokens).expect("text");
        question.push(b'\n');
        question.extend_from_slice(body);
        let length = u32::try_from(question.len()).expect("inputs are short");
        question.splice(0..0, length.to_le_bytes());
        self.input.write_all(&question).expect("the parser runs");
    }

    /// The answer; nothing when it does not take the body.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the parser runs");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

/// What `serde_json` finds, behind a byte order mark, which it leaves to whoever calls it.
pub fn serde(pointers: &[Pointer], body: &[u8]) -> Option<Answer> {
    let document = serde_json::from_slice(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)).ok()?;
    let all: Result<_, Twice> = pointers.iter().map(|pointer| found(&document, pointer.tokens())).collect();
    Some(all.map_or(Answer::Twice, Answer::Found))
}

/// What stands where the tokens lead.
fn found(value: &Json, tokens: &[String]) -> Result<Found, Twice> {
    let Some((token, rest)) = tokens.split_first() else {
        return Ok(match value {
            Json::Null => Found::Null,
            Json::Text(text) => Found::Text(text.clone()),
            Json::Integer(text) | Json::Float(text) => Found::Number(text.clone()),
            Json::Bool | Json::Array(_) | Json::Object(_) => Found::Other,
        });
    };
    match value {
        Json::Array(items) if token == "*" => {
            let mut each = Vec::new();
            for item in items {
                match found(item, rest)? {
                    Found::Each(inner) => each.extend(inner),
                    one => each.push(one),
                }
            }
            Ok(Found::Each(each))
        }
        Json::Array(items) => {
            let item = items.iter().enumerate().find(|(index, _)| index.to_string() == *token);
            item.map_or(Ok(Found::Absent), |(_, item)| found(item, rest))
        }
        // A number is a position in an array and nothing else.
        Json::Object(_) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Found::Absent),
        Json::Object(_) => value.member(token)?.map_or(Ok(Found::Absent), |member| found(member, rest)),
        Json::Null | Json::Text(_) | Json::Integer(_) | Json::Float(_) | Json::Bool => Ok(Found::Absent),
    }
}

/// A body of almost JSON, as these bytes choose, and some pointers into it.
pub fn document(choices: &[u8]) -> (Vec<Pointer>, Bytes) {
    let mut choices = Choices(choices);
    let (first, second) = (choices.next(), choices.next());
    let chosen = POINTERS.iter().enumerate().filter(|(at, _)| first >> (at % 8) & 1 == 1);
    let pointers = chosen.map(|(_, pointer)| Pointer::parse(pointer).expect("a pointer")).collect();
    let mut body = Vec::new();
    choices.value(&mut body, 0);
    if second & 3 == 1 {
        body.splice(0..0, BYTE_ORDER_MARK.iter().copied());
    }
    // One byte more, less or otherwise.
    let at = usize::from(choices.next()) * 256 + usize::from(choices.next());
    let at = at % (body.len() + 1);
    match second >> 2 & 15 {
        0 => body.insert(at, choices.next()),
        1 if at < body.len() => drop(body.remove(at)),
        2 if at < body.len() => body[at] = choices.next(),
        3 => body.truncate(at),
        _ => {}
    }
    (pointers, body.into())
}

const POINTERS: [&str; 8] = ["/a", "/a/b", "/a/*/b", "/*", "/b/0", "/id", "/*/*", "/0/*"];

const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"id",
    b"a",
    b"b",
    b"",
    b"\\u0061",
    b"i\\u0064",
    b"\\ud800",
    b"a\\udc00",
    b"*",
    b"0",
    b"__proto__",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\x",
];

const SCALARS: [&[u8]; 32] = [
    b"0",
    b"-0",
    b"17",
    b"12.0",
    b"1e3",
    b"1E+400",
    b"-1e-400",
    b"123456789012345678901234567890",
    b"18446744073709551615",
    b"0.1e1",
    b"01",
    b"1.",
    b"-",
    b"NaN",
    b"-Infinity",
    b"true",
    b"false",
    b"null",
    b"nul",
    b"\"\"",
    b"\"x\"",
    b"\"\\u00e9\"",
    b"\"\\ud83d\\ude00\"",
    b"\"\\ud83d\"",
    b"\"\\ude00\\ud83d\"",
    b"\"\xff\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xf0\x9f\x98\x80\"",
    b"\"\\/\\b\\\"\"",
    b"\"\\u12g4\"",
    b"\"\x1f\"",
    b"\"\x7f\\u0000\"",
];

struct Choices<'c>(&'c [u8]);

impl Choices<'_> {
    /// Nothing but zeros when there are none left.
    fn next(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn blank(&mut self, out: &mut Vec<u8>) {
        let choice = self.next();
        if choice >= 0xf0 {
            out.push(b" \n\r\t\x0c\x0b\xa0 "[usize::from(choice & 7)]);
        }
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) {
        let choice = self.next();
        let count = if self.0.is_empty() || depth > 6 { 0 } else { choice >> 4 & 3 };
        self.blank(out);
        match choice & 15 {
            0..=4 => {
                out.push(b'{');
                for at in 0..count {
                    out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
                    out.extend_from_slice(NAMES[usize::from(self.next() & 15)]);
                    out.extend_from_slice(b"\":");
                    self.value(out, depth + 1);
                }
                out.push(b'}');
            }
            5..=8 => {
                out.push(b'[');
                for at in 0..count {
                    if at > 0 {
                        out.push(b',');
                    }
                    self.value(out, depth + 1);
                }
                out.push(b']');
            }
            9 if depth < 3 => {
                let levels = 1 << (self.next() % 12);
                out.extend(b"[".repeat(levels));
                self.value(out, 7);
                out.extend(b"]".repeat(levels));
            }
            _ => out.extend_from_slice(SCALARS[usize::from(self.next() & 31)]),
        }
        self.blank(out);
    }
}
