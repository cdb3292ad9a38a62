//! Formats conditions and durations for the descriptions of profiles.

use std::time::Duration;

use crate::profile::Condition;

/// Conditions in a row.
pub(super) fn conditions(conditions: &[Condition]) -> String {
    conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// A duration as people write it.
pub(super) fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
