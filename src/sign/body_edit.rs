//! Sets single values in the text of a JSON document, a form or a query, without changing any other byte.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::de::IgnoredAny;
use serde_json::Deserializer;
use serde_json::Number;
use serde_json::Value;

/// The token of a pointer that selects every item of an array.
const EACH: &str = "*";

/// Sets the value at a pointer's tokens to a text, or adds it. A number stays a number if the text is one.
///
/// # Errors
/// The document is not JSON, or has no such array item.
pub(super) fn set_json(document: &str, tokens: &[String], text: &str) -> Result<String, String> {
    let Some((token, rest)) = tokens.split_first() else { return Ok(scalar(document, text)) };
    let missing = || nested(rest, text);
    let mut out = document.to_owned();
    let begin = skip_blanks(document, 0);
    match document.as_bytes().get(begin) {
        Some(b'{') => {
            let members = entries(document, begin, true).ok_or("it is not JSON")?;
            let (head, empty) = (begin + 1, members.is_empty());
            match members.into_iter().find(|(name, _)| name == token) {
                Some((_, at)) => out.replace_range(at.clone(), &set_json(slice(document, &at), rest, text)?),
                None => {
                    let comma = if empty { "" } else { "," };
                    out.insert_str(head, &format!("{}:{}{comma}", Value::from(token.as_str()), missing()));
                }
            }
        }
        Some(b'[') => {
            let items = entries(document, begin, false).ok_or("it is not JSON")?;
            let chosen: Vec<_> = match token.as_str() {
                EACH => items.into_iter().map(|(_, at)| at).collect(),
                index => index
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.into_iter().nth(index))
                    .into_iter()
                    .map(|(_, at)| at)
                    .collect(),
            };
            if chosen.is_empty() {
                return Err(format!("its array has no item {token}"));
            }
            // From the last to the first, so that the ranges of earlier ones stay valid.
            for at in chosen.into_iter().rev() {
                out.replace_range(at.clone(), &set_json(slice(document, &at), rest, text)?);
            }
        }
        _ => return Err(format!("there is no object or array that {token:?} could be in")),
    }
    Ok(out)
}

/// The text as a JSON number, if it is one and so is the value `before`; otherwise as a JSON string.
fn scalar(before: &str, text: &str) -> String {
    let number = |text: &str| serde_json::from_str::<Number>(text).is_ok();
    if number(before) && number(text) { text.to_owned() } else { Value::from(text).to_string() }
}

/// The text as a JSON string within new objects, and arrays of one item, for the tokens.
fn nested(tokens: &[String], text: &str) -> String {
    tokens.iter().rev().fold(Value::from(text).to_string(), |inner, token| match token.as_str() {
        "0" | EACH => format!("[{inner}]"),
        name => format!("{{{}:{inner}}}", Value::from(name)),
    })
}

/// The ranges of the values of an object or array whose bracket is at `begin`. `named`: whether it is an object, whose
/// members have names. `None` when it is not JSON.
fn entries(document: &str, begin: usize, named: bool) -> Option<Vec<(String, Range<usize>)>> {
    let mut entries = Vec::new();
    let mut at = begin + 1;
    loop {
        at = skip_blanks(document, at);
        if matches!(document.as_bytes().get(at)?, b'}' | b']') {
            return Some(entries);
        }
        let mut name = String::new();
        if named {
            let (key, length) = value::<String>(document.get(at..)?)?;
            name = key;
            at = skip_blanks(document, at + length);
            at = skip_blanks(document, at + usize::from(document.as_bytes().get(at) == Some(&b':')));
        }
        let (_, length) = value::<IgnoredAny>(document.get(at..)?)?;
        entries.push((name, at..at + length));
        at = skip_blanks(document, at + length);
        at += usize::from(document.as_bytes().get(at) == Some(&b','));
    }
}

/// Parses the value at the start of the text, and returns its length in bytes.
fn value<T: DeserializeOwned>(text: &str) -> Option<(T, usize)> {
    let mut values = Deserializer::from_str(text).into_iter::<T>();
    let first = values.next()?.ok()?;
    Some((first, values.byte_offset()))
}

/// The offset of the first byte from `at` on that is not white space.
fn skip_blanks(document: &str, at: usize) -> usize {
    let rest = document.get(at..).unwrap_or_default();
    at + rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len()
}

fn slice<'d>(document: &'d str, at: &Range<usize>) -> &'d str {
    document.get(at.clone()).unwrap_or_default()
}

/// The value of a name in a form or query, decoded.
pub(super) fn pair_value<'t>(text: &'t str, name: &str) -> Option<Cow<'t, str>> {
    form_urlencoded::parse(text.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value)
}

/// Sets the value of a name in a form or query, or adds it. Further pairs with the same name are removed, because they
/// would make the value ambiguous.
pub(super) fn set_pair(text: &str, name: &str, value: &str) -> String {
    let written: String = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
    let has_name = |pair: &&str| form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(known, _)| known == name);
    let mut found = false;
    let mut all: Vec<&str> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        match (has_name(&pair), found) {
            (false, _) => all.push(pair),
            (true, false) => all.push(&written),
            (true, true) => {}
        }
        found |= has_name(&pair);
    }
    if !found {
        all.push(&written);
    }
    all.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(pointer: &str) -> Vec<String> {
        crate::base::json::Pointer::parse(pointer).expect("a pointer").tokens().to_vec()
    }

    #[test]
    fn one_value_changes_and_nothing_else() {
        for (document, pointer, after) in [
            (r#"{ "b" : 1.0e3, "id":"x"}"#, "/id", r#"{ "b" : 1.0e3, "id":"7"}"#),
            (r#"{"id" : 12 ,"b":[ ]}"#, "/id", r#"{"id" : 7 ,"b":[ ]}"#),
            (r#"{"id":12.0}"#, "/id", r#"{"id":7}"#),
            (r#"{"id":123456789012345678901234567890}"#, "/id", r#"{"id":7}"#),
            (r#"{"a":[{"id":null},{"id":"\/\u00e9"}]}"#, "/a/1/id", r#"{"a":[{"id":null},{"id":"7"}]}"#),
            (r#"{"a":[{"id":""},{}]}"#, "/a/*/id", r#"{"a":[{"id":"7"},{"id":"7"}]}"#),
            ("{}", "/a/id", r#"{"a":{"id":"7"}}"#),
            (r#" {"b":{"c":"}"}}"#, "/a/0/id", r#" {"a":[{"id":"7"}],"b":{"c":"}"}}"#),
        ] {
            assert_eq!(set_json(document, &tokens(pointer), "7").as_deref(), Ok(after), "{document}");
        }
        assert_eq!(set_json(r#"{"id":12}"#, &tokens("/id"), "x").as_deref(), Ok(r#"{"id":"x"}"#));
        for (document, pointer) in [
            ("", "/a"),
            ("7", "/a"),
            ("[]", "/0"),
            (r#"{"a":"#, "/a/b"),
            (r#"{"a" 1"#, "/b"),
            ("[1,", "/1"),
            ("{\"a\":1]", "/b/c"),
        ] {
            drop(set_json(document, &tokens(pointer), "7").map(|changed| assert_ne!(changed, "", "{document}")));
        }
        assert!(set_json("\u{a0}{}", &tokens("/a"), "7").is_err(), "a blank that JSON does not know");
        assert!(set_json("", &tokens("/a"), "7").is_err() && set_json("[]", &tokens("/0"), "7").is_err());
    }

    #[test]
    fn one_pair_changes_and_no_other() {
        assert_eq!(set_pair("a=%2b&b=1&c", "b", "x y&"), "a=%2b&b=x+y%26&c");
        assert_eq!(set_pair("b=1&a=2&%62=3&c", "b", "4"), "b=4&a=2&c", "the other value stayed, and no one takes both");
        assert_eq!(set_pair("", "b", "1"), "b=1");
        assert_eq!(set_pair("a=1", "b", "1"), "a=1&b=1");
        assert_eq!(pair_value("a=1&b=%26", "b").as_deref(), Some("&"));
    }
}
