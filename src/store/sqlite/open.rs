//! Opens the file: locks it for this process, checks or creates its layout, reads what has to be in memory, and starts the threads.

use std::collections::HashMap;
use std::fs::File;
use std::fs::TryLockError;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;

use super::Keeper;
use super::Lines;
use super::Options;
use super::Sqlite;
use super::inbox::Inbox;
use super::line::Line;
use super::lines;
use super::log_repair;
use super::private;
use super::retention::Retention;
use super::rows;
use super::salvage;
use super::schema;
use super::schema::Owner;
use super::writer::Writer;
use crate::store::DedupeRecords;
use crate::store::Keyspace;
use crate::store::dedupe_log::DedupeLog;
use crate::store::page_cache;
use crate::store::queued::Queue;
use crate::supervisor::Heartbeat;
use crate::supervisor::Supervisor;
use crate::supervisor::Task;
use crate::time::Moment;

/// Why a file cannot be used.
enum Failure {
    Sqlite(rusqlite::Error),
    /// It has a layout of another version.
    Layout(i64),
    /// It is a SQLite file of another program.
    Foreign,
    /// Said already.
    Other(String),
}

/// A file with what has to be in memory of it.
struct Opened {
    connection: Connection,
    log: Arc<DedupeLog>,
    sources: HashMap<String, i64>,
    lines: Arc<Lines>,
    last_row: i64,
}

impl Sqlite {
    /// Opens or makes the file, reads what is remembered in it, and starts the threads that write it.
    ///
    /// # Errors
    /// What keeps the file from being used, for the operator.
    pub fn open(options: &Options<'_>) -> Result<Self, String> {
        let mut owned = own(&options.path)?;
        // A link to a file elsewhere is followed once: what is beside the file, and the room on its disk, are there.
        let path = std::fs::canonicalize(&options.path).unwrap_or_else(|_unknown| options.path.clone());
        let (path, options) = (path.as_path(), &Options { path: path.clone(), ..options.clone() });
        drop_cached_pages(path)?;
        owned = salvage::where_needed(path, owned)?;
        let opened = match Opened::new(options) {
            Err(Failure::Sqlite(error)) if salvage::is_damage(&error) && salvage::is_possible(path) => {
                owned = salvage::salvage(path, owned)?;
                Opened::new(options)
            }
            opened => opened,
        };
        let Opened { mut connection, log, sources, lines, last_row } =
            opened.map_err(|failure| failure.explain(path))?;
        // Only now it is known to be a store.
        private::narrow(path);
        let failed = |error: rusqlite::Error| Failure::Sqlite(error).explain(path);
        let keep = options.queues.iter().filter_map(|queue| Some((*sources.get(&queue.source)?, queue.keep))).collect();
        let (limits, clock) = (options.limits.sqlite.clone(), options.clock.clone());
        let (inbox, keeper) =
            (Arc::new(Inbox::new(path.to_owned(), limits.batch_bytes)), Arc::new(Keeper::new(limits.clone())));
        keeper.watch(&mut connection).map_err(failed)?;
        let retention = Retention::new(keep, clock.now(), &limits);
        let writer = Writer {
            connection,
            path: path.to_owned(),
            inbox: Arc::clone(&inbox),
            log: Arc::clone(&log),
            lines: Arc::clone(&lines),
            keeper: Arc::clone(&keeper),
            retention,
            min_free: options.min_free,
            last_row,
            clock: clock.clone(),
        };
        let reader = || read_only(path).map(Mutex::new).map_err(failed);
        let (loader, viewer) = (reader()?, reader()?);
        let (keeping, searching) = (connect(path).map_err(failed)?, read_only(path).map_err(failed)?);
        keeper.may_interrupt(&searching);
        let check = {
            // It only reads, and is interrupted when it keeps the WAL from restarting.
            let inbox = Arc::clone(&inbox);
            move || check_integrity(&searching, &inbox)
        };
        let checkpoint = {
            let (keeper, inbox) = (Arc::clone(&keeper), Arc::clone(&inbox));
            move |beat: &Heartbeat| keeper.run(&keeping, &inbox, beat)
        };
        let threads = threads(options.supervisor, checkpoint, writer, check)?;
        let (log_thread, fsync) = (Some(start_log_thread(&log, options.supervisor)?), options.fsync);
        Ok(Self { log, fsync, inbox, lines, keeper, loader, viewer, threads, log_thread, limits, clock, _owned: owned })
    }
}

/// Has the file and its WAL read from the disk from here on.
fn drop_cached_pages(path: &Path) -> Result<(), String> {
    for file in [path, salvage::beside(path, "-wal").as_path()] {
        page_cache::drop_pages(file).map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    }
    Ok(())
}

/// Starts the threads: the keeper is the first that has to end.
fn threads(
    supervisor: &Supervisor,
    mut checkpoint: impl FnMut(&Heartbeat) + Send + 'static,
    mut writer: Writer,
    mut check: impl FnMut() + Send + 'static,
) -> Result<Vec<JoinHandle<()>>, String> {
    let checkpointer = supervisor.thread(Task::SqliteCheckpointer, move |beat| {
        checkpoint(beat);
        Ok(())
    });
    let writing = supervisor.thread(Task::SqliteWriter, move |beat| {
        writer.run(beat);
        Ok(())
    });
    let checking = supervisor.thread(Task::SqliteCheck, move |beat| {
        // One look takes as long as the file is large.
        beat.idle();
        check();
        Ok(())
    });
    let threads = [checkpointer, writing, checking].into_iter().collect::<std::io::Result<_>>();
    threads.map_err(|error| format!("cannot start a thread: {error}"))
}

impl Opened {
    fn new(options: &Options<'_>) -> Result<Self, Failure> {
        let mut connection = Connection::open(&options.path)?;
        // Whoever closes a file last moves what is in its log, unless told not to: that of somebody else stays as it is.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let owner = schema::owner(&connection)?;
        match owner {
            Owner::Nobody | Owner::Doorward(schema::PRESENT) => {}
            Owner::Doorward(version) => return Err(Failure::Layout(version)),
            Owner::Other => return Err(Failure::Foreign),
        }
        // From here on it is ours to change.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        let clock = options.clock.clone();
        let records = DedupeRecords::new(options.max_events, options.sources.iter().cloned(), clock.clone());
        let (log, found) = DedupeLog::open(&options.path, Arc::new(records), options.limits.dedupe_log.clone(), clock)
            .map_err(Failure::Other)?;
        if owner == Owner::Nobody {
            schema::create(&mut connection)?;
        }
        rebase_due(&connection, options.clock.now())?;
        let sources = sources(&connection, options.queues)?;
        let lines = Arc::new(lines(&connection, options, &sources)?);
        let last_row = log_repair::compare(&connection, &options.path, &found, owner == Owner::Nobody)?;
        log_repair::repair(&connection, &log, &found, (&sources, last_row, options.clock.now()))?;
        truncate_wal(&connection)?;
        Ok(Self { connection, log: Arc::new(log), sources, lines, last_row })
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Finds events that the indexes have lost, which nobody would ever miss: SQLite itself notices only what it reads.
fn check_integrity(connection: &Connection, inbox: &Inbox) {
    for table in ["events", "sources"] {
        let found =
            connection.query_row(&format!("PRAGMA integrity_check({table})"), [], |row| row.get::<_, String>(0));
        match found {
            Ok(found) if found == "ok" => {}
            Ok(found) => return inbox.fail(&found, true),
            Err(error) if salvage::is_damage(&error) => return inbox.fail(&error, true),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                return tracing::info!(
                    "too much is written to look for damage at the same time; the next start does again"
                );
            }
            // Whatever needs to read it will report the error.
            Err(_passing) => return,
        }
    }
}

/// Starts the thread of the dedupe log.
fn start_log_thread(log: &Arc<DedupeLog>, supervisor: &Supervisor) -> Result<JoinHandle<()>, String> {
    let log = Arc::clone(log);
    let thread = supervisor.thread(Task::DedupeLog, move |beat| log.run(beat));
    thread.map_err(|error| format!("cannot start the thread of the dedupe log: {error}"))
}

/// Takes the file for this process, until it is closed.
fn own(path: &Path) -> Result<File, String> {
    let file = private::open(path).map_err(|error| {
        format!("{} cannot be opened ({error}); its folder must exist and be writable", path.display())
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "{} is in use by another process; one gateway owns its file, several share a Redis",
            path.display()
        )),
        Err(TryLockError::Error(error)) => {
            Err(format!("{} cannot be locked ({error}); name a file on a file system of this machine", path.display()))
        }
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

/// Moves the WAL of an earlier process into the file: one that is killed again and again never does, and each start would read
/// a longer one.
fn truncate_wal(connection: &Connection) -> rusqlite::Result<()> {
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_row| Ok(())) {
        // What is queued can be delivered from the log.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(()),
        moved => moved,
    }
}

/// When the clock was set back, pauses that began later than now begin now.
fn rebase_due(connection: &Connection, now: Moment) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE events SET due = due - settled + ?1, settled = ?1 WHERE state = 3 AND due > ?1 AND settled > ?1",
        [now.millis()],
    )?;
    Ok(())
}

/// The numbers of all sources that are in the file, those of these queues among them.
fn sources(connection: &Connection, queues: &[Queue]) -> rusqlite::Result<HashMap<String, i64>> {
    for queue in queues {
        connection.execute("INSERT OR IGNORE INTO sources (name) VALUES (?1)", [&queue.source])?;
    }
    let mut statement = connection.prepare("SELECT name, source FROM sources")?;
    let sources: HashMap<String, i64> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (name, source) in &sources {
        let waiting = rows::counts(connection, *source)?;
        if waiting.queued + waiting.retrying > 0 && !queues.iter().any(|queue| queue.source == *name) {
            tracing::warn!(
                source = name,
                events = waiting.queued + waiting.retrying,
                "the store has queued events of a source that has no queue any more; they are delivered when it has one again"
            );
        }
    }
    Ok(sources)
}

fn lines(connection: &Connection, options: &Options<'_>, sources: &HashMap<String, i64>) -> rusqlite::Result<Lines> {
    let queues = options.queues;
    let mut lines = Vec::with_capacity(queues.len());
    for queue in queues {
        // One that was just inserted and is not there was damaged.
        let source = *sources.get(&queue.source).ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let tag = Keyspace::of_source(&queue.source).tag();
        let retrying = if queue.ordered { rows::retrying(connection, source)? } else { Vec::new() };
        lines.push(lines::Queue::new(
            (source, tag),
            Line::new(&options.limits.sqlite, queue.ordered, retrying),
            rows::counts(connection, source)?,
        ));
    }
    Ok(Lines::new(lines))
}

impl Failure {
    fn explain(&self, path: &Path) -> String {
        let path = path.display();
        let error = match self {
            Self::Sqlite(error) => error,
            Self::Layout(version) if *version > schema::PRESENT => {
                return format!(
                    "{path} was written by a newer version of Doorward (layout {version}, this one knows {}); run that \
                     version, or name another file",
                    schema::PRESENT
                );
            }
            Self::Layout(version) => {
                return format!(
                    "{path} was written by an earlier version of Doorward (layout {version}): let that version deliver what \
                     it has queued, then name another file"
                );
            }
            Self::Foreign => return format!("{path} is a SQLite file of another program; name another file"),
            Self::Other(why) => return why.clone(),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!("{path} is in use by another process; one gateway owns its file, several share a Redis")
            }
            Some(ErrorCode::CannotOpen) => format!("{path} cannot be opened; its folder must exist and be writable"),
            Some(ErrorCode::ReadOnly) => format!("{path} cannot be written; name a file on a writable volume"),
            Some(ErrorCode::NotADatabase) => format!("{path} is not a SQLite file; name another, or move it away"),
            _ => format!("{path} cannot be used: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::Key;
    use crate::store::Keys;
    use crate::store::SourceTag;

    const SOURCE: SourceTag = SourceTag(7);

    fn open(path: &Path) -> Result<Sqlite, String> {
        Sqlite::open(&Options::for_tests(path))
    }

    #[test]
    fn a_second_owner_is_refused_and_a_restart_remembers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let keys = Keys { id: Key([7; 16]), guard: Some(Key([9; 16])), ignored: None };
        let first = open(&path).expect("a store");
        assert!(open(&path).expect_err("it is owned").contains("another process"));
        runtime.block_on(first.commit(SOURCE, keys.iter(), Duration::from_secs(60))).expect("written");
        drop(first);
        let again = open(&path).expect("the first one let go");
        assert!(keys.iter().all(|key| again.records().contains(SOURCE, key)));
    }

    #[test]
    fn an_answer_waits_for_the_sync_of_the_log_for_as_long_as_the_limit_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let mut options = Options { fsync: true, ..Options::for_tests(&path) };
        options.limits.dedupe_log.commit_timeout = Duration::from_secs(60);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let commit = |sqlite: &Sqlite| {
            runtime.block_on(sqlite.commit(SOURCE, [Key([7; 16])].into_iter(), Duration::from_secs(60)))
        };
        let synced = Sqlite::open(&options).expect("a store");
        assert!(commit(&synced).is_ok(), "long enough for any disk");
        drop(synced);
        options.limits.dedupe_log.commit_timeout = Duration::from_millis(20);
        let mut stalled = Sqlite::open(&options).expect("a store");
        // Without its thread, no sync ever ends.
        stalled.log.close();
        stalled.log_thread.take().map(JoinHandle::join).expect("a thread").expect("it ends");
        let late = commit(&stalled).expect_err("nobody syncs");
        assert!(late.to_string().contains("longer than 20ms"), "{late}");
    }

    #[test]
    fn files_that_are_no_store_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("other.db");
        std::fs::write(&path, "not a database, but long enough to look like something").expect("written");
        assert!(open(&path).expect_err("no database").contains("not a SQLite file"));
        assert!(open(&folder.path().join("no/such/folder/x.db")).is_err());
    }

    #[test]
    fn a_file_of_a_newer_version_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        drop(open(&path).expect("a store"));
        let newer = Connection::open(&path).expect("a file");
        newer.pragma_update(None, "user_version", schema::PRESENT + 1).expect("a version");
        assert!(open(&path).expect_err("it is newer").contains("newer version"));
    }

    #[test]
    fn files_of_earlier_layouts_and_of_other_programs_are_refused_and_get_no_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let finished = "CREATE TABLE finished (batch INTEGER PRIMARY KEY, until INTEGER NOT NULL, keys BLOB NOT NULL)";
        for (sql, why) in [
            (format!("{finished}; PRAGMA user_version = 1"), "earlier version of Doorward (layout 1)"),
            (format!("{finished}; PRAGMA user_version = 2"), "earlier version of Doorward (layout 2)"),
            ("CREATE TABLE letters (letter TEXT); PRAGMA user_version = 3".to_owned(), "of another program"),
            ("PRAGMA application_id = 7".to_owned(), "of another program"),
        ] {
            let path = folder.path().join("other.db");
            Connection::open(&path).and_then(|file| file.execute_batch(&sql)).expect("a file");
            let refused = open(&path).expect_err(why);
            assert!(refused.contains(why), "{refused}");
            assert!(!folder.path().join("other.db-dedupe.1").exists(), "{why}");
            std::fs::remove_file(&path).expect("a file");
        }
    }
}
