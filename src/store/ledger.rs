//! The queued events of a store, for those who look at them, replay them and purge them.

use std::sync::Arc;

use super::RedisBacklog;
use super::Sqlite;
use super::Unavailable;
use super::queued::Details;
use super::queued::Done;
use super::queued::Filter;
use super::queued::Number;
use super::queued::Page;
use super::queued::State;

/// Where queued events can be looked at.
#[derive(Debug, Clone)]
pub enum Ledger {
    /// In a file of this gateway.
    Sqlite(Arc<Sqlite>),
    /// In the Redis of several gateways.
    Redis(RedisBacklog),
}

/// Why something cannot be done with queued events.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Denied {
    /// The store is out.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// No such event is stored.
    #[error("there is no event {1} of {0}; what was delivered is forgotten after a while")]
    NoSuchEvent(String, Number),
    /// No event of this source was ever queued; those whose events were.
    #[error("no events of a source {0:?} are stored; there are those of {names}", names = listed(.1))]
    NoSuchSource(String, Vec<String>),
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
    /// This is no place to go on at.
    #[error("{0:?} is no cursor; take it from the \"next\" of the answer before, or leave it out to begin")]
    BadCursor(String),
}

/// Which events are looked at.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) filter: Filter,
    /// In these states.
    pub(super) states: Vec<State>,
    /// Behind this one.
    pub(super) behind: Option<Number>,
    /// At most as many.
    pub(super) limit: usize,
}

impl Part {
    fn new(filter: &Filter, states: Vec<State>, cursor: Option<&str>, limit: usize) -> Result<Self, Denied> {
        let number = |text: &str| text.parse().map_err(|_wrong: String| Denied::BadCursor(text.to_owned()));
        Ok(Self { filter: filter.clone(), states, behind: cursor.map(number).transpose()?, limit })
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Ledger {
    /// At most `limit` events, newest first, behind the cursor. It may be fewer although there are more: a search ends for
    /// now when it has looked at many events.
    ///
    /// # Errors
    /// [`Denied`] says why there is no list.
    pub async fn list(&self, filter: &Filter, cursor: Option<&str>, limit: usize) -> Result<Page, Denied> {
        let states = filter.state.map_or_else(|| State::ALL.to_vec(), |state| vec![state]);
        let part = Part::new(filter, states, cursor, limit)?;
        match self {
            Self::Sqlite(sqlite) => sqlite.list(part).await,
            Self::Redis(redis) => redis.list(part).await,
        }
    }

    /// One event, whole.
    ///
    /// # Errors
    /// [`Denied`] when there is none, or it cannot be read.
    pub async fn show(&self, source: &str, number: Number) -> Result<Details, Denied> {
        let details = match self {
            Self::Sqlite(sqlite) => sqlite.show(source, number).await?,
            Self::Redis(redis) => redis.show(source, number).await?,
        };
        details.ok_or_else(|| Denied::NoSuchEvent(source.to_owned(), number))
    }

    /// Has one event delivered again that is dead or delivered.
    ///
    /// # Errors
    /// [`Denied`] says why it is not.
    pub async fn replay(&self, source: &str, number: Number) -> Result<(), Denied> {
        match self {
            Self::Sqlite(sqlite) => sqlite.replay(source, number).await,
            Self::Redis(redis) => redis.replay(source, number).await,
        }
    }

    /// Has events delivered again, the oldest first: those that are dead, or delivered when the filter says so. Looks at
    /// `limit` of them at most, and says where to go on.
    ///
    /// # Errors
    /// [`Denied`] says why none is.
    pub async fn replay_all(&self, filter: &Filter, cursor: Option<&str>, limit: usize) -> Result<Done, Denied> {
        let states = finished(filter, &[State::Dead], Denied::NotReplayed)?;
        let part = Part::new(filter, states, cursor, limit)?;
        match self {
            Self::Sqlite(sqlite) => sqlite.replay_all(part).await,
            Self::Redis(redis) => redis.replay_all(part).await,
        }
    }

    /// Deletes events that are dead or delivered, the oldest first. Looks at `limit` of them at most, and says where to go
    /// on.
    ///
    /// # Errors
    /// [`Denied`] says why none is.
    pub async fn purge(&self, filter: &Filter, cursor: Option<&str>, limit: usize) -> Result<Done, Denied> {
        let states = finished(filter, &[State::Dead, State::Delivered], Denied::NotPurged)?;
        let part = Part::new(filter, states, cursor, limit)?;
        match self {
            Self::Sqlite(sqlite) => sqlite.purge(part).await,
            Self::Redis(redis) => redis.purge(part).await,
        }
    }
}

/// The finished states that are meant: the filter's, or the usual ones.
fn finished(filter: &Filter, usual: &[State], open: fn(State) -> Denied) -> Result<Vec<State>, Denied> {
    match filter.state {
        None => Ok(usual.to_vec()),
        Some(state @ (State::Dead | State::Delivered)) => Ok(vec![state]),
        Some(state @ (State::Queued | State::Retrying)) => Err(open(state)),
    }
}
