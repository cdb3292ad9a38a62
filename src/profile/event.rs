//! `[event]`: where the id and type of an event are, and how a replay under another id is recognised.

use serde::Deserialize;
use serde::Deserializer;

use super::deserialize;
use super::deserialize::deserialize_as;
use super::location::Carrier;
use super::location::Location;
use super::location::location_table;
use crate::base::json::Pointer;

/// `[event]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [event]")]
pub struct Event {
    /// The id: the same in all attempts of one event, and different for each event.
    pub id: Reference,
    /// The type, by which `events` of a source selects.
    #[serde(rename = "type")]
    pub kind: Option<Reference>,
    /// A value that no two events share, even if their ids differ.
    pub nonce: Option<Location>,
    /// How a replay under another id is recognised, where the signature does not cover the id.
    #[serde(default)]
    pub replay_guard: ReplayGuard,
}

/// How a replay of an event under another id is recognised, where the signature does not cover the id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum ReplayGuard {
    /// A request with the same signed text is a replay.
    #[default]
    #[serde(rename = "content")]
    Content,
    /// A request with the same signed text and the same type is a replay.
    #[serde(rename = "content+type")]
    ContentAndType,
    /// Replays under another id are not recognised.
    #[serde(rename = "off")]
    Off,
}

impl ReplayGuard {
    /// All variants.
    pub const ALL: [Self; 3] = [Self::Content, Self::ContentAndType, Self::Off];

    /// Its value in profiles and configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::ContentAndType => "content+type",
            Self::Off => "off",
        }
    }
}

/// How an event's id or type is read from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// One value.
    Location(Location),
    /// Several values, all of which must be present.
    All(Vec<Self>),
    /// The first of several that is present.
    First(Vec<Self>),
    /// One or more values of every item of a list in the body. The id is the SHA-256 of all of them, independent of the
    /// order of the items.
    Each(Vec<Location>),
    /// The SHA-256 of the body, where the provider sends no id.
    BodyDigest,
    /// A new id for each request, because nothing tells the provider's events apart.
    Unique,
}

impl Reference {
    /// All locations that it may be read from.
    pub fn locations(&self) -> Vec<&Location> {
        match self {
            Self::Location(location) => vec![location],
            Self::Each(locations) => locations.iter().collect(),
            Self::All(references) | Self::First(references) => references.iter().flat_map(Self::locations).collect(),
            Self::BodyDigest | Self::Unique => Vec::new(),
        }
    }

    /// Whether it may be, or contain, the digest of the body.
    pub fn may_be_digest(&self) -> bool {
        match self {
            Self::Location(_) | Self::Each(_) | Self::Unique => false,
            Self::All(references) | Self::First(references) => references.iter().any(Self::may_be_digest),
            Self::BodyDigest => true,
        }
    }

    /// Whether it is, or contains, the digest of the body for every request.
    pub fn always_has_digest(&self) -> bool {
        match self {
            Self::Location(_) | Self::Each(_) | Self::Unique => false,
            Self::All(references) => references.iter().any(Self::always_has_digest),
            Self::First(references) => references.iter().all(Self::always_has_digest),
            Self::BodyDigest => true,
        }
    }

    /// Whether every request has it.
    fn is_always_present(&self) -> bool {
        match self {
            Self::Location(_) | Self::Each(_) => false,
            Self::All(references) => references.iter().all(Self::is_always_present),
            Self::First(references) => references.iter().any(Self::is_always_present),
            Self::BodyDigest | Self::Unique => true,
        }
    }

    /// Whether it may be computed (a digest, or a new id) rather than a value of the request.
    pub fn may_be_computed(&self) -> bool {
        match self {
            Self::Location(_) => false,
            Self::All(references) | Self::First(references) => references.iter().any(Self::may_be_computed),
            Self::Each(_) | Self::BodyDigest | Self::Unique => true,
        }
    }

    /// Whether it can be read when the body is not JSON.
    pub fn works_without_json(&self) -> bool {
        match self {
            Self::Each(_) => false,
            Self::Location(location) => !location.is_json(),
            Self::All(references) => references.iter().all(Self::works_without_json),
            Self::First(references) => references.iter().any(Self::works_without_json),
            Self::BodyDigest | Self::Unique => true,
        }
    }
}

location_table!(ReferenceTable {
    all: Option<Vec<Reference>>,
    first: Option<Vec<Reference>>,
    #[serde(default, deserialize_with = "pointers")]
    each: Option<Vec<Pointer>>,
    digest: Option<String>,
    unique: Option<bool>,
});

deserialize_as!(Reference, ReferenceTable, "a place such as { json = \"/id\" }, or { first = [ … ] }");

fn pointers<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<Pointer>>, D::Error> {
    deserialize::texts(input, "a pointer such as \"/*/id\", or a list of them", Pointer::parse).map(Some)
}

/// The path of the list, for a pointer into every item of one list. `None` when the pointer has no `*`, or several.
fn list_path(pointer: &Pointer) -> Option<&[String]> {
    let mut parts = pointer.tokens().split(|token| token == "*");
    let list = parts.next()?;
    (parts.next().is_some() && parts.next().is_none()).then_some(list)
}

/// Checks that the pointers lead into the items of one list.
fn each_of(pointers: Vec<Pointer>) -> Result<Reference, String> {
    let lists: Option<Vec<_>> = pointers.iter().map(list_path).collect();
    match lists.as_deref() {
        None => {
            Err("each leads into every item of one list, with one * for the item, as in each = \"/items/*/id\""
                .to_owned())
        }
        Some([]) => Err("each names nothing; write each = \"/*/id\"".to_owned()),
        Some([first, others @ ..]) if others.iter().all(|other| other == first) => {
            let location = |pointer| Location { carrier: Carrier::Json(pointer), item: None };
            Ok(Reference::Each(pointers.into_iter().map(location).collect()))
        }
        Some(_) => {
            Err("each takes several values of the same items; these pointers lead into different lists".to_owned())
        }
    }
}

impl TryFrom<ReferenceTable> for Reference {
    type Error = String;

    fn try_from(mut table: ReferenceTable) -> Result<Self, String> {
        const FORMS: &str =
            "is one of a place, all = [ … ], first = [ … ], each = \"/*/id\", digest = \"body\" and unique = true";
        let several = |references: Vec<Self>, key: &str| match references.len() {
            0 | 1 => Err(format!("{key} joins at least two values")),
            _ => Ok(references),
        };
        let location = table.location();
        match (table.all, table.first, table.each, table.digest.as_deref(), table.unique) {
            (None, None, None, None, None) => location.plain().map(Self::Location),
            _ if location.has_carrier() => Err(FORMS.to_owned()),
            (Some(references), None, None, None, None) => several(references, "all").and_then(all_of),
            (None, Some(references), None, None, None) => several(references, "first").and_then(first_of),
            (None, None, Some(pointers), None, None) => each_of(pointers),
            (None, None, None, Some("body"), None) => Ok(Self::BodyDigest),
            (None, None, None, Some(of), None) => Err(format!("digest = {of:?} is not known; write digest = \"body\"")),
            (None, None, None, None, Some(true)) => Ok(Self::Unique),
            (None, None, None, None, Some(false)) => Err("unique is true, or left out".to_owned()),
            _ => Err(FORMS.to_owned()),
        }
    }
}

/// Checks that the values are distinct and that none is `unique`, which would make the others useless.
fn all_of(references: Vec<Reference>) -> Result<Reference, String> {
    if references.contains(&Reference::Unique) {
        return Err("all with unique = true is another id for each request, whatever else stands there; write { unique = true } \
                    alone"
            .to_owned());
    }
    check_distinct(&references, "all")?;
    Ok(Reference::All(references))
}

/// Checks that the values are distinct and that each may be the first that is present.
fn first_of(references: Vec<Reference>) -> Result<Reference, String> {
    check_distinct(&references, "first")?;
    let before_last = references.split_last().map(|(_, before)| before).unwrap_or_default();
    if let Some(always) = before_last.iter().find(|reference| reference.is_always_present()) {
        return Err(format!("of first, nothing is read after {always}, which is always there; write that last"));
    }
    Ok(Reference::First(references))
}

fn check_distinct(references: &[Reference], key: &str) -> Result<(), String> {
    let twice = |(at, spec): (usize, &Reference)| references.iter().take(at).any(|earlier| earlier == spec);
    match references.iter().enumerate().position(twice).and_then(|at| references.get(at)) {
        Some(spec) => Err(format!("{key} has {spec} twice; leave one out")),
        None => Ok(()),
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |references: &[Self]| references.iter().map(Self::to_string).collect::<Vec<_>>();
        match self {
            Self::Location(location) => location.fmt(f),
            Self::All(references) => f.write_str(&list(references).join(" and ")),
            Self::First(references) => f.write_str(&list(references).join(", or else ")),
            Self::Each(locations) => {
                let locations: Vec<_> = locations.iter().map(Location::to_string).collect();
                write!(f, "the SHA-256 of {} of all items", locations.join(" and "))
            }
            Self::BodyDigest => f.write_str("the SHA-256 of the body"),
            Self::Unique => f.write_str("nothing: each request counts as one"),
        }
    }
}
