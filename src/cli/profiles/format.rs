//! Formats conditions and durations for the descriptions of profiles.

use std::time::Duration;

use crate::profile::Condition;

/// Conditions, joined by "and".
pub(super) fn conditions(conditions: &[Condition]) -> String {
    conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// A duration for people.
pub(super) fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
