//! Finished events in a SQLite file, with all of them in memory for looking up.
//!
//! Keys are random, and a random key in a B-tree writes a page of its own; so the file holds batches: one row for
//! whatever was finished while the previous batch was written, appended at the end. One thread writes; the commits
//! of a batch share one fsync. The file is locked for this process alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::params;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Keys;
use super::Remembered;
use super::Unavailable;
use crate::event::Key;
use crate::time::Moment;

/// The layout of the file; a file with a higher number is of a newer version.
const SCHEMA: i64 = 1;
/// How long an answer waits for the file. The event is delivered already, so a slower disk can only risk a duplicate.
const COMMIT_PATIENCE: Duration = Duration::from_millis(250);
/// Pause before a failed batch is written again.
const RETRY: Duration = Duration::from_secs(1);
/// How often rows that are past their time are deleted.
const PURGE_EVERY: i64 = 60;

/// The file and what it says.
#[derive(Debug)]
pub struct Sqlite {
    remembered: Remembered,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer has to write.
#[derive(Debug, Default)]
struct Queue {
    pending: Mutex<Pending>,
    more: Condvar,
    failing: AtomicBool,
}

#[derive(Debug, Default)]
struct Pending {
    keys: Vec<Key>,
    until: u32,
    waiting: Vec<Waiting>,
    closed: bool,
}

/// Commits that wait on one runtime. They are woken there, by one task: waking each of them from the writer's thread would
/// be a system call for each.
#[derive(Debug)]
struct Waiting {
    runtime: Handle,
    commits: Vec<oneshot::Sender<()>>,
}

impl Sqlite {
    /// Opens or makes the file and reads what is remembered in it, at most `max` events.
    ///
    /// # Errors
    /// What keeps the file from being used, for the operator.
    pub fn open(path: &Path, max: usize) -> Result<Self, String> {
        let failed = |error: rusqlite::Error| explain(path, &error);
        let connection = Connection::open(path).map_err(failed)?;
        lock(&connection).map_err(failed)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if version > SCHEMA {
            return Err(format!(
                "{} was written by a newer version of Doorward (layout {version}, this one knows {SCHEMA})",
                path.display()
            ));
        }
        create(&connection).map_err(failed)?;
        let remembered = Remembered::new(max);
        load(&connection, &remembered).map_err(failed)?;
        let queue = Arc::new(Queue::default());
        let writer = Writer { connection, queue: Arc::clone(&queue), purged: 0 };
        let writer = std::thread::Builder::new()
            .name("doorward-sqlite".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| format!("cannot start the thread that writes {}: {error}", path.display()))?;
        Ok(Self { remembered, queue, writer: Some(writer) })
    }

    /// What is finished.
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Whether the file can be written.
    ///
    /// # Errors
    /// [`Unavailable`] from a failed write until one succeeds again.
    pub fn healthy(&self) -> Result<(), Unavailable> {
        if self.queue.failing.load(Ordering::Relaxed) {
            return Err(Unavailable("the SQLite file cannot be written".to_owned()));
        }
        Ok(())
    }

    /// Remembers an event; answers when it is safe on disk.
    ///
    /// # Errors
    /// [`Unavailable`] when that takes too long; the event is still remembered in memory, and on disk as soon as the
    /// disk allows.
    pub async fn commit(&self, keys: Keys, ttl: Duration) -> Result<(), Unavailable> {
        let until = until(ttl);
        keys.iter().for_each(|key| self.remembered.insert(key, ttl));
        let (sender, written) = oneshot::channel();
        {
            let mut pending = self.queue.lock();
            pending.keys.extend(keys.iter());
            pending.until = pending.until.max(until);
            pending.wait(sender);
        }
        self.queue.more.notify_one();
        match tokio::time::timeout(COMMIT_PATIENCE, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(Unavailable("the SQLite file cannot be written".to_owned())),
            Err(_elapsed) => Err(Unavailable(format!("the SQLite file took longer than {COMMIT_PATIENCE:?}"))),
        }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.more.notify_one();
        if let Some(Err(_panicked)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!("the thread that writes the store's SQLite file has panicked");
        }
    }
}

impl Pending {
    fn wait(&mut self, commit: oneshot::Sender<()>) {
        let runtime = Handle::current();
        match self.waiting.iter_mut().find(|waiting| waiting.runtime.id() == runtime.id()) {
            Some(waiting) => waiting.commits.push(commit),
            None => self.waiting.push(Waiting { runtime, commits: vec![commit] }),
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to write; `None` when there will be nothing more.
    fn next(&self) -> Option<Pending> {
        let mut pending = self.lock();
        while pending.keys.is_empty() && !pending.closed {
            pending = self.more.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        if pending.keys.is_empty() {
            return None;
        }
        let closed = pending.closed;
        Some(std::mem::replace(&mut pending, Pending { closed, ..Pending::default() }))
    }
}

struct Writer {
    connection: Connection,
    queue: Arc<Queue>,
    purged: i64,
}

impl Writer {
    fn run(mut self) {
        while let Some(batch) = self.queue.next() {
            while let Err(error) = self.write(&batch) {
                if !self.queue.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the store's SQLite file cannot be written");
                }
                if self.queue.lock().closed {
                    return;
                }
                std::thread::sleep(RETRY);
            }
            if self.queue.failing.swap(false, Ordering::Relaxed) {
                tracing::info!("the store's SQLite file can be written again");
            }
            for Waiting { runtime, commits } in batch.waiting {
                drop(runtime.spawn(async move {
                    for commit in commits {
                        // Whoever stopped waiting does not need to know.
                        let _gone = commit.send(());
                    }
                }));
            }
        }
    }

    fn write(&mut self, batch: &Pending) -> rusqlite::Result<()> {
        let keys: Vec<u8> = batch.keys.iter().flat_map(|key| key.0).collect();
        self.connection
            .prepare_cached("INSERT INTO finished (until, keys) VALUES (?1, ?2)")?
            .execute(params![batch.until, keys])?;
        let now = Moment::now().unix();
        if now - self.purged >= PURGE_EVERY {
            self.purged = now;
            // Rows are in the order of their time: everything before the first that still holds can go. Some at a time,
            // so that nobody waits for long.
            self.connection
                .prepare_cached(
                    "DELETE FROM finished WHERE batch IN (
                         SELECT batch FROM finished
                         WHERE batch < (SELECT batch FROM finished WHERE until > ?1 ORDER BY batch LIMIT 1)
                         ORDER BY batch LIMIT 10000)",
                )?
                .execute([now])?;
        }
        Ok(())
    }
}

fn lock(connection: &Connection) -> rusqlite::Result<()> {
    // Exclusive: a second process is refused, and no shared-memory file is needed beside the log. The lock is taken by
    // the first transaction and kept until the connection closes.
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT;")
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "BEGIN;
         CREATE TABLE IF NOT EXISTS finished (
             batch INTEGER PRIMARY KEY,
             until INTEGER NOT NULL,
             keys  BLOB NOT NULL
         );
         PRAGMA user_version = 1;
         COMMIT;",
    )
}

fn load(connection: &Connection, remembered: &Remembered) -> rusqlite::Result<()> {
    let now = Moment::now();
    let mut statement = connection.prepare("SELECT until, keys FROM finished WHERE until > ?1 ORDER BY batch")?;
    let mut rows = statement.query([now.unix()])?;
    while let Some(row) = rows.next()? {
        let until: u32 = row.get(0)?;
        let (keys, _torn) = row.get_ref(1)?.as_blob()?.as_chunks::<16>();
        keys.iter().for_each(|key| remembered.insert_until(Key(*key), until, now));
    }
    Ok(())
}

fn until(ttl: Duration) -> u32 {
    let seconds = Moment::now().unix().saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

fn explain(path: &Path, error: &rusqlite::Error) -> String {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            format!("{path} is in use by another process; one gateway owns its file, several share a Redis")
        }
        Some(rusqlite::ErrorCode::CannotOpen) => {
            format!("{path} cannot be opened; its folder must exist and be writable")
        }
        Some(rusqlite::ErrorCode::ReadOnly) => format!("{path} cannot be written"),
        Some(rusqlite::ErrorCode::NotADatabase) => {
            format!("{path} is not a SQLite file; name another, or move it away")
        }
        _ => format!("{path} cannot be used: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_and_a_restart_remembers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let keys = Keys { id: Key([7; 16]), guard: Some(Key([9; 16])) };
        let first = Sqlite::open(&path, 1000).expect("a store");
        assert!(Sqlite::open(&path, 1000).expect_err("it is owned").contains("another process"));
        runtime.block_on(first.commit(keys, Duration::from_secs(60))).expect("written");
        drop(first);
        let again = Sqlite::open(&path, 1000).expect("the first one let go");
        assert!(keys.iter().all(|key| again.remembered().contains(key)));
    }

    #[test]
    fn files_that_are_no_store_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("other.db");
        std::fs::write(&path, "not a database, but long enough to look like something").expect("written");
        assert!(Sqlite::open(&path, 10).expect_err("no database").contains("not a SQLite file"));
        assert!(Sqlite::open(&folder.path().join("no/such/folder/x.db"), 10).is_err());
    }
}
