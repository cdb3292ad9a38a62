//! Hypotheses: the character encoding of the body was changed after it was signed.

use base64::Engine as _;

use super::Variants;
use crate::base::json::BYTE_ORDER_MARK;

/// The characters of windows-1252 for the bytes from 0x80 to 0x9f. <https://encoding.spec.whatwg.org/#windows-1252>
const WINDOWS: [(u8, char); 27] = [
    (0x80, '\u{20ac}'),
    (0x82, '\u{201a}'),
    (0x83, '\u{192}'),
    (0x84, '\u{201e}'),
    (0x85, '\u{2026}'),
    (0x86, '\u{2020}'),
    (0x87, '\u{2021}'),
    (0x88, '\u{2c6}'),
    (0x89, '\u{2030}'),
    (0x8a, '\u{160}'),
    (0x8b, '\u{2039}'),
    (0x8c, '\u{152}'),
    (0x8e, '\u{17d}'),
    (0x91, '\u{2018}'),
    (0x92, '\u{2019}'),
    (0x93, '\u{201c}'),
    (0x94, '\u{201d}'),
    (0x95, '\u{2022}'),
    (0x96, '\u{2013}'),
    (0x97, '\u{2014}'),
    (0x98, '\u{2dc}'),
    (0x99, '\u{2122}'),
    (0x9a, '\u{161}'),
    (0x9b, '\u{203a}'),
    (0x9c, '\u{153}'),
    (0x9e, '\u{17e}'),
    (0x9f, '\u{178}'),
];

/// The body in other encodings.
pub(super) fn encoded(body: &[u8]) -> Variants {
    let mut variants = Vec::new();
    let compact: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(compact) {
        let description = "the body is still base64, as some platforms hand it over (AWS Lambda says isBase64Encoded). Decode it \
                     first.";
        variants.push((description.to_owned(), bytes));
    }
    match body.strip_prefix(BYTE_ORDER_MARK) {
        Some(bytes) => {
            variants.push(("the body begins with a byte order mark that was not signed.".to_owned(), bytes.to_vec()));
        }
        None => {
            let description = "the body has lost the byte order mark (EF BB BF) at its beginning, which was signed: something \
                         reads it as text and writes it again. Keep the body byte for byte.";
            variants.push((description.to_owned(), [BYTE_ORDER_MARK, body].concat()));
        }
    }
    match std::str::from_utf8(body) {
        Ok(text) => variants.extend(in_single_bytes(text)),
        Err(_) => variants.extend(from_single_bytes(body)),
    }
    variants
}

/// UTF-8 text in single-byte encodings.
fn in_single_bytes(text: &str) -> Variants {
    let windows = |character: char| {
        let known = WINDOWS.iter().find(|(_, known)| *known == character);
        known.map(|(byte, _)| *byte).or_else(|| u8::try_from(character).ok())
    };
    let latin: Option<Vec<u8>> = text.chars().map(|character| u8::try_from(character).ok()).collect();
    let windows: Option<Vec<u8>> = text.chars().map(windows).collect();
    let mut variants = Vec::new();
    for (bytes, name) in [(latin, "ISO 8859-1"), (windows, "windows-1252")] {
        let Some(bytes) = bytes else { continue };
        let description = if std::str::from_utf8(&bytes).is_ok() {
            format!("the body's text was encoded twice: its UTF-8 was taken for {name} and encoded again.")
        } else {
            format!(
                "the body's text is UTF-8, and what was signed is the same text in {name}: something reads it and writes it \
                 again. Keep the body byte for byte."
            )
        };
        variants.push((description, bytes));
    }
    let ascii: String = text.chars().filter(char::is_ascii).collect();
    variants.push(("the body has characters beyond ASCII that were not signed.".to_owned(), ascii.into_bytes()));
    variants
}

/// Bytes that are no UTF-8, decoded from single-byte encodings.
fn from_single_bytes(body: &[u8]) -> Variants {
    let windows =
        |byte: u8| WINDOWS.iter().find(|(known, _)| *known == byte).map_or_else(|| char::from(byte), |(_, is)| *is);
    let latin: String = body.iter().copied().map(char::from).collect();
    let windows: String = body.iter().copied().map(windows).collect();
    let description = |name: &str| {
        format!(
            "the body's text is in {name}, and what was signed is the same text in UTF-8: something reads it and writes it \
             again. Keep the body byte for byte."
        )
    };
    vec![(description("ISO 8859-1"), latin.into_bytes()), (description("windows-1252"), windows.into_bytes())]
}
