//! Durations as people write them.

use std::time::Duration;

use serde::Deserialize;
use serde::de::Error;

fn parse<E: Error>(text: &str) -> Result<Duration, E> {
    humantime::parse_duration(text)
        .map_err(|error| E::custom(format_args!("{text:?} is not a duration such as \"5m\": {error}")))
}

/// One that may be missing.
pub(super) mod optional {
    use std::time::Duration;

    use serde::Deserialize;
    use serde::Deserializer;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        super::parse(&String::deserialize(input)?).map(Some)
    }
}

/// One that is there.
pub(super) mod required {
    use std::time::Duration;

    use serde::Deserialize;
    use serde::Deserializer;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(input)?)
    }
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
        let read = |text: &str| parse::<serde::de::value::Error>(text).map_err(|error| error.to_string());
        match written {
            Written::Both(text) => read(&text).map(|both| Self { past: Some(both), future: Some(both) }),
            Written::Each(Each { past: None, future: None }) => Err("says neither past nor future".to_owned()),
            Written::Each(Each { past, future }) => Ok(Self {
                past: past.as_deref().map(read).transpose()?,
                future: future.as_deref().map(read).transpose()?,
            }),
        }
    }
}
