//! `[event]`: where the identity of an event is.

use serde::Deserialize;

use super::condition::take;
use super::place::Place;

/// `[event]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// What stays the same over all attempts of one event and differs between events.
    pub id: Reference,
    /// The event's type, which `events` of a source selects by.
    #[serde(rename = "type")]
    pub kind: Option<Reference>,
    /// A value that is good for one event only, whatever its id.
    pub nonce: Option<Place>,
}

/// What an event is known by.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Table")]
pub enum Reference {
    /// One value.
    Place(Place),
    /// Several values together.
    All(Vec<Self>),
    /// The first that there is.
    First(Vec<Self>),
    /// The SHA-256 of the body, where the provider gives nothing better.
    BodyDigest,
    /// Nothing: every request is an event of its own, because the provider's cannot be told apart.
    Unique,
}

impl Reference {
    /// Every place that it may be read from.
    pub fn places(&self) -> Vec<&Place> {
        match self {
            Self::Place(place) => vec![place],
            Self::All(references) | Self::First(references) => references.iter().flat_map(Self::places).collect(),
            Self::BodyDigest | Self::Unique => Vec::new(),
        }
    }

    /// Whether the body's digest is among what it may be.
    pub fn may_be_digest(&self) -> bool {
        match self {
            Self::Place(_) | Self::Unique => false,
            Self::All(references) | Self::First(references) => references.iter().any(Self::may_be_digest),
            Self::BodyDigest => true,
        }
    }

    /// Whether it can be had from a body that is no JSON.
    pub fn works_without_json(&self) -> bool {
        match self {
            Self::Place(place) => !place.is_json(),
            Self::All(references) => references.iter().all(Self::works_without_json),
            Self::First(references) => references.iter().any(Self::works_without_json),
            Self::BodyDigest | Self::Unique => true,
        }
    }
}

impl TryFrom<toml::Table> for Reference {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        let several = |references: Vec<Self>, key: &str| match references.len() {
            0 | 1 => Err(format!("{key} joins at least two values")),
            _ => Ok(references),
        };
        let all = take::<Vec<Self>>(&mut table, "all")?;
        let first = take::<Vec<Self>>(&mut table, "first")?;
        let digest = take::<String>(&mut table, "digest")?;
        if take::<bool>(&mut table, "unique")? == Some(true) && table.is_empty() {
            return Ok(Self::Unique);
        }
        match (all, first, digest) {
            (Some(references), None, None) if table.is_empty() => several(references, "all").map(Self::All),
            (None, Some(references), None) if table.is_empty() => several(references, "first").map(Self::First),
            (None, None, Some(of)) if of == "body" && table.is_empty() => Ok(Self::BodyDigest),
            (None, None, None) => {
                table.try_into().map(Self::Place).map_err(|error: toml::de::Error| error.message().to_owned())
            }
            _ => Err("is one of a place, all = [ … ], first = [ … ], digest = \"body\" and unique = true".to_owned()),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |references: &[Self]| references.iter().map(Self::to_string).collect::<Vec<_>>();
        match self {
            Self::Place(place) => place.fmt(f),
            Self::All(references) => f.write_str(&list(references).join(" and ")),
            Self::First(references) => f.write_str(&list(references).join(", or else ")),
            Self::BodyDigest => f.write_str("the SHA-256 of the body"),
            Self::Unique => f.write_str("nothing: each request counts as one"),
        }
    }
}
