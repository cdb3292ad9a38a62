//! How stores encode messages: headers as a JSON array of pairs of name and value, whose bytes beyond ASCII become the
//! Unicode characters of the same number (ISO 8859-1); and a CRC-32 over all that is delivered.

use http::HeaderName;
use http::HeaderValue;

use super::Headers;
use super::Message;

/// The most headers of a message: more than any request may have, and fewer than the `HeaderMap` of an attempt can
/// hold.
pub(crate) const MAX_HEADERS: usize = 1000;

/// The names and values of headers, as pairs of references.
pub(crate) fn pairs(headers: &Headers) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().map(|(name, value)| (name, value))
}

/// Encodes headers as JSON.
pub(crate) fn to_json<'h>(headers: impl IntoIterator<Item = (&'h HeaderName, &'h HeaderValue)>) -> String {
    let mut json = String::with_capacity(1024);
    for (name, value) in headers {
        json.push_str(if json.is_empty() { "[[\"" } else { ",[\"" });
        // Names of headers have no characters that JSON must escape.
        json.push_str(name.as_str());
        json.push_str("\",");
        match str::from_utf8(value.as_bytes()) {
            Ok(plain) if is_plain(plain) => {
                json.push('"');
                json.push_str(plain);
                json.push('"');
            }
            _ => json.push_str(&serde_json::Value::from(text(value)).to_string()),
        }
        json.push(']');
    }
    json.push_str(if json.is_empty() { "[]" } else { "]" });
    json
}

/// Whether JSON needs no escapes for the text. The loop has no early exit, so that the compiler can vectorize it.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\'))
}

/// Decodes headers from JSON; `None` when it is not valid, or has more than [`MAX_HEADERS`].
pub(crate) fn from_json(json: &str) -> Option<Headers> {
    let pairs: Vec<(String, String)> = serde_json::from_str(json).ok()?;
    if pairs.len() > MAX_HEADERS {
        return None;
    }
    pairs.into_iter().map(|(name, value)| Some((HeaderName::try_from(name).ok()?, self::value(&value)?))).collect()
}

/// Encodes a value as text.
pub(crate) fn text(value: &HeaderValue) -> String {
    match value.to_str() {
        Ok(plain) => plain.to_owned(),
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect(),
    }
}

/// Decodes a value from text; `None` when the text is not an encoded value.
pub(crate) fn value(text: &str) -> Option<HeaderValue> {
    if text.is_ascii() {
        return HeaderValue::from_str(text).ok();
    }
    let bytes: Option<Vec<u8>> = text.chars().map(|character| u8::try_from(character).ok()).collect();
    HeaderValue::from_bytes(&bytes?).ok()
}

/// The CRC-32 with which stores detect damage. `headers` are the encoded headers.
pub(crate) fn checksum(message: &Message, headers: &str) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    let [kind, trace] =
        [&message.kind, &message.trace].map(|value| value.as_ref().map(HeaderValue::as_bytes).unwrap_or_default());
    for part in [
        message.source.as_bytes(),
        message.method.as_str().as_bytes(),
        message.event_id.as_bytes(),
        kind,
        message.target.as_bytes(),
        trace,
        &[u8::from(message.verified)],
        headers.as_bytes(),
        &message.body,
    ] {
        hash.update(part);
    }
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn many(count: usize) -> String {
        let pairs: Vec<_> = (0..count).map(|number| format!("[\"x-{number}\",\"\"]")).collect();
        format!("[{}]", pairs.join(","))
    }

    #[test]
    fn as_many_headers_are_read_as_may_be_and_one_more_is_too_many() {
        assert_eq!(from_json(&many(MAX_HEADERS)).map(|headers| headers.len()), Some(MAX_HEADERS));
        for count in [MAX_HEADERS + 1, 33_000] {
            assert_eq!(from_json(&many(count)), None, "{count}");
        }
    }

    #[test]
    fn a_checksum_sees_every_part() {
        let value = HeaderValue::from_static;
        let message = || Message {
            kind: Some(value("push")),
            trace: Some(value("00-1")),
            target: "/a".into(),
            ..Message::example()
        };
        let sum = |message: Message| checksum(&message, "[]");
        let whole = sum(message());
        for other in [
            Message { source: value("else"), ..message() },
            Message { method: http::Method::GET, ..message() },
            Message { event_id: value("2"), ..message() },
            Message { kind: Some(value("pusi")), ..message() },
            Message { target: "/b".into(), ..message() },
            Message { trace: Some(value("00-2")), ..message() },
            Message { verified: false, ..message() },
            Message { body: bytes::Bytes::from_static(b"1"), ..message() },
        ] {
            assert_ne!(sum(other.clone()), whole, "{other:?}");
        }
        assert_ne!(checksum(&message(), "[ ]"), whole);
    }

    fn any_pairs() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        let value = proptest::collection::vec(any::<u8>(), 0..40);
        proptest::collection::vec(("[a-z][a-z0-9-]{0,20}", value), 0..40)
    }

    proptest! {
        #[test]
        fn any_headers_come_back_as_they_were(given in any_pairs()) {
            let header = |(name, value): (String, Vec<u8>)| {
                Some((HeaderName::try_from(name).expect("a name"), HeaderValue::from_bytes(&value).ok()?))
            };
            let headers: Headers = given.into_iter().filter_map(header).collect();
            prop_assert_eq!(from_json(&to_json(pairs(&headers))), Some(headers));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>(), pairs in any::<Vec<(String, String)>>()) {
            drop(from_json(&text));
            drop(value(&text));
            drop(from_json(&serde_json::to_string(&pairs).expect("JSON")));
        }
    }

    #[test]
    fn headers_come_back_as_they_were() {
        let odd = HeaderValue::from_bytes(b"caf\xc3\xa9 \"quoted\"").expect("a value");
        let plain = [("x-a", "two"), ("x-b", ""), ("x-c", "a\tb\\")];
        let plain = plain.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: Headers = [(HeaderName::from_static("x-a"), odd)].into_iter().chain(plain).collect();
        let json = to_json(pairs(&headers));
        assert_eq!(
            json,
            "[[\"x-a\",\"caf\u{c3}\u{a9} \\\"quoted\\\"\"],[\"x-a\",\"two\"],[\"x-b\",\"\"],[\"x-c\",\"a\\tb\\\\\"]]"
        );
        assert_eq!((to_json(pairs(&Headers::new())).as_str(), from_json("[]")), ("[]", Some(Headers::new())));
        assert_eq!(from_json(&json), Some(headers));
        for bad in ["", "{}", "[[\"a b\",\"\"]]", "[[\"a\",\"\\n\"]]", "[[\"a\",\"\u{20ac}\"]]"] {
            assert_eq!(from_json(bad), None, "{bad}");
        }
    }
}
