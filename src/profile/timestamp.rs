//! `[timestamp]`: the time of a request and how it is checked.

use serde::Deserialize;

use super::Location;
use super::Tolerance;
use crate::base::time::Format;

/// `[timestamp]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [timestamp]")]
pub struct Timestamp {
    /// The location of the time.
    pub from: Location,
    /// The format of the time.
    pub format: Format,
    /// The allowed distance from now; required by [`TimestampPolicy::Enforce`].
    pub tolerance: Option<Tolerance>,
    /// What happens to a request outside the tolerance.
    #[serde(default)]
    pub policy: TimestampPolicy,
}

/// Whether a request is refused because of its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampPolicy {
    /// The time must be present, valid and within the tolerance.
    #[default]
    Enforce,
    /// The distance from now is only measured. A signed time must still not be older than dedupe records are kept.
    Record,
}
