//! The writer: the one thread that writes the file. What arrives while it writes a batch forms the next batch, with one
//! fsync (group commit).
//!
//! When a write fails, the thread is restarted, and everything is read again from the disk before the next answer. A
//! damaged file is set aside (quarantine), and an empty one takes its place.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;
use rusqlite::config::DbConfig;

use super::batch::OpenBatch;
use super::changes::Changes;
use super::conditions;
use super::fault::Fault;
use super::log_repair;
use super::mailbox::Batch;
use super::open;
use super::open::Failure;
use super::refill::refill_all;
use super::retention::Bounds;
use super::retention::Retention;
use super::shared::Shared;
use super::statements;
use super::statements::WriteStatements;
use crate::base::supervisor::Heartbeat;
use crate::base::supervisor::TaskError;
use crate::base::time::Moment;
use crate::store::dedupe_log::Found;

/// How long the writer waits for work before it checks the free space of the disk and whether retention is due.
const IDLE: Duration = Duration::from_secs(1);
/// The pause before a failed write is retried.
const RETRY: Duration = Duration::from_millis(100);
/// A batch with this many arrivals and outcomes counts as high load.
const MANY: usize = 5;
/// The shortest interval between batches under high load: fewer and larger batches use the disk and the processor
/// better.
const PACE: Duration = Duration::from_millis(1);

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    /// Absent when the file has to be reopened.
    pub(super) connection: Option<Connection>,
    pub(super) retention: Retention,
    /// The contents of the dedupe log at the start, until it is repaired.
    pub(super) found: Option<Found>,
    /// Bytes to keep free on the disk, for outcomes of stored messages.
    pub(super) min_free: u64,
    /// The last id that was given to a message.
    pub(super) last: i64,
    /// Whether the file is damaged.
    pub(super) damaged: bool,
}

impl Writer {
    /// Runs until the mailbox is closed, or a write fails. After a failure, or a panic, the supervisor calls it again.
    pub(super) fn run(&mut self, beat: &Heartbeat) -> Result<(), TaskError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.reopen()?,
        };
        conditions::check_free_space(&self.shared, self.min_free);
        let served = self.serve(&connection, beat);
        self.shared.connections.close();
        // After a failed write, closing the file must not sync it: a sync could succeed without the lost pages.
        drop(connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, served.is_err()));
        if served.is_ok() {
            // After a checkpoint the file is complete without its WAL. If that fails, the WAL remains.
            drop(connection.pragma_update(None, "wal_checkpoint", "TRUNCATE"));
        }
        served
    }

    /// Sets why nothing can be written, for health checks.
    fn fail(&self, lost: TaskError) -> TaskError {
        self.shared.mailbox.set_failing(Some(lost.0.clone()));
        lost
    }

    fn reopen(&mut self) -> Result<Connection, TaskError> {
        let connection = self.open().map_err(|failure| match failure {
            Failure::Sqlite(error) => self.lose(&error),
            Failure::Layout(_) | Failure::Foreign | Failure::Other(_) => {
                self.fail(TaskError(failure.explain(&self.shared.path)))
            }
        })?;
        tracing::warn!(path = %self.shared.path.display(), "the store's file was opened anew");
        Ok(connection)
    }

    fn serve(&mut self, connection: &Connection, beat: &Heartbeat) -> Result<(), TaskError> {
        while let Some(batch) = self.shared.mailbox.next(IDLE) {
            self.turn(connection, batch, beat)?;
            beat.idle();
        }
        Ok(())
    }

    /// Writes a batch, and runs what follows it.
    fn turn(&mut self, connection: &Connection, mut batch: Batch, beat: &Heartbeat) -> Result<(), TaskError> {
        let (asides, refills) = (std::mem::take(&mut batch.asides), std::mem::take(&mut batch.refills));
        let trouble = batch.trouble.take();
        let mut work = OpenBatch::new(Arc::clone(&self.shared), batch);
        beat.beat();
        let begun = Instant::now();
        conditions::check_free_space(&self.shared, self.min_free);
        conditions::check_place(&self.shared);
        let written = match trouble {
            Some(error) => Err(error),
            None => {
                conditions::keep_wal_short(&self.shared, connection).and_then(|()| self.write(connection, &mut work))
            }
        };
        let (mut touched, mut many) = (BTreeSet::new(), false);
        match written {
            Ok(written) => {
                many = work.len() >= MANY;
                touched = work.conclude();
                if written {
                    self.wrote();
                }
            }
            Err(error) if Fault::of(&error) == Fault::Passing => {
                // Before the replies are sent.
                self.could_not_write(&error);
                drop(work);
                std::thread::sleep(RETRY);
            }
            Err(error) => return Err(self.lose(&error)),
        }
        refill_all(&self.shared, connection, &touched, refills).map_err(|error| self.lose(&error))?;
        let mut asides = VecDeque::from(asides);
        while let Some(aside) = asides.pop_front() {
            aside(connection, &mut || match self.shared.mailbox.next(Duration::ZERO) {
                Some(mut batch) => {
                    // One after the other.
                    asides.extend(batch.asides.drain(..));
                    self.turn(connection, batch, beat)
                }
                None => Ok(()),
            })?;
        }
        if many {
            std::thread::sleep(PACE.saturating_sub(begun.elapsed()));
        }
        Ok(())
    }

    /// Records a successful commit.
    fn wrote(&self) {
        if self.shared.mailbox.set_failing(None) {
            tracing::info!(path = %self.shared.path.display(), "the store's file can be written again");
        }
    }

    fn could_not_write(&self, error: &rusqlite::Error) {
        let why = format!("the SQLite file cannot be written at the moment ({error})");
        if self.shared.mailbox.set_failing(Some(why)) {
            tracing::error!(
                %error,
                path = %self.shared.path.display(),
                "the store's file cannot be written at the moment: no more events are queued, and what became of those that \
                 were attempted is kept in memory until it can be"
            );
        }
    }

    /// Handles an error after which earlier writes may not be on the disk.
    fn lose(&mut self, error: &rusqlite::Error) -> TaskError {
        self.damaged |= Fault::of(error) == Fault::Damage;
        let what = if self.damaged { "is damaged" } else { "could not be written" };
        let why = format!("the SQLite file {what} ({error})");
        tracing::error!(%error, path = %self.shared.path.display(), "the store's file {what}: it is opened anew");
        self.fail(TaskError(why))
    }

    /// Closes all connections, drops the file from the page cache, and opens it; if it is damaged, quarantines it and
    /// opens an empty one.
    pub(super) fn open(&mut self) -> Result<Connection, Failure> {
        let shared = Arc::clone(&self.shared);
        let now = shared.wall.now();
        shared.connections.close();
        let opened = if self.damaged { None } else { Some(self.connect(now, false)) };
        let (connection, gone) = match opened {
            Some(Ok(connection)) => (connection, 0),
            Some(Err(failure)) if !(failure.is_damage() && open::is_ours(&shared.path)) => return Err(failure),
            damaged => {
                if let Some(Err(failure)) = damaged {
                    let error = failure.explain(&shared.path);
                    tracing::error!(error, path = %shared.path.display(), "the store's file is damaged");
                }
                let owned = open::quarantine(&shared.path, now)?;
                *shared.owned.lock().unwrap_or_else(PoisonError::into_inner) = owned;
                shared.forgotten.set_aside(self.last);
                (self.connect(now, true)?, self.last)
            }
        };
        self.damaged = false;
        for queue in shared.queues.all() {
            let row = statements::destination(&connection, queue.handle.id())?;
            queue.set_destination(row);
            queue.claims.reset(gone, statements::counts(&connection, row)?);
            queue.handle.signal().raise();
        }
        shared.mailbox.set_failing(None);
        Ok(connection)
    }

    /// Opens the file. `replaces` tells that it replaces a damaged one, so it is not reported as older than its log.
    fn connect(&mut self, now: Moment, replaces: bool) -> Result<Connection, Failure> {
        let shared = &self.shared;
        open::drop_cached_pages(&shared.path)?;
        let (mut connection, is_new) = open::connect(&shared.path)?;
        let checkpoint = shared.log.checkpoint();
        if replaces {
            statements::mark_deleted(&connection, checkpoint.max(self.last))?;
        }
        self.last = log_repair::compare(&connection, &shared.path, checkpoint, now)?.max(self.last);
        open::rebase_due(&connection, shared.pauses.now())?;
        if let Some(found) = &self.found {
            log_repair::repair(&connection, &shared.log, found, (&shared.path, is_new, self.last, now))?;
        }
        self.found = None;
        open::truncate_wal(&connection)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        shared.housekeeper.attach(&mut connection)?;
        shared.connections.open(&shared.path)?;
        Ok(connection)
    }

    /// Writes a batch. Returns whether there was anything to write. After a failure, an empty batch writes too, to find
    /// out whether the condition is over.
    fn write(&mut self, connection: &Connection, work: &mut OpenBatch) -> rusqlite::Result<bool> {
        let (now, due) = (self.shared.wall.now(), self.shared.pauses.now());
        let purge = self.retention.is_due(now);
        let is_failing = self.shared.mailbox.is_failing();
        if work.batch.is_read_only() && !purge && !is_failing {
            return Ok(false);
        }
        if self.shared.mailbox.healthy().is_err() {
            // Dropping the replies answers the senders.
            work.batch.arrivals.clear();
        }
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let mut writing = WriteStatements::new(&transaction)?;
        work.settle(&mut writing, due)?;
        work.admit(&mut writing, &mut self.last, now)?;
        drop(writing);
        while let Some(command) = work.batch.commands.pop_front() {
            let mut changes = Changes::new(now, due, self.last);
            let (done, on_commit) = command(&transaction, &mut changes);
            let last = changes.last;
            work.follow(changes, on_commit);
            done?;
            self.last = last;
        }
        self.retention.wrote(work.bytes());
        if purge {
            let keep: HashMap<_, _> =
                self.shared.queues.all().iter().map(|queue| (queue.destination(), queue.retention())).collect();
            let (last, checkpoint, arrived) = (self.last, self.shared.log.checkpoint(), work.arrived());
            self.retention.purge(&transaction, Bounds { now, keep: &keep, last, checkpoint, arrived })?;
        }
        if is_failing {
            statements::touch(&transaction)?;
        }
        transaction.commit()?;
        Ok(true)
    }
}

impl Drop for Writer {
    /// When the supervisor gives the writer up, waiting calls fail.
    fn drop(&mut self) {
        self.shared.mailbox.abandon();
    }
}
