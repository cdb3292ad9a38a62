//! What operators do with a store: list and show deliveries, replay and purge them, recover a damaged file, make a
//! backup.

use std::path::Path;
use std::path::PathBuf;

use super::AdminError;
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
    /// About `limit` deliveries, newest first, behind the message `after`; those of one message are not separated. It
    /// may be fewer although there are more: a search ends for now when it has scanned many.
    ///
    /// # Errors
    /// [`AdminError`] says why there is no list.
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

    /// Has one message delivered again: to the destination of this name; without one, to those where it is dead, or to
    /// all when it is dead nowhere. How many deliveries that are.
    ///
    /// # Errors
    /// [`AdminError`] says why it is not.
    pub async fn replay(&self, source: &str, id: MessageId, destination: Option<&str>) -> Result<u64, AdminError> {
        let meant = to_replay(self.show(source, id).await?.deliveries, destination)?;
        let replayed = match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.replay(&meant).await,
            Self::Redis(redis) => redis.replay(&meant).await,
        };
        match replayed? {
            // Somebody was faster.
            0 => Err(AdminError::Waiting(State::Retrying)),
            deliveries => Ok(deliveries),
        }
    }

    /// Has deliveries made again, the oldest first: those that are dead, or delivered when the filter says so. Looks at
    /// about `limit` of them, and says where to go on.
    ///
    /// # Errors
    /// [`AdminError`] says why none is.
    pub async fn replay_all(
        &self,
        filter: &Filter,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Done, AdminError> {
        let states = finished(filter, &[State::Dead], AdminError::NotReplayed)?;
        let part = Part { filter: filter.clone(), states, after, limit };
        match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.replay_all(part).await,
            Self::Redis(redis) => redis.replay_all(part).await,
        }
    }

    /// Deletes deliveries that are dead or delivered, the oldest first, and messages with the last of theirs. Looks at
    /// about `limit` of them, and says where to go on.
    ///
    /// # Errors
    /// [`AdminError`] says why none is.
    pub async fn purge(&self, filter: &Filter, after: Option<MessageId>, limit: usize) -> Result<Done, AdminError> {
        let states = finished(filter, &[State::Dead, State::Delivered], AdminError::NotPurged)?;
        let part = Part { filter: filter.clone(), states, after, limit };
        match self {
            Self::Memory(_) => Err(no_queues().into()),
            Self::Sqlite(sqlite) => sqlite.purge(part).await,
            Self::Redis(redis) => redis.purge(part).await,
        }
    }

    /// Imports parts of a quarantined file of this name beside the store's, for about a second: those behind the
    /// message `after`.
    ///
    /// # Errors
    /// [`AdminError`] says why nothing is imported.
    pub async fn recover(&self, file: &str, after: Option<MessageId>) -> Result<Recovered, AdminError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.recover(file, after).await,
            Self::Memory(_) | Self::Redis(_) => Err(AdminError::NotThisStore(NO_FILE)),
        }
    }

    /// Copies the store's file and its dedupe records into a folder; returns the path of the copy.
    ///
    /// # Errors
    /// [`AdminError`] says why there is none.
    pub async fn backup(&self, folder: &Path) -> Result<PathBuf, AdminError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.backup(folder).await,
            Self::Memory(_) | Self::Redis(_) => Err(AdminError::NotThisStore(NO_FILE)),
        }
    }
}
