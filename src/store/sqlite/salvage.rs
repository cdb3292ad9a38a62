//! Saves what can be read of a damaged file into a new one, and keeps the damaged one beside it.
//!
//! That happens when the gateway starts: the file is opened, found damaged, and replaced before anything else is done. A
//! gateway that meets damage while it runs leaves a mark, so that the next start knows.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OptionalExtension as _;
use rusqlite::ffi;
use rusqlite::params;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::pages::Pages;
use super::pages::Record;
use super::private;
use super::rows;
use super::rows::DAMAGED;
use super::schema;
use super::writes;
use crate::message::codec;
use crate::store::queued::State;
use crate::time::Moment;

/// How many columns an event has.
const EVENT: usize = 17;
/// How many columns its payload has besides its number.
const PAYLOAD: usize = 9;
/// What a dead letter says whose record is lost.
const LOST: &str = "its record was lost in a damaged file, and whether it was delivered is not known";

/// Whether a file that meets this error has to be salvaged: what is read is not what was written.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    let Some(error) = error.sqlite_error() else {
        // A column is not what the layout says, or a source that was just named is not there.
        return matches!(
            error,
            Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::QueryReturnedNoRows
                | Error::Utf8Error(..)
        );
    };
    let unreadable = [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ, ffi::SQLITE_IOERR_CORRUPTFS];
    // What the gateway asks is right; if SQLite does not understand it, the layout is not what it was.
    matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
        || unreadable.contains(&error.extended_code)
}

/// Has the next start salvage a file.
pub(super) fn mark(path: &Path) {
    if let Err(error) = private::open(&beside(path, "-suspect")) {
        tracing::error!(%error, "the damaged file cannot be marked");
    }
}

/// Salvages a file that was marked, that is visibly damaged, or whose salvage was interrupted. `owned` is the lock on it;
/// the lock on what stands there now.
pub(super) fn where_needed(path: &Path, owned: File) -> Result<File, String> {
    let saved = beside(path, "-saved");
    if saved.exists() {
        return replace(path, &saved, owned).map_err(|error| failed(path, &error));
    }
    let pages = open(path)?;
    if beside(path, "-suspect").exists() || pages.is_damaged() && pages.are_a_store() {
        return rescue(path, &pages, owned);
    }
    Ok(owned)
}

/// Whether a file is a store, which may be replaced.
pub(super) fn is_possible(path: &Path) -> bool {
    open(path).is_ok_and(|pages| pages.are_a_store())
}

/// Salvages a file that could not be read.
pub(super) fn salvage(path: &Path, owned: File) -> Result<File, String> {
    rescue(path, &open(path)?, owned)
}

fn open(path: &Path) -> Result<Pages, String> {
    Pages::open(path, &beside(path, "-wal")).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

fn rescue(path: &Path, pages: &Pages, owned: File) -> Result<File, String> {
    let (unfinished, saved) = (beside(path, "-saving"), beside(path, "-saved"));
    let said = Saved::write(&unfinished, pages).map_err(|error| failed(path, error.as_ref()))?;
    let safe = File::open(&unfinished)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&unfinished, &saved))
        .and_then(|()| sync_folder(path));
    safe.map_err(|error| failed(path, &error))?;
    tracing::error!(
        path = %path.display(),
        waiting = said.waiting,
        lost = said.lost,
        unreadable_pages = said.unreadable_pages,
        "the store's file is damaged: what can be read of it was saved into a new one. Of the waiting events there is \
         everything, of the lost ones too little to deliver them: they are dead letters, if anything was left of them"
    );
    replace(path, &saved, owned).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!(
        "{} is damaged, and what can be read of it cannot be saved beside it ({error}); make room there, or move it away",
        path.display()
    )
}

/// Puts what was saved in the place of the damaged file, which is kept with its log. May be begun again at any point.
fn replace(path: &Path, saved: &Path, owned: File) -> io::Result<File> {
    let new = File::options().read(true).write(true).open(saved)?;
    new.try_lock()?;
    let kept = damaged_name(path);
    for ending in ["-wal", ""] {
        match fs::rename(beside(path, ending), beside(&kept, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _moved => sync_folder(path)?,
        }
    }
    for ending in ["-shm", "-suspect"] {
        match fs::remove_file(beside(path, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _removed => {}
        }
    }
    fs::rename(saved, path)?;
    sync_folder(path)?;
    tracing::warn!(path = %path.display(), kept = %kept.display(), "the damaged file and its log are kept");
    drop(owned);
    Ok(new)
}

/// Makes renames and removals beside the file durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn damaged_name(path: &Path) -> PathBuf {
    beside(path, &format!(".damaged-{}", Moment::now().rfc3339().to_string().replace(['-', ':'], "")))
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// What was saved.
#[derive(Debug, Default)]
struct Saved {
    /// Events that are not delivered yet.
    waiting: i64,
    /// Events of which too much is lost.
    lost: i64,
    unreadable_pages: u64,
}

impl Saved {
    /// Writes a new file with what can be read.
    fn write(new: &Path, pages: &Pages) -> Result<Self, Box<dyn std::error::Error>> {
        if new.exists() {
            fs::remove_file(new)?;
        }
        drop(private::open(new)?);
        let mut file = Connection::open(new)?;
        // Whatever interrupts this, it is begun again.
        file.pragma_update(None, "journal_mode", "OFF")?;
        file.pragma_update(None, "synchronous", "OFF")?;
        schema::create(&mut file)?;
        let transaction = file.transaction()?;
        let unreadable_pages = pages.records(|record| keep(&transaction, &record))?;
        complete(&transaction)?;
        let waiting =
            transaction.query_row("SELECT count(*) FROM events WHERE state IN (2, 3)", [], |row| row.get(0))?;
        let lost =
            transaction
                .query_row("SELECT count(*) FROM events WHERE reason IN (?1, ?2)", [LOST, DAMAGED], |row| row.get(0))?;
        transaction.commit()?;
        Ok(Self { waiting, lost, unreadable_pages })
    }
}

/// Writes a row of the damaged file into the new one. Tables are told apart by how many columns they have.
fn keep(new: &Connection, record: &Record) -> rusqlite::Result<()> {
    let row = record.row;
    match record.columns.as_slice() {
        [_, Value::Text(name)] => new
            .prepare_cached("INSERT OR IGNORE INTO sources (source, name) VALUES (?1, ?2)")?
            .execute(params![row, name]),
        [Value::Integer(deleted)] => writes::mark_deleted(new, *deleted).map(|()| 1),
        [_, payload @ ..] if payload.len() == PAYLOAD => new
            .prepare_cached(&format!(
                "INSERT OR IGNORE INTO payloads (event, {}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                rows::PAYLOAD
            ))?
            .execute(params_from_iter(std::iter::once(&Value::Integer(row)).chain(payload))),
        columns if columns.len() == EVENT => event(new, row, columns),
        _ => Ok(0),
    }?;
    Ok(())
}

fn event(new: &Connection, row: i64, columns: &[Value]) -> rusqlite::Result<usize> {
    let column = |at: usize| columns.get(at);
    let integer = |at| if let Some(Value::Integer(number)) = column(at) { Some(*number) } else { None };
    let count = |at| integer(at).filter(|count| u32::try_from(*count).is_ok()).unwrap_or(0);
    let text = |at| if let Some(Value::Text(text)) = column(at) { Some(text.as_str()) } else { None };
    let blob = |at| if let Some(Value::Blob(bytes)) = column(at) { Some(bytes.as_slice()) } else { None };
    let states = State::ALL.map(rows::state);
    // Better twice than never.
    let state = integer(2).filter(|state| states.contains(state)).unwrap_or_else(|| rows::state(State::Queued));
    let due = (state == rows::state(State::Retrying)).then(|| integer(7).unwrap_or(0));
    // Of an event that is there twice, the later record is right.
    new.prepare_cached(
        "INSERT OR REPLACE INTO events
             (event, source, state, attempts, spent, received, settled, due, replayed, lane, checksum, keys, until, id,
              type, reason, answer)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17
         WHERE NOT EXISTS (SELECT 1 FROM events WHERE event = ?1 AND settled > ?7)",
    )?
    .execute(params![
        row,
        integer(1).unwrap_or(0),
        state,
        count(3),
        count(4),
        integer(5).unwrap_or_else(|| rows::received(row)),
        integer(6).unwrap_or(0),
        due,
        integer(8),
        integer(9),
        integer(10).unwrap_or(-1),
        blob(11),
        integer(12).filter(|until| u32::try_from(*until).is_ok()),
        text(13).unwrap_or(""),
        text(14),
        text(15),
        text(16),
    ])
}

/// Sets right what can be told from the rest: every payload says whose it is and what its id is.
fn complete(new: &Connection) -> rusqlite::Result<()> {
    let mut sources: HashMap<String, i64> = HashMap::new();
    let mut payloads = new.prepare(&format!("SELECT event, {} FROM payloads ORDER BY event", rows::PAYLOAD))?;
    let mut found = payloads.query([])?;
    while let Some(payload) = found.next()? {
        let Some((message, headers)) = rows::message(payload, 1)? else { continue };
        let (row, name, id): (i64, _, _) =
            (payload.get(0)?, codec::text(&message.source), codec::text(&message.event_id));
        let source = match sources.get(&name) {
            Some(source) => *source,
            None => *sources.entry(name.clone()).or_insert(source(new, &name)?),
        };
        let known = new
            .prepare_cached("UPDATE events SET source = ?2 WHERE event = ?1 RETURNING 1")?
            .query_row([row, source], |_row| Ok(()))
            .optional()?;
        if known.is_none() {
            new.prepare_cached(
                "INSERT INTO events
                     (event, source, state, attempts, spent, received, settled, checksum, id, type, reason)
                 VALUES (?1, ?2, ?3, 0, 0, ?4, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                row,
                source,
                rows::state(State::Dead),
                rows::received(row),
                rows::checksum(&message, headers),
                id,
                message.kind.as_ref().map(codec::text),
                LOST
            ])?;
        }
    }
    new.execute(
        "UPDATE events SET state = ?1, due = NULL, reason = ?2
         WHERE state IN (2, 3) AND event NOT IN (SELECT event FROM payloads)",
        params![rows::state(State::Dead), DAMAGED],
    )?;
    Ok(())
}

/// The number of a source.
fn source(new: &Connection, name: &str) -> rusqlite::Result<i64> {
    new.execute("INSERT OR IGNORE INTO sources (name) VALUES (?1)", [name])?;
    new.query_row("SELECT source FROM sources WHERE name = ?1", [name], |row| row.get(0))
}
