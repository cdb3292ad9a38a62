//! `[timestamp]`: the time of a request and how it is judged.

use serde::Deserialize;

use super::Location;
use super::Tolerance;
use crate::base::time::Format;

/// `[timestamp]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [timestamp]")]
pub struct Timestamp {
    /// Where it is.
    pub from: Location,
    /// How it is written.
    pub format: Format,
    /// Allowed distance from now; needed unless only recorded.
    pub tolerance: Option<Tolerance>,
    /// What happens to a request outside the tolerance.
    #[serde(default)]
    pub policy: TimestampPolicy,
}

/// Whether the time decides anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampPolicy {
    /// It must be there, be readable and lie within the tolerance.
    #[default]
    Enforce,
    /// Its distance from now is measured; where it is signed, it may be as old as events are remembered, and no older.
    Record,
}
