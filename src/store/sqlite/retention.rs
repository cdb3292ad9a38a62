//! Deletes delivered events that are past their time: in proportion to what is written, so that the file does not grow, and
//! in small parts, so that nobody waits for long.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;

use super::rows;
use super::writes;
use crate::limits;
use crate::store::queued::State;
use crate::time::Moment;

/// How long delivered events of sources are kept that are not configured any more.
const USUAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How far the numbers of rows may be ahead of the clock, which goes back a little now and then.
const AHEAD: Duration = Duration::from_secs(60);

/// Delivered events: all that are old enough are looked at, one part after the other.
#[derive(Debug)]
pub(super) struct Retention {
    limits: limits::Sqlite,
    /// How long delivered events are kept, by number of the source.
    keep: HashMap<i64, Duration>,
    /// Bytes that were written since the last round began.
    written: usize,
    next: Moment,
    /// Rows up to this one have been looked at.
    seen: i64,
}

impl Retention {
    /// For a file with these sources.
    pub(super) fn new(keep: HashMap<i64, Duration>, now: Moment, limits: &limits::Sqlite) -> Self {
        Self { limits: limits.clone(), keep, written: 0, next: now, seen: 0 }
    }

    /// An event was written.
    pub(super) fn queued(&mut self, bytes: usize) {
        self.written += bytes;
    }

    /// Whether to delete something now.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        // A clock that was put back does not stop it.
        let limits::Sqlite { retention_every: every, retention_written: written, .. } = self.limits;
        self.seen > 0 || self.written >= written || now >= self.next || self.next > now.after(every)
    }

    /// Deletes a part of what is past its time. What is behind the dedupe log's checkpoint stays: its row has the keys that
    /// the log may have lost after a crash. `last` is the last row.
    pub(super) fn purge(
        &mut self,
        connection: &Connection,
        now: Moment,
        (last, checkpoint): (i64, i64),
    ) -> rusqlite::Result<()> {
        if self.seen == 0 {
            self.written = 0;
        }
        if !self.part(connection, now, (last, checkpoint))? {
            self.seen = 0;
            self.next = now.after(self.limits.retention_every);
        }
        Ok(())
    }

    /// Looks at a part; whether there may be more.
    fn part(&mut self, connection: &Connection, now: Moment, (last, checkpoint): (i64, i64)) -> rusqlite::Result<bool> {
        let limits::Sqlite { retention_rows: part, retention_bytes: part_bytes, .. } = self.limits;
        let shortest = self.keep.values().copied().min().unwrap_or(USUAL).min(USUAL);
        // Where the clock was once ahead, numbers go on from there and do not tell when an event came.
        let newest = match rows::first_of(now.after(AHEAD)) < last {
            true => i64::MAX,
            false => rows::first_of(Moment::from_millis(now.millis().saturating_sub(millis(shortest)))),
        };
        let newest = newest.min(checkpoint.saturating_add(1));
        let mut statement = connection.prepare_cached(
            "SELECT event, source, state, settled FROM events WHERE event > ?1 AND event < ?2 ORDER BY event LIMIT ?3",
        )?;
        let mut size = connection.prepare_cached("SELECT length(body) FROM payloads WHERE event = ?1")?;
        let mut found = statement.query([self.seen, newest, part])?;
        let (mut looked_at, mut bytes) = (0, 0);
        let mut expired = Vec::new();
        while looked_at < part
            && bytes < part_bytes
            && let Some(row) = found.next()?
        {
            looked_at += 1;
            let (event, source, state, settled): (i64, i64, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            self.seen = event;
            let keep = millis(self.keep.get(&source).copied().unwrap_or(USUAL));
            // What was delivered much later than now was so before the clock was set back.
            let is_old = now.millis().saturating_sub(settled).saturating_abs() >= keep;
            if state == rows::state(State::Delivered) && is_old {
                bytes += size.query_row([event], |row| row.get::<_, i64>(0)).optional()?.unwrap_or(0);
                expired.push(event);
            }
        }
        writes::delete(connection, &expired)?;
        Ok(looked_at == part || bytes >= part_bytes)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    fn usual() -> limits::Sqlite {
        limits::Sqlite::default()
    }

    const HOUR: i64 = 60 * 60 * 1000;

    fn file() -> Connection {
        let mut file = Connection::open_in_memory().expect("a file");
        schema::create(&mut file).expect("a layout");
        file
    }

    fn count(file: &Connection, table: &str) -> i64 {
        file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count")
    }

    #[test]
    fn delivered_events_go_after_their_time_and_no_others() {
        let file = file();
        let now = Moment::from_millis(1_000 * HOUR);
        let insert = |millis: i64, source: i64, state: State| {
            let row = rows::first_of(Moment::from_millis(millis));
            file.execute(
                "INSERT INTO events (event, source, state, attempts, spent, received, settled, checksum, id)
                 VALUES (?1, ?2, ?3, 1, 0, ?4, ?4, 0, 'x')",
                [row, source, rows::state(state), millis],
            )
            .expect("a row");
            file.execute("INSERT INTO payloads VALUES (?1, 'a', 'x', NULL, 'POST', '/', NULL, 1, '[]', x'')", [row])
                .expect("a payload");
        };
        // More than one part of old ones, with others between them.
        for number in 0..2 * usual().retention_rows {
            insert(900 * HOUR + number, 1, State::Delivered);
        }
        for (at, state) in [State::Queued, State::Retrying, State::Dead].into_iter().enumerate() {
            insert(901 * HOUR + i64::try_from(at).expect("small"), 1, state);
        }
        insert(990 * HOUR, 1, State::Delivered);
        insert(990 * HOUR + 1, 2, State::Delivered);
        let keep = HashMap::from([(1, Duration::from_secs(5 * 3600)), (2, Duration::from_secs(20 * 3600))]);
        let mut retention = Retention::new(keep, now, &usual());
        let mut parts = 0;
        retention.next = now;
        while retention.is_due(now) {
            retention.purge(&file, now, (0, i64::MAX)).expect("purged");
            parts += 1;
        }
        assert!(parts >= 3, "{parts}");
        assert_eq!((count(&file, "events"), count(&file, "payloads")), (4, 4));
        retention.queued(usual().retention_written - 1);
        assert!(!retention.is_due(now));
        retention.queued(1);
        assert!(retention.is_due(now), "it begins anew when much was written");
        retention.purge(&file, now, (0, i64::MAX)).expect("purged");
        assert!(!retention.is_due(now));
        let every = usual().retention_every;
        assert!(!retention.is_due(now.after(every - Duration::from_millis(1))));
        assert!(retention.is_due(now.after(every)), "or after a while");
        assert!(retention.is_due(Moment::from_millis(0)), "also when the clock was put back");
    }

    #[test]
    fn what_the_dedupe_log_may_have_lost_stays_and_how_far_the_file_came_is_known_when_all_is_gone() {
        let file = file();
        for row in 1..=3 {
            file.execute(
                "INSERT INTO events (event, source, state, attempts, spent, received, settled, checksum, id)
                 VALUES (?1, 1, 4, 1, 0, 0, 0, 0, 'x')",
                [row],
            )
            .expect("a row");
        }
        let now = Moment::from_millis(1_000 * HOUR);
        let mut retention = Retention::new(HashMap::new(), now, &usual());
        for (checkpoint, left) in [(0, 3), (2, 1), (3, 0)] {
            retention.purge(&file, now, (3, checkpoint)).expect("purged");
            assert_eq!(count(&file, "events"), left);
            assert_eq!(rows::last(&file), Ok(3));
        }
    }

    #[test]
    fn events_go_after_their_time_though_their_numbers_are_ahead_of_the_clock_and_not_for_a_minute() {
        let now = Moment::from_millis(1_000 * HOUR);
        let last = |ahead: Duration| rows::first_of(now.after(ahead));
        let keep = millis(USUAL);
        for (last, ahead, left) in [
            (last(AHEAD), -keep, 1),
            (last(AHEAD) + 1, -keep, 0),
            (last(AHEAD) + 1, 1 - keep, 1),
            (last(AHEAD) + 1, keep - 1, 1),
            (last(AHEAD) + 1, keep, 0),
        ] {
            let file = file();
            file.execute(
                "INSERT INTO events (event, source, state, attempts, spent, received, settled, checksum, id)
                 VALUES (?1, 1, 4, 1, 0, 0, ?2, 0, 'x')",
                [last, now.millis() + ahead],
            )
            .expect("a row");
            let mut retention = Retention::new(HashMap::new(), now, &usual());
            retention.purge(&file, now, (last, i64::MAX)).expect("purged");
            assert_eq!(count(&file, "events"), left, "{ahead}");
        }
    }

    #[test]
    fn large_events_are_deleted_a_few_at_a_time() {
        let file = file();
        for row in 1..=20 {
            file.execute(
                "INSERT INTO events (event, source, state, attempts, spent, received, settled, checksum, id)
                 VALUES (?1, 1, 4, 1, 0, 0, 0, 0, 'x')",
                [row],
            )
            .expect("a row");
            file.execute(
                "INSERT INTO payloads VALUES (?1, 'a', 'x', NULL, 'POST', '/', NULL, 1, '[]', zeroblob(?2))",
                [row, usual().retention_bytes / 4],
            )
            .expect("a payload");
        }
        let now = Moment::from_millis(1_000 * HOUR);
        let mut retention = Retention::new(HashMap::new(), now, &usual());
        let mut left = Vec::new();
        while left.len() < 5 {
            retention.purge(&file, now, (0, i64::MAX)).expect("purged");
            left.push(count(&file, "events"));
        }
        assert_eq!(left, [16, 12, 8, 4, 0]);
    }
}
