//! The hash functions that profiles can name.

use serde::Deserialize;

/// The hash functions that providers use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// FIPS 180-4 SHA-256.
    #[default]
    Sha256,
    /// FIPS 180-4 SHA-512.
    Sha512,
    /// FIPS 180-4 SHA-1, which is still secure in HMAC (RFC 6194 section 3.3).
    Sha1,
}

impl Hash {
    /// The length of its digests in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
            Self::Sha1 => 20,
        }
    }

    /// The name as standards write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
            Self::Sha1 => "SHA1",
        }
    }
}
