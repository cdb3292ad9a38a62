//! Imports what can be read of a quarantined file into the present one, part by part, while the gateway serves.
//!
//! The file is only read. Tables are walked by their primary keys, over whatever cannot be read.

use std::collections::HashMap;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::ffi;
use rusqlite::params;

use super::Sqlite;
use super::admin::Names;
use super::changes::Changes;
use super::execute::blocking;
use super::ids;
use super::mailbox::Finished;
use super::mailbox::Settled;
use super::open;
use super::open::Failure;
use super::queue::Entry;
use super::rows;
use super::rows::Columns;
use super::schema;
use super::shared::Forgotten;
use super::statements;
use super::statements::Writing;
use crate::message::Keys;
use crate::message::Message;
use crate::store::AdminError;
use crate::store::DestinationId;
use crate::store::FailedAttempt;
use crate::store::Failures;
use crate::store::Keyspace;
use crate::store::MessageId;
use crate::store::Record;
use crate::store::Recovered;
use crate::store::State;
use crate::store::Unavailable;
use crate::store::owner_only;
use crate::store::owner_only::Temporary;
use crate::store::owner_only::beside;
use crate::store::owner_only::rename_if_there;
use crate::store::owner_only::sync_folder;
use crate::verify::event_key::Key;

/// Bytes of a page.
const PAGE: usize = 4096;
/// About how long one call takes.
const PATIENCE: Duration = Duration::from_secs(1);
/// A due time later than this, in milliseconds, is none that was written: no pause is longer.
const MAX_PAUSE: i64 = 24 * 60 * 60 * 1000;
/// What a dead letter says whose delivery was not found.
const RECORD_LOST: &str = "record lost: the file was damaged, and whether the event was delivered is not known";

/// A recovery between two calls.
#[derive(Debug)]
pub(super) struct Recovery {
    path: PathBuf,
    damaged: Connection,
    /// What it reads in the file's place.
    _mended: Option<Temporary>,
    names: Names,
    present: Present,
}

/// The dedupe keys of the messages in the present file.
#[derive(Debug, Default)]
struct Present {
    keys: HashMap<Key, i64>,
    /// The keys of messages up to this one have been read.
    scanned: i64,
}

/// A message of the damaged file.
#[derive(Debug)]
struct Stored {
    id: i64,
    /// With what it is known by; nothing when it is damaged or lost.
    message: Option<(Message, Columns, Option<Finished>)>,
    deliveries: Vec<(DestinationId, Delivered)>,
}

/// What the damaged file says of a delivery.
#[derive(Debug)]
struct Delivered {
    state: State,
    attempts: u32,
    before_replay: u32,
    settled: i64,
    due: Option<i64>,
    replayed: Option<i64>,
    lane: Option<i64>,
    status: Option<i64>,
    failures: Failures,
}

/// What somebody can do with a file that is not read to its end.
const MORE: &str = "`sqlite3 FILE .recover` may find more in it";
/// The tables that are walked, by their primary keys.
const TABLES: [&str; 2] = ["SELECT id FROM messages", "SELECT message FROM deliveries NOT INDEXED"];
const DELIVERY: &str = "destination, state, attempts, before_replay, settled, due, replayed, lane, status, failures";

impl Sqlite {
    /// Imports parts of a quarantined file for about a second, behind the message `after`. `file` is the name of a
    /// regular file beside the store's, such as `store.db.damaged-20260102T030405Z`; it is renamed when all of it is
    /// done.
    ///
    /// # Errors
    /// [`AdminError`] when there is no such file, or it or the present one cannot be used.
    pub(in crate::store) async fn recover(
        self: &Arc<Self>,
        file: &str,
        after: Option<MessageId>,
    ) -> Result<Recovered, AdminError> {
        let began = Instant::now();
        let path = quarantined(&self.shared.path, file).map_err(AdminError::BadPath)?;
        // One call at a time.
        let mut kept = self.recovery.lock().await;
        let mut recovery = match kept.take().filter(|kept| kept.path == path) {
            Some(recovery) => recovery,
            None => blocking(move || Recovery::open(path)).await?.map_err(AdminError::BadPath)?,
        };
        let limits = self.shared.limits.clone();
        let (max_rows, max_bytes, scanned) = (limits.recover_rows, limits.batch_bytes, limits.retention_rows.max(1));
        let mut after = after.map_or(0, |after| ids::written(after).unwrap_or(i64::MAX));
        let mut done = Recovered::default();
        while began.elapsed() < PATIENCE {
            recovery.present = self.scan(recovery.present, scanned).await?;
            let (back, part) = blocking(move || {
                let part = recovery.part(after, max_rows, max_bytes);
                (recovery, part)
            })
            .await?;
            recovery = back;
            let part = part.map_err(|error| AdminError::BadPath(format!("{file} cannot be read: {error}")))?;
            let Some(last) = part.last().map(|stored| stored.id) else {
                if after == 0 && !blocking(move || recovery.is_empty()).await? {
                    return Err(AdminError::BadPath(format!("{file}: none of its events can be read; {MORE}")));
                }
                set_aside(&self.shared.path, file).map_err(|error| AdminError::BadPath(format!("{file}: {error}")))?;
                return Ok(done);
            };
            let (present, shared) = (recovery.present, Arc::clone(&self.shared));
            let import = move |file: &Connection, changes: &mut Changes| {
                import(file, changes, &part, (present, scanned, &shared.forgotten))
            };
            let (imported, present) = self.command(import).await?;
            recovery.present = present;
            done = done.and(imported);
            after = last;
        }
        *kept = Some(recovery);
        Ok(Recovered { next: Some(ids::public(after)), ..done })
    }

    /// Reads the keys of messages that came since.
    async fn scan(self: &Arc<Self>, mut present: Present, rows: i64) -> Result<Present, Unavailable> {
        loop {
            let (more, read) =
                self.view(move |file| Ok::<_, Unavailable>((present.scan(file, rows)?, present))).await?;
            if !more {
                return Ok(read);
            }
            present = read;
        }
    }
}

/// Opens a damaged file, which is only read.
fn connect(path: &Path) -> Result<Connection, Failure> {
    let damaged = open::read_only(path)?;
    TABLES.into_iter().try_for_each(|sql| damaged.prepare(sql).map(drop))?;
    Ok(damaged)
}

/// Makes a copy of a damaged file with a new first page, and of its WAL: its path, and all that has to be removed.
/// Every file has its tables at the same pages, since they are made at once and never moved.
fn mended(path: &Path) -> io::Result<(PathBuf, Temporary)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().replacen(".damaged-", ".mended-", 1);
    let mended = path.with_file_name(name);
    let made = || Temporary(["", "-wal", "-shm", "-journal"].map(|ending| beside(&mended, ending)).into());
    // What an earlier one has left.
    drop(made());
    let made = made();
    owner_only::open(&mended)?;
    let fresh = Connection::open(&mended).and_then(|fresh| schema::create(&fresh));
    fresh.map_err(io::Error::other)?;
    let mut page = [0; PAGE];
    File::open(&mended)?.read_exact(&mut page)?;
    let pages = fs::metadata(path)?.len().div_ceil(4096);
    // The format: with a WAL. How many pages there are, and none of them free.
    page[18..20].fill(2);
    page[28..32].copy_from_slice(&u32::try_from(pages).unwrap_or(u32::MAX).to_be_bytes());
    page[32..40].fill(0);
    copy(path, &mended)?;
    OpenOptions::new().write(true).open(&mended)?.write_all_at(&page, 0)?;
    let wal = beside(path, "-wal");
    if wal.exists() {
        copy(&wal, &beside(&mended, "-wal"))?;
    }
    Ok((mended, made))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut new = owner_only::open(to)?;
    new.set_len(0)?;
    io::copy(&mut File::open(from)?, &mut new).map(drop)
}

/// The path of a quarantined file of this name beside the store's.
fn quarantined(store: &Path, name: &str) -> Result<PathBuf, String> {
    let prefix = format!("{}.damaged-", store.file_name().unwrap_or_default().display());
    let whole = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    if !name.strip_prefix(&prefix).is_some_and(whole) {
        return Err(format!(
            "{name:?} is no quarantined file of this store; write its name alone, such as {prefix}20260102T030405Z"
        ));
    }
    let path = store.with_file_name(name);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() => Ok(path),
        Ok(_other) => Err(format!("{} is not a regular file", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Renames a file that is done, with its WAL.
fn set_aside(store: &Path, name: &str) -> io::Result<()> {
    let done = store.with_file_name(name.replacen(".damaged-", ".recovered-", 1));
    let path = store.with_file_name(name);
    for ending in ["-wal", "-shm"] {
        rename_if_there(&beside(&path, ending), &beside(&done, ending))?;
    }
    fs::rename(path, done)?;
    sync_folder(store)
}

impl Recovery {
    /// Opens the file; where its first page is damaged, a copy with a new one.
    fn open(path: PathBuf) -> Result<Self, String> {
        // The first page says what the tables are.
        let (mut opened, mut made) = (connect(&path), None);
        if opened.as_ref().is_err_and(Failure::is_damage) {
            let copy = mended(&path).map_err(|error| format!("{} cannot be copied: {error}", path.display()))?;
            (opened, made) = (connect(&copy.0), Some(copy.1));
        }
        let damaged = opened.map_err(|failure| match failure {
            Failure::Sqlite(ref error) => format!("{} cannot be read ({error}); {MORE}", path.display()),
            Failure::Layout(_) | Failure::Foreign | Failure::Other(_) => failure.explain(&path),
        })?;
        // Without names, no delivery can be told; what is left of them is enough.
        let names = Names::read(&damaged).unwrap_or_default();
        Ok(Self { path, damaged, _mended: made, names, present: Present::default() })
    }

    /// Whether there are no messages, as far as that can be read.
    fn is_empty(&self) -> bool {
        let any = |sql| self.damaged.prepare(sql).and_then(|mut statement| statement.exists([]));
        TABLES.into_iter().all(|sql| any(sql) == Ok(false))
    }

    /// The messages behind one, at most so many and about so many bytes. None is the end.
    fn part(&self, after: i64, max_rows: usize, max_bytes: usize) -> rusqlite::Result<Vec<Stored>> {
        let (mut part, mut bytes, mut after) = (Vec::new(), 0, after);
        while part.len() < max_rows && bytes < max_bytes {
            let Some(from) = after.checked_add(1) else { break };
            let next = |sql: &str| {
                seek(from, |from| {
                    let found: Option<i64> =
                        self.damaged.prepare_cached(sql)?.query_row([from], |row| row.get(0)).optional()?;
                    // Keys that are out of order would lead back.
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

    /// A message that is what was written.
    fn message(&self, id: i64) -> rusqlite::Result<Option<(Message, Columns, Option<Finished>)>> {
        let Some(message) = rows::whole(&self.damaged, id)? else { return Ok(None) };
        let columns = Columns::of(&message);
        let mut statement = self.damaged.prepare_cached("SELECT keys, until FROM messages WHERE id = ?1")?;
        let once = statement.query_row([id], |row| {
            let mut keys = keys_of(row, 0)?.into_iter();
            let Some(id) = keys.next() else { return Ok(None) };
            let keys = Keys { id, guard: keys.next(), ignored: None };
            let source = Keyspace::of_source(&columns.source).tag();
            Ok(Some(Finished { source, keys, until: row.get(1).unwrap_or_default() }))
        })?;
        Ok(Some((message, columns, once)))
    }

    /// What can be read of a message's deliveries.
    fn deliveries(&self, message: i64) -> rusqlite::Result<Vec<(DestinationId, Delivered)>> {
        let sql = format!("SELECT {DELIVERY} FROM deliveries NOT INDEXED WHERE message = ?1");
        let mut statement = self.damaged.prepare_cached(&sql)?;
        let mut rows = statement.query([message])?;
        let mut deliveries = Vec::new();
        while let Some(row) = readable(rows.next())?.flatten() {
            let id = row.get(0).ok().and_then(|destination: i64| self.names.0.get(&destination).cloned());
            let (Some(id), Some(state)) = (id, row.get(1).ok().and_then(ids::state_of)) else { continue };
            // What is damaged of it counts as nothing.
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

/// The dedupe keys in a column.
fn keys_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<Key>> {
    let (keys, _rest) = row.get_ref(column)?.as_blob().unwrap_or_default().as_chunks();
    Ok(keys.iter().copied().map(Key).collect())
}

/// What was read; nothing when it is damaged.
fn readable<T>(read: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    use ErrorCode::DatabaseCorrupt;
    use ErrorCode::NotADatabase;
    use ErrorCode::SystemIoFailure;
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => match error.sqlite_error_code() {
            // Without a code, it is no value of that kind.
            Some(DatabaseCorrupt | NotADatabase | SystemIoFailure) | None => Ok(None),
            Some(_) => Err(error),
        },
    }
}

fn damage() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), None)
}

/// The first key from `from` on that can be read: jumps by doubled steps over what cannot, then back by halves.
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

impl Present {
    /// Reads the keys of the next messages; whether there may be more.
    fn scan(&mut self, file: &Connection, rows: i64) -> rusqlite::Result<bool> {
        let mut statement = file.prepare_cached("SELECT id, keys FROM messages WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let (mut read, mut found) = (0, statement.query([self.scanned, rows])?);
        while let Some(row) = found.next()? {
            let id = row.get(0)?;
            self.keys.extend(keys_of(row, 1)?.into_iter().map(|key| (key, id)));
            (read, self.scanned) = (read + 1, id);
        }
        Ok(read >= rows)
    }
}

/// Imports a part in the transaction of the writer. With the keys that are present come how many rows are scanned at
/// once, and the outcomes that are known.
fn import(
    file: &Connection,
    changes: &mut Changes,
    part: &[Stored],
    (mut present, rows, forgotten): (Present, i64, &Forgotten),
) -> rusqlite::Result<(Recovered, Present)> {
    while present.scan(file, rows)? {}
    let mut done = Recovered::default();
    let mut writing = Writing::new(file)?;
    for Stored { id, message, deliveries } in part {
        let Some((message, columns, once)) = message else {
            done.lost += 1;
            continue;
        };
        let keys = || once.iter().flat_map(|once| once.keys.iter());
        let anew = keys().any(|key| present.keys.get(&key).is_some_and(|known| known != id));
        let Some(free) = free(file, plausible(*id, changes), columns.checksum)?.filter(|_| !anew) else {
            done.present += 1;
            continue;
        };
        writing.message(free, (message, columns, once.as_ref()))?;
        changes.stored(free);
        present.keys.extend(keys().map(|key| (key, free)));
        if let Some(Finished { source, until, .. }) = *once
            && i64::from(until) > changes.now.unix()
        {
            changes.records.extend(keys().map(|key| Record { source, key, until }));
        }
        for (destination, delivered) in deliveries {
            let row = statements::destination(file, destination)?;
            let state = deliver(file, (free, row), delivered, changes)?;
            if let (Some(from), Some(settled)) = (state, forgotten.of(destination, *id)) {
                let settled = Settled { entry: Entry { id: free, ..settled.entry }, ..settled };
                if writing.settle(row, &settled)? {
                    // None of its lane is open behind it yet.
                    changes.moved(row, Some(from), Some(settled.outcome.state()));
                }
            }
        }
        if deliveries.is_empty() {
            for row in destinations_of(file, &columns.source)? {
                deliver(file, (free, row), &Delivered::lost(changes), changes)?;
            }
            done.record_lost += 1;
        } else {
            done.imported += 1;
        }
    }
    Ok((done, present))
}

/// The id of a message, unless none can have it: then a new one, lest all later ones are behind it.
fn plausible(id: i64, changes: &Changes) -> i64 {
    let latest = changes.last.max(ids::first_of(changes.now));
    if (1..=latest).contains(&id) { id } else { latest.saturating_add(1) }
}

/// The id under which a message can be imported: its own, or the next that nobody has; nothing when it is there
/// already.
fn free(file: &Connection, id: i64, checksum: i64) -> rusqlite::Result<Option<i64>> {
    let mut statement = file.prepare_cached("SELECT checksum FROM messages WHERE id = ?1")?;
    let mut at = id;
    loop {
        match statement.query_row([at], |row| Ok(row.get_ref(0)?.as_i64().ok())).optional()? {
            None => return Ok(Some(at)),
            Some(known) if known == Some(checksum) => return Ok(None),
            Some(_other) => at = at.saturating_add(1),
        }
    }
}

/// The rows of all destinations of a message's source; of its unnamed one when none is known.
fn destinations_of(file: &Connection, source: &str) -> rusqlite::Result<Vec<i64>> {
    let mut statement = file.prepare_cached("SELECT id FROM destinations WHERE source = ?1")?;
    let known = statement.query_map([source], |row| row.get(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    if known.is_empty() { Ok(vec![statements::destination(file, &DestinationId::unnamed(source))?]) } else { Ok(known) }
}

/// Writes a delivery that keeps the rule of lanes: blocked when its lane has an open one, else not. In which state,
/// unless it is there.
fn deliver(
    file: &Connection,
    (message, destination): (i64, i64),
    delivered: &Delivered,
    changes: &mut Changes,
) -> rusqlite::Result<Option<State>> {
    let Delivered { attempts, before_replay, settled, replayed, lane, status, .. } = delivered;
    let busy = match lane {
        Some(lane) if delivered.state.is_open() => statements::is_busy(file, destination, lane.cast_unsigned())?,
        _ => false,
    };
    let state = match delivered.state {
        State::Blocked | State::Queued | State::Retrying if busy => State::Blocked,
        State::Blocked if replayed.is_some() => State::Retrying,
        State::Blocked => State::Queued,
        state @ (State::Queued | State::Retrying | State::Delivered | State::Dead) => state,
    };
    let latest = changes.due.saturating_add(MAX_PAUSE);
    let due = (state == State::Retrying).then(|| delivered.due.filter(|due| *due <= latest).unwrap_or(changes.due));
    let failures = delivered.failures.as_json();
    // Of two for one destination, one is not what was written.
    let mut insert = file.prepare_cached(
        "INSERT OR IGNORE INTO deliveries (message, destination, state, attempts, before_replay, settled, due, replayed, lane, status, failures)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    let inserted = insert.execute(params![
        message,
        destination,
        ids::state(state),
        attempts,
        before_replay,
        settled,
        due,
        replayed,
        lane,
        status,
        failures
    ])?;
    if inserted == 0 {
        return Ok(None);
    }
    changes.moved(destination, None, Some(state));
    Ok(Some(state))
}

impl Delivered {
    /// A delivery of which nothing is known.
    fn lost(changes: &Changes) -> Self {
        let at = changes.now;
        let failed = FailedAttempt { at, ms: 0, status: None, reason: RECORD_LOST.to_owned(), answer: String::new() };
        Self {
            state: State::Dead,
            attempts: 0,
            before_replay: 0,
            settled: at.millis(),
            due: None,
            replayed: None,
            lane: None,
            status: None,
            failures: Failures::default().with(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::schema;
    use super::super::tests_world::World;
    use super::*;
    use crate::base::limits;
    use crate::base::time::Moment;
    use crate::message::codec;
    use crate::store::Outcome;

    const NOW: i64 = 1_000_000;
    const ROWS: i64 = 2;

    fn present() -> Connection {
        let file = Connection::open_in_memory().expect("a file");
        schema::create(&file).expect("a layout");
        file.execute_batch("INSERT INTO destinations VALUES (7, 'shop', 'default', 0)").expect("a destination");
        file
    }

    /// A file on disk with the destinations 1 shop/default and 2 shop/copy.
    fn damaged(folder: &Path) -> (PathBuf, Connection) {
        let path = folder.join("s.db.damaged-1");
        let file = Connection::open(&path).expect("a file");
        schema::create(&file).expect("a layout");
        file.execute_batch("INSERT INTO destinations VALUES (1, 'shop', 'default', 0), (2, 'shop', 'copy', 0)")
            .expect("destinations");
        (path, file)
    }

    /// Stores a message with a key of its own and this body.
    fn put(file: &Connection, id: i64, key: u8, body: &[u8]) {
        let message = Message { body: body.to_vec().into(), ..Message::example() };
        file.execute(
            "INSERT INTO messages (id, source, received, size, checksum, keys, until, event_id, method, target, verified, headers, body)
             VALUES (?1, 'shop', 0, 0, ?2, ?3, 2000000, '1', 'POST', '/', 1, '[]', ?4)",
            params![id, codec::checksum(&message, "[]"), [key; 16], body],
        )
        .expect("a message");
    }

    fn deliver_to(file: &Connection, id: i64, destination: i64, state: State, lane: Option<i64>) {
        file.execute(
            "INSERT INTO deliveries (message, destination, state, attempts, before_replay, settled, lane) VALUES (?1, ?2, ?3, 1, 0, 0, ?4)",
            params![id, destination, ids::state(state), lane],
        )
        .expect("a delivery");
    }

    fn recover(path: &Path, file: &Connection, outcomes: &Forgotten) -> (Recovered, Changes) {
        let mut recovery = Recovery::open(path.to_owned()).expect("it is readable");
        let mut changes = Changes::new(Moment::from_millis(NOW), NOW, 0);
        let (mut done, mut after) = (Recovered::default(), 0);
        loop {
            let part = recovery.part(after, 3, 1_000_000).expect("it is readable");
            let Some(last) = part.last() else { return (done, changes) };
            after = last.id;
            let (some, present) =
                import(file, &mut changes, &part, (recovery.present, ROWS, outcomes)).expect("it is written");
            (recovery.present, done) = (present, done.and(some));
        }
    }

    fn deliveries(file: &Connection) -> Vec<(i64, i64, State)> {
        let mut statement = file.prepare("SELECT message, destination, state FROM deliveries").expect("a statement");
        let rows =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, ids::state_of(row.get(2)?).expect("a state"))));
        rows.expect("rows").map(|row| row.expect("a row")).collect()
    }

    fn counts((done, _): &(Recovered, Changes)) -> (u64, u64, u64, u64) {
        (done.imported, done.present, done.record_lost, done.lost)
    }

    #[test]
    fn what_is_there_is_imported_once_whatever_came_meanwhile() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = damaged(folder.path());
        (1..=5).for_each(|id| put(&old, id, u8::try_from(id).expect("small"), b"old"));
        for (id, destination) in [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1)] {
            deliver_to(&old, id, destination, State::Queued, None);
        }
        deliver_to(&old, 6, 1, State::Queued, None);
        let new = present();
        // Another message under the id of one, and the keys of another under another id.
        put(&new, 2, 99, b"new");
        put(&new, 1_000, 3, b"old");
        let first = recover(&path, &new, &Forgotten::default());
        assert_eq!(counts(&first), (3, 1, 1, 1));
        let copy: i64 =
            new.query_row("SELECT id FROM destinations WHERE name = 'copy'", [], |row| row.get(0)).expect("a row");
        let queued = State::Queued;
        assert_eq!(
            deliveries(&new),
            [
                (1, 7, queued),
                (1, copy, queued),
                (3, 7, queued),
                (4, 7, queued),
                (5, 7, State::Dead),
                (5, copy, State::Dead)
            ]
        );
        assert_eq!((first.1.moved.len(), first.1.records.len()), (6, 4));
        let source = Keyspace::of_source("shop").tag();
        assert!(first.1.records.contains(&Record { source, key: Key([2; 16]), until: 2_000_000 }));
        let names = Names::read(&new).expect("names");
        let lost = super::super::admin::summaries(&new, &[(5, 7)], &names).expect("a summary");
        assert!(lost[0].failures.list()[0].reason.starts_with("record lost"));
        assert_eq!(counts(&recover(&path, &new, &Forgotten::default())), (0, 5, 0, 1), "the same again");
        assert_eq!(deliveries(&new).len(), 6);
    }

    #[test]
    fn the_rule_of_lanes_holds_after_an_import() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = damaged(folder.path());
        for (id, state, lane) in [
            (1, State::Blocked, 5),
            (2, State::Blocked, 5),
            (3, State::Queued, 6),
            (4, State::Blocked, 6),
            (5, State::Retrying, 8),
            (6, State::Dead, 8),
        ] {
            put(&old, id, u8::try_from(id).expect("small"), b"");
            deliver_to(&old, id, 1, state, Some(lane));
        }
        let new = present();
        put(&new, 1_000, 99, b"");
        deliver_to(&new, 1_000, 7, State::Queued, Some(6));
        recover(&path, &new, &Forgotten::default());
        let states: Vec<_> = deliveries(&new).into_iter().map(|(id, _, state)| (id, state)).collect();
        let (blocked, queued) = (State::Blocked, State::Queued);
        let expected = [(1, queued), (2, blocked), (3, blocked), (4, blocked), (5, State::Retrying), (6, State::Dead)];
        assert_eq!(states, [&expected[..], &[(1_000, queued)]].concat());
        let due: Option<i64> =
            new.query_row("SELECT due FROM deliveries WHERE message = 5", [], |row| row.get(0)).expect("a row");
        assert_eq!(due, Some(NOW), "what has no due time is due");
    }

    #[test]
    fn outcomes_that_the_file_did_not_learn_of_are_in_what_is_imported() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = damaged(folder.path());
        for (id, state) in [(1, State::Queued), (2, State::Retrying), (3, State::Queued), (4, State::Delivered)] {
            put(&old, id, u8::try_from(id).expect("small"), b"");
            deliver_to(&old, id, 1, state, None);
        }
        let at = Moment::from_millis(3);
        let failed = FailedAttempt { at, ms: 1, status: Some(500), reason: "no".to_owned(), answer: String::new() };
        let outcomes = [
            (1, Outcome::Delivered { at, status: Some(204) }),
            (2, Outcome::Retry { after: Duration::from_millis(9), failed: failed.clone() }),
            (3, Outcome::Dead { failed: failed.clone() }),
            (4, Outcome::Dead { failed }),
        ];
        let forgotten = Forgotten::default();
        forgotten.set_aside(4);
        for (id, outcome) in outcomes {
            let entry = Entry { id, lane: None, attempts: 1, before_replay: 0, replayed: None };
            let settled = Settled { queue: 0, entry, attempts: 2, outcome, at: 3, due: NOW + 9 };
            forgotten.keep(&DestinationId::unnamed("shop"), settled);
        }
        let new = present();
        recover(&path, &new, &forgotten);
        let found: Vec<_> = deliveries(&new).iter().map(|(id, destination, _)| (*id, *destination)).collect();
        let summaries = super::super::admin::summaries(&new, &found, &Names::read(&new).expect("names"));
        let shown: Vec<_> = summaries
            .expect("summaries")
            .iter()
            .map(|it| (it.state, it.attempts, it.status, it.due.map(Moment::millis), it.failures.list().len()))
            .collect();
        assert_eq!(
            shown,
            [
                (State::Delivered, 2, Some(204), None, 0),
                (State::Retrying, 2, None, Some(NOW + 9), 1),
                (State::Dead, 2, None, None, 1),
                (State::Delivered, 1, None, None, 0),
            ]
        );
    }

    #[test]
    fn lost_pages_cost_what_stood_in_them_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, mut old) = damaged(folder.path());
        let transaction = old.transaction().expect("a transaction");
        for id in 1..=2_000 {
            put(&transaction, id * 4_096, u8::try_from(id % 250).expect("small"), &[b'x'; 300]);
            deliver_to(&transaction, id * 4_096, 1, State::Queued, None);
        }
        transaction.execute_batch("UPDATE messages SET keys = NULL").expect("written");
        transaction.commit().expect("written");
        drop(old);
        let pages = fs::metadata(&path).expect("a file").len() / 4096;
        let file = File::options().write(true).open(&path).expect("a file");
        // Of about 300 pages, spread ones; not those of the schema and the roots.
        let wiped: Vec<_> = (60..pages).step_by(40).collect();
        wiped.iter().for_each(|page| file.write_all_at(&[0; 4096], page * 4096).expect("wiped"));
        let new = present();
        let (done, _) = recover(&path, &new, &Forgotten::default());
        let found = done.imported + done.record_lost;
        // A page has about nine messages, or about two hundred deliveries.
        assert!(found < 2_000 && found > 2_000 - 60 && done.imported > 1_000, "{done:?} without {} pages", wiped.len());
        let count: i64 = new.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).expect("a number");
        assert_eq!(u64::try_from(count), Ok(found));
    }

    #[test]
    fn without_its_first_page_a_file_is_recovered_from_a_copy_that_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = damaged(folder.path());
        old.pragma_update(None, "journal_mode", "WAL").expect("a WAL");
        (1..=50).for_each(|id| put(&old, id, u8::try_from(id).expect("small"), &[b'x'; 2_000]));
        (1..=50).for_each(|id| deliver_to(&old, id, 1, State::Queued, None));
        drop(old);
        let whole = fs::read(&path).expect("a file");
        for (from, to, fill) in [(0, 1, b'X'), (0, PAGE, 0), (18, 100, 255), (100, PAGE, 0)] {
            let mut bytes = whole.clone();
            bytes[from..to].fill(fill);
            fs::write(&path, &bytes).expect("damaged");
            let new = present();
            assert_eq!(counts(&recover(&path, &new, &Forgotten::default())), (50, 0, 0, 0), "{from} to {to}");
            assert_eq!(fs::read(&path).expect("a file"), bytes);
            let names: Vec<_> =
                fs::read_dir(folder.path()).expect("a folder").map(|it| it.expect("a file").file_name()).collect();
            assert!(!names.iter().any(|name| name.to_string_lossy().contains("mended")), "{names:?}");
        }
        fs::write(&path, [b'x'; 50_000]).expect("no store at all");
        assert!(Recovery::open(path).is_ok_and(|recovery| !recovery.is_empty()));
    }

    #[test]
    fn only_quarantined_files_beside_the_store_are_read_and_then_renamed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["s.db.damaged-1", "s.db.damaged-1-wal", "other", "t.db.damaged-1"] {
            fs::write(path(name), "").expect("a file");
        }
        std::os::unix::fs::symlink(path("other"), path("s.db.damaged-2")).expect("a link");
        fs::create_dir(path("s.db.damaged-3")).expect("a folder");
        let found = |name: &str| quarantined(&path("s.db"), name).is_ok();
        assert!(found("s.db.damaged-1"));
        let absolute = path("s.db.damaged-1").display().to_string();
        for name in [
            "s.db.damaged-1-wal",
            "s.db.damaged-",
            "s.db.damaged-2",
            "s.db.damaged-3",
            "s.db.damaged-4",
            "t.db.damaged-1",
            "other",
            "s.db",
            "./s.db.damaged-1",
            "s.db.damaged-/../other",
            &absolute,
            "",
        ] {
            assert!(!found(name), "{name}");
        }
        set_aside(&path("s.db"), "s.db.damaged-1").expect("renamed");
        assert!(path("s.db.recovered-1").exists() && path("s.db.recovered-1-wal").exists() && !found("s.db.damaged-1"));
        let owned = Connection::open(path("s.db.damaged-5")).expect("a file");
        owned.execute_batch("CREATE TABLE messages (id)").expect("a table");
        assert!(Recovery::open(path("s.db.damaged-5")).is_err(), "it is of another program");
    }

    #[tokio::test]
    async fn a_quarantined_file_is_recovered_while_the_store_serves() {
        let old = World::new(limits::Sqlite::default());
        let queue = old.queue("shop").await;
        for (id, lane) in [("1", Some(9)), ("2", Some(9)), ("3", None), ("4", None), ("5", None)] {
            old.enqueue(&queue, id, lane).await;
        }
        let [_, three, four, _] = old.take(&queue, 4).await.try_into().expect("four");
        three.settle(old.delivered());
        four.settle(Outcome::Dead { failed: old.failed() });
        assert_eq!(old.stats(&queue).await, (1, 2, 0, 1));
        let path = old.path();
        let World { folder, store, .. } = old;
        drop(store);
        let new = World::new(limits::Sqlite { recover_rows: 2, retention_rows: 1, ..limits::Sqlite::default() });
        let queue = new.queue("shop").await;
        new.enqueue(&queue, "6", Some(9)).await;
        fs::copy(path, new.folder.path().join("store.db.damaged-1")).expect("a copy");
        drop(folder);
        assert_eq!(open::quarantined(&new.path()), 1);
        let (mut done, mut after) = (Recovered::default(), None);
        loop {
            let part = new.store.recover("store.db.damaged-1", after).await.expect("recovered");
            done = part.and(done);
            after = part.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(done, Recovered { imported: 5, ..Recovered::default() });
        assert_eq!((open::quarantined(&new.path()), new.path().with_extension("db.recovered-1").exists()), (0, true));
        assert_eq!(new.stats(&queue).await, (2, 2, 0, 1));
        let mut taken = Vec::new();
        loop {
            let some = new.take(&queue, 1).await;
            let Some(delivery) = some.into_iter().next() else { break };
            taken.push(delivery.message().event_id.to_str().expect("text").to_owned());
            delivery.settle(new.delivered());
            new.stats(&queue).await;
        }
        taken.sort_unstable();
        assert_eq!(taken, ["1", "2", "5", "6"]);
        assert_eq!(new.stats(&queue).await, (0, 0, 0, 1));
        assert!(new.store.recover("store.db.damaged-1", None).await.is_err(), "it is done");
    }

    #[test]
    fn of_a_row_that_is_there_twice_one_is_imported_and_a_message_far_ahead_of_time_gets_an_id_of_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = damaged(folder.path());
        put(&old, 1, 1, b"");
        put(&old, i64::MAX - 1, 2, b"");
        old.execute_batch("CREATE TABLE copy AS SELECT * FROM deliveries; DROP TABLE deliveries; ALTER TABLE copy RENAME TO deliveries")
            .expect("a table without a key");
        for id in [1, 1, i64::MAX - 1] {
            deliver_to(&old, id, 1, State::Queued, None);
        }
        let new = present();
        let done = recover(&path, &new, &Forgotten::default());
        assert_eq!((counts(&done), done.1.moved.len()), ((2, 0, 0, 0), 2));
        let latest = ids::first_of(Moment::from_millis(NOW));
        assert_eq!(deliveries(&new), [(1, 7, State::Queued), (latest + 1, 7, State::Queued)]);
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_damaged_file_it_is_recovered_to_its_end(
            column in 0..26_usize,
            value in rows::tests::any_value(),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let (path, old) = damaged(folder.path());
            for id in [1, 2] {
                put(&old, id, u8::try_from(id).expect("small"), b"");
                deliver_to(&old, id, 1, State::Queued, Some(1));
            }
            let columns = "id source received size checksum keys until event_id type method target trace verified headers body";
            let columns = columns.split(' ').map(|name| ("messages", "id", name));
            let more = "message destination state attempts before_replay settled due replayed lane status failures";
            let more = more.split(' ').map(|name| ("deliveries", "message", name));
            if let Some((table, key, name)) = columns.chain(more).nth(column) {
                // What must not be nothing cannot be; that it is in a damaged file is tried by other means.
                let _refused = old.execute(&format!("UPDATE {table} SET {name} = ?1 WHERE {key} = 1"), [value]);
            }
            let new = present();
            let (done, _) = recover(&path, &new, &Forgotten::default());
            prop_assert!(done.imported >= 1 && done.imported + done.record_lost + done.lost <= 3, "{:?}", done);
            let lane = "SELECT count(*) FROM deliveries WHERE lane = 1 AND state BETWEEN 3 AND 4";
            let open: i64 = new.query_row(lane, [], |row| row.get(0)).expect("a number");
            prop_assert_eq!(open, 1);
        }

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
