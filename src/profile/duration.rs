//! Deserializes durations such as `5m`, and the tolerance for the time of a request.

use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;

use super::deserialize;

fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{text:?} is not a duration such as \"5m\": {error}"))
}

/// Deserializes a duration that is required.
pub(super) fn required<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    deserialize::text(input, "a duration such as \"5m\"", parse)
}

/// Deserializes a duration that may be missing.
pub(super) fn optional<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    required(input).map(Some)
}

/// A tolerance, written as one duration for both directions or as a table with `past` and `future`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ToleranceForm")]
pub struct Tolerance {
    /// How old a request may be; any age when absent.
    pub past: Option<Duration>,
    /// How far in the future the time of a request may be; any distance when absent.
    pub future: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "write a duration such as \"5m\", or { past = \"5m\", future = \"1m\" }")]
enum ToleranceForm {
    Both(String),
    Table(ToleranceTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToleranceTable {
    past: Option<String>,
    future: Option<String>,
}

impl TryFrom<ToleranceForm> for Tolerance {
    type Error = String;

    fn try_from(written: ToleranceForm) -> Result<Self, String> {
        match written {
            ToleranceForm::Both(text) => parse(&text).map(|both| Self { past: Some(both), future: Some(both) }),
            ToleranceForm::Table(ToleranceTable { past: None, future: None }) => {
                Err("says neither past nor future".to_owned())
            }
            ToleranceForm::Table(ToleranceTable { past, future }) => Ok(Self {
                past: past.as_deref().map(parse).transpose()?,
                future: future.as_deref().map(parse).transpose()?,
            }),
        }
    }
}
