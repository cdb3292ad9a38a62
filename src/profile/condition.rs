//! Conditions: what has to stand at a place of a request for a rule to apply, or for a request to be accepted.

use serde::Deserializer;

use super::deserialize;
use super::deserialize::written_as;
use super::location::Location;
use super::location::place_table;
use super::template::Template;

/// A statement about one place of a request: `{ query = "hub.mode", equals = "subscribe" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Where to look.
    pub location: Location,
    /// What should be there.
    pub test: Test,
    /// Whether it holds, too, where nothing stands.
    pub optional: bool,
}

/// What should stand at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Exactly this.
    Equals(Template),
    /// Something, whatever it is.
    Present,
    /// Nothing.
    Absent,
    /// A text of at least and at most so many bytes.
    Length(usize, usize),
    /// A text in which none of these characters stands.
    Without(String),
}

place_table!(ConditionTable {
    equals: Option<Template>,
    present: Option<bool>,
    absent: Option<bool>,
    #[serde(default, deserialize_with = "length")]
    min_length: Option<usize>,
    #[serde(default, deserialize_with = "length")]
    max_length: Option<usize>,
    without: Option<String>,
    #[serde(default)]
    optional: bool,
});

/// Longest text that a condition may speak of, in bytes.
const LONGEST: i64 = 1_000_000;

fn length<'de, D: Deserializer<'de>>(input: D) -> Result<Option<usize>, D::Error> {
    deserialize::number(input, 0..=LONGEST).map(|length| usize::try_from(length).ok())
}

written_as!(Condition, ConditionTable, "a condition such as { header = \"X-Name\", equals = \"…\" }");

impl TryFrom<ConditionTable> for Condition {
    type Error = String;

    fn try_from(mut table: ConditionTable) -> Result<Self, String> {
        let location = table.location().plain()?;
        let equals = table.equals.map(Test::Equals);
        let present = table.present.map(|yes| if yes { Test::Present } else { Test::Absent });
        let absent = table.absent.map(|yes| if yes { Test::Absent } else { Test::Present });
        let length = match (table.min_length, table.max_length) {
            (None, None) => None,
            (Some(min), Some(max)) if min > max => {
                return Err(format!("no text has at least {min} and at most {max} bytes"));
            }
            (Some(0), None) => {
                return Err(
                    "min_length = 0 says nothing: every text has as many bytes; write present = true".to_owned()
                );
            }
            (min, max) => Some(Test::Length(min.unwrap_or(0), max.unwrap_or(usize::MAX))),
        };
        if table.without.as_deref() == Some("") {
            return Err(
                "without names no character; write those that must not stand there, such as without = \".\"".to_owned()
            );
        }
        let without = table.without.map(Test::Without);
        let mut tests: Vec<_> = equals.into_iter().chain(present).chain(absent).chain(length).chain(without).collect();
        match (tests.pop(), tests.is_empty()) {
            (Some(Test::Present | Test::Absent), true) if table.optional => Err(
                "optional goes with equals, min_length, max_length or without: what they say of a value then holds \
                     without one, too"
                    .to_owned(),
            ),
            (Some(test), true) => Ok(Self { location, test, optional: table.optional }),
            (Some(_), false) => Err(format!("says several things of {location}; write one condition for each")),
            (None, _) => Err(format!(
                "says nothing of {location}; write equals = \"…\", present = true, absent = true, min_length = …, max_length \
                 = … or without = \"…\""
            )),
        }
    }
}

impl Condition {
    /// Whether it holds only where something stands.
    pub(super) fn needs_a_value(&self) -> bool {
        !self.optional && self.test != Test::Absent
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.test {
            Test::Equals(template) => write!(f, "{} is {template:?}", self.location, template = template.to_string()),
            Test::Present => write!(f, "{} is there", self.location),
            Test::Absent => write!(f, "{} is not there", self.location),
            Test::Length(min, max) if min == max => write!(f, "{} has {min} bytes", self.location),
            Test::Length(min, usize::MAX) => write!(f, "{} has at least {min} bytes", self.location),
            Test::Length(min, max) => write!(f, "{} has {min} to {max} bytes", self.location),
            Test::Without(characters) => write!(f, "{} has none of {characters:?}", self.location),
        }?;
        f.write_str(if self.optional { " or is not there" } else { "" })
    }
}
