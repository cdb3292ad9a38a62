//! Conditions on a value of a request, under which a rule applies or a request is accepted.

use serde::Deserializer;

use super::deserialize;
use super::deserialize::deserialize_as;
use super::location::Location;
use super::location::location_table;
use super::template::Template;

/// A condition on one value of a request: `{ query = "hub.mode", equals = "subscribe" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The location of the value.
    pub location: Location,
    /// What the value must be.
    pub test: Test,
    /// Whether the condition also holds when the value is absent.
    pub optional: bool,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Equal to the text of this template.
    Equals(Template),
    /// Present, with any value.
    Present,
    /// Absent.
    Absent,
    /// A text with a length in bytes from the first to the second number.
    Length(usize, usize),
    /// A text that has none of these characters.
    Without(String),
}

location_table!(ConditionTable {
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

/// The greatest length in bytes that a condition may have.
const MAX_LENGTH: i64 = 1_000_000;

fn length<'de, D: Deserializer<'de>>(input: D) -> Result<Option<usize>, D::Error> {
    deserialize::number(input, 0..=MAX_LENGTH).map(|length| usize::try_from(length).ok())
}

deserialize_as!(Condition, ConditionTable, "a condition such as { header = \"X-Name\", equals = \"…\" }");

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
    /// Whether it holds only when the value is present.
    pub(super) fn requires_presence(&self) -> bool {
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
