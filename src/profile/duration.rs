//! Durations as people write them, such as `5m`, and the tolerance for the time of a request.

use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;

use super::deserialize;

fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{text:?} is not a duration such as \"5m\": {error}"))
}

/// Reads a duration that is required.
pub(super) fn required<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    deserialize::text(input, "a duration such as \"5m\"", parse)
}

/// Reads a duration that may be missing.
pub(super) fn optional<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    required(input).map(Some)
}

/// A tolerance: one duration both ways, or a table with `past` and `future`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Tolerance {
    /// How old a request may be; any age when absent.
    pub past: Option<Duration>,
    /// How far ahead of us its clock may be; any distance when absent.
    pub future: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "write a duration such as \"5m\", or { past = \"5m\", future = \"1m\" }")]
enum Written {
    Both(String),
    Each(Each),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Each {
    past: Option<String>,
    future: Option<String>,
}

impl TryFrom<Written> for Tolerance {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Both(text) => parse(&text).map(|both| Self { past: Some(both), future: Some(both) }),
            Written::Each(Each { past: None, future: None }) => Err("says neither past nor future".to_owned()),
            Written::Each(Each { past, future }) => Ok(Self {
                past: past.as_deref().map(parse).transpose()?,
                future: future.as_deref().map(parse).transpose()?,
            }),
        }
    }
}
