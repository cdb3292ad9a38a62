//! Finds the deliveries in the file that a filter selects, in the order of their messages. The scanned rows and the
//! time of a call are limited.

use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::Rows;
use rusqlite::params;

use super::ids;
use crate::base::time::Moment;
use crate::store::Filter;
use crate::store::State;
use crate::store::search::Direction;

/// The time is checked after this many deliveries.
const STRIDE: i64 = 64;

/// A search.
#[derive(Debug, Clone)]
pub(super) struct Search<'f> {
    pub(super) filter: &'f Filter,
    /// The row ids of the selected destinations, sorted.
    pub(super) destinations: Vec<i64>,
    /// The selected states.
    pub(super) states: &'f [State],
    pub(super) direction: Direction,
    /// The message after which it begins.
    pub(super) after: Option<i64>,
    /// About the maximum number of results.
    pub(super) limit: usize,
    /// About the maximum number of scanned rows.
    pub(super) max_scanned: i64,
    /// About the maximum time.
    pub(super) max_time: Duration,
}

/// Messages and destinations.
pub(super) type Found = crate::store::search::Found<(i64, i64), i64>;

/// The condition of a filter on a message.
macro_rules! is_meant {
    () => {
        "(?6 IS NULL OR event_id = ?6) AND (?7 IS NULL OR type = ?7) AND received >= ?8 AND received < ?9"
    };
}

// Each returns message, destination and state of deliveries, and whether the message matches the filter.
/// Scans the deliveries to one destination in one state, which is not "delivered".
const BY_STATE: &str = concat!(
    "SELECT message, destination, state, iif(?5, (SELECT ",
    is_meant!(),
    " FROM messages WHERE id = message), 1) FROM deliveries INDEXED BY by_state
     WHERE destination = ?3 AND state = ?4 AND state <> 5 AND message > ?1 AND message < ?2 ORDER BY message"
);
/// Scans all deliveries.
const ALL: &str = "SELECT message, destination, state, ?9 IS NOT NULL FROM deliveries NOT INDEXED
     WHERE message > ?1 AND message < ?2 ORDER BY message";
/// Scans all messages, and the deliveries of those that match the filter.
const BY_MESSAGE: &str = concat!(
    "SELECT id, ifnull(destination, -1), ifnull(state, -1), 1
     FROM messages LEFT JOIN deliveries NOT INDEXED ON message = iif(",
    is_meant!(),
    ", id, NULL) WHERE id > ?1 AND id < ?2 ORDER BY id"
);

/// The statement for a scan in this direction.
fn sql(walk: &str, direction: Direction) -> String {
    format!("{walk} {}", if direction == Direction::NewestFirst { "DESC" } else { "ASC" })
}

impl Search<'_> {
    /// Finds deliveries. To read them, the caller has to be in the same transaction.
    pub(super) fn run(&self, file: &Connection) -> rusqlite::Result<Found> {
        let (began, (low, high)) = (Instant::now(), self.bounds());
        let Filter { kind, id, from, until, .. } = self.filter;
        let asks = kind.is_some() || id.is_some() || from.is_some() || until.is_some();
        let (from, until) = (from.map_or(i64::MIN, Moment::millis), until.map_or(i64::MAX, Moment::millis));
        let (walk, ways) = match (self.states.contains(&State::Delivered), asks) {
            (false, _) => (BY_STATE, self.scans()),
            (true, true) => (BY_MESSAGE, self.scans()),
            (true, false) => (ALL, self.scans()),
        };
        let count = i64::try_from(ways.len().max(1)).unwrap_or(i64::MAX);
        // A scan may use its share of the limit, and what earlier ones have left.
        let (share, mut left) = (self.max_scanned.saturating_add(count - 1) / count, self.max_scanned);
        let mut statement = file.prepare_cached(&sql(walk, self.direction))?;
        let mut walks = Vec::with_capacity(ways.len());
        for (destination, state) in ways {
            let rows = statement.query(params![low, high, destination, state, asks, id, kind, from, until])?;
            let (found, scanned) = self.walk(rows, left.max(share), began)?;
            walks.push(found);
            left -= scanned;
        }
        let mut found = Found::merged(walks, |(message, _)| *message, (self.direction, self.limit));
        found.deliveries.chunk_by_mut(|one, other| one.0 == other.0).for_each(<[_]>::sort_unstable);
        Ok(found)
    }

    /// Scans some rows, and counts them. Skips damaged rows.
    fn walk(&self, mut rows: Rows<'_>, max_scanned: i64, began: Instant) -> rusqlite::Result<(Found, i64)> {
        let (mut found, mut scanned, mut last) = (Found::default(), 0, None);
        while let Some(row) = rows.next()? {
            let (Ok(message), Ok(destination), Ok(state)) = (row.get(0), row.get(1), row.get(2)) else { continue };
            // All deliveries of a message are on one page.
            if last.is_some_and(|last| last != message) {
                let late = scanned % STRIDE == 0 && began.elapsed() >= self.max_time;
                if found.deliveries.len() >= self.limit || scanned >= max_scanned || late {
                    found.next = last;
                    break;
                }
            }
            (last, scanned) = (Some(message), scanned + 1);
            let meant = ids::state_of(state).is_some_and(|state| self.states.contains(&state))
                && self.destinations.binary_search(&destination).is_ok()
                && row.get(3) == Ok(true);
            found.deliveries.extend(meant.then_some((message, destination)));
        }
        Ok((found, scanned))
    }

    /// The destinations and states whose index is scanned; a single pair of `None` for a scan of all deliveries.
    fn scans(&self) -> Vec<(Option<i64>, Option<i64>)> {
        if self.states.contains(&State::Delivered) {
            return vec![(None, None)];
        }
        let of = |destination: i64| self.states.iter().map(move |state| (Some(destination), Some(ids::state(*state))));
        self.destinations.iter().copied().flat_map(of).collect()
    }

    /// Exclusive bounds of the ids of selected messages. Ids are roughly in the order of time.
    fn bounds(&self) -> (i64, i64) {
        let (from, until) = self.filter.id_range();
        let (low, high) = (from.map_or(0, ids::first_of).saturating_sub(1), until.map_or(i64::MAX, ids::first_of));
        match (self.direction, self.after) {
            (_, None) => (low, high),
            (Direction::NewestFirst, Some(after)) => (low, high.min(after)),
            (Direction::OldestFirst, Some(after)) => (low.max(after), high),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;
    use crate::base::limits;

    /// Numbers that look random and are the same every time.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: i64) -> i64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            i64::try_from(self.0 >> 33).expect("small") % limit
        }

        fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
            (self.below(2) == 0).then(|| value(self))
        }
    }

    const BEGIN: i64 = 1_700_000_000_000;

    #[derive(Debug, Clone)]
    struct Kept {
        message: i64,
        destination: i64,
        state: State,
        received: Moment,
        kind: String,
        id: String,
    }

    /// Messages over an hour, stored a little after their reception, each with one to three deliveries to four
    /// destinations.
    fn fill(file: &mut Connection, dice: &mut Dice, count: i64) -> Vec<Kept> {
        schema::create(file).expect("a layout");
        let mut kept = Vec::new();
        let transaction = file.transaction().expect("a transaction");
        for at in 0..count {
            let millis = BEGIN + at * 3_600_000 / count;
            let message = ids::first_of(Moment::from_millis(millis)) + dice.below(100);
            let received = Moment::from_millis(millis - dice.below(20_000));
            let (kind, id) = (format!("type-{}", dice.below(3)), format!("id-{}", dice.below(20)));
            transaction
                .execute(
                    "INSERT INTO messages (id, source, received, size, checksum, event_id, type, method, target, verified, headers,
                         body) VALUES (?1, '', ?2, 0, 0, ?3, ?4, '', '', 1, '', x'')",
                    params![message, received.millis(), id, kind],
                )
                .expect("a message");
            let first = dice.below(4);
            for destination in first..=first + dice.below(3) {
                let destination = 1 + destination % 4;
                let state = State::ALL[usize::try_from(dice.below(5)).expect("small")];
                transaction
                    .execute(
                        "INSERT INTO deliveries (message, destination, state, attempts, before_replay, settled, due)
                         VALUES (?1, ?2, ?3, 0, 0, ?4, ?5)",
                        params![message, destination, ids::state(state), millis, BEGIN + dice.below(1_000_000)],
                    )
                    .expect("a delivery");
                kept.push(Kept { message, destination, state, received, kind: kind.clone(), id: id.clone() });
            }
        }
        transaction.commit().expect("written");
        kept
    }

    fn means(search: &Search<'_>, kept: &Kept) -> bool {
        let filter = search.filter;
        search.states.contains(&kept.state)
            && search.destinations.contains(&kept.destination)
            && filter.kind.as_ref().is_none_or(|kind| *kind == kept.kind)
            && filter.id.as_ref().is_none_or(|id| *id == kept.id)
            && filter.from.is_none_or(|from| kept.received >= from)
            && filter.until.is_none_or(|until| kept.received < until)
    }

    #[test]
    fn whatever_is_looked_for_is_found_once_and_in_order_and_no_message_is_torn() {
        let (mut file, mut dice) = (Connection::open_in_memory().expect("a file"), Dice(7));
        let kept = fill(&mut file, &mut dice, 300);
        for _ in 0..600 {
            let time = |dice: &mut Dice| Moment::from_millis(BEGIN + dice.below(3_600_000));
            let filter = Filter {
                kind: dice.maybe(|dice| format!("type-{}", dice.below(4))),
                id: dice.maybe(|dice| format!("id-{}", dice.below(21))),
                from: dice.maybe(time),
                until: dice.maybe(time),
                ..Filter::default()
            };
            let states = match dice.below(8) {
                state @ 0..5 => vec![State::ALL[usize::try_from(state).expect("small")]],
                5 => State::ALL.to_vec(),
                6 => vec![State::Blocked, State::Retrying],
                _ => vec![State::Dead, State::Delivered],
            };
            let direction = if dice.below(2) == 0 { Direction::NewestFirst } else { Direction::OldestFirst };
            let mut search = Search {
                filter: &filter,
                destinations: (1..=4).filter(|_| dice.below(3) > 0).collect(),
                states: &states,
                direction,
                after: None,
                limit: usize::try_from(1 + dice.below(20)).expect("small"),
                max_scanned: 1 + dice.below(60),
                max_time: if dice.below(5) == 0 { Duration::ZERO } else { Duration::from_secs(60) },
            };
            let meant = kept.iter().filter(|kept| means(&search, kept));
            let mut expected: Vec<_> = meant.map(|kept| (kept.message, kept.destination)).collect();
            expected.sort_unstable_by_key(|(message, destination)| {
                (if direction == Direction::NewestFirst { -message } else { *message }, *destination)
            });
            let mut found = Vec::new();
            loop {
                let part = search.run(&file).expect("a search");
                // A message has at most three deliveries.
                assert!(part.deliveries.len() <= search.limit + 2);
                found.extend(part.deliveries);
                match part.next {
                    Some(next) => search.after = Some(next),
                    None => break,
                }
                let following = expected.get(found.len());
                assert!(following.is_none_or(|next| found.last().is_none_or(|last| last.0 != next.0)));
            }
            assert_eq!(found, expected, "{search:?}");
        }
    }

    #[test]
    fn as_many_are_looked_at_and_found_as_may_be() {
        let file = Connection::open_in_memory().expect("a file");
        schema::create(&file).expect("a layout");
        for message in 1..=10 {
            let sql = "INSERT INTO deliveries (message, destination, state, attempts, before_replay, settled)
                       VALUES (?1, ?2, 6, 0, 0, 0)";
            for destination in 1..=2 {
                file.execute(sql, [message, destination]).expect("a row");
            }
        }
        let filter = Filter::default();
        for (limit, max_scanned, found, next) in
            [(20, 20, 20, None), (19, 19, 20, None), (18, 20, 18, Some(2)), (20, 18, 18, Some(2)), (1, 1, 2, Some(10))]
        {
            for states in [&State::ALL[..], &[State::Dead]] {
                let (destinations, direction, max_time) = (vec![1, 2], Direction::NewestFirst, Duration::from_secs(60));
                let search = Search {
                    filter: &filter,
                    destinations,
                    states,
                    direction,
                    after: None,
                    limit,
                    max_scanned,
                    max_time,
                };
                let part = search.run(&file).expect("a search");
                assert_eq!((part.deliveries.len(), part.next), (found, next), "{search:?}");
            }
        }
    }

    #[test]
    fn every_walk_has_the_plan_that_it_was_written_for() {
        let file = Connection::open_in_memory().expect("a file");
        schema::create(&file).expect("a layout");
        let plan = |sql: &str| {
            let mut statement = file.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
            let lines = statement.raw_query().mapped(|row| row.get::<_, String>(3));
            lines.map(|line| line.expect("a line")).collect::<Vec<_>>().join("; ")
        };
        let message = "CORRELATED SCALAR SUBQUERY 1; SEARCH messages USING INTEGER PRIMARY KEY (rowid=?)";
        for direction in [Direction::NewestFirst, Direction::OldestFirst] {
            assert_eq!(plan(&sql(ALL, direction)), "SEARCH deliveries USING PRIMARY KEY (message>? AND message<?)");
            assert_eq!(
                plan(&sql(BY_MESSAGE, direction)),
                "SEARCH messages USING INTEGER PRIMARY KEY (rowid>? AND rowid<?); \
                 SEARCH deliveries USING PRIMARY KEY (message=?) LEFT-JOIN"
            );
            assert_eq!(
                plan(&sql(BY_STATE, direction)),
                format!(
                    "SEARCH deliveries USING COVERING INDEX by_state (destination=? AND state=? AND message>? AND message<?); \
                     {message}"
                )
            );
        }
    }

    /// A million deliveries, over a day and to three destinations. Most are delivered; others are spread, but for an
    /// outage in the last tenth of the day. Bodies are small.
    fn million(file: &mut Connection) {
        schema::create(file).expect("a layout");
        file.execute_batch(&format!(
            "CREATE TEMP TABLE n AS WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 999999) SELECT n FROM n;
             INSERT INTO messages (id, source, received, size, checksum, event_id, type, method, target, verified, headers, body)
             SELECT ({BEGIN} + n * 864 / 10) * 4096 + n % 8, 'shop', {BEGIN} + n * 864 / 10, 900, 12345678,
                 printf('evt_%016d', n), 'type.' || (n % 7), 'POST', '/hooks', 1, '[[\"content-type\",\"application/json\"]]',
                 randomblob(500)
             FROM n;
             INSERT INTO deliveries (message, destination, state, attempts, before_replay, settled, due, failures)
             SELECT ({BEGIN} + n * 864 / 10) * 4096 + n % 8, 1 + n % 3,
                 CASE WHEN n > 900000 THEN 4 WHEN n % 1000 < 3 THEN 6 WHEN n % 5000 = 7 THEN 3 ELSE 5 END,
                 1, 0, {BEGIN}, {BEGIN} + n,
                 CASE WHEN n > 900000 OR n % 1000 < 3 THEN '[{{\"at\":1,\"status\":500,\"reason\":\"{}\"}}]' END
             FROM n;",
            "sorry ".repeat(20)
        ))
        .expect("deliveries");
    }

    /// How fast a list is; only an optimised build says so.
    #[test]
    #[ignore = "takes a minute; tests/bench/run --ledger runs it"]
    fn a_page_of_a_million_deliveries_takes_milliseconds() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = Connection::open(folder.path().join("store.db")).expect("a file");
        million(&mut file);
        let hour = |hour: i64| Some(Moment::from_millis(BEGIN + hour * 3_600_000));
        let none = Filter::default();
        let kind = Filter { kind: Some("type.3".to_owned()), ..none.clone() };
        let time = Filter { from: hour(3), until: hour(5), ..none.clone() };
        let id = |id: &str| Filter { id: Some(id.to_owned()), ..none.clone() };
        let (all, dead, every) = (&State::ALL[..], &[State::Dead][..], &[1, 2, 3][..]);
        measure(&file, "no filter", &none, every, all);
        measure(&file, "destination", &none, &[2], all);
        measure(&file, "dead", &none, every, dead);
        measure(&file, "dead of one", &none, &[1], dead);
        measure(&file, "queued", &none, every, &[State::Queued]);
        measure(&file, "retrying", &none, every, &[State::Retrying]);
        measure(&file, "delivered", &none, &[3], &[State::Delivered]);
        measure(&file, "type", &kind, every, all);
        measure(&file, "dead, type", &kind, every, dead);
        measure(&file, "time", &time, every, all);
        measure(&file, "dead, time", &time, every, dead);
        measure(&file, "id, recent", &id("evt_0000000000999000"), every, all);
        measure(&file, "id, nowhere", &id("nowhere"), every, all);
        measure(&file, "dead, id, nowhere", &id("nowhere"), every, dead);
        measure(&file, "no filter", &none, every, all);
    }

    #[expect(clippy::print_stdout, reason = "the figures are what it is for")]
    fn measure(file: &Connection, what: &str, filter: &Filter, destinations: &[i64], states: &[State]) {
        let (direction, limits) = (Direction::NewestFirst, limits::Sqlite::default());
        let (max_scanned, max_time, destinations) = (limits.max_scanned, limits.max_read, destinations.to_vec());
        let mut search =
            Search { filter, destinations, states, direction, after: None, limit: 50, max_scanned, max_time };
        let names = super::super::admin::Names::read(file).expect("names");
        let page = |search: &Search<'_>| {
            let begun = Instant::now();
            let file = file.unchecked_transaction().expect("a transaction");
            let found = search.run(&file).expect("a page");
            let summaries = super::super::admin::summaries(&file, &found.deliveries, &names).expect("summaries");
            assert_eq!(summaries.len(), found.deliveries.len());
            (begun.elapsed(), found)
        };
        let mut times: Vec<_> = (0..20).map(|_| page(&search).0).collect();
        times.sort_unstable();
        let (mut found, mut parts) = (0, 0);
        while found < 50 {
            let (_, part) = page(&search);
            found += part.deliveries.len();
            parts += 1;
            search.after = part.next;
            if part.next.is_none() {
                break;
            }
        }
        println!(
            "{what:<18} {found:>3} found in {parts:>2} parts; one: median {:>9.1?}, worst {:>9.1?}",
            times[10], times[19]
        );
    }
}
