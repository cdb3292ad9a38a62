//! The path of keys and positions to a value in a profile's file: how messages name it, and the line where it stands.

use std::fmt;
use std::ops::Range;

use toml::de::DeTable;
use toml::de::DeValue;

use super::deserialize;

/// The keys and positions that lead to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// A key of a table.
    Key(String),
    /// A position in a list, from 0.
    Item(usize),
    /// A scheme of `[auth]`: in a combination the member at this position, else the table itself.
    Member(usize),
}

impl ConfigPath {
    /// From the top of the file through these tables.
    pub(super) fn to<const N: usize>(keys: [&str; N]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// To the scheme of the member at this position.
    pub(super) fn member(position: usize, scheme: &str) -> Self {
        Self::to(["auth"]).with(Step::Member(position)).key(scheme)
    }

    /// The trail to a key of this value.
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// The trail to an item of this list.
    pub(super) fn item(&self, position: usize) -> Self {
        self.with(Step::Item(position))
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// A message under the line of the value, or of the last step to it that is there.
    pub(super) fn pointed(&self, text: &str, message: &str) -> String {
        deserialize::pointed(text, self.span(text).unwrap_or_default(), message)
    }

    /// The line of the value, or of the last step to it that is there; counted from 1.
    pub fn line(&self, text: &str) -> Option<usize> {
        let before = text.get(..self.span(text)?.start)?;
        Some(before.matches('\n').count() + 1)
    }

    fn span(&self, text: &str) -> Option<Range<usize>> {
        let document = DeTable::parse(text).ok()?;
        let mut value = &DeValue::Table(document.into_inner());
        let mut found = None;
        for step in &self.0 {
            match (step, value) {
                (Step::Key(key), DeValue::Table(table)) => {
                    let Some((name, inner)) = table.get_key_value(key.as_str()) else { break };
                    found = Some(name.span());
                    value = inner.get_ref();
                }
                (Step::Item(position), DeValue::Array(items)) => {
                    let Some(item) = items.get(*position) else { break };
                    found = Some(item.span());
                    value = item.get_ref();
                }
                (Step::Member(position), DeValue::Table(table)) => {
                    let Some((_, list)) =
                        table.iter().find(|(name, _)| matches!(name.get_ref().as_ref(), "first" | "all"))
                    else {
                        continue;
                    };
                    let DeValue::Array(items) = list.get_ref() else { break };
                    let Some(item) = items.get(*position) else { break };
                    found = Some(item.span());
                    value = item.get_ref();
                }
                _ => break,
            }
        }
        found
    }
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for step in &self.0 {
            match step {
                Step::Key(key) if first => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Item(position) => write!(f, "[{position}]")?,
                Step::Member(_) => {}
            }
            first = false;
        }
        Ok(())
    }
}
