//! Administrative operations: list, show, replay and purge deliveries, recover a damaged file, make a backup.

use std::path::Path;
use std::path::PathBuf;

use super::AdminError;
use super::DestinationId;
use super::Details;
use super::Done;
use super::Filter;
use super::MessageId;
use super::Page;
use super::Part;
use super::Recovered;
use super::State;
use super::Store;
use super::finished;
use super::queues::no_queues;
use super::to_replay;

const NO_FILE: &str = "the store of this gateway is no file; its store.url is not sqlite:PATH";

impl Store {
    /// About `limit` deliveries, newest first, after the message `after`; those of one message are on one page. A page
    /// may have fewer although there are more, because the number of scanned deliveries is limited.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn list(&self, filter: &Filter, after: Option<MessageId>, limit: usize) -> Result<Page, AdminError> {
        let states = filter.state.map_or_else(|| State::ALL.to_vec(), |state| vec![state]);
        let part = Part { filter: filter.clone(), states, after, limit };
        match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.list(part).await,
            Self::Redis(redis) => redis.list(part).await,
        }
    }

    /// One message with all its deliveries.
    ///
    /// # Errors
    /// [`AdminError`] when there is none, or it cannot be read.
    pub async fn show(&self, source: &str, id: MessageId) -> Result<Details, AdminError> {
        let details = match self {
            Self::Memory(_) => return Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.show(source, id).await?,
            Self::Redis(redis) => redis.show(source, id).await?,
        };
        details.ok_or_else(|| AdminError::NoSuchEvent(source.to_owned(), id))
    }

    /// Replays a message: its delivery to the destination of this name; without a name, the dead ones, or all when none
    /// is dead. Returns the number of deliveries.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn replay(&self, source: &str, id: MessageId, destination: Option<&str>) -> Result<u64, AdminError> {
        let selected = to_replay(self.show(source, id).await?.deliveries, destination)?;
        let replayed = match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.replay(&selected).await,
            Self::Redis(redis) => redis.replay(&selected).await,
        };
        match replayed? {
            // Another request has replayed it since.
            0 => Err(AdminError::Waiting(State::Retrying)),
            deliveries => Ok(deliveries),
        }
    }

    /// Replays deliveries, the oldest first: dead ones, or delivered ones if the filter selects that state; only those to
    /// destinations that are `served`, since nobody would deliver others. Processes about `limit` deliveries, and
    /// returns a cursor.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn replay_all(
        &self,
        filter: &Filter,
        after: Option<MessageId>,
        limit: usize,
        served: impl Fn(&DestinationId) -> bool,
    ) -> Result<Done, AdminError> {
        let states = finished(filter, &[State::Dead], AdminError::NotReplayed)?;
        let part = Part { filter: filter.clone(), states, after, limit };
        match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.replay_all(part, served).await,
            Self::Redis(redis) => redis.replay_all(part, served).await,
        }
    }

    /// Deletes dead and delivered deliveries, the oldest first, and messages with their last delivery. Processes about
    /// `limit` deliveries, and returns a cursor.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn purge(&self, filter: &Filter, after: Option<MessageId>, limit: usize) -> Result<Done, AdminError> {
        let states = finished(filter, &[State::Dead, State::Delivered], AdminError::NotPurged)?;
        let part = Part { filter: filter.clone(), states, after, limit };
        match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.purge(part).await,
            Self::Redis(redis) => redis.purge(part).await,
        }
    }

    /// Imports messages after `after` from the quarantined file of this name in the store's folder, for about a second.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn recover(&self, file: &str, after: Option<MessageId>) -> Result<Recovered, AdminError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.recover(file, after).await,
            Self::Memory(_) | Self::Redis(_) => Err(AdminError::NotThisStore(NO_FILE)),
        }
    }

    /// Copies the store's file and its dedupe records into a folder; returns the path of the copy.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn backup(&self, folder: &Path) -> Result<PathBuf, AdminError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.backup(folder).await,
            Self::Memory(_) | Self::Redis(_) => Err(AdminError::NotThisStore(NO_FILE)),
        }
    }
}
