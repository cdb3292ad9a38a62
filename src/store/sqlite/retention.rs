//! Forgets what is past its time: finished events' ids, and delivered events.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::Connection;

use super::rows;
use crate::store::queued::State;
use crate::time::Moment;

/// How often it begins anew.
const EVERY: Duration = Duration::from_secs(30);
/// Most rows that are looked at, or deleted, in one transaction, so that nobody waits for long.
const PART: i64 = 500;
/// How long delivered events of sources are kept that are not configured any more.
const USUAL: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug)]
pub(super) struct Retention {
    /// How long delivered events are kept, by number of the source.
    keep: HashMap<i64, Duration>,
    next: Moment,
    /// Rows up to this one have been looked at.
    seen: i64,
}

impl Retention {
    pub(super) fn new(keep: HashMap<i64, Duration>) -> Self {
        Self { keep, next: Moment::now(), seen: 0 }
    }

    pub(super) fn is_due(&self, now: Moment) -> bool {
        // A clock that was put back does not stop it.
        now >= self.next || self.next > now.after(EVERY)
    }

    /// Deletes a part of what is past its time; about how many pages that wrote.
    pub(super) fn purge(&mut self, connection: &Connection, now: Moment) -> rusqlite::Result<usize> {
        // Rows are in the order of their time: everything before the first that still holds can go.
        let forgotten = connection
            .prepare_cached(
                "DELETE FROM finished WHERE batch IN (
                     SELECT batch FROM finished
                     WHERE batch < (SELECT batch FROM finished WHERE until > ?1 ORDER BY batch LIMIT 1)
                     ORDER BY batch LIMIT ?2)",
            )?
            .execute([now.unix(), PART])?;
        let (looked_at, deleted) = self.delivered(connection, now)?;
        if looked_at < PART {
            self.seen = 0;
            self.next = now.after(EVERY);
        }
        Ok(forgotten + 2 * deleted)
    }

    fn delivered(&mut self, connection: &Connection, now: Moment) -> rusqlite::Result<(i64, usize)> {
        let shortest = self.keep.values().copied().min().unwrap_or(USUAL).min(USUAL);
        let newest = rows::first_of(Moment::from_millis(now.millis().saturating_sub(millis(shortest))));
        let mut statement = connection.prepare_cached(
            "SELECT event, source, state, settled FROM events WHERE event > ?1 AND event < ?2 ORDER BY event LIMIT ?3",
        )?;
        let mut found = statement.query([self.seen, newest, PART])?;
        let mut looked_at = 0;
        let mut expired = Vec::new();
        while let Some(row) = found.next()? {
            looked_at += 1;
            let (event, source, state, settled): (i64, i64, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            self.seen = event;
            let keep = millis(self.keep.get(&source).copied().unwrap_or(USUAL));
            if state == rows::state(State::Delivered) && settled.saturating_add(keep) <= now.millis() {
                expired.push(event);
            }
        }
        rows::delete(connection, &expired)?;
        Ok((looked_at, expired.len()))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    const HOUR: i64 = 60 * 60 * 1000;

    #[test]
    fn delivered_events_go_after_their_time_and_no_others() {
        let mut file = Connection::open_in_memory().expect("a file");
        schema::migrate(&mut file, 0).expect("a layout");
        let now = Moment::from_millis(1_000 * HOUR);
        let insert = |millis: i64, source: i64, state: State| {
            let row = rows::first_of(Moment::from_millis(millis));
            file.execute(
                "INSERT INTO events (event, source, state, attempts, spent, received, settled, checksum, id)
                 VALUES (?1, ?2, ?3, 1, 0, ?4, ?4, 0, 'x')",
                [row, source, rows::state(state), millis],
            )
            .expect("a row");
            file.execute("INSERT INTO payloads VALUES (?1, 'POST', '[]', x'')", [row]).expect("a payload");
        };
        // More than one part of old ones, with others between them.
        for number in 0..2 * PART {
            insert(900 * HOUR + number, 1, State::Delivered);
        }
        for (at, state) in [State::Queued, State::Retrying, State::Dead].into_iter().enumerate() {
            insert(901 * HOUR + i64::try_from(at).expect("small"), 1, state);
        }
        insert(990 * HOUR, 1, State::Delivered);
        insert(990 * HOUR + 1, 2, State::Delivered);
        let keep = HashMap::from([(1, Duration::from_secs(5 * 3600)), (2, Duration::from_secs(20 * 3600))]);
        let mut retention = Retention::new(keep);
        let mut parts = 0;
        retention.next = now;
        while retention.is_due(now) {
            retention.purge(&file, now).expect("purged");
            parts += 1;
        }
        assert!(parts >= 3, "{parts}");
        for table in ["events", "payloads"] {
            let left: i64 =
                file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count");
            assert_eq!(left, 4, "{table}");
        }
        assert!(retention.is_due(now.after(EVERY)), "it begins anew");
        assert!(retention.is_due(Moment::from_millis(0)), "also when the clock was put back");
    }
}
