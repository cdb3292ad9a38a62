//! Which bytes of a compressed body are signed: those before the compression, or those that are sent.

use serde::Deserialize;

/// Which bytes of a compressed body (RFC 9110 section 8.4) a signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentEncoding {
    /// The bytes before the compression.
    SignedPlain,
    /// The compressed bytes, as sent.
    SignedAsSent,
}

impl ContentEncoding {
    /// Its value in profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::SignedPlain => "signed-plain",
            Self::SignedAsSent => "signed-as-sent",
        }
    }
}
