//! Imports messages and deliveries of a damaged file into the current one. Each is imported once, even if it was stored
//! again meanwhile.

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::params;

use super::damaged::Delivered;
use super::damaged::Stored;
use super::damaged::keys_of;
use crate::store::DestinationId;
use crate::store::FailedAttempt;
use crate::store::Failures;
use crate::store::Record;
use crate::store::Recovered;
use crate::store::State;
use crate::store::sqlite::changes::Changes;
use crate::store::sqlite::ids;
use crate::store::sqlite::mailbox::Finished;
use crate::store::sqlite::mailbox::Settled;
use crate::store::sqlite::queue::Entry;
use crate::store::sqlite::shared::Forgotten;
use crate::store::sqlite::statements;
use crate::store::sqlite::statements::WriteStatements;
use crate::verify::event_key::Key;

/// A due time that is further ahead than this, in milliseconds, is damaged: no pause is longer.
const MAX_PAUSE: i64 = 24 * 60 * 60 * 1000;
/// The reason of a dead letter whose delivery was lost.
const RECORD_LOST: &str = "record lost: the file was damaged, and whether the event was delivered is not known";

/// The dedupe keys of the messages in the current file.
#[derive(Debug, Default)]
pub(super) struct ExistingKeys {
    keys: HashMap<Key, i64>,
    /// The keys of messages up to this one have been read.
    scanned: i64,
}

impl ExistingKeys {
    /// Reads the keys of the next messages. Returns whether there may be more.
    pub(super) fn scan(&mut self, file: &Connection, rows: i64) -> rusqlite::Result<bool> {
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

/// Imports some messages in a transaction of the writer.
pub(super) fn import(
    file: &Connection,
    changes: &mut Changes,
    part: &[Stored],
    (mut present, rows, forgotten): (ExistingKeys, i64, &Forgotten),
) -> rusqlite::Result<(Recovered, ExistingKeys)> {
    while present.scan(file, rows)? {}
    let mut done = Recovered::default();
    let mut writing = WriteStatements::new(file)?;
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
                    // No later delivery of its lane is open yet.
                    changes.moved(row, Some(from), Some(settled.outcome.state()));
                }
            }
        }
        if deliveries.is_empty() {
            for row in destinations_of(file, &columns.source)? {
                deliver(file, (free, row), &lost(changes), changes)?;
            }
            done.record_lost += 1;
        } else {
            done.imported += 1;
        }
    }
    Ok((done, present))
}

/// The id of a message; a new one if it is too far in the future, because all later ids would have to be higher.
fn plausible(id: i64, changes: &Changes) -> i64 {
    let latest = changes.last.max(ids::first_of(changes.now));
    if (1..=latest).contains(&id) { id } else { latest.saturating_add(1) }
}

/// The id under which a message can be imported: its own, or the next free one; `None` when the message is in the file
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

/// The row ids of all destinations of a message's source; of its unnamed one if there is none.
fn destinations_of(file: &Connection, source: &str) -> rusqlite::Result<Vec<i64>> {
    let mut statement = file.prepare_cached("SELECT id FROM destinations WHERE source = ?1")?;
    let known = statement.query_map([source], |row| row.get(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    if known.is_empty() { Ok(vec![statements::destination(file, &DestinationId::unnamed(source))?]) } else { Ok(known) }
}

/// Writes a delivery, and keeps the invariant of lanes: an open one is blocked if its lane has another open one.
/// Returns its state; `None` when it is in the file already.
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
    // Of two deliveries to one destination, one is damaged.
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

/// A delivery whose record was lost.
fn lost(changes: &Changes) -> Delivered {
    let at = changes.now;
    let failed = FailedAttempt { at, ms: 0, status: None, reason: RECORD_LOST.to_owned(), answer: String::new() };
    Delivered {
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
