//! What has to hold of a request for something else to matter.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::place::Place;
use super::template::Template;

/// A statement about one place of a request: `{ query = "hub.mode", equals = "subscribe" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct Condition {
    /// Where to look.
    pub place: Place,
    /// What should be there.
    pub test: Test,
}

/// What should stand at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Exactly this.
    Equals(Template),
    /// Anything.
    Present,
    /// Nothing.
    Absent,
    /// A text of at least and at most so many bytes.
    Length(usize, usize),
}

impl TryFrom<toml::Table> for Condition {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        let equals = take::<Template>(&mut table, "equals")?.map(Test::Equals);
        let present = take::<bool>(&mut table, "present")?.map(|yes| if yes { Test::Present } else { Test::Absent });
        let absent = take::<bool>(&mut table, "absent")?.map(|yes| if yes { Test::Absent } else { Test::Present });
        let length = match (take(&mut table, "min_length")?, take(&mut table, "max_length")?) {
            (None, None) => None,
            (min, max) => Some(Test::Length(min.unwrap_or(0), max.unwrap_or(usize::MAX))),
        };
        let mut tests: Vec<_> = equals.into_iter().chain(present).chain(absent).chain(length).collect();
        let place = table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        match (tests.pop(), tests.is_empty()) {
            (Some(test), true) => Ok(Self { place, test }),
            _ => {
                Err("says not one thing of the place; write equals = \"…\", present = true, absent = true or max_length = …".to_owned())
            }
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.test {
            Test::Equals(template) => write!(f, "{} is {template:?}", self.place, template = template.to_string()),
            Test::Present => write!(f, "{} is there", self.place),
            Test::Absent => write!(f, "{} is not there", self.place),
            Test::Length(min, usize::MAX) => write!(f, "{} has at least {min} bytes", self.place),
            Test::Length(min, max) => write!(f, "{} has {min} to {max} bytes", self.place),
        }
    }
}

/// Takes one key out of a table.
pub(super) fn take<T: DeserializeOwned>(table: &mut toml::Table, key: &str) -> Result<Option<T>, String> {
    table.remove(key).map(|value| value.try_into().map_err(|error| format!("{key}: {}", error.message()))).transpose()
}
