//! The path of keys and positions to a value in a profile's file: its name in messages, and its line in the file.

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
    /// A scheme of `[auth]`: the member at this position of `first` or `all`, or the table itself if it has neither.
    Member(usize),
}

impl ConfigPath {
    /// The path of these keys from the top of the file.
    pub(super) fn to<const N: usize>(keys: [&str; N]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// The path to a key of the member at this position.
    pub(super) fn member(position: usize, scheme: &str) -> Self {
        Self::to(["auth"]).with(Step::Member(position)).key(scheme)
    }

    /// The path to a key of this value.
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// The path to an item of this list.
    pub(super) fn item(&self, position: usize) -> Self {
        self.with(Step::Item(position))
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The message after an excerpt of the file at the value, or at its last ancestor that is present.
    pub(super) fn with_excerpt(&self, text: &str, message: &str) -> String {
        deserialize::with_excerpt(text, self.span(text).unwrap_or_default(), message)
    }

    /// The line of the value, or of its last ancestor that is present, from 1.
    pub fn line(&self, text: &str) -> Option<usize> {
        let before = text.get(..self.span(text)?.start)?;
        Some(before.matches('\n').count() + 1)
    }

    /// The bytes of the value's key or item, or of its last ancestor that is present.
    fn span(&self, text: &str) -> Option<Range<usize>> {
        let document = DeTable::parse(text).ok()?;
        let mut value = &DeValue::Table(document.into_inner());
        let mut span = None;
        for step in &self.0 {
            match (step, value) {
                (Step::Key(key), DeValue::Table(table)) => {
                    let Some((name, inner)) = table.get_key_value(key.as_str()) else { break };
                    span = Some(name.span());
                    value = inner.get_ref();
                }
                (Step::Item(position), DeValue::Array(items)) => {
                    let Some(item) = items.get(*position) else { break };
                    span = Some(item.span());
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
                    span = Some(item.span());
                    value = item.get_ref();
                }
                _ => break,
            }
        }
        span
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
