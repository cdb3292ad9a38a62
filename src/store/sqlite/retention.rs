//! Deletes messages whose deliveries are all delivered and past their retention: in proportion to what is written, so
//! that the file does not grow, and in small steps, so that calls do not wait for long.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::CachedStatement;
use rusqlite::Connection;
use rusqlite::Params;

use super::ids;
use super::rows;
use super::statements;
use crate::base::limits;
use crate::base::time::Moment;
use crate::store::State;

/// The retention for destinations that are no longer configured.
const DEFAULT_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// How far ids may be ahead of the clock, which is sometimes set back slightly.
const AHEAD: Duration = Duration::from_secs(60);

pub(super) const SLICE: &str = "SELECT message, destination, state, settled FROM deliveries
    WHERE message > ?1 AND message < ?2 ORDER BY message, destination LIMIT ?3";
pub(super) const WHOLE: &str =
    "SELECT message, destination, state, settled FROM deliveries WHERE message = ?1 ORDER BY destination";

/// The progress of rounds, in which all old messages are scanned step by step.
#[derive(Debug)]
pub(super) struct Retention {
    limits: limits::Sqlite,
    /// Bytes that were written since the last round began.
    written: usize,
    /// When the next step is due.
    next: Moment,
    /// Messages up to this one have been scanned.
    seen: i64,
}

/// The input of one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'b> {
    pub(super) now: Moment,
    /// How long delivered messages are kept, by the row of the destination.
    pub(super) keep: &'b HashMap<i64, Duration>,
    /// The last message.
    pub(super) last: i64,
    /// Messages after the dedupe log's checkpoint are kept, because the log may lose their keys in a crash.
    pub(super) checkpoint: i64,
    /// The number of messages that were stored in this batch.
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
        // Also due when the clock was set back.
        let limits::Sqlite { retention_every: every, retention_written: written, .. } = self.limits;
        self.seen > 0 || self.written >= written || now >= self.next || self.next > now.after(every)
    }

    /// Runs one step.
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

    /// Scans some messages. Returns whether there may be more.
    fn part(&mut self, connection: &Connection, bounds: Bounds<'_>) -> rusqlite::Result<bool> {
        let Bounds { now, keep, last, checkpoint, arrived } = bounds;
        let shortest = keep.values().copied().min().unwrap_or(DEFAULT_RETENTION).min(DEFAULT_RETENTION);
        // If the clock was ahead once, ids continue from there and do not tell when a message came.
        let newest = match ids::first_of(now.after(AHEAD)) < last {
            true => i64::MAX,
            false => ids::first_of(now.before(shortest)),
        };
        let newest = newest.min(checkpoint.saturating_add(1));
        let limit = self.limits.retention_rows.max(ids::limit_of(arrived.saturating_mul(2)));
        let mut rows = read(&mut connection.prepare_cached(SLICE)?, [self.seen, newest, limit])?;
        let full = ids::limit_of(rows.len()) == limit;
        if let (true, Some((message, ..))) = (full, rows.last().copied()) {
            // Not all deliveries of the last message may have been read.
            rows.retain(|row| row.0 != message);
            rows.extend(read(&mut connection.prepare_cached(WHOLE)?, [message])?);
        }
        let is_past = |&(_, destination, state, settled): &Row| {
            let keep = millis(keep.get(&destination).copied().unwrap_or(DEFAULT_RETENTION));
            // A delivery far in the future was recorded before the clock was set back.
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
                bytes += ids::limit_of(rows::size(connection, message)?.unwrap_or_default());
                expired.push(message);
            }
        }
        statements::delete(connection, &expired)?;
        Ok(full || left)
    }
}

fn read(statement: &mut CachedStatement<'_>, parameters: impl Params) -> rusqlite::Result<Vec<Row>> {
    // Damaged rows do not count as delivered, so they are kept.
    let column = |row: &rusqlite::Row<'_>, at| row.get(at).unwrap_or_default();
    statement.query_map(parameters, |row| Ok((row.get(0)?, column(row, 1), column(row, 2), column(row, 3))))?.collect()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    const HOUR: i64 = 60 * 60 * 1000;

    fn usual() -> limits::Sqlite {
        limits::Sqlite::default()
    }

    fn file() -> Connection {
        let file = Connection::open_in_memory().expect("a file");
        schema::create(&file).expect("a layout");
        file
    }

    fn count(file: &Connection, table: &str) -> i64 {
        file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count")
    }

    /// A message with deliveries: their destinations, states, and when they were settled.
    fn insert(file: &Connection, id: i64, size: i64, deliveries: &[(i64, State, i64)]) {
        file.execute(
            "INSERT INTO messages (id, source, received, size, checksum, event_id, method, target, verified, headers, body)
             VALUES (?1, 'a', 0, ?2, 0, 'x', 'POST', '/', 1, '[]', x'')",
            [id, size],
        )
        .expect("a message");
        for (destination, state, settled) in deliveries {
            file.execute(
                "INSERT INTO deliveries (message, destination, state, attempts, before_replay, settled)
                 VALUES (?1, ?2, ?3, 1, 0, ?4)",
                [id, *destination, ids::state(*state), *settled],
            )
            .expect("a delivery");
        }
    }

    fn bounds(keep: &HashMap<i64, Duration>, now: Moment) -> Bounds<'_> {
        Bounds { now, keep, last: 0, checkpoint: i64::MAX, arrived: 0 }
    }

    #[test]
    fn messages_go_when_all_their_deliveries_are_done_and_past_their_time_and_no_others() {
        for rows in [1, 2, 3, 500] {
            let file = file();
            let now = Moment::from_millis(1_000 * HOUR);
            let at = |millis: i64| ids::first_of(Moment::from_millis(millis));
            let old = |destination| (destination, State::Delivered, 900 * HOUR);
            // More than one part of old ones, with others between them.
            for number in 0..50 {
                insert(&file, at(900 * HOUR + number), 1, &[old(1), old(2), old(3)]);
            }
            for (number, state) in [State::Blocked, State::Queued, State::Retrying, State::Dead].into_iter().enumerate()
            {
                let number = i64::try_from(number).expect("small");
                insert(&file, at(900 * HOUR + 10) + 1 + number, 1, &[old(1), (2, state, 900 * HOUR)]);
            }
            insert(&file, at(900 * HOUR + 40) + 1, 1, &[old(1), (2, State::Delivered, 985 * HOUR)]);
            insert(&file, at(990 * HOUR), 1, &[(1, State::Delivered, 990 * HOUR)]);
            let keep = HashMap::from([(1, Duration::from_secs(5 * 3600)), (2, Duration::from_secs(20 * 3600))]);
            let mut retention = Retention::new(&limits::Sqlite { retention_rows: rows, ..usual() }, now);
            while retention.is_due(now) {
                retention.purge(&file, bounds(&keep, now)).expect("purged");
            }
            assert_eq!((count(&file, "messages"), count(&file, "deliveries")), (5, 10), "{rows} rows at a time");
        }
    }

    #[test]
    fn a_round_begins_when_much_was_written_or_after_a_while() {
        let (file, now) = (file(), Moment::from_millis(1_000 * HOUR));
        let mut retention = Retention::new(&usual(), now);
        let keep = HashMap::new();
        retention.purge(&file, bounds(&keep, now)).expect("purged");
        retention.wrote(usual().retention_written - 1);
        assert!(!retention.is_due(now));
        retention.wrote(1);
        assert!(retention.is_due(now));
        retention.purge(&file, bounds(&keep, now)).expect("purged");
        assert!(!retention.is_due(now));
        let every = usual().retention_every;
        assert!(!retention.is_due(now.after(every - Duration::from_millis(1))));
        assert!(retention.is_due(now.after(every)), "or after a while");
        assert!(retention.is_due(Moment::from_millis(0)), "also when the clock was put back");
    }

    #[test]
    fn twice_as_many_rows_are_scanned_as_came() {
        for (arrived, left) in [(0, 90), (5, 90), (6, 88), (60, 0)] {
            let (file, now) = (file(), Moment::from_millis(1_000 * HOUR));
            (1..=100).for_each(|id| insert(&file, id, 1, &[(1, State::Delivered, 0)]));
            let mut retention = Retention::new(&limits::Sqlite { retention_rows: 10, ..usual() }, now);
            let keep = HashMap::new();
            retention.purge(&file, Bounds { arrived, ..bounds(&keep, now) }).expect("purged");
            assert_eq!(count(&file, "messages"), left, "{arrived} came");
        }
    }

    #[test]
    fn what_the_dedupe_log_may_have_lost_stays_and_how_far_the_file_came_is_known_when_all_is_gone() {
        let file = file();
        (1..=3).for_each(|id| insert(&file, id, 1, &[(1, State::Delivered, 0)]));
        let now = Moment::from_millis(1_000 * HOUR);
        let (mut retention, keep) = (Retention::new(&usual(), now), HashMap::new());
        for (checkpoint, left) in [(0, 3), (2, 1), (3, 0)] {
            retention.purge(&file, Bounds { last: 3, checkpoint, ..bounds(&keep, now) }).expect("purged");
            assert_eq!(count(&file, "messages"), left);
            assert_eq!(statements::last(&file), Ok(3));
        }
    }

    #[test]
    fn messages_go_after_their_time_though_their_ids_are_ahead_of_the_clock_and_not_for_a_minute() {
        let now = Moment::from_millis(1_000 * HOUR);
        let last = |ahead: Duration| ids::first_of(now.after(ahead));
        let keep = millis(DEFAULT_RETENTION);
        for (last, ahead, left) in [
            (last(AHEAD), -keep, 1),
            (last(AHEAD) + 1, -keep, 0),
            (last(AHEAD) + 1, 1 - keep, 1),
            (last(AHEAD) + 1, keep - 1, 1),
            (last(AHEAD) + 1, keep, 0),
        ] {
            let file = file();
            insert(&file, last, 1, &[(1, State::Delivered, now.millis() + ahead)]);
            let keep = HashMap::new();
            let mut retention = Retention::new(&usual(), now);
            retention.purge(&file, Bounds { last, ..bounds(&keep, now) }).expect("purged");
            assert_eq!(count(&file, "messages"), left, "{ahead}");
        }
    }

    #[test]
    fn large_messages_are_deleted_a_few_at_a_time() {
        let file = file();
        (1..=20).for_each(|id| insert(&file, id, usual().retention_bytes / 4, &[(1, State::Delivered, 0)]));
        let now = Moment::from_millis(1_000 * HOUR);
        let (mut retention, keep) = (Retention::new(&usual(), now), HashMap::new());
        let mut left = Vec::new();
        while left.len() < 5 {
            retention.purge(&file, bounds(&keep, now)).expect("purged");
            left.push(count(&file, "messages"));
        }
        assert_eq!(left, [16, 12, 8, 4, 0]);
    }
}
