//! What the searches of all stores share: which destinations and times a filter selects, the direction, and the merging
//! of results.

use std::collections::BTreeSet;
use std::time::Duration;

use super::AdminError;
use super::DestinationId;
use super::Filter;
use crate::base::time::Moment;

/// How far apart a message's reception and its id may be: a slow body, clocks that differ, or one that was put back.
const SLACK: Duration = Duration::from_mins(5);

/// Which messages are found first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    NewestFirst,
    OldestFirst,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found<D, I> {
    /// In order, and all that are meant of each message.
    pub(super) deliveries: Vec<D>,
    /// The message behind which it goes on; nothing when there are no more.
    pub(super) next: Option<I>,
}

impl<D, I> Default for Found<D, I> {
    fn default() -> Self {
        Self { deliveries: Vec::new(), next: None }
    }
}

impl<D, I: Ord + Copy> Found<D, I> {
    /// What several walks have found together, as far as all of them have come: about `limit`, of the messages that
    /// `id` tells.
    pub(super) fn merged(walks: Vec<Self>, id: impl Fn(&D) -> I, (direction, limit): (Direction, usize)) -> Self {
        let order = |one: &I, other: &I| match direction {
            Direction::NewestFirst => other.cmp(one),
            Direction::OldestFirst => one.cmp(other),
        };
        let come = walks.iter().filter_map(|walk| walk.next).min_by(order);
        let mut deliveries: Vec<_> = walks.into_iter().flat_map(|walk| walk.deliveries).collect();
        deliveries.sort_by(|one, other| order(&id(one), &id(other)));
        let last =
            deliveries.get(limit.saturating_sub(1)).map(&id).filter(|last| deliveries.last().map(&id) != Some(*last));
        let next = come.into_iter().chain(last).min_by(order);
        deliveries.retain(|delivery| next.is_none_or(|next| order(&id(delivery), &next).is_le()));
        Self { deliveries, next }
    }
}

impl Filter {
    /// Whether a destination is meant.
    pub(super) fn is_to(&self, destination: &DestinationId) -> bool {
        let is = |wanted: &Option<String>, name: &String| wanted.as_ref().is_none_or(|wanted| wanted == name);
        is(&self.source, &destination.source) && is(&self.destination, &destination.name)
    }

    /// Whether one of the destinations that are known is meant, where names are named.
    pub(super) fn check(&self, known: &[&DestinationId]) -> Result<(), AdminError> {
        let listed = |names: BTreeSet<&String>| names.into_iter().cloned().collect();
        let of_source = || known.iter().filter(|id| self.source.as_ref().is_none_or(|source| *source == id.source));
        match (&self.source, &self.destination) {
            (Some(source), _) if of_source().next().is_none() => {
                Err(AdminError::NoSuchSource(source.clone(), listed(known.iter().map(|id| &id.source).collect())))
            }
            (_, Some(name)) if !of_source().any(|id| self.is_to(id)) => {
                Err(AdminError::NoSuchDestination(name.clone(), listed(of_source().map(|id| &id.name).collect())))
            }
            _ => Ok(()),
        }
    }

    /// When all that is meant was stored: from when on, and until when.
    pub(super) fn stored(&self) -> (Option<Moment>, Option<Moment>) {
        (self.from.map(|from| from.before(SLACK)), self.until.map(|until| until.after(SLACK)))
    }
}
