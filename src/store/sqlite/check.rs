//! Checks a file that no gateway has open, and the dedupe log beside it, for damage. Read-only.

use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::path::Path;

use rusqlite::Connection;

use super::ids;
use super::open;
use super::rows;
use super::statements;
use crate::store::State;
use crate::store::dedupe_log::DedupeLog;
use crate::store::owner_only::TemporaryFiles;
use crate::store::owner_only::beside;

/// Most lines about one kind of damage.
const MAX_LINES: usize = 20;

/// The result of a check.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Facts about the file, one line each.
    pub(crate) facts: Vec<String>,
    /// Problems, one line each.
    pub(crate) problems: Vec<String>,
}

/// Invariants: queries that count violating rows, with the description of a violation.
const RULES: [(&str, &str); 5] = [
    (
        "SELECT count(*) FROM messages WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE message = messages.id)",
        "messages have no delivery: nobody delivers them",
    ),
    (
        "SELECT count(*) FROM deliveries WHERE NOT EXISTS (SELECT 1 FROM messages WHERE id = deliveries.message)",
        "deliveries have no message: they cannot be made",
    ),
    (
        "SELECT count(*) FROM deliveries WHERE destination NOT IN (SELECT id FROM destinations)",
        "deliveries are for destinations that are not known",
    ),
    (
        "SELECT count(*) FROM deliveries WHERE state NOT BETWEEN 2 AND 6 OR state = 2 AND lane IS NULL",
        "deliveries are in no state that they can be in",
    ),
    (
        "SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY lanes WHERE lane IS NOT NULL AND state < 5
             GROUP BY destination, lane HAVING sum(state <> 2) <> 1)",
        "lanes have not exactly one delivery that may be attempted",
    ),
];

/// Checks the file at `path` and the dedupe log beside it.
///
/// # Errors
/// The file cannot be checked: it is in use, or not a file of this version.
pub(crate) fn check(path: &Path) -> Result<Checked, String> {
    let path = fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let _unused = unused(&path)?;
    // The gateway's user may not be able to write what a reader leaves beside a file.
    let made = ["-wal", "-shm"].map(|ending| beside(&path, ending)).into_iter().filter(|file| !file.exists());
    let _made = TemporaryFiles(made.collect());
    let file = open::read_only(&path).map_err(|failure| failure.explain(&path))?;
    let mut checked = Checked::default();
    checked.rules(&file);
    for look in [Checked::integrity, Checked::deliveries, Checked::messages] {
        if let Err(error) = look(&mut checked, &file) {
            checked.unreadable(&error);
        }
    }
    checked.log(&file, &path);
    Ok(checked)
}

/// Locks a file that no gateway has open.
fn unused(path: &Path) -> Result<File, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    // Opening a pipe would block.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let file = File::open(path).map_err(failed)?;
    match file.try_lock_shared() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "{} is in use by a gateway; stop that, or check a copy that `doorward store backup` has made",
            path.display()
        )),
        Err(TryLockError::Error(error)) => Err(format!("{} cannot be locked: {error}", path.display())),
    }
}

impl Checked {
    fn unreadable(&mut self, error: &rusqlite::Error) {
        let line = format!("the file cannot be read: {error}");
        if !self.problems.contains(&line) {
            self.problems.push(line);
        }
    }

    /// SQLite's integrity check.
    fn integrity(&mut self, file: &Connection) -> rusqlite::Result<()> {
        let mut statement = file.prepare(&format!("PRAGMA integrity_check({MAX_LINES})"))?;
        for lines in statement.query_map([], |row| row.get::<_, String>(0))? {
            // Some are several lines.
            self.problems.extend(lines?.lines().filter(|line| *line != "ok").map(str::to_owned));
        }
        Ok(())
    }

    /// The numbers of deliveries.
    fn deliveries(&mut self, file: &Connection) -> rusqlite::Result<()> {
        let mut statement = file.prepare("SELECT state, count(*) FROM deliveries GROUP BY state")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(state) = row.get_ref(0)?.as_i64().ok().and_then(ids::state_of) {
                self.facts.push(format!("{} deliveries are {}", row.get::<_, i64>(1)?, State::name(state)));
            }
        }
        Ok(())
    }

    /// Checks the invariants.
    fn rules(&mut self, file: &Connection) {
        for (query, wrong) in RULES {
            match file.query_row(query, [], |row| row.get::<_, i64>(0)) {
                Ok(0) => {}
                Ok(count) => self.problems.push(format!("{count} {wrong}")),
                Err(error) => self.unreadable(&error),
            }
        }
    }

    /// Checks the checksum of each message.
    fn messages(&mut self, file: &Connection) -> rusqlite::Result<()> {
        let (mut count, mut damaged) = (0_u64, 0);
        let mut statement = file.prepare(&format!("SELECT id, {} FROM messages ORDER BY id", rows::COLUMNS))?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let id = row.get(0)?;
            count += 1;
            if rows::read(row, id, 1)?.is_none() {
                damaged += 1;
                if damaged <= MAX_LINES {
                    self.problems.push(format!("message {} is not what was written", ids::public(id)));
                }
            }
        }
        if damaged > MAX_LINES {
            self.problems.push(format!("{} more messages are not what was written", damaged - MAX_LINES));
        }
        self.facts.push(format!("{count} messages"));
        Ok(())
    }

    /// Checks the dedupe log.
    fn log(&mut self, file: &Connection, path: &Path) {
        let log = match DedupeLog::inspect(path) {
            Ok(log) => log,
            Err(error) => return self.problems.push(format!("the dedupe log cannot be read: {error}")),
        };
        self.facts.push(format!("{} dedupe records in {} files", log.records, log.files));
        if log.skipped > 0 {
            self.problems.push(format!("{} bytes of the dedupe log are damaged", log.skipped));
        }
        match statements::last(file) {
            Ok(last) if last < log.checkpoint => self.problems.push(format!(
                "the dedupe log knows messages up to {}, the file only up to {}: acknowledged messages are missing",
                ids::public(log.checkpoint),
                ids::public(last)
            )),
            // What cannot be read was told before.
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::super::schema;
    use super::*;
    use crate::message::Message;
    use crate::message::codec;

    /// A file with two good messages, one of them in a lane, and two deliveries of each.
    fn good(path: &Path) -> Connection {
        let file = Connection::open(path).expect("a file");
        file.pragma_update(None, "journal_mode", "WAL").expect("a WAL");
        schema::create(&file).expect("a layout");
        file.execute_batch("INSERT INTO destinations VALUES (1, 'shop', 'default', 0), (2, 'shop', 'copy', 0)")
            .expect("destinations");
        let checksum = codec::checksum(&Message::example(), "[]");
        for (id, lane) in [(4096, None), (8192, Some(-1)), (8193, Some(-1))] {
            file.execute(
                "INSERT INTO messages (id, source, received, size, checksum, event_id, method, target, verified, headers, body)
                 VALUES (?1, 'shop', 0, 0, ?2, '1', 'POST', '/', 1, '[]', x'')",
                params![id, checksum],
            )
            .expect("a message");
            for destination in [1, 2] {
                let state = if id == 8193 { 2 } else { 3 };
                file.execute(
                    "INSERT INTO deliveries (message, destination, state, attempts, before_replay, settled, lane)
                     VALUES (?1, ?2, ?3, 0, 0, 0, ?4)",
                    params![id, destination, state, lane],
                )
                .expect("a delivery");
            }
        }
        file
    }

    fn problems(path: &Path) -> Vec<String> {
        check(path).expect("it can be checked").problems
    }

    #[test]
    fn a_good_file_has_facts_and_no_problems_and_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.db");
        drop(good(&path));
        let checked = check(&path).expect("it can be checked");
        assert_eq!(checked.problems, [""; 0]);
        assert_eq!(
            checked.facts,
            ["2 deliveries are blocked", "4 deliveries are queued", "3 messages", "0 dedupe records in 0 files"]
        );
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn each_damage_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let is_not = "message 1-0 is not what was written";
        for (at, (damage, expected)) in [
            ("UPDATE messages SET body = x'00' WHERE id = 4096", is_not),
            ("DELETE FROM messages WHERE id = 4096", "2 deliveries have no message: they cannot be made"),
            ("DELETE FROM deliveries WHERE message = 4096", "1 messages have no delivery: nobody delivers them"),
            (
                "UPDATE deliveries SET state = 3 WHERE message = 8193 AND destination = 2",
                "1 lanes have not exactly one delivery that may be attempted",
            ),
            (
                "UPDATE deliveries SET state = 5 WHERE message = 8192",
                "2 lanes have not exactly one delivery that may be attempted",
            ),
            (
                "UPDATE deliveries SET state = 2 WHERE message = 4096",
                "2 deliveries are in no state that they can be in",
            ),
            ("DELETE FROM destinations WHERE id = 2", "3 deliveries are for destinations that are not known"),
        ]
        .into_iter()
        .enumerate()
        {
            let path = folder.path().join(format!("{at}.db"));
            good(&path).execute_batch(damage).expect("damaged");
            assert_eq!(problems(&path), [expected], "{damage}");
        }
    }

    #[test]
    fn lost_pages_and_a_damaged_log_are_told() {
        use std::os::unix::fs::FileExt as _;

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.db");
        drop(good(&path));
        fs::write(folder.path().join("s.db-dedupe.1"), [1; 30]).expect("a log");
        assert_eq!(problems(&path), ["30 bytes of the dedupe log are damaged"]);
        fs::create_dir(folder.path().join("s.db-dedupe.2")).expect("a folder");
        assert!(problems(&path)[0].contains("is not a regular file"));
        fs::remove_dir(folder.path().join("s.db-dedupe.2")).expect("removed");
        let (page, pages) = (4096, fs::metadata(&path).expect("a file").len() / 4096);
        let file = File::options().write(true).open(&path).expect("a file");
        file.write_all_at(&[9; 4096], (pages - 1) * page).expect("damaged");
        assert!(problems(&path).len() > 1, "{:?}", problems(&path));
    }

    #[test]
    fn a_file_in_use_or_of_somebody_else_is_not_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.db");
        drop(good(&path));
        let owned = File::open(&path).expect("a file");
        owned.try_lock().expect("a lock");
        assert!(check(&path).is_err_and(|error| error.contains("is in use")));
        drop(owned);
        let other = folder.path().join("other.db");
        Connection::open(&other).expect("a file").execute_batch("CREATE TABLE t (x)").expect("a table");
        assert!(check(&other).is_err_and(|error| error.contains("of another program")));
        assert!(check(&folder.path().join("none")).is_err());
        let nowhere = rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), rustix::fs::Mode::RUSR);
        nowhere.expect("a pipe");
        for name in ["pipe", "."] {
            assert!(check(&folder.path().join(name)).is_err_and(|why| why.contains("not a regular file")), "{name}");
        }
    }
}
