//! Hypotheses: the form was decoded and percent-encoded again by another library after it was signed.

use http::HeaderMap;
use http::header;
use serde_json::value::RawValue;

use super::Variants;
use crate::explain::json_styles::MAX_BODY;
use crate::explain::json_styles::Members;
use crate::explain::json_styles::in_all_styles;

/// Characters that libraries do not encode, besides letters and digits: browsers and Java; RFC 3986 with Python, Go and
/// Ruby; PHP; JavaScript; .NET.
const UNRESERVED: [&str; 5] = ["*-._", "-._~", "-._", "!'()*-._~", "!()*-._"];

/// How a library percent-encodes names and values.
#[derive(Debug, Clone, Copy)]
struct Writer {
    unreserved: &'static str,
    /// What a space becomes.
    space: &'static str,
    /// Whether the hexadecimal digits `a` to `f` are lower case.
    lower: bool,
}

/// All combinations with upper-case digits.
fn writers() -> impl Iterator<Item = Writer> {
    let spaces = ["+", "%20"].into_iter();
    spaces.flat_map(|space| UNRESERVED.into_iter().map(move |unreserved| Writer { unreserved, space, lower: false }))
}

impl Writer {
    fn write(self, text: &str, out: &mut String) {
        const UPPER: &[u8; 16] = b"0123456789ABCDEF";
        const LOWER: &[u8; 16] = b"0123456789abcdef";
        let digits = if self.lower { LOWER } else { UPPER };
        let digit = |value: u8| digits.get(usize::from(value)).map_or('0', |digit| char::from(*digit));
        for byte in text.bytes() {
            let character = char::from(byte);
            if character == ' ' {
                out.push_str(self.space);
            } else if character.is_ascii_alphanumeric() || self.unreserved.contains(character) && byte.is_ascii() {
                out.push(character);
            } else {
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }

    fn pairs(self, pairs: &[(String, String)]) -> Vec<u8> {
        let mut out = String::new();
        for (name, value) in pairs {
            if !out.is_empty() {
                out.push('&');
            }
            self.write(name, &mut out);
            out.push('=');
            self.write(value, &mut out);
        }
        out.into_bytes()
    }
}

/// The form in other encodings. Where the body is JSON and the request says that it is a form, the form that the JSON
/// was made from.
pub(super) fn variants(headers: &HeaderMap, body: &[u8]) -> Box<dyn Iterator<Item = (String, Vec<u8>)>> {
    let Some(text) = std::str::from_utf8(body).ok().filter(|text| text.len() <= MAX_BODY) else {
        return Box::new(std::iter::empty());
    };
    if !text.trim_start().starts_with(['{', '[']) {
        return Box::new(respelled(text).into_iter());
    }
    let form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded"));
    if form { Box::new(fields(text).into_iter().chain(payload(text))) } else { Box::new(std::iter::empty()) }
}

fn respelled(text: &str) -> Variants {
    let description = "the body is the same form as the one that was signed, but its percent-encoding is another (%3a for %3A, + for \
                 %20 or the like): something parses it and writes it again. Pass on and verify the bytes as they came.";
    let mut variants: Variants =
        spellings(text).into_iter().map(|text| (description.to_owned(), text.into_bytes())).collect();
    let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    let mut sorted = pairs.clone();
    sorted.sort();
    for writer in writers() {
        for lower in [false, true] {
            let writer = Writer { lower, ..writer };
            variants.push((description.to_owned(), writer.pairs(&pairs)));
            variants.push((description.to_owned(), writer.pairs(&sorted)));
        }
    }
    variants
}

/// The form whose fields a capture shows as a JSON object.
fn fields(text: &str) -> Variants {
    let description = "the request says that its body is a form, and the capture shows its fields as JSON: what was signed is the \
                 form. Capture and verify the bytes as they came.";
    let members = serde_json::from_str(text).ok().map(|Members(members)| members).unwrap_or_default();
    let field = |(name, value): (String, &RawValue)| Some((name, serde_json::from_str(value.get()).ok()?));
    let fields: Vec<(String, String)> = members.into_iter().map(field).collect::<Option<_>>().unwrap_or_default();
    if fields.is_empty() {
        return Vec::new();
    }
    writers().map(|writer| (description.to_owned(), writer.pairs(&fields))).collect()
}

/// The form whose field `payload` has the JSON that a capture shows, generated lazily.
fn payload(text: &str) -> impl Iterator<Item = (String, Vec<u8>)> + use<> {
    let description = "the request says that its body is a form, and the capture shows the JSON in its field payload, as GitHub's page \
                 of recent deliveries does: what was signed is payload=… with the JSON percent-encoded. The request itself is \
                 genuine; capture the bytes as they came, or choose application/json for the webhook.";
    let written = std::iter::once(text.as_bytes().to_vec()).chain(in_all_styles(text.as_bytes()));
    written.filter_map(|json| String::from_utf8(json).ok()).flat_map(move |json| {
        let pair = [("payload".to_owned(), json)];
        writers().map(move |writer| (description.to_owned(), writer.pairs(&pair)))
    })
}

/// The common spellings of a percent-encoded text.
pub(super) fn spellings(text: &str) -> Vec<String> {
    let upper = hex_digits(text, |digit| digit.to_ascii_uppercase());
    let lower = hex_digits(text, |digit| digit.to_ascii_lowercase());
    let mut all = Vec::new();
    for text in [text, &upper, &lower] {
        all.extend([text.to_owned(), text.replace('+', "%20"), text.replace("%20", "+"), text.replace("%7E", "~")]);
    }
    all
}

/// The text with the two digits after each percent sign changed.
fn hex_digits(text: &str, change: impl Fn(char) -> char) -> String {
    let mut remaining = 0;
    let digit = |character: char| {
        if character == '%' {
            remaining = 2;
            return character;
        }
        let is_digit = remaining > 0;
        remaining = i32::max(remaining - 1, 0);
        if is_digit { change(character) } else { character }
    };
    text.chars().map(digit).collect()
}
