//! How the text of a secret becomes key bytes: the prefix that is dropped, the encoding, and a digest.

use serde::Deserialize;
use serde::de::Deserializer;

use crate::profile::deserialize;
use crate::profile::hash::Hash;

/// How the text of a secret becomes key bytes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { about = \"the signing secret\", encoding = \"base64\" }")]
pub struct KeyForm {
    /// What the secret is and where to find it, for the operator.
    pub about: Option<String>,
    /// The encoding. The default depends on the scheme.
    pub encoding: Option<KeyEncoding>,
    /// The first of these prefixes that the secret has is dropped before decoding (Standard Webhooks: `whsec_`).
    #[serde(default, deserialize_with = "prefixes")]
    pub prefix: Vec<String>,
    /// This scheme uses only secrets with one of the prefixes, and no other scheme uses those.
    #[serde(default)]
    pub only_prefixed: bool,
    /// The whole text is also tried as the key (Polar, which decodes only newer secrets).
    #[serde(default)]
    pub or_text: bool,
    /// The key is this digest of the decoded secret (Braintree).
    pub derive: Option<Hash>,
}

impl KeyForm {
    /// The text of a secret without its prefix; `None` when it has none.
    pub fn without_prefix<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        self.prefix.iter().find_map(|prefix| text.strip_prefix(prefix.as_bytes()))
    }

    /// The form of a key that is the whole text, where that is tried too.
    pub fn as_text(&self) -> Option<Self> {
        self.or_text.then(|| Self { derive: self.derive, ..Self::default() })
    }
}

fn prefixes<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    deserialize::texts(input, "a prefix such as \"whsec_\", or a list of them", |text| match text {
        "" => Err("is empty, and would stand before every secret; write a prefix such as \"whsec_\"".to_owned()),
        text => Ok(text.to_owned()),
    })
}

/// The encoding of a key in the text of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// The bytes of the text are the key.
    Text,
    /// RFC 4648 section 4, with or without padding.
    Base64,
    /// RFC 4648 section 8, either case.
    Hex,
    /// A public key as `SubjectPublicKeyInfo` (RFC 5280 section 4.1), in PEM (RFC 7468) or as the base64 in it.
    Spki,
}
