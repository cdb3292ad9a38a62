//! Which bytes of a compressed body are signed.

use serde::Deserialize;

/// Which bytes a signature over the body is made of, where the body is compressed (RFC 9110 section 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentEncoding {
    /// The bytes before the compression.
    SignedPlain,
    /// The bytes that are sent, compressed.
    SignedAsSent,
}

impl ContentEncoding {
    /// How it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::SignedPlain => "signed-plain",
            Self::SignedAsSent => "signed-as-sent",
        }
    }
}
