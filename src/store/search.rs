//! Searches for deliveries, as far as all stores share them: the destinations and times that a filter selects, the
//! direction, and merging of results.

use std::collections::BTreeSet;
use std::time::Duration;

use super::AdminError;
use super::DestinationId;
use super::Filter;
use crate::base::time::Moment;

/// The largest difference between a message's `received_at` and the time in its id, because of a slow body, or clocks
/// that differ or were set back.
const SLACK: Duration = Duration::from_mins(5);

/// The order of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    NewestFirst,
    OldestFirst,
}

/// The result of a search.
#[derive(Debug)]
pub(super) struct Found<D, I> {
    /// In order, with all selected deliveries of each message.
    pub(super) deliveries: Vec<D>,
    /// The message after which to continue; `None` at the end.
    pub(super) next: Option<I>,
}

impl<D, I> Default for Found<D, I> {
    fn default() -> Self {
        Self { deliveries: Vec::new(), next: None }
    }
}

impl<D, I: Ord + Copy> Found<D, I> {
    /// Merges the results of several searches, up to where all of them have come: about `limit` deliveries.
    pub(super) fn merged(searches: Vec<Self>, id: impl Fn(&D) -> I, (direction, limit): (Direction, usize)) -> Self {
        let order = |one: &I, other: &I| match direction {
            Direction::NewestFirst => other.cmp(one),
            Direction::OldestFirst => one.cmp(other),
        };
        let complete = searches.iter().filter_map(|search| search.next).min_by(order);
        let mut deliveries: Vec<_> = searches.into_iter().flat_map(|search| search.deliveries).collect();
        deliveries.sort_by(|one, other| order(&id(one), &id(other)));
        let last =
            deliveries.get(limit.saturating_sub(1)).map(&id).filter(|last| deliveries.last().map(&id) != Some(*last));
        let next = complete.into_iter().chain(last).min_by(order);
        deliveries.retain(|delivery| next.is_none_or(|next| order(&id(delivery), &next).is_le()));
        Self { deliveries, next }
    }
}

impl Filter {
    /// Whether the filter selects a destination.
    pub(super) fn selects(&self, destination: &DestinationId) -> bool {
        let is = |wanted: &Option<String>, name: &String| wanted.as_ref().is_none_or(|wanted| wanted == name);
        is(&self.source, &destination.source) && is(&self.destination, &destination.name)
    }

    /// Checks that the source and destination that the filter names exist.
    pub(super) fn check(&self, known: &[&DestinationId]) -> Result<(), AdminError> {
        let listed = |names: BTreeSet<&String>| names.into_iter().cloned().collect();
        let of_source = || known.iter().filter(|id| self.source.as_ref().is_none_or(|source| *source == id.source));
        match (&self.source, &self.destination) {
            (Some(source), _) if of_source().next().is_none() => {
                Err(AdminError::NoSuchSource(source.clone(), listed(known.iter().map(|id| &id.source).collect())))
            }
            (_, Some(name)) if !of_source().any(|id| self.selects(id)) => {
                Err(AdminError::NoSuchDestination(name.clone(), listed(of_source().map(|id| &id.name).collect())))
            }
            _ => Ok(()),
        }
    }

    /// The range of times in the ids of selected messages.
    pub(super) fn id_range(&self) -> (Option<Moment>, Option<Moment>) {
        (self.from.map(|from| from.before(SLACK)), self.until.map(|until| until.after(SLACK)))
    }
}
