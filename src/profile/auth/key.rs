//! How the text of secrets becomes keys.

use serde::Deserialize;

use crate::profile::hash::Hash;

/// How the text of a secret becomes key bytes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { about = \"the signing secret\", encoding = \"base64\" }")]
pub struct KeyForm {
    /// What the secret is and where to find it, for the operator.
    pub about: Option<String>,
    /// The encoding; what is usual for the scheme unless said otherwise.
    pub encoding: Option<KeyEncoding>,
    /// Dropped from the front when it is there, before decoding (`whsec_` at Standard Webhooks).
    pub prefix: Option<String>,
    /// Secrets without the prefix are not for this scheme, and those with it for no other.
    #[serde(default)]
    pub only_prefixed: bool,
    /// The key is this digest of what was decoded (Braintree).
    pub derive: Option<Hash>,
}

/// What the text of a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// The key itself, whatever it looks like.
    Text,
    /// RFC 4648 section 4, with or without padding.
    Base64,
    /// RFC 4648 section 8, either case.
    Hex,
    /// A public key as `SubjectPublicKeyInfo` (RFC 5280 section 4.1), in PEM (RFC 7468) or as the base64 in it.
    Spki,
}
