//! The types of administrative requests to a store: filters, listed deliveries, pages, results and errors.

use std::sync::Arc;

use super::DestinationId;
use super::Failures;
use super::MessageId;
use super::State;
use super::Unavailable;
use crate::base::time::Moment;
use crate::message::Message;

/// Most deliveries that are listed, replayed or purged at once. A page never separates the deliveries of one message.
pub const MAX_PART: usize = 1000;

/// Which deliveries are selected. An empty filter selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only deliveries of this source.
    pub source: Option<String>,
    /// Only deliveries to the destination of this name.
    pub destination: Option<String>,
    /// Only deliveries in this state.
    pub state: Option<State>,
    /// Only events of this type.
    pub kind: Option<String>,
    /// Only events with this id of the provider.
    pub id: Option<String>,
    /// Only messages received at this moment or later.
    pub from: Option<Moment>,
    /// Only messages received before this moment.
    pub until: Option<Moment>,
}

/// A delivery in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The source.
    pub source: String,
    /// The name of the destination.
    pub destination: String,
    /// The id of the message.
    pub id: MessageId,
    /// The provider's id of the event.
    pub event_id: String,
    /// Its type.
    pub kind: Option<String>,
    /// When it was received.
    pub received_at: Moment,
    /// The state of the delivery.
    pub state: State,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due, if one failed before.
    pub due: Option<Moment>,
    /// When the last attempt ended.
    pub settled_at: Option<Moment>,
    /// The status of the answer with which the destination took it.
    pub status: Option<u16>,
    /// Attempts that failed.
    pub failures: Failures,
}

impl Summary {
    /// The id of its destination.
    pub fn destination_id(&self) -> DestinationId {
        DestinationId { source: self.source.clone(), name: self.destination.clone() }
    }
}

/// A message with all its deliveries.
#[derive(Debug, Clone)]
pub struct Details {
    /// The deliveries of the message, at least one.
    pub deliveries: Vec<Summary>,
    /// The message; absent when it is damaged.
    pub message: Option<Arc<Message>>,
}

/// A page of a list, newest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The deliveries.
    pub deliveries: Vec<Summary>,
    /// The cursor for the next page; absent on the last one.
    pub next: Option<MessageId>,
}

/// The result of one page of a replay or purge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// The number of deliveries.
    pub deliveries: u64,
    /// The cursor for the next page; absent when all are done.
    pub next: Option<MessageId>,
}

/// The result of one call that imports a part of a quarantined file, in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Imported with their deliveries.
    pub imported: u64,
    /// Not imported, because the message is in the store.
    pub present: u64,
    /// Imported as dead letters, because nothing is left of their deliveries.
    pub record_lost: u64,
    /// Lost: deliveries without their message, or damaged messages.
    pub lost: u64,
    /// The cursor for the next call; absent when all is done and the file is renamed.
    pub next: Option<MessageId>,
}

impl Recovered {
    /// Adds the numbers of an earlier call.
    #[must_use]
    pub(super) fn and(self, before: Self) -> Self {
        Self {
            imported: self.imported + before.imported,
            present: self.present + before.present,
            record_lost: self.record_lost + before.record_lost,
            lost: self.lost + before.lost,
            next: self.next,
        }
    }
}

/// One page of the deliveries that an administrative request selects.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) filter: Filter,
    /// Only deliveries in these states.
    pub(super) states: Vec<State>,
    /// Only messages after this one, in the order of the request.
    pub(super) after: Option<MessageId>,
    /// About how many deliveries.
    pub(super) limit: usize,
}

/// Why an administrative request fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdminError {
    /// The store is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// No such event is stored.
    #[error("there is no event {1} of {0}; what was delivered is forgotten after a while")]
    NoSuchEvent(String, MessageId),
    /// No event of this source was ever queued; with the sources whose events were.
    #[error("no events of a source {0:?} are stored; there are those of {names}", names = listed(.1))]
    NoSuchSource(String, Vec<String>),
    /// No event was ever queued for a destination of this name; with the destinations for which some were.
    #[error("no events for a destination {0:?} are stored; there are those for {names}", names = listed(.1))]
    NoSuchDestination(String, Vec<String>),
    /// The source no longer has a queue, so no dispatcher would deliver its events.
    #[error("the source {0} has no deliver.queue any more, so that nobody would deliver its events")]
    NoQueue(String),
    /// The event is delivered without a replay.
    #[error("the event is {name} and is delivered without that; replay what is dead or delivered", name = .0.name())]
    Waiting(State),
    /// Events in this state are delivered without a replay.
    #[error("events that are {name} are delivered without that; replay those that are dead or delivered", name = .0.name())]
    NotReplayed(State),
    /// Events in this state were acknowledged and are still to be delivered.
    #[error(
        "events that are {name} were acknowledged and are still to be delivered, so that none is purged; purge those that \
         are dead or delivered",
        name = .0.name()
    )]
    NotPurged(State),
    /// No message of this store can have this id.
    #[error("{0} is no place to go on at; take the \"next\" of the answer before")]
    BadCursor(MessageId),
    /// This kind of store does not support it.
    #[error("{0}")]
    NotThisStore(&'static str),
    /// The path cannot be used.
    #[error("{0}")]
    BadPath(String),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The finished states that are selected: the filter's, or the defaults. A state that is open is an error.
pub(super) fn finished(
    filter: &Filter,
    defaults: &[State],
    open: fn(State) -> AdminError,
) -> Result<Vec<State>, AdminError> {
    match filter.state {
        None => Ok(defaults.to_vec()),
        Some(state) if state.is_open() => Err(open(state)),
        Some(state) => Ok(vec![state]),
    }
}

/// The deliveries of a message that a replay selects: that to the destination of this name; without a name, the dead
/// ones, or all finished ones when none is dead.
pub(super) fn to_replay(mut deliveries: Vec<Summary>, destination: Option<&str>) -> Result<Vec<Summary>, AdminError> {
    if let Some(name) = destination {
        let names = deliveries.iter().map(|delivery| delivery.destination.clone()).collect();
        deliveries.retain(|delivery| delivery.destination == name);
        if deliveries.is_empty() {
            return Err(AdminError::NoSuchDestination(name.to_owned(), names));
        }
    }
    let dead = deliveries.iter().any(|delivery| delivery.state == State::Dead);
    let open = deliveries.iter().map(|delivery| delivery.state).find(|state| state.is_open());
    deliveries.retain(|delivery| delivery.state == if dead { State::Dead } else { State::Delivered });
    match open {
        Some(open) if deliveries.is_empty() => Err(AdminError::Waiting(open)),
        _ => Ok(deliveries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Moment;

    #[test]
    fn a_replay_means_the_named_destination_or_the_dead_ones_or_all() {
        let delivery = |(destination, state): &(&str, State)| Summary {
            source: "shop".to_owned(),
            destination: (*destination).to_owned(),
            id: MessageId { millis: 1, sequence: 0 },
            event_id: String::new(),
            kind: None,
            received_at: Moment::from_unix(0),
            state: *state,
            attempts: 0,
            due: None,
            settled_at: None,
            status: None,
            failures: Failures::default(),
        };
        let meant = |deliveries: &[(&str, State)], name: Option<&str>| {
            let meant = to_replay(deliveries.iter().map(delivery).collect(), name).map_err(|error| error.to_string());
            meant.map(|meant| meant.into_iter().map(|delivery| delivery.destination).collect::<Vec<_>>().join(" "))
        };
        let (delivered, dead, retrying) = (State::Delivered, State::Dead, State::Retrying);
        let mixed = [("a", dead), ("b", delivered), ("c", retrying), ("d", dead)];
        assert_eq!(meant(&mixed, None).as_deref(), Ok("a d"));
        assert_eq!(meant(&mixed, Some("b")).as_deref(), Ok("b"));
        assert_eq!(meant(&mixed[1..3], None).as_deref(), Ok("b"));
        assert!(
            meant(&mixed, Some("c")).is_err_and(|error| error.contains("is retrying and is delivered without that"))
        );
        assert!(meant(&mixed, Some("e")).is_err_and(|error| error.contains("there are those for a, b, c, d")));
    }
}
