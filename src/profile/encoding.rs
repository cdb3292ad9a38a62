//! How bytes such as signatures are written as text: hexadecimal, base64 or base64url.

use serde::Deserialize;

/// How bytes are written as text (RFC 4648).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Section 8, either case.
    Hex,
    /// Section 4, with padding.
    Base64,
    /// Section 5, with or without padding.
    Base64url,
}

impl Encoding {
    /// Decodes into `buffer`. Returns `false` when `text` is not valid or not exactly as long as `buffer`.
    pub fn decode(self, text: &[u8], buffer: &mut [u8]) -> bool {
        use base64::engine::general_purpose::STANDARD;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        match self {
            // Without the check of the length, the decoder would accept a leading `0x`.
            Self::Hex => text.len() == 2 * buffer.len() && const_hex::decode_to_slice(text, buffer).is_ok(),
            Self::Base64 => decode_exactly(&STANDARD, text, buffer),
            Self::Base64url => decode_exactly(&URL_SAFE_NO_PAD, unpadded(text), buffer),
        }
    }

    /// Decodes a text of at most `max` bytes when decoded.
    pub fn decode_vec(self, text: &[u8], max: usize) -> Option<Vec<u8>> {
        use base64::Engine as _;
        // No encoding needs more characters.
        if text.len() > max * 2 + 4 {
            return None;
        }
        let bytes = match self {
            // The decoder would accept a leading `0x` or `0X`.
            Self::Hex if !text.iter().all(u8::is_ascii_hexdigit) => None,
            Self::Hex => const_hex::decode(text).ok(),
            Self::Base64 => base64::engine::general_purpose::STANDARD.decode(text).ok(),
            Self::Base64url => base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(unpadded(text)).ok(),
        };
        bytes.filter(|bytes| bytes.len() <= max)
    }

    /// Writes bytes as text.
    pub fn encode(self, bytes: &[u8]) -> String {
        use base64::Engine as _;
        match self {
            Self::Hex => const_hex::encode(bytes),
            Self::Base64 => base64::engine::general_purpose::STANDARD.encode(bytes),
            Self::Base64url => base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        }
    }

    /// The name of this encoding for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Hex => "hexadecimal",
            Self::Base64 => "base64",
            Self::Base64url => "base64url",
        }
    }
}

fn decode_exactly(engine: &impl base64::Engine, text: &[u8], buffer: &mut [u8]) -> bool {
    // The engine writes whole groups of three bytes. 66 is enough for the longest digest, of 64 bytes.
    let mut groups = [0_u8; 66];
    match engine.decode_slice(text, &mut groups) {
        Ok(length) if length == buffer.len() => {
            groups.get(..length).map(|decoded| buffer.copy_from_slice(decoded)).is_some()
        }
        _ => false,
    }
}

/// The text without its padding, if that is complete: if it fills the last group to four characters.
fn unpadded(text: &[u8]) -> &[u8] {
    if !text.len().is_multiple_of(4) {
        return text;
    }
    text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_takes_the_exact_length_only() {
        let mut two = [0; 2];
        assert!(Encoding::Hex.decode(b"0aFf", &mut two) && two == [0x0a, 0xff]);
        for bad in [&b""[..], b"0a", b"0aff00", b"0af", b"0agg", " 0aff".as_bytes(), "0a\u{e9}".as_bytes()] {
            assert!(!Encoding::Hex.decode(bad, &mut two), "{bad:?}");
        }
        assert!(Encoding::Base64.decode(b"Cv8=", &mut two) && two == [0x0a, 0xff]);
        for bad in [&b""[..], b"Cv8", b"Cv9=", b"CvAA", b"Cv8=\n", &[b'A'; 4096]] {
            assert!(!Encoding::Base64.decode(bad, &mut two), "{bad:?}");
        }
        for good in [&b"-_8="[..], b"-_8"] {
            assert!(Encoding::Base64url.decode(good, &mut two) && two == [0xfb, 0xff], "{good:?}");
        }
        assert!(!Encoding::Base64url.decode(b"+/8=", &mut two));
    }

    #[test]
    fn padding_is_there_whole_or_not_at_all() {
        let decoded = |text: &str| Encoding::Base64url.decode_vec(text.as_bytes(), 8);
        for (bytes, good) in
            [(&b""[..], ""), (b"a", "YQ"), (b"a", "YQ=="), (b"ab", "YWI"), (b"ab", "YWI="), (b"abc", "YWJj")]
        {
            assert_eq!(decoded(good).as_deref(), Some(bytes), "{good:?}");
        }
        for bad in ["=", "==", "YQ=", "YQ===", "YWI==", "YWJj=", "YWJj==", "YWJj====", "Y===", "YQ==YQ=="] {
            assert_eq!(decoded(bad), None, "{bad:?} is padded as no encoder pads");
            assert!(!Encoding::Base64url.decode(bad.as_bytes(), &mut [0; 1]), "{bad:?}");
        }
    }

    #[test]
    fn neither_prefixes_nor_more_than_was_asked_for_is_decoded() {
        for bad in ["0x", "0X", "0x61", "0X61"] {
            assert_eq!(Encoding::Hex.decode_vec(bad.as_bytes(), 8), None, "{bad:?} is not all digits");
        }
        for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64url] {
            let longest = encoding.decode_vec(encoding.encode(&[7; 64]).as_bytes(), 64);
            assert_eq!(longest, Some(vec![7; 64]), "{encoding:?}");
            let longer = encoding.decode_vec(encoding.encode(&[7; 65]).as_bytes(), 64);
            assert_eq!(longer, None, "{encoding:?} gives more bytes than were asked for");
        }
    }
}
