//! `[limits]`: limits that all requests of a provider meet.

use bytesize::ByteSize;
use serde::Deserialize;
use serde::Deserializer;

use super::deserialize;

/// `[limits]`: limits that all requests of the provider meet, so that others are refused.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [limits]")]
pub struct Limits {
    /// The largest body.
    #[serde(default, deserialize_with = "size")]
    pub max_body: Option<ByteSize>,
    /// Whether every body is a JSON object or array.
    #[serde(default)]
    pub json: bool,
}

/// A number of bytes, such as `"1MiB"`.
pub(super) fn size<'de, D: Deserializer<'de>>(input: D) -> Result<Option<ByteSize>, D::Error> {
    let size = |text: &str| text.parse().map_err(|_bad| format!("{text:?} is not a size such as \"1MiB\""));
    deserialize::text(input, "a size such as \"1MiB\"", size).map(Some)
}
