//! Headers as JSON: an array of pairs of name and value, bytes beyond ASCII as the characters of the same number
//! (ISO 8859-1).

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

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

/// Reads them again; `None` when they are no headers.
pub(crate) fn from_json(json: &str) -> Option<HeaderMap> {
    let pairs: Vec<(String, String)> = serde_json::from_str(json).ok()?;
    let mut headers = HeaderMap::with_capacity(pairs.len() + 4);
    for (name, value) in pairs {
        headers.append(HeaderName::try_from(name).ok()?, self::value(&value)?);
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

#[cfg(test)]
mod tests {
    use super::*;

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
