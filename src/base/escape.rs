//! Escapes untrusted text before it is shown: control characters, marks that change the direction of text, and
//! characters without width. Any of them could control a terminal or disguise what the text says.

use std::borrow::Cow;

/// Whether a character is invisible and may change how others are shown: control characters (C0, DEL, C1), marks and
/// isolates that change the direction of text, line and paragraph separators, and characters without width.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// One line for people: hidden characters are escaped as `\n` or `\u{202e}`, except the tabulator, which does no harm.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| character != '\t' && is_hidden(character),
        |character, line| {
            line.extend(character.escape_default());
        },
    )
}

/// Text of several lines for people: each line is escaped as by [`line()`], and line feeds stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| !matches!(character, '\t' | '\n') && is_hidden(character),
        |character, lines| {
            lines.extend(character.escape_default());
        },
    )
}

/// An equivalent JSON document: hidden characters, which can only be in its strings, are escaped as `\u202e`. Control
/// characters below U+0020 stay as they are: JSON forbids them in strings, so a serializer has escaped them already.
pub fn json(document: &str) -> Cow<'_, str> {
    escaped(
        document,
        |character| character >= '\u{7f}' && is_hidden(character),
        |character, json| {
            for unit in character.encode_utf16(&mut [0; 2]) {
                json.push_str(&format!("\\u{unit:04x}"));
            }
        },
    )
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for character in text.chars() {
        if is_escaped(character) {
            write(character, &mut escaped);
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: &str = "\0\u{7}\u{1b}\r\u{7f}\u{80}\u{9b}\u{61c}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\
                          \u{202e}\u{2060}\u{2066}\u{2069}\u{feff}\u{e0041}";

    #[test]
    fn what_is_hidden_is_shown_and_the_rest_is_left_alone() {
        let plain = "caf\u{e9} \u{5d0}\u{5d1} \u{4e2d}\u{6587} \u{1f600} \"\\\u{2014}\t";
        assert!(matches!(
            (line(plain), lines(plain), json(plain)),
            (Cow::Borrowed(_), Cow::Borrowed(_), Cow::Borrowed(_))
        ));
        assert_eq!(line("a\nb\u{202e}c\u{1b}[2J"), "a\\nb\\u{202e}c\\u{1b}[2J");
        assert_eq!(lines("a\nb\r\n\u{9b}c"), "a\nb\\r\n\\u{9b}c");
        for character in HIDDEN.chars() {
            for shown in [line(&character.to_string()), lines(&character.to_string())] {
                assert!(shown.len() > 1 && shown.bytes().all(|byte| byte.is_ascii_graphic()), "{character:?}");
            }
        }
    }

    #[test]
    fn json_says_the_same() {
        for text in [HIDDEN, "\u{2028}\u{2029}", "plain \u{1f600}\n"] {
            let document = serde_json::json!({ text: [text, { "a": text }] });
            let written = document.to_string();
            let escaped = json(&written);
            assert!(!escaped.chars().any(is_hidden), "{escaped}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).expect("JSON"), document);
        }
    }
}
