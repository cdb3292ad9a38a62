//! Starts a SQLite store: opens the file and its log, and starts the threads that write them.

use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread::JoinHandle;

use super::Sqlite;
use super::connections::Connections;
use super::housekeeper::Housekeeper;
use super::mailbox::Mailbox;
use super::open;
use super::retention::Retention;
use super::shared::Cache;
use super::shared::Forgotten;
use super::shared::Pauses;
use super::shared::Queues;
use super::shared::Shared;
use super::writer::Writer;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::store::DedupeRecords;
use crate::store::Options;
use crate::store::dedupe_log::DedupeLog;
use crate::store::owner_only;

impl Sqlite {
    /// Opens or creates the file, and starts the threads.
    ///
    /// # Errors
    /// Why the file cannot be used, for the operator.
    pub fn open(path: &Path, options: &Options<'_>) -> Result<Self, String> {
        let owned = open::own(path)?;
        // A symbolic link is resolved: the other files are in the folder of its target.
        let path = fs::canonicalize(path).unwrap_or_else(|_unknown| path.to_owned());
        let (path, now, clock) = (path.as_path(), options.clocks.0.now(), options.clocks.0.clone());
        open::set_lone_wal_aside(path, now)?;
        // No log is created for a file that is not a store.
        if let Err(failure) = open::open(path)
            && !(failure.is_damage() && open::is_ours(path))
        {
            return Err(failure.explain(path));
        }
        owner_only::restrict_permissions(path);
        let records = DedupeRecords::new(options.max_events, options.spaces.iter().cloned(), clock.clone());
        let (log, found) = DedupeLog::open(path, Arc::new(records), options.limits.dedupe_log.clone(), clock)?;
        let shared = share(path, options, (log, owned));
        let mut writer = Writer {
            retention: Retention::new(&shared.limits, now),
            shared: Arc::clone(&shared),
            connection: None,
            min_free: options.min_free,
            found: Some(found),
            last: 0,
            damaged: false,
        };
        writer.connection = Some(writer.open().map_err(|failure| failure.explain(path))?);
        let threads = threads(options.supervisor, &shared, writer)
            .map_err(|error| format!("cannot start a thread of the store: {error}"))?;
        Ok(Self {
            shared,
            fsync: options.fsync,
            threads: Mutex::new(Some(threads)),
            min_free: options.min_free,
            recovery: tokio::sync::Mutex::default(),
        })
    }
}

/// The state that the threads share with the handle.
fn share(path: &Path, options: &Options<'_>, (log, owned): (DedupeLog, File)) -> Arc<Shared> {
    let (limits, (wall, steady)) = (options.limits.sqlite.clone(), options.clocks.clone());
    Arc::new(Shared {
        path: path.to_owned(),
        pauses: Pauses::new(steady, wall.now().millis()),
        mailbox: Mailbox::new(limits.batch_bytes),
        housekeeper: Arc::new(Housekeeper::new(limits.clone())),
        connections: Connections::default(),
        queues: Queues::default(),
        cache: Cache::new(limits.cached_bytes),
        forgotten: Forgotten::default(),
        owned: Mutex::new(owned),
        log: Arc::new(log),
        wall,
        limits,
    })
}

/// Starts the threads: the housekeeper's, the writer's and the dedupe log's.
fn threads(supervisor: &Supervisor, shared: &Arc<Shared>, mut writer: Writer) -> io::Result<[JoinHandle<()>; 3]> {
    let (keeps, log) = (Arc::clone(shared), Arc::clone(&shared.log));
    let housekeeper = supervisor.thread(Task::SqliteCheckpointer, move |beat| {
        keeps.housekeeper.run(&keeps.connections, &keeps.mailbox, beat);
        Ok(())
    })?;
    let writer = supervisor.thread(Task::SqliteWriter, move |beat| writer.run(beat))?;
    let log = supervisor.thread(Task::DedupeLog, move |beat| log.run(beat))?;
    Ok([housekeeper, writer, log])
}
