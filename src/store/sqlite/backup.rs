//! Copies the file of a running gateway and its dedupe records to another folder.
//!
//! SQLite copies pages in steps on the connection of the writer, between its batches. It also applies changes that the
//! writer makes meanwhile to the copy, so that a copy under load ends, with the state of its last step.

use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::backup::Backup;
use rusqlite::backup::StepResult;

use super::Sqlite;
use super::execute::blocking;
use super::statements;
use crate::store::AdminError;
use crate::store::dedupe_log::DedupeLog;
use crate::store::owner_only;
use crate::store::owner_only::TemporaryFiles;
use crate::store::owner_only::beside;
use crate::store::owner_only::sync_folder;

/// A copy in progress.
#[derive(Debug)]
struct Unfinished {
    /// The final path of the copy.
    path: PathBuf,
    /// Its path while it is written.
    partial: PathBuf,
    /// The files to remove if it is not finished.
    made: TemporaryFiles,
}

impl Sqlite {
    /// Copies the file and its dedupe records into an existing folder, under the same names; returns the path of the
    /// copy.
    ///
    /// # Errors
    /// [`AdminError`] when files of these names exist, there is no room, or the copy cannot be written. Its files are
    /// removed then.
    pub(in crate::store) async fn backup(self: &Arc<Self>, folder: &Path) -> Result<PathBuf, AdminError> {
        let bytes = fs::metadata(&self.shared.path).map_or(0, |file| file.len());
        let mut copy = Unfinished::begin(&self.shared.path, folder, bytes.saturating_add(self.min_free))
            .map_err(AdminError::BadPath)?;
        let failed = |error: String| AdminError::BadPath(format!("the copy cannot be written: {error}"));
        let (partial, pages) = (copy.partial.clone(), self.shared.limits.backup_pages);
        let last = self
            .aside(move |file, next| {
                let mut lost = Ok(());
                let copied = copy_pages(file, &partial, pages, &mut || {
                    lost = next();
                    lost.is_ok()
                });
                lost.map(|()| copied.map_err(|error| error.to_string()))
            })
            .await?
            .map_err(failed)?;
        // The log may have records that are newer than the copy of the file: they do no harm.
        let log = Arc::clone(&self.shared.log);
        let finished = blocking(move || copy.finish(&log, last).map(|()| copy.path));
        finished.await?.map_err(|error| failed(error.to_string()))
    }
}

/// Copies all pages in steps of `pages`, and asks after each step whether to continue. Returns the last message that is
/// or was in the copy.
fn copy_pages(file: &Connection, to: &Path, pages: i32, goes_on: &mut dyn FnMut() -> bool) -> rusqlite::Result<i64> {
    // The empty file exists, unless the request was dropped and has removed it.
    let mut copy = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // An unfinished copy is removed, and a finished one is synced as a whole.
    copy.pragma_update(None, "journal_mode", "OFF")?;
    copy.pragma_update(None, "synchronous", "OFF")?;
    {
        let backup = Backup::new(file, &mut copy)?;
        while backup.step(pages)? != StepResult::Done {
            // A dropped request has removed the file.
            if !goes_on() || !to.exists() {
                let interrupted = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT);
                return Err(rusqlite::Error::SqliteFailure(interrupted, None));
            }
        }
    }
    statements::last(file)
}

impl Unfinished {
    /// Creates an empty file in `folder`. Fails when fewer than `bytes` are free there, or a file with a name of the
    /// copy's exists.
    fn begin(store: &Path, folder: &Path, bytes: u64) -> Result<Self, String> {
        if !folder.is_absolute() || !folder.is_dir() {
            return Err(format!("{} is not the absolute path of a folder that is there", folder.display()));
        }
        let path = folder.join(store.file_name().unwrap_or_default());
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let failed = |error: io::Error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(folder).map_err(failed)? {
            let found = entry.map_err(failed)?.file_name();
            let rest = found.as_encoded_bytes().strip_prefix(name);
            if rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'-' | b'.'))) {
                return Err(format!(
                    "{} is there, and nothing is overwritten; name an empty folder",
                    folder.join(found).display()
                ));
            }
        }
        let free = owner_only::free(folder);
        if free < bytes {
            return Err(format!("{} has {free} bytes of room, and {bytes} are needed", folder.display()));
        }
        let partial = beside(&path, "-unfinished");
        let made = owner_only::options().write(true).create_new(true).open(&partial);
        drop(made.map_err(|error| format!("{}: {error}", partial.display()))?);
        let made = TemporaryFiles(vec![partial.clone(), beside(&path, "-dedupe.1")]);
        Ok(Self { path, partial, made })
    }

    /// Adds the dedupe records, syncs everything, and gives the copy its final name.
    fn finish(&mut self, log: &DedupeLog, last: i64) -> io::Result<()> {
        File::open(&self.partial)?.sync_all()?;
        log.copy(&self.path, last)?;
        if self.path.exists() {
            return Err(io::Error::other(format!("{} has appeared meanwhile", self.path.display())));
        }
        fs::rename(&self.partial, &self.path)?;
        self.made.0.clear();
        sync_folder(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::schema;
    use super::super::tests_world::World;
    use super::super::tests_world::open;
    use super::*;
    use crate::base::clock::Clock;
    use crate::base::limits;
    use crate::message::Message;
    use crate::store::DedupeRecords;
    use crate::store::Filter;
    use crate::store::Record;
    use crate::store::Route;
    use crate::store::SourceTag;
    use crate::store::State;
    use crate::store::Store;
    use crate::verify::event_key::Key;

    fn open_log(path: &Path) -> (DedupeLog, i64) {
        let records = Arc::new(DedupeRecords::new(1_000, [], Clock::System));
        let (log, found) = DedupeLog::open(path, records, limits::DedupeLog::default(), Clock::System).expect("a log");
        (log, found.checkpoint)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
        names.sort();
        names
    }

    /// A file of several steps, with its log.
    fn store(folder: &Path) -> (PathBuf, Connection, DedupeLog) {
        let path = folder.join("s.db");
        let file = Connection::open(&path).expect("a file");
        file.pragma_update(None, "journal_mode", "WAL").expect("a WAL");
        schema::create(&file).expect("a layout");
        write(&file, 1..=1_000);
        let (log, _) = open_log(&path);
        let record = Record { source: SourceTag::UNKNOWN, key: Key([7; 16]), until: u32::MAX };
        log.append([record], Some(1_000)).expect("written");
        (path, file, log)
    }

    fn write(file: &Connection, ids: std::ops::RangeInclusive<i64>) {
        for id in ids {
            file.prepare_cached(
                "INSERT INTO messages (id, source, received, size, checksum, event_id, method, target, verified, headers, body)
                 VALUES (?1, 'shop', 0, 0, 0, '1', 'POST', '/', 1, '[]', zeroblob(3000))",
            )
            .and_then(|mut statement| statement.execute([id]))
            .expect("a message");
        }
    }

    #[test]
    fn a_copy_under_load_has_all_that_was_written_before_its_end() {
        let (folder, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (path, file, log) = store(folder.path());
        let mut copy = Unfinished::begin(&path, to.path(), 0).expect("room");
        let (mut last, mut steps) = (1_000, 0);
        let copied = copy_pages(&file, &copy.partial, 256, &mut || {
            // Later and earlier pages than those that are copied already.
            write(&file, last + 1..=last + 3);
            file.execute("UPDATE messages SET body = zeroblob(2000) WHERE id = ?1", [last - 900]).expect("written");
            file.execute("DELETE FROM messages WHERE id = ?1", [last - 901]).expect("written");
            (last, steps) = (last + 3, steps + 1);
            true
        });
        assert_eq!(copied.ok(), Some(last));
        assert!(steps > 2, "{steps}");
        copy.finish(&log, last).expect("finished");
        drop(copy);
        assert_eq!(names(to.path()), ["s.db", "s.db-dedupe.1"]);
        let copy = to.path().join("s.db");
        for name in ["s.db", "s.db-dedupe.1"] {
            let mode = fs::metadata(to.path().join(name)).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let found = Connection::open(&copy).expect("a file");
        let ask = |file: &Connection| {
            let sum = "SELECT count(*), sum(id * length(body)) FROM messages";
            file.query_row(sum, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).expect("numbers")
        };
        assert_eq!(ask(&found), ask(&file));
        let integrity: String = found.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("an answer");
        assert_eq!(integrity, "ok");
        let (log, checkpoint) = open_log(&copy);
        assert_eq!(checkpoint, last);
        assert!(log.records().contains(SourceTag::UNKNOWN, Key([7; 16])));
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_unfinished_stays() {
        let (folder, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (path, file, log) = store(folder.path());
        let begin = |to: &Path, bytes| Unfinished::begin(&path, to, bytes);
        for taken in ["s.db", "s.db-wal", "s.db-dedupe.7", "s.db-unfinished"] {
            fs::write(to.path().join(taken), "mine").expect("a file");
            assert!(begin(to.path(), 0).is_err(), "{taken}");
            assert_eq!(fs::read(to.path().join(taken)).expect("a file"), b"mine");
            fs::remove_file(to.path().join(taken)).expect("removed");
        }
        assert!(begin(Path::new("relative"), 0).is_err() && begin(&to.path().join("none"), 0).is_err());
        assert!(begin(to.path(), u64::MAX).is_err_and(|error| error.contains("room")));
        let copy = begin(to.path(), 0).expect("room");
        assert!(copy_pages(&file, &copy.partial, 256, &mut || false).is_err());
        drop(copy);
        assert_eq!(names(to.path()), [""; 0]);
        let mut copy = begin(to.path(), 0).expect("room");
        fs::create_dir(to.path().join("s.db-dedupe.new")).expect("a folder in its way");
        assert!(copy.finish(&log, 1).is_err());
        drop(copy);
        assert_eq!(names(to.path()), ["s.db-dedupe.new"]);
        fs::write(to.path().join("other.db"), "").expect("a file of somebody else");
        fs::remove_dir(to.path().join("s.db-dedupe.new")).expect("removed");
        assert!(begin(to.path(), 0).is_ok());
    }

    #[tokio::test]
    async fn a_copy_of_a_store_under_load_is_started_with_all_that_was_acknowledged_before() {
        use std::sync::atomic::AtomicBool;
        use std::sync::atomic::Ordering;

        let limits = limits::Sqlite { backup_pages: 1, ..limits::Sqlite::default() };
        let (world, to) = (World::new(limits), tempfile::tempdir().expect("a folder"));
        let queue = world.queue("shop").await;
        for at in 0..100 {
            let event_id = http::HeaderValue::from_str(&format!("before-{at}")).expect("an id");
            let large = Message { event_id, body: vec![b'x'; 100_000].into(), ..Message::example() };
            let route = Route { queue: queue.clone(), lane: None };
            world.store.enqueue(Arc::new(large), &[route], None).await.expect("stored");
        }
        let over = AtomicBool::new(false);
        let load = async {
            let mut after = 0;
            while !over.load(Ordering::Relaxed) {
                // All are listed in one part in the end.
                if after == 500 {
                    tokio::task::yield_now().await;
                    continue;
                }
                world.enqueue(&queue, &format!("after-{after}"), None).await;
                for taken in world.take(&queue, 2).await {
                    taken.settle(world.delivered());
                }
                after += 1;
            }
            after
        };
        let backup = async {
            let copied = world.store.backup(to.path()).await.expect("a copy");
            over.store(true, Ordering::Relaxed);
            copied
        };
        let (copied, after) = tokio::join!(backup, load);
        assert!(after > 1, "there was load: {after}");
        assert_eq!(
            (copied.clone(), names(to.path())),
            (to.path().join("store.db"), vec!["store.db".to_owned(), "store.db-dedupe.1".to_owned()])
        );
        let checked = super::super::check::check(&copied).expect("it can be checked");
        assert_eq!(checked.problems, [""; 0], "{:?}", checked.facts);
        assert!(world.store.backup(to.path()).await.is_err_and(|error| error.to_string().contains("is there")));
        let restored = open(&copied, &world.limits, &world.clock, &world.supervisor).expect("a store");
        let restored = World { folder: to, store: Store::Sqlite(Arc::new(restored)), ..world };
        let queue = restored.queue("shop").await;
        let all = restored.store.list(&Filter::default(), None, 1_000).await.expect("a list").deliveries;
        let before = all.iter().filter(|delivery| delivery.event_id.starts_with("before-")).count();
        assert_eq!(before, 100);
        let open = all.iter().filter(|delivery| delivery.state == State::Queued).count();
        assert_eq!(restored.take_all(&queue).await.len(), open);
    }
}
