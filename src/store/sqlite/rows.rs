//! Queued events as rows: written when they come, changed when they were tried, read when they are to be tried.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use rusqlite::CachedStatement;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;

use super::inbox::Arrival;
use super::line::Loaded;
use super::line::Standing;
use crate::event::Key;
use crate::event::Lane;
use crate::store::pairs;
use crate::store::queued::Counts;
use crate::store::queued::Number;
use crate::store::queued::QueuedEvent;
use crate::store::queued::Settlement;
use crate::store::queued::State;
use crate::store::queued::Tries;
use crate::store::queued::Verdict;
use crate::time::Moment;

/// Rows of one millisecond.
const PER_MILLISECOND: i64 = 4096;
/// Most bytes of bodies that are read at once.
const MAX_READ: usize = 4 * 1024 * 1024;

/// How a state is written.
pub(super) fn state(state: State) -> i64 {
    match state {
        State::Queued => 2,
        State::Retrying => 3,
        State::Delivered => 4,
        State::Dead => 5,
    }
}

/// The state that is written like this.
pub(super) fn state_of(written: i64) -> Option<State> {
    State::ALL.into_iter().find(|known| state(*known) == written)
}

/// The row of the first event that is queued at this moment.
pub(super) fn first_of(moment: Moment) -> i64 {
    moment.millis().clamp(0, i64::MAX / PER_MILLISECOND) * PER_MILLISECOND
}

/// About when the event of a row was received.
pub(super) fn received(row: i64) -> i64 {
    row.div_euclid(PER_MILLISECOND)
}

/// The number of a row's event.
pub(super) fn number(row: i64) -> Number {
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    Number { millis: part(received(row)), sequence: part(row.rem_euclid(PER_MILLISECOND)) }
}

/// The row of a number; `None` when no row can have it.
pub(super) fn row(number: Number) -> Option<i64> {
    let sequence = i64::try_from(number.sequence).ok().filter(|sequence| *sequence < PER_MILLISECOND)?;
    i64::try_from(number.millis).ok()?.checked_mul(PER_MILLISECOND)?.checked_add(sequence)
}

/// What is written of an event besides what stands in it as it is.
#[derive(Debug)]
pub(super) struct Columns {
    id: String,
    kind: Option<String>,
    headers: String,
    checksum: i64,
}

impl Columns {
    pub(super) fn of(event: &QueuedEvent) -> Self {
        let headers = pairs::to_json(&event.headers);
        let checksum = checksum(event.method.as_str(), &headers, &event.body);
        Self { id: pairs::text(&event.id), kind: event.kind.as_ref().map(pairs::text), headers, checksum }
    }

    /// About how many bytes they take on disk.
    pub(super) fn bytes(&self) -> usize {
        self.id.len() + self.headers.len() + 190
    }
}

/// Statements that are used for each event.
pub(super) struct Writing<'c> {
    event: CachedStatement<'c>,
    payload: CachedStatement<'c>,
    settle: CachedStatement<'c>,
}

impl<'c> Writing<'c> {
    pub(super) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            event: connection.prepare_cached(
                "INSERT INTO events
                     (event, source, state, attempts, spent, received, settled, lane, checksum, keys, until, id, type)
                 VALUES (?1, ?2, 2, 0, 0, ?3, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?,
            payload: connection
                .prepare_cached("INSERT INTO payloads (event, method, headers, body) VALUES (?1, ?2, ?3, ?4)")?,
            settle: connection.prepare_cached(
                "UPDATE events SET state = ?2, attempts = ?3, settled = ?4, due = ?5, reason = ?6, answer = ?7
                 WHERE event = ?1",
            )?,
        })
    }

    /// Writes an event that waits for its first attempt.
    pub(super) fn insert(&mut self, row: i64, source: i64, arrival: &Arrival) -> rusqlite::Result<()> {
        let Arrival { event, columns: Columns { id, kind, headers, checksum }, .. } = arrival;
        let received = event.received_at.millis();
        let lane = event.lane.map(|lane| lane.0.cast_signed());
        let keys = arrival.keys.map(|keys| keys.iter().flat_map(|key| key.0).collect::<Vec<u8>>());
        let until = keys.as_ref().map(|_keys| arrival.until);
        self.event.execute(params![row, source, received, lane, checksum, keys, until, id, kind])?;
        self.payload.execute(params![row, event.method.as_str(), headers, &event.body[..]])?;
        Ok(())
    }

    /// Writes what an attempt came to; a retry at `due`.
    pub(super) fn settle(&mut self, row: i64, settlement: &Settlement, due: Option<i64>) -> rusqlite::Result<()> {
        let next = match settlement.verdict {
            Verdict::Delivered => State::Delivered,
            Verdict::Retry(_) => State::Retrying,
            Verdict::Dead => State::Dead,
        };
        let answer = settlement.answer.as_ref().and_then(|answer| serde_json::to_string(answer).ok());
        let at = settlement.at.millis();
        self.settle.execute(params![row, state(next), settlement.attempts, at, due, settlement.reason, answer])?;
        Ok(())
    }
}

/// An event that cannot be delivered because its row was damaged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Damaged {
    pub(super) row: i64,
    pub(super) lane: Option<Lane>,
    pub(super) tries: Tries,
}

/// Why such an event is given up.
pub(super) const DAMAGED: &str = "damaged on disk";

const COLUMNS: &str =
    "events.event, attempts, spent, received, replayed, lane, checksum, id, type, method, headers, body";

/// Reads at most `limit` events that wait for their first attempt, from this row on.
pub(super) fn next(
    connection: &Connection,
    source: i64,
    from: i64,
    limit: usize,
) -> rusqlite::Result<(Loaded, Vec<Damaged>)> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS}, 0 FROM events INDEXED BY queued LEFT JOIN payloads ON payloads.event = events.event
         WHERE source = ?1 AND state = 2 AND events.event >= ?2 ORDER BY events.event LIMIT ?3"
    ))?;
    read(&mut statement, params![source, from, limit_of(limit)], limit)
}

/// Reads at most `limit` events that are due until `now`, behind this time and row.
pub(super) fn due(
    connection: &Connection,
    source: i64,
    behind: (i64, i64),
    now: i64,
    limit: usize,
) -> rusqlite::Result<(Loaded, Vec<Damaged>)> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS}, due FROM events INDEXED BY retrying LEFT JOIN payloads ON payloads.event = events.event
         WHERE source = ?1 AND state = 3 AND (due, events.event) > (?2, ?3) AND due <= ?4
         ORDER BY due, events.event LIMIT ?5"
    ))?;
    let (mut loaded, damaged) = read(&mut statement, params![source, behind.0, behind.1, now, limit_of(limit)], limit)?;
    loaded.next_due = connection
        .prepare_cached(
            "SELECT due FROM events INDEXED BY retrying WHERE source = ?1 AND state = 3 AND due > ?2 ORDER BY due LIMIT 1",
        )?
        .query_row([source, now], |row| row.get(0))
        .optional()?;
    Ok((loaded, damaged))
}

/// Reads one event, if it waits for an attempt.
pub(super) fn one(connection: &Connection, row: i64) -> rusqlite::Result<(Loaded, Vec<Damaged>)> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS}, 0 FROM events LEFT JOIN payloads ON payloads.event = events.event
         WHERE events.event = ?1 AND state IN (2, 3)"
    ))?;
    read(&mut statement, [row], 1)
}

/// A limit as SQLite takes it.
pub(super) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn read(
    statement: &mut CachedStatement<'_>,
    parameters: impl rusqlite::Params,
    limit: usize,
) -> rusqlite::Result<(Loaded, Vec<Damaged>)> {
    let mut loaded = Loaded { events: Vec::new(), scanned: None, complete: true, next_due: None };
    let mut damaged = Vec::new();
    let mut bytes = 0;
    let mut count = 0;
    let mut rows = statement.query(parameters)?;
    while let Some(row) = rows.next()? {
        count += 1;
        // Of a damaged row, nothing has to be what it was.
        let tries = Tries {
            attempts: row.get(1).unwrap_or_default(),
            spent: row.get(2).unwrap_or_default(),
            replayed_at: row.get(4).ok().map(Moment::from_millis),
        };
        let (number, lane) = (row.get(0)?, lane(row, 5).unwrap_or_default());
        loaded.scanned = Some((row.get(12)?, number));
        match event(row, number, lane)? {
            Some(event) => {
                bytes += event.weight();
                loaded.events.push(Standing { row: number, event: Arc::new(event), tries });
            }
            None => damaged.push(Damaged { row: number, lane, tries }),
        }
        if bytes >= MAX_READ {
            loaded.complete = false;
            break;
        }
    }
    loaded.complete &= count < limit;
    Ok((loaded, damaged))
}

fn lane(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Lane>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|lane| Lane(lane.cast_unsigned())))
}

/// The event of a row with [`COLUMNS`]; `None` when it is not what was written.
fn event(row: &Row<'_>, at: i64, lane: Option<Lane>) -> rusqlite::Result<Option<QueuedEvent>> {
    let texts = (text(row, 9)?, text(row, 10)?, text(row, 7)?);
    let (Some(method), Some(headers), Some(id)) = texts else { return Ok(None) };
    let Ok(body) = row.get_ref(11)?.as_blob() else { return Ok(None) };
    if row.get_ref(6)?.as_i64() != Ok(checksum(method, headers, body)) {
        return Ok(None);
    }
    let kind = text(row, 8)?.map(pairs::value);
    let (Ok(method), Some(headers), Some(id)) = (method.parse::<Method>(), pairs::from_json(headers), pairs::value(id))
    else {
        return Ok(None);
    };
    Ok(Some(QueuedEvent {
        id,
        kind: kind.flatten(),
        received_at: Moment::from_millis(row.get(3).unwrap_or_else(|_damaged| received(at))),
        method,
        headers,
        body: Bytes::copy_from_slice(body),
        lane,
    }))
}

/// The text in a column, if it is one.
pub(super) fn text<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<Option<&'r str>> {
    Ok(row.get_ref(column)?.as_str().ok())
}

/// Tells whether what is read is what was written: SQLite does not notice a bit that has flipped in a body.
pub(super) fn checksum(method: &str, headers: &str, body: &[u8]) -> i64 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(method.as_bytes());
    hash.update(headers.as_bytes());
    hash.update(body);
    i64::from(hash.finalize())
}

/// Reads what is delivered of an event; `None` when it is not what was written.
pub(super) fn whole(connection: &Connection, row: i64) -> rusqlite::Result<Option<QueuedEvent>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM events LEFT JOIN payloads ON payloads.event = events.event WHERE events.event = ?1"
    ))?;
    statement.query_row([row], |columns| event(columns, row, None)).optional().map(Option::flatten)
}

/// How far the file has come: the last event that is or was in it.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT max(coalesce((SELECT max(event) FROM events), 0), coalesce((SELECT max(event) FROM deleted), 0))",
        [],
        |row| row.get(0),
    )
}

/// Notes that the file has come at least this far, whatever becomes of the events in it.
pub(super) fn mark_deleted(connection: &Connection, row: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE deleted SET event = ?1 WHERE event < ?1")?.execute([row]).map(drop)
}

/// What the events behind a row are finished under, with the number of their source, as far as that is not over at `now`, a
/// second since 1970.
pub(super) fn keys_behind(
    connection: &Connection,
    behind: i64,
    now: i64,
    mut each: impl FnMut(i64, Key, u32),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT source, keys, until FROM events WHERE event > ?1 AND until > ?2")?;
    let mut rows = statement.query([behind, now])?;
    while let Some(row) = rows.next()? {
        // What is damaged is not believed.
        let (Ok(source), Ok(until)) = (row.get_ref(0)?.as_i64(), row.get(2)) else { continue };
        let (keys, _rest) = row.get_ref(1)?.as_blob().unwrap_or_default().as_chunks();
        keys.iter().for_each(|key| each(source, Key(*key), until));
    }
    Ok(())
}

/// Deletes events.
pub(super) fn delete(connection: &Connection, rows: &[i64]) -> rusqlite::Result<()> {
    if let Some(last) = rows.iter().max() {
        mark_deleted(connection, *last)?;
    }
    let mut event = connection.prepare_cached("DELETE FROM events WHERE event = ?1")?;
    let mut payload = connection.prepare_cached("DELETE FROM payloads WHERE event = ?1")?;
    for row in rows {
        event.execute([row])?;
        payload.execute([row])?;
    }
    Ok(())
}

/// How many events of a source there are.
pub(super) fn counts(connection: &Connection, source: i64) -> rusqlite::Result<Counts> {
    let count = |sql: &str| connection.prepare_cached(sql)?.query_row([source], |row| row.get::<_, i64>(0));
    let queued = count("SELECT count(*) FROM events INDEXED BY queued WHERE source = ?1 AND state = 2")?;
    let retrying = count("SELECT count(*) FROM events INDEXED BY retrying WHERE source = ?1 AND state = 3")?;
    let dead = count("SELECT count(*) FROM events INDEXED BY dead WHERE source = ?1 AND state = 5")?;
    Ok(Counts {
        queued: queued.cast_unsigned(),
        retrying: retrying.cast_unsigned(),
        dead: dead.cast_unsigned(),
        oldest: None,
    })
}

/// When the oldest event of a source that is not finished was received.
pub(super) fn oldest(connection: &Connection, source: i64) -> rusqlite::Result<Option<Moment>> {
    let mut statement = connection.prepare_cached(
        "SELECT received FROM events WHERE event = min(
             coalesce((SELECT min(event) FROM events INDEXED BY queued WHERE source = ?1 AND state = 2), 9e18),
             coalesce((SELECT min(event) FROM events INDEXED BY retrying WHERE source = ?1 AND state = 3), 9e18))",
    )?;
    let received: Option<i64> = statement.query_row([source], |row| row.get(0)).optional()?;
    Ok(received.map(Moment::from_millis))
}

/// The retrying events of a source in their order, those that were replayed behind the others, with their lanes.
pub(super) fn retrying(connection: &Connection, source: i64) -> rusqlite::Result<Vec<(i64, Option<Lane>)>> {
    let mut statement = connection.prepare(
        "SELECT event, lane FROM events INDEXED BY retrying WHERE source = ?1 AND state = 3
         ORDER BY replayed IS NOT NULL, event",
    )?;
    let rows = statement.query_map([source], |row| Ok((row.get(0)?, lane(row, 1)?)))?;
    rows.collect()
}
