//! Forgets what is past its time: finished events' ids, and delivered events. Both in proportion to what is written, so that
//! the file does not grow, and in small parts, so that nobody waits for long.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;

use super::rows;
use crate::limits;
use crate::store::queued::State;
use crate::time::Moment;

/// Bytes of ids after which twice as many may be deleted, and how many while nothing is written.
const IDS: i64 = 8 * 1024;
const IDS_IDLE: i64 = 256 * 1024;
/// Bytes of a row in `finished` besides the ids.
const ROW: i64 = 15;
/// How many times as far from now as those behind it a row of ids may end, and how many seconds later, to be one of the same
/// `store.ttl`: to that are added, where a time is signed, what it is ahead, which is less, and `store.lease`, which is not more.
const SPREAD: i64 = 3;
const JITTER: i64 = 60;
/// How long delivered events of sources are kept that are not configured any more.
const USUAL: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug)]
pub(super) struct Retention {
    ids: Ids,
    events: Events,
}

/// Finished events' ids: rows are about in the order of their time, so that only the first ones have to be looked at. One goes
/// later than its time by as much at most as those before it end later: by what signed times are ahead, and `store.lease`.
#[derive(Debug, Default)]
struct Ids {
    /// Bytes that were written since the last deletion, and those of the last batch.
    written: i64,
    added: i64,
    /// The row that was written last, and when it ends.
    last: (i64, i64),
    /// The last row that ends much later than those behind it, because `store.ttl` was longer or the clock ahead: both sides
    /// have first rows of their own.
    last_longer: i64,
    /// Before this time, none ends.
    next: i64,
}

/// Delivered events: all that are old enough are looked at, one part after the other.
#[derive(Debug)]
struct Events {
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
    pub(super) fn new(
        connection: &Connection,
        keep: HashMap<i64, Duration>,
        now: Moment,
        limits: &limits::Sqlite,
    ) -> rusqlite::Result<Self> {
        let last = connection
            .query_row("SELECT batch, until FROM finished ORDER BY batch DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?
            .unwrap_or_default();
        let last_longer = connection.query_row(
            "SELECT ifnull(max(batch), 0) FROM finished WHERE until > ?1",
            [latest_beside(last.1, now)],
            |row| row.get(0),
        )?;
        let ids = Ids { last, last_longer, ..Ids::default() };
        Ok(Self { ids, events: Events { limits: limits.clone(), keep, written: 0, next: now, seen: 0 } })
    }

    /// The ids of a batch were written, the last of them in this row.
    pub(super) fn remembered(&mut self, row: i64, until: u32, bytes: usize, now: Moment) {
        let (ids, until) = (&mut self.ids, i64::from(until));
        if ids.last.1 > latest_beside(until, now) {
            ids.last_longer = ids.last.0;
        }
        ids.last = (row, until);
        ids.next = ids.next.min(until);
        ids.added = ROW + rows::limit_of(bytes);
        ids.written += ids.added;
    }

    /// An event was written.
    pub(super) fn queued(&mut self, bytes: usize) {
        self.events.written += bytes;
    }

    /// Whether to delete something with this batch; it is `idle` when there is nothing else to write.
    pub(super) fn is_due(&self, now: Moment, idle: bool) -> bool {
        self.ids.are_due(now, idle) || self.events.are_due(now)
    }

    /// Deletes a part of what is past its time.
    pub(super) fn purge(&mut self, connection: &Connection, now: Moment, idle: bool) -> rusqlite::Result<()> {
        if self.ids.are_due(now, idle) {
            self.ids.purge(connection, now, idle)?;
        }
        if self.events.are_due(now) {
            self.events.purge(connection, now)?;
        }
        Ok(())
    }
}

impl Ids {
    fn are_due(&self, now: Moment, idle: bool) -> bool {
        (idle || self.written >= IDS) && now.unix() >= self.next
    }

    fn purge(&mut self, connection: &Connection, now: Moment, idle: bool) -> rusqlite::Result<()> {
        // All that was written before anything was past its time does not have to go at once.
        let mut budget = if idle { IDS_IDLE } else { 2 * self.written.min(IDS + self.added) };
        (self.written, self.next) = (0, i64::MAX);
        for (from, to) in [(0, self.last_longer), (self.last_longer + 1, i64::MAX)] {
            let mut statement = connection.prepare_cached(
                "SELECT batch, until, length(keys) FROM finished WHERE batch BETWEEN ?1 AND ?2 ORDER BY batch",
            )?;
            let mut rows = statement.query([from, to])?;
            let mut ended = None;
            while let Some(row) = rows.next()? {
                let (batch, until, bytes): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                if until > now.unix() || budget <= 0 {
                    self.next = self.next.min(until);
                    break;
                }
                ended = Some(batch);
                budget -= ROW + bytes;
            }
            if let Some(last) = ended {
                connection
                    .prepare_cached("DELETE FROM finished WHERE batch BETWEEN ?1 AND ?2")?
                    .execute([from, last])?;
            }
        }
        Ok(())
    }
}

impl Events {
    fn are_due(&self, now: Moment) -> bool {
        // A clock that was put back does not stop it.
        let every = self.limits.retention_every;
        self.seen > 0
            || self.written >= self.limits.retention_written
            || now >= self.next
            || self.next > now.after(every)
    }

    fn purge(&mut self, connection: &Connection, now: Moment) -> rusqlite::Result<()> {
        if self.seen == 0 {
            self.written = 0;
        }
        if !self.part(connection, now)? {
            self.seen = 0;
            self.next = now.after(self.limits.retention_every);
        }
        Ok(())
    }

    /// Looks at a part; whether there may be more.
    fn part(&mut self, connection: &Connection, now: Moment) -> rusqlite::Result<bool> {
        let limits::Sqlite { retention_rows: part, retention_bytes: part_bytes, .. } = self.limits;
        let shortest = self.keep.values().copied().min().unwrap_or(USUAL).min(USUAL);
        let newest = rows::first_of(Moment::from_millis(now.millis().saturating_sub(millis(shortest))));
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
            if state == rows::state(State::Delivered) && settled.saturating_add(keep) <= now.millis() {
                bytes += size.query_row([event], |row| row.get::<_, i64>(0)).optional()?.unwrap_or(0);
                expired.push(event);
            }
        }
        rows::delete(connection, &expired)?;
        Ok(looked_at == part || bytes >= part_bytes)
    }
}

/// How late a row may end before one that ends then, and be in order.
fn latest_beside(until: i64, now: Moment) -> i64 {
    now.unix().saturating_add((until - now.unix()).max(0).saturating_mul(SPREAD)).saturating_add(JITTER)
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
        let mut file = Connection::open_in_memory().expect("a file");
        schema::migrate(&mut file, 0).expect("a layout");
        file
    }

    fn count(file: &Connection, table: &str) -> i64 {
        file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count")
    }

    /// A gateway that writes one id after the other.
    struct Ids {
        file: Connection,
        retention: Retention,
    }

    impl Ids {
        fn new() -> Self {
            Self::of(file(), 0)
        }

        /// One that is started at this second.
        fn of(file: Connection, second: i64) -> Self {
            let now = Moment::from_millis(second * 1000);
            let mut retention = Retention::new(&file, HashMap::new(), now, &usual()).expect("a store");
            // Only ids are looked at.
            retention.events.next = Moment::from_millis(i64::MAX / 2);
            Self { file, retention }
        }

        fn write(&mut self, second: i64, ttl: i64) {
            let now = Moment::from_millis(second * 1000);
            let until = u32::try_from(second + ttl).expect("small");
            self.file.execute("INSERT INTO finished (until, keys) VALUES (?1, zeroblob(16))", [until]).expect("a row");
            self.retention.remembered(self.file.last_insert_rowid(), until, 16, now);
            self.purge(now, false);
        }

        fn purge(&mut self, now: Moment, idle: bool) {
            if self.retention.ids.are_due(now, idle) {
                self.retention.ids.purge(&self.file, now, idle).expect("purged");
            }
        }

        fn count(&self) -> i64 {
            count(&self.file, "finished")
        }
    }

    /// Rows that are written between two deletions.
    const BETWEEN: i64 = IDS / (ROW + 16) + 1;

    #[test]
    fn ids_go_as_fast_as_they_come_after_their_time_and_not_before() {
        for ttl in [8, 4 * 24 * 60 * 60] {
            let mut ids = Ids::new();
            let rate = 500;
            for second in 0..20 {
                (0..rate).for_each(|_| ids.write(1000 + second, ttl));
            }
            if ttl > 20 {
                assert_eq!(ids.count(), 20 * rate, "none is past its time");
            } else {
                assert!((ttl * rate..=(ttl + 1) * rate + BETWEEN).contains(&ids.count()), "{}", ids.count());
            }
            for second in 0..20 {
                (0..rate).for_each(|_| ids.write(1000 + ttl + second, ttl));
            }
            let most = 20.max(ttl.min(20) + 1) * rate + BETWEEN;
            assert!(ids.count() <= most, "{} of {most}", ids.count());
        }
    }

    #[test]
    fn a_deletion_is_in_proportion_to_what_was_written() {
        let mut ids = Ids::new();
        (0..50_000).for_each(|_| ids.write(1000, 10));
        assert_eq!(ids.count(), 50_000);
        (0..BETWEEN).for_each(|_| ids.write(2000, 10));
        let left = 50_000 + BETWEEN - ids.count();
        assert!((BETWEEN..=2 * BETWEEN + 2).contains(&left), "{left} were deleted");
        ids.purge(Moment::from_millis(2000 * 1000), true);
        let idle = 50_000 + BETWEEN - ids.count() - left;
        assert_eq!(idle, IDS_IDLE / (ROW + 16) + 1, "while nothing is written, more at once");
    }

    #[test]
    fn ids_that_were_written_with_a_longer_ttl_do_not_keep_later_ones() {
        let mut ids = Ids::new();
        (0..1000).for_each(|_| ids.write(1000, 100_000));
        for second in 0..100 {
            if second % 25 == 0 {
                ids = Ids::of(ids.file, 1000 + second);
            }
            (0..BETWEEN).for_each(|_| ids.write(1000 + second, 8));
        }
        let (most, count) = (1000 + 11 * BETWEEN, ids.count());
        assert!((1000 + 8 * BETWEEN..=most).contains(&count), "{count} of {most}");
        // And those go in their time too.
        for second in 0..20 {
            (0..BETWEEN).for_each(|_| ids.write(102_000 + second, 8));
        }
        assert!(ids.count() <= 11 * BETWEEN, "{}", ids.count());
    }

    #[test]
    fn ids_of_signed_times_delay_others_by_no_more_than_they_are_kept_for_longer() {
        const TTL: i64 = 400;
        // A time that is five minutes ahead, and `store.lease`.
        const LONGER: i64 = 300 + 90;
        let mut ids = Ids::new();
        (0..1000).for_each(|_| ids.write(1000, 1_000_000));
        for second in 0..4 * TTL {
            (0..10).for_each(|_| ids.write(1000 + second, TTL));
            (0..10).for_each(|_| ids.write(1000 + second, TTL + LONGER));
            let (least, most) = (10 * (TTL + TTL + LONGER), 20 * (TTL + LONGER + 1) + BETWEEN);
            let count = ids.count() - 1000;
            assert!(second < TTL + LONGER || (least..=most).contains(&count), "{second}: {count} of {most}");
        }
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
        let mut retention = Retention::new(&file, keep, now, &usual()).expect("a store");
        let mut parts = 0;
        retention.events.next = now;
        while retention.events.are_due(now) {
            retention.purge(&file, now, false).expect("purged");
            parts += 1;
        }
        assert!(parts >= 3, "{parts}");
        assert_eq!((count(&file, "events"), count(&file, "payloads")), (4, 4));
        retention.queued(usual().retention_written - 1);
        assert!(!retention.events.are_due(now));
        retention.queued(1);
        assert!(retention.events.are_due(now), "it begins anew when much was written");
        retention.purge(&file, now, false).expect("purged");
        assert!(!retention.events.are_due(now));
        assert!(retention.events.are_due(now.after(usual().retention_every)), "or after a while");
        assert!(retention.events.are_due(Moment::from_millis(0)), "also when the clock was put back");
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
        let mut retention = Retention::new(&file, HashMap::new(), now, &usual()).expect("a store");
        let mut left = Vec::new();
        while left.len() < 5 {
            retention.purge(&file, now, false).expect("purged");
            left.push(count(&file, "events"));
        }
        assert_eq!(left, [16, 12, 8, 4, 0]);
    }
}
