//! Reads what is readable of a damaged file. Tables are scanned by their primary keys, and unreadable ranges are
//! skipped.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::ffi;

use super::files::repaired_copy;
use crate::message::Keys;
use crate::message::Message;
use crate::store::DestinationId;
use crate::store::Failures;
use crate::store::Keyspace;
use crate::store::State;
use crate::store::owner_only::TemporaryFiles;
use crate::store::sqlite::admin::Names;
use crate::store::sqlite::ids;
use crate::store::sqlite::mailbox::Finished;
use crate::store::sqlite::open;
use crate::store::sqlite::open::Failure;
use crate::store::sqlite::rows;
use crate::store::sqlite::rows::Columns;
use crate::store::sqlite::statements;
use crate::verify::event_key::Key;

/// Hint for a file that cannot be read to its end.
pub(super) const MORE: &str = "`sqlite3 FILE .recover` may find more in it";
/// The tables that are scanned, by their primary keys.
const TABLES: [&str; 2] = ["SELECT id FROM messages", "SELECT message FROM deliveries NOT INDEXED"];
const DELIVERY: &str = "destination, state, attempts, before_replay, settled, due, replayed, lane, status, failures";

/// A damaged file, opened read-only.
#[derive(Debug)]
pub(super) struct DamagedFile {
    connection: Connection,
    /// The repaired copy that is read instead of the file, if its first page is damaged.
    _copy: Option<TemporaryFiles>,
    names: Names,
}

impl DamagedFile {
    /// Opens the file; if its first page is damaged, a copy with a new first page.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        // The first page has the schema.
        let (mut opened, mut copied) = (connect(path), None);
        if opened.as_ref().is_err_and(Failure::is_damage) {
            let copy = repaired_copy(path).map_err(|error| format!("{} cannot be copied: {error}", path.display()))?;
            (opened, copied) = (connect(&copy.0), Some(copy.1));
        }
        let connection = opened.map_err(|failure| match failure {
            Failure::Sqlite(ref error) => format!("{} cannot be read ({error}); {MORE}", path.display()),
            Failure::Layout(_) | Failure::Foreign | Failure::Other(_) => failure.explain(path),
        })?;
        // Deliveries need the names of destinations; those that are readable suffice.
        let names = Names::read(&connection).unwrap_or_default();
        Ok(Self { connection, _copy: copied, names })
    }

    /// Whether there are no readable messages.
    pub(super) fn is_empty(&self) -> bool {
        let any = |sql| self.connection.prepare(sql).and_then(|mut statement| statement.exists([]));
        TABLES.into_iter().all(|sql| any(sql) == Ok(false))
    }

    /// The messages after `after`, at most `max_rows` and about `max_bytes`. An empty list is the end.
    pub(super) fn part(&self, after: i64, max_rows: usize, max_bytes: usize) -> rusqlite::Result<Vec<Stored>> {
        let (mut part, mut bytes, mut after) = (Vec::new(), 0, after);
        while part.len() < max_rows && bytes < max_bytes {
            let Some(from) = after.checked_add(1) else { break };
            let next = |sql: &str| {
                seek(from, |from| {
                    let found: Option<i64> =
                        self.connection.prepare_cached(sql)?.query_row([from], |row| row.get(0)).optional()?;
                    // Keys out of order could cause an endless loop.
                    if found.is_some_and(|found| found < from) { Err(damage()) } else { Ok(found) }
                })
            };
            let message = next("SELECT id FROM messages WHERE id >= ?1 ORDER BY id LIMIT 1")?;
            let delivery =
                next("SELECT message FROM deliveries NOT INDEXED WHERE message >= ?1 ORDER BY message LIMIT 1")?;
            let Some(id) = message.into_iter().chain(delivery).min() else { break };
            let message = readable(self.message(id))?.flatten();
            bytes += message.as_ref().map_or(0, |(message, columns, _)| columns.bytes() + message.body.len());
            part.push(Stored { id, message, deliveries: self.deliveries(id)? });
            after = id;
        }
        Ok(part)
    }

    /// A message, if it is not damaged.
    fn message(&self, id: i64) -> rusqlite::Result<Option<(Message, Columns, Option<Finished>)>> {
        let Some(message) = rows::whole(&self.connection, id)? else { return Ok(None) };
        let columns = Columns::of(&message);
        let mut statement = self.connection.prepare_cached("SELECT keys, until FROM messages WHERE id = ?1")?;
        let once = statement.query_row([id], |row| {
            let mut keys = keys_of(row, 0)?.into_iter();
            let Some(id) = keys.next() else { return Ok(None) };
            let keys = Keys { id, guard: keys.next(), ignored: None };
            let source = Keyspace::of_source(&columns.source).tag();
            Ok(Some(Finished { source, keys, until: row.get(1).unwrap_or_default() }))
        })?;
        Ok(Some((message, columns, once)))
    }

    /// The readable deliveries of a message.
    fn deliveries(&self, message: i64) -> rusqlite::Result<Vec<(DestinationId, Delivered)>> {
        let sql = format!("SELECT {DELIVERY} FROM deliveries NOT INDEXED WHERE message = ?1");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([message])?;
        let mut deliveries = Vec::new();
        while let Some(row) = readable(rows.next())?.flatten() {
            let id = row.get(0).ok().and_then(|destination: i64| self.names.0.get(&destination).cloned());
            let (Some(id), Some(state)) = (id, row.get(1).ok().and_then(ids::state_of)) else { continue };
            // Damaged columns count as NULL.
            let delivered = Delivered {
                state,
                attempts: row.get(2).unwrap_or_default(),
                before_replay: row.get(3).unwrap_or_default(),
                settled: row.get(4).unwrap_or_default(),
                due: row.get(5).ok(),
                replayed: row.get(6).ok(),
                lane: row.get(7).ok(),
                status: row.get(8).ok(),
                failures: statements::failures(row, 9),
            };
            deliveries.push((id, delivered));
        }
        Ok(deliveries)
    }
}

/// A message of the damaged file.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) id: i64,
    /// The message with its columns and dedupe keys; absent when it is damaged or lost.
    pub(super) message: Option<(Message, Columns, Option<Finished>)>,
    pub(super) deliveries: Vec<(DestinationId, Delivered)>,
}

/// A delivery in the damaged file.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) state: State,
    pub(super) attempts: u32,
    pub(super) before_replay: u32,
    pub(super) settled: i64,
    pub(super) due: Option<i64>,
    pub(super) replayed: Option<i64>,
    pub(super) lane: Option<i64>,
    pub(super) status: Option<i64>,
    pub(super) failures: Failures,
}

/// Opens a damaged file, which is only read.
fn connect(path: &Path) -> Result<Connection, Failure> {
    let damaged = open::read_only(path)?;
    TABLES.into_iter().try_for_each(|sql| damaged.prepare(sql).map(drop))?;
    Ok(damaged)
}

/// The dedupe keys in a column.
pub(super) fn keys_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<Key>> {
    let (keys, _rest) = row.get_ref(column)?.as_blob().unwrap_or_default().as_chunks();
    Ok(keys.iter().copied().map(Key).collect())
}

/// The result of a read; `None` when the value is damaged.
fn readable<T>(read: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    use ErrorCode::DatabaseCorrupt;
    use ErrorCode::NotADatabase;
    use ErrorCode::SystemIoFailure;
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => match error.sqlite_error_code() {
            // An error without a code is a type mismatch.
            Some(DatabaseCorrupt | NotADatabase | SystemIoFailure) | None => Ok(None),
            Some(_) => Err(error),
        },
    }
}

fn damage() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), None)
}

/// The first readable key from `from` on: skips an unreadable range with doubling steps, then finds its end by
/// bisection.
fn seek(from: i64, read: impl Fn(i64) -> rusqlite::Result<Option<i64>>) -> rusqlite::Result<Option<i64>> {
    if let Some(found) = readable(read(from))? {
        return Ok(found);
    }
    let (mut bad, mut step) = (from, 1_i64);
    let mut good = loop {
        let at = from.saturating_add(step);
        if readable(read(at))?.is_some() {
            break at;
        }
        if at == i64::MAX {
            return Ok(None);
        }
        (bad, step) = (at, step.saturating_mul(2));
    };
    while good.saturating_sub(bad) > 1 {
        let middle = bad + (good - bad) / 2;
        if readable(read(middle))?.is_some() {
            good = middle;
        } else {
            bad = middle;
        }
    }
    read(good)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_key_behind_what_cannot_be_read_is_found(
            keys in proptest::collection::btree_set(1..1_000_i64, 0..40),
            bad in (0..1_000_i64, 0..300_i64),
            from in 0..1_000_i64,
        ) {
            let bad = bad.0..bad.0 + bad.1;
            // A page that cannot be read fails those who look for what it has or had.
            let read = |from: i64| {
                if bad.contains(&from) {
                    return Err(damage());
                }
                Ok(keys.range(from..).next().copied())
            };
            let begin = if bad.contains(&from) { bad.end } else { from };
            prop_assert_eq!(seek(from, read).expect("found"), keys.range(begin..).next().copied());
        }
    }
}
