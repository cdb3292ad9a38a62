//! Deletes messages whose deliveries are all done and past their time: in proportion to what is written, so that the file does not
//! grow, and in small parts, so that nobody waits for long.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::CachedStatement;
use rusqlite::Connection;
use rusqlite::Params;

use super::ids;
use super::rows;
use super::statements;
use crate::limits;
use crate::newstore::types::State;
use crate::time::Moment;

/// How long delivered messages are kept for destinations that are not configured any more.
const USUAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How far ids may be ahead of the clock, which goes back a little now and then.
const AHEAD: Duration = Duration::from_secs(60);

pub(super) const SLICE: &str = "SELECT message, destination, state, settled FROM deliveries
    WHERE message > ?1 AND message < ?2 ORDER BY message, destination LIMIT ?3";
pub(super) const WHOLE: &str =
    "SELECT message, destination, state, settled FROM deliveries WHERE message = ?1 ORDER BY destination";

/// All messages that are old enough are scanned, one part after the other.
#[derive(Debug)]
pub(super) struct Retention {
    limits: limits::Sqlite,
    /// Bytes that were written since the last round began.
    written: usize,
    next: Moment,
    /// Messages up to this one have been scanned.
    seen: i64,
}

/// What a part of a round goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'b> {
    pub(super) now: Moment,
    /// How long delivered messages are kept, by the row of the destination.
    pub(super) keep: &'b HashMap<i64, Duration>,
    /// The last message.
    pub(super) last: i64,
    /// What is behind the dedupe log's checkpoint stays: it has the keys that the log may have lost after a crash.
    pub(super) checkpoint: i64,
    /// How many messages were stored in this batch.
    pub(super) arrived: usize,
}

/// A delivery as it was read: message, destination, state, and when it was settled.
type Row = (i64, i64, i64, i64);

impl Retention {
    pub(super) fn new(limits: &limits::Sqlite, now: Moment) -> Self {
        Self { limits: limits.clone(), written: 0, next: now, seen: 0 }
    }

    /// A message was written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
    }

    /// Whether to delete something now.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        // A clock that was put back does not stop it.
        let limits::Sqlite { retention_every: every, retention_written: written, .. } = self.limits;
        self.seen > 0 || self.written >= written || now >= self.next || self.next > now.after(every)
    }

    /// Deletes a part of what is past its time.
    pub(super) fn purge(&mut self, connection: &Connection, bounds: Bounds<'_>) -> rusqlite::Result<()> {
        if self.seen == 0 {
            self.written = 0;
        }
        if !self.part(connection, bounds)? {
            self.seen = 0;
            self.next = bounds.now.after(self.limits.retention_every);
        }
        Ok(())
    }

    /// Scans a part; whether there may be more.
    fn part(&mut self, connection: &Connection, bounds: Bounds<'_>) -> rusqlite::Result<bool> {
        let Bounds { now, keep, last, checkpoint, arrived } = bounds;
        let shortest = keep.values().copied().min().unwrap_or(USUAL).min(USUAL);
        // Where the clock was once ahead, ids go on from there and do not tell when a message came.
        let newest = match ids::first_of(now.after(AHEAD)) < last {
            true => i64::MAX,
            false => ids::first_of(now.before(shortest)),
        };
        let newest = newest.min(checkpoint.saturating_add(1));
        let limit = self.limits.retention_rows.max(statements::limit_of(arrived.saturating_mul(2)));
        let mut rows = read(&mut connection.prepare_cached(SLICE)?, [self.seen, newest, limit])?;
        let full = statements::limit_of(rows.len()) == limit;
        if let (true, Some((message, ..))) = (full, rows.last().copied()) {
            // The last one may have deliveries that were not read.
            rows.retain(|row| row.0 != message);
            rows.extend(read(&mut connection.prepare_cached(WHOLE)?, [message])?);
        }
        let is_past = |&(_, destination, state, settled): &Row| {
            let keep = millis(keep.get(&destination).copied().unwrap_or(USUAL));
            // What was delivered much later than now was so before the clock was set back.
            state == ids::state(State::Delivered) && now.millis().saturating_sub(settled).saturating_abs() >= keep
        };
        let (mut expired, mut bytes, mut left) = (Vec::new(), 0, false);
        for deliveries in rows.chunk_by(|one, other| one.0 == other.0) {
            let Some((message, ..)) = deliveries.first().copied() else { continue };
            if bytes >= self.limits.retention_bytes {
                left = true;
                break;
            }
            self.seen = message;
            if deliveries.iter().all(is_past) {
                bytes += statements::limit_of(rows::size(connection, message)?.unwrap_or_default());
                expired.push(message);
            }
        }
        statements::delete(connection, &expired)?;
        Ok(full || left)
    }
}

fn read(statement: &mut CachedStatement<'_>, parameters: impl Params) -> rusqlite::Result<Vec<Row>> {
    // What is damaged is no delivered one, and stays.
    let column = |row: &rusqlite::Row<'_>, at| row.get(at).unwrap_or_default();
    statement.query_map(parameters, |row| Ok((row.get(0)?, column(row, 1), column(row, 2), column(row, 3))))?.collect()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
