//! Statements that insert, change and delete rows of queued events. Only the writer runs them.

use rusqlite::CachedStatement;
use rusqlite::Connection;
use rusqlite::params;

use super::inbox::Arrival;
use super::rows::PAYLOAD;
use super::rows::checksum;
use super::rows::state;
use crate::message::Message;
use crate::message::codec;
use crate::store::queued::Settlement;
use crate::store::queued::State;
use crate::store::queued::Verdict;

/// What is written of a message besides what stands in it as it is.
#[derive(Debug)]
pub(super) struct Columns {
    source: String,
    id: String,
    kind: Option<String>,
    trace: Option<String>,
    headers: String,
    checksum: i64,
}

impl Columns {
    pub(super) fn of(message: &Message) -> Self {
        let headers = codec::to_json(codec::pairs(&message.headers));
        Self {
            source: codec::text(&message.source),
            id: codec::text(&message.event_id),
            kind: message.kind.as_ref().map(codec::text),
            trace: message.trace.as_ref().map(codec::text),
            checksum: checksum(message, &headers),
            headers,
        }
    }

    /// About how many bytes they take on disk.
    pub(super) fn bytes(&self) -> usize {
        2 * self.id.len() + self.headers.len() + 290
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
            payload: connection.prepare_cached(&format!(
                "INSERT INTO payloads (event, {PAYLOAD}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
            ))?,
            settle: connection.prepare_cached(
                "UPDATE events SET state = ?2, attempts = ?3, settled = ?4, due = ?5, reason = ?6, answer = ?7
                 WHERE event = ?1",
            )?,
        })
    }

    /// Writes an event that waits for its first attempt.
    pub(super) fn insert(&mut self, row: i64, source: i64, arrival: &Arrival) -> rusqlite::Result<()> {
        let Arrival { event, columns: Columns { source: name, id, kind, trace, headers, checksum }, .. } = arrival;
        let (received, method) = (event.received_at.millis(), event.method.as_str());
        let lane = event.lane.map(|lane| lane.0.cast_signed());
        let keys = arrival.keys.map(|keys| keys.iter().flat_map(|key| key.0).collect::<Vec<u8>>());
        let until = keys.as_ref().map(|_keys| arrival.until);
        self.event.execute(params![row, source, received, lane, checksum, keys, until, id, kind])?;
        let (target, verified, body) = (&*event.target, event.verified, &event.body[..]);
        self.payload.execute(params![row, name, id, kind, method, target, trace, verified, headers, body])?;
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

/// Notes that the file has come at least this far, whatever becomes of the events in it.
pub(super) fn mark_deleted(connection: &Connection, row: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE deleted SET event = ?1 WHERE event < ?1")?.execute([row]).map(drop)
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
