//! Executes calls: reads on the administrative connection, commands in the writer's next transaction, and longer work
//! on the writer's connection between its batches.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::Sqlite;
use super::changes::Changes;
use super::fault::Fault;
use super::mailbox;
use crate::base::supervisor::TaskError;
use crate::store::AdminError;
use crate::store::Unavailable;

impl Sqlite {
    /// Reads in a transaction on the administrative connection, on a blocking thread. A read that keeps the WAL from
    /// restarting is interrupted after a while, so it must scan a bounded number of rows.
    pub(super) async fn view<T, E>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Unavailable> + From<rusqlite::Error> + Send + 'static,
    {
        let sqlite = Arc::clone(self);
        let in_transaction = |file: &Connection| read(&*file.unchecked_transaction()?);
        let read = move || sqlite.shared.connections.admin.with(in_transaction);
        blocking(read).await?.ok_or_else(reopening)?
    }

    /// Executes a command in the transaction of the writer's next batch, atomically. Returns when it is on disk. `act`
    /// records its changes of deliveries in [`Changes`], by which counts and signals of queues are updated.
    pub(super) async fn command<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection, &mut Changes) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (reply, done) = oneshot::channel();
        let command: mailbox::Command = Box::new(move |file, changes| {
            let before = Changes::new(changes.now, changes.due, changes.last);
            let acted = file.execute_batch("SAVEPOINT command").and_then(|()| act(file, changes));
            let (done, answer) = match acted {
                Ok(answer) => (file.execute_batch("RELEASE command"), Some(Ok(answer))),
                Err(error) if Fault::is_of_statement(&error) => {
                    *changes = before;
                    let why = Unavailable(format!("the SQLite file cannot be used for that: {error}"));
                    (file.execute_batch("ROLLBACK TO command; RELEASE command"), Some(Err(why)))
                }
                Err(error) => (Err(error), None),
            };
            let on_commit = move || {
                // One that is gone has stopped waiting.
                let _gone = answer.map(|answer| reply.send(answer));
            };
            (done, Box::new(on_commit))
        });
        self.shared.mailbox.submit(|batch| batch.commands.push_back(command))?;
        done.await.map_err(|_gone| self.gone())?
    }

    /// Executes longer work on the writer's connection, outside of a transaction. `act` gets a function that writes the
    /// next batch, and has to call it every few milliseconds, so that other calls do not wait.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection, &mut dyn FnMut() -> Result<(), TaskError>) -> Result<T, TaskError> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (sender, done) = oneshot::channel();
        let work: mailbox::SideTask = Box::new(move |file, next| {
            // One that is gone has stopped waiting.
            let _gone = sender.send(act(file, next)?);
            Ok(())
        });
        self.shared.mailbox.submit(|batch| batch.asides.push(work))?;
        done.await.map_err(|_gone| self.gone())
    }

    /// Why the writer did not answer.
    pub(super) fn gone(&self) -> Unavailable {
        self.healthy().err().unwrap_or_else(|| Unavailable("the SQLite file could not be written just now".to_owned()))
    }
}

/// A read that failed.
impl From<rusqlite::Error> for Unavailable {
    fn from(error: rusqlite::Error) -> Self {
        Self(format!("the SQLite file cannot be read: {error}"))
    }
}

impl From<rusqlite::Error> for AdminError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

/// Runs work on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unavailable> {
    tokio::task::spawn_blocking(work).await.map_err(|_ending| closing())
}

pub(super) fn reopening() -> Unavailable {
    Unavailable("the SQLite file is being opened anew".to_owned())
}

pub(super) fn closing() -> Unavailable {
    Unavailable("the store is being closed".to_owned())
}
