//! The types of operators' requests to a store: filters, listed deliveries, pages, results and errors.

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

/// Which deliveries are meant. An empty filter means all.
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
    /// How far the delivery has come.
    pub state: State,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due, where one failed before.
    pub due: Option<Moment>,
    /// When the last attempt ended.
    pub settled_at: Option<Moment>,
    /// The status with which the destination took it.
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
    /// What is delivered; nothing when it is damaged.
    pub message: Option<Arc<Message>>,
}

/// A part of a list, newest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The deliveries.
    pub deliveries: Vec<Summary>,
    /// Where the list goes on; nothing at its end.
    pub next: Option<MessageId>,
}

/// What was done to some deliveries at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// The number of deliveries.
    pub deliveries: u64,
    /// Where it goes on; nothing when all are done.
    pub next: Option<MessageId>,
}

/// What one call has imported of a quarantined file, in messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Imported with their deliveries.
    pub imported: u64,
    /// There already, or stored anew since.
    pub present: u64,
    /// Imported as dead letters, because nothing is left of their deliveries.
    pub record_lost: u64,
    /// Lost: a delivery is left, or a message that is not what was written.
    pub lost: u64,
    /// Where it goes on; nothing when all is done and the file is renamed.
    pub next: Option<MessageId>,
}

impl Recovered {
    /// With what another call has imported before.
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

/// A part of all deliveries that a request of an operator is about.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) filter: Filter,
    /// In these states.
    pub(super) states: Vec<State>,
    /// Behind this message, in the order of the request.
    pub(super) after: Option<MessageId>,
    /// About so many.
    pub(super) limit: usize,
}

/// Why something cannot be done for an operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdminError {
    /// The store is out.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// No such event is stored.
    #[error("there is no event {1} of {0}; what was delivered is forgotten after a while")]
    NoSuchEvent(String, MessageId),
    /// No event of this source was ever queued; those whose events were.
    #[error("no events of a source {0:?} are stored; there are those of {names}", names = listed(.1))]
    NoSuchSource(String, Vec<String>),
    /// No event was ever queued for a destination of this name; those for which some were.
    #[error("no events for a destination {0:?} are stored; there are those for {names}", names = listed(.1))]
    NoSuchDestination(String, Vec<String>),
    /// The source does not queue its events, so that nobody would deliver them.
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
    /// Another kind of store would be needed.
    #[error("{0}")]
    NotThisStore(&'static str),
    /// A file or folder cannot be used for that.
    #[error("{0}")]
    BadPath(String),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The finished states that are meant: the filter's, or the usual ones.
pub(super) fn finished(
    filter: &Filter,
    usual: &[State],
    open: fn(State) -> AdminError,
) -> Result<Vec<State>, AdminError> {
    match filter.state {
        None => Ok(usual.to_vec()),
        Some(state) if state.is_open() => Err(open(state)),
        Some(state) => Ok(vec![state]),
    }
}

/// The deliveries of a message that a replay means: to the destination of this name; without one, those that are dead,
/// or all when none is.
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
