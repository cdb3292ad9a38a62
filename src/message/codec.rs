//! Messages as stores write them: headers as JSON, an array of pairs of name and value, bytes beyond ASCII as the characters of
//! the same number (ISO 8859-1); and a checksum.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

use super::Message;

/// Most headers of a message: more than any request may have, and fewer than a map can hold.
pub(crate) const MAX_HEADERS: usize = 1000;

/// Writes headers.
pub(crate) fn to_json<'h>(headers: impl IntoIterator<Item = (&'h HeaderName, &'h HeaderValue)>) -> String {
    let mut json = String::with_capacity(1024);
    for (name, value) in headers {
        json.push_str(if json.is_empty() { "[[\"" } else { ",[\"" });
        // Names are tokens, in which nothing has to be escaped.
        json.push_str(name.as_str());
        json.push_str("\",");
        match value.to_str() {
            Ok(plain) if !plain.bytes().any(|byte| matches!(byte, b'"' | b'\\' | b'\t')) => {
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

/// Reads them again; `None` when they are no headers, or more than [`MAX_HEADERS`].
pub(crate) fn from_json(json: &str) -> Option<HeaderMap> {
    let pairs: Vec<(String, String)> = serde_json::from_str(json).ok()?;
    if pairs.len() > MAX_HEADERS {
        return None;
    }
    // With room for those of an attempt.
    let mut headers = HeaderMap::with_capacity(pairs.len() + 14);
    for (name, value) in pairs {
        let name = HeaderName::try_from(name).ok()?;
        headers.try_append(name, self::value(&value)?).ok()?;
    }
    Some(headers)
}

/// A value as text.
pub(crate) fn text(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

/// The value that was written as this text; `None` when none was.
pub(crate) fn value(text: &str) -> Option<HeaderValue> {
    let bytes: Option<Vec<u8>> = text.chars().map(|character| u8::try_from(character).ok()).collect();
    HeaderValue::from_bytes(&bytes?).ok()
}

/// Tells whether what is read is what was written. `headers` is how they are written.
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

    fn pairs(count: usize) -> String {
        let pairs: Vec<_> = (0..count).map(|number| format!("[\"x-{number}\",\"\"]")).collect();
        format!("[{}]", pairs.join(","))
    }

    #[test]
    fn as_many_headers_are_read_as_may_be_and_one_more_is_too_many() {
        assert_eq!(from_json(&pairs(MAX_HEADERS)).map(|headers| headers.len()), Some(MAX_HEADERS));
        for many in [MAX_HEADERS + 1, 33_000] {
            assert_eq!(from_json(&pairs(many)), None, "{many}");
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

    proptest! {
        #[test]
        fn any_headers_come_back_as_they_were(pairs in proptest::collection::vec(("[a-z][a-z0-9-]{0,20}", proptest::collection::vec(any::<u8>(), 0..40)), 0..40)) {
            let mut headers = HeaderMap::new();
            for (name, value) in &pairs {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(HeaderName::try_from(name).expect("a name"), value);
                }
            }
            prop_assert_eq!(from_json(&to_json(&headers)), Some(headers));
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
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_bytes(b"caf\xc3\xa9 \"quoted\"").expect("a value"));
        headers.append("x-a", HeaderValue::from_static("two"));
        headers.append("x-b", HeaderValue::from_static(""));
        headers.append("x-c", HeaderValue::from_static("a\tb\\"));
        let json = to_json(&headers);
        assert_eq!(
            json,
            "[[\"x-a\",\"caf\u{c3}\u{a9} \\\"quoted\\\"\"],[\"x-a\",\"two\"],[\"x-b\",\"\"],[\"x-c\",\"a\\tb\\\\\"]]"
        );
        assert_eq!((to_json(&HeaderMap::new()).as_str(), from_json("[]")), ("[]", Some(HeaderMap::new())));
        assert_eq!(from_json(&json), Some(headers));
        for bad in ["", "{}", "[[\"a b\",\"\"]]", "[[\"a\",\"\\n\"]]", "[[\"a\",\"\u{20ac}\"]]"] {
            assert_eq!(from_json(bad), None, "{bad}");
        }
    }
}
