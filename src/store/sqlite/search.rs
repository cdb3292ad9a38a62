//! Finds events in the file that a filter means, without looking at all of them at once.

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;

use super::rows;
use crate::store::queued::Filter;
use crate::store::queued::State;
use crate::time::Moment;

/// How far apart, in milliseconds, an event's reception and its row may be: a slow body, or a clock that was put back.
const SLACK: i64 = 5 * 60 * 1000;

/// What is looked for.
#[derive(Debug, Clone)]
pub(super) struct Search<'f> {
    pub(super) filter: &'f Filter,
    /// The number of the filter's source.
    pub(super) source: Option<i64>,
    /// The numbers of all sources.
    pub(super) sources: Vec<i64>,
    /// The states that are meant.
    pub(super) states: &'f [State],
    pub(super) direction: Direction,
    /// The row behind which it begins.
    pub(super) behind: Option<i64>,
    /// Most events that are found.
    pub(super) limit: usize,
    /// About as many are looked at.
    pub(super) looks: i64,
    /// At most so many retrying events are put in the order of their rows; their index is in the order in which they are due.
    pub(super) sorted: i64,
}

/// Which events are found first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    NewestFirst,
    OldestFirst,
}

/// What was found, with the rows.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) events: Vec<(i64, T)>,
    /// The row behind which it goes on; nothing when there are no more.
    pub(super) next: Option<i64>,
}

/// A way through the events: all of them, or those of one source in one state.
#[derive(Debug, Clone, Copy)]
struct Walk {
    source: Option<i64>,
    index: &'static str,
    /// At most as many are looked at.
    looks: i64,
}

/// Through all events.
const ALL: &str = "WHERE";

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::NewestFirst => "DESC",
            Self::OldestFirst => "ASC",
        }
    }

    /// Where a row stands among the others, the first lowest.
    fn place(self, row: i64) -> i64 {
        match self {
            Self::NewestFirst => row.saturating_neg(),
            Self::OldestFirst => row,
        }
    }
}

impl Search<'_> {
    /// Finds events, of which `read` reads these columns of the table `events`.
    pub(super) fn run<T>(
        &self,
        connection: &Connection,
        columns: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Found<T>> {
        // All that is read is of the same moment.
        let transaction = connection.unchecked_transaction()?;
        let walks = self.walks(&transaction)?;
        let mut events = Vec::new();
        // Behind this row, not all have been looked at.
        let mut end: Option<i64> = None;
        for walk in walks {
            let found = self.walk(&transaction, walk, columns, &read)?;
            events.extend(found.events);
            end = end.into_iter().chain(found.next).min_by_key(|row| self.direction.place(*row));
        }
        events.sort_by_key(|(row, _)| self.direction.place(*row));
        if let Some(end) = end {
            events.retain(|(row, _)| self.direction.place(*row) <= self.direction.place(end));
        }
        if events.len() > self.limit {
            events.truncate(self.limit);
            end = events.last().map(|(row, _)| *row).or(self.behind);
        }
        Ok(Found { events, next: end })
    }

    /// The shortest ways to what is looked for.
    fn walks(&self, connection: &Connection) -> rusqlite::Result<Vec<Walk>> {
        let index = match self.states {
            [State::Queued] => "INDEXED BY queued WHERE source = ?1 AND state = 2 AND",
            [State::Dead] => "INDEXED BY dead WHERE source = ?1 AND state = 5 AND",
            [State::Retrying] if self.few_retry(connection)? => {
                "INDEXED BY retrying WHERE source = ?1 AND state = 3 AND"
            }
            _ => return Ok(vec![Walk { source: self.source, index: ALL, looks: self.looks }]),
        };
        let looks = (self.looks / rows::limit_of(self.scope().len()).max(1)).max(1);
        Ok(self.scope().iter().map(|source| Walk { source: Some(*source), index, looks }).collect())
    }

    /// The sources that are meant.
    fn scope(&self) -> &[i64] {
        if self.source.is_some() { self.source.as_slice() } else { &self.sources }
    }

    fn few_retry(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let mut left = self.sorted;
        let mut statement = connection.prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM events INDEXED BY retrying WHERE source = ?1 AND state = 3 LIMIT ?2)",
        )?;
        for source in self.scope() {
            let count: i64 = statement.query_row(params![source, left + 1], |row| row.get(0))?;
            left -= count;
            if left < 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is found on one way.
    fn walk<T>(
        &self,
        connection: &Connection,
        walk: Walk,
        columns: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Found<T>> {
        let (Walk { source, index, looks }, direction) = (walk, self.direction.name());
        let (low, high) = self.rows();
        let filter = self.filter;
        let states = self.states.iter().fold(0, |states, state| states | (1_i64 << rows::state(*state)));
        let received = |bound: Option<Moment>, none: i64| bound.map_or(none, Moment::millis);
        let wanted = self.limit.saturating_add(1);
        // What is looked at is bounded inside; outside, only what is found is read whole.
        let mut statement = connection.prepare_cached(&format!(
            "SELECT row, {columns} FROM (
                 SELECT event AS row, source AS of, state AS stand, received AS came, id AS name, type AS kind
                 FROM events {index} event > ?2 AND event < ?3 ORDER BY event {direction} LIMIT ?4
             ) CROSS JOIN events ON events.event = row
             WHERE (?5 >> stand) & 1 AND (?1 IS NULL OR of = ?1) AND (?6 IS NULL OR kind = ?6)
                 AND (?7 IS NULL OR name = ?7) AND came >= ?8 AND came < ?9
             LIMIT ?10"
        ))?;
        let (from, until) = (received(filter.from, i64::MIN), received(filter.until, i64::MAX));
        let events = statement
            .query_map(
                params![source, low, high, looks, states, filter.kind, filter.id, from, until, rows::limit_of(wanted)],
                |row| Ok((row.get(0)?, read(row)?)),
            )?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        if events.len() >= wanted {
            let next = events.last().map(|(row, _)| *row);
            return Ok(Found { events, next });
        }
        let next = connection
            .prepare_cached(&format!(
                "SELECT event FROM events {index} event > ?2 AND event < ?3 ORDER BY event {direction} LIMIT 1 OFFSET ?4 - 1"
            ))?
            .query_row(params![source, low, high, looks], |row| row.get(0))
            .optional()?;
        Ok(Found { events, next })
    }

    /// The rows between which all that is looked for stands, neither of them included. Rows are in the order of time, but
    /// for [`SLACK`].
    fn rows(&self) -> (i64, i64) {
        let near =
            |bound: Moment, slack: i64| rows::first_of(Moment::from_millis(bound.millis().saturating_add(slack)));
        let low = self.filter.from.map_or(0, |from| near(from, -SLACK)).saturating_sub(1);
        let high = self.filter.until.map_or(i64::MAX, |until| near(until, SLACK));
        match (self.direction, self.behind) {
            (_, None) => (low, high),
            (Direction::NewestFirst, Some(behind)) => (low, high.min(behind)),
            (Direction::OldestFirst, Some(behind)) => (low.max(behind), high),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::SUMMARY;
    use super::super::ledger::summary;
    use super::super::schema;
    use super::*;
    use crate::limits;

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

    fn usual() -> limits::Sqlite {
        limits::Sqlite::default()
    }

    #[derive(Debug, Clone)]
    struct Kept {
        row: i64,
        source: i64,
        state: State,
        received: Moment,
        kind: String,
        id: String,
    }

    /// Events of three sources over an hour, rows a little behind their reception.
    fn fill(file: &mut Connection, dice: &mut Dice, count: i64) -> Vec<Kept> {
        schema::create(file).expect("a layout");
        let mut kept = Vec::new();
        let transaction = file.transaction().expect("a transaction");
        for at in 0..count {
            let millis = BEGIN + at * 3_600_000 / count;
            let event = Kept {
                row: rows::first_of(Moment::from_millis(millis)) + dice.below(100),
                source: 1 + dice.below(3),
                state: State::ALL[usize::try_from(dice.below(4)).expect("small")],
                received: Moment::from_millis(millis - dice.below(20_000)),
                kind: format!("type-{}", dice.below(3)),
                id: format!("id-{}", dice.below(20)),
            };
            transaction
                .execute(
                    "INSERT INTO events (event, source, state, attempts, spent, received, settled, due, checksum, id, type)
                     VALUES (?1, ?2, ?3, 0, 0, ?4, ?4, ?5, 0, ?6, ?7)",
                    params![
                        event.row,
                        event.source,
                        rows::state(event.state),
                        event.received.millis(),
                        BEGIN + dice.below(1_000_000),
                        event.id,
                        event.kind,
                    ],
                )
                .expect("a row");
            kept.push(event);
        }
        transaction.commit().expect("written");
        kept
    }

    fn means(filter: &Filter, source: Option<i64>, states: &[State], event: &Kept) -> bool {
        states.contains(&event.state)
            && source.is_none_or(|source| source == event.source)
            && filter.kind.as_ref().is_none_or(|kind| *kind == event.kind)
            && filter.id.as_ref().is_none_or(|id| *id == event.id)
            && filter.from.is_none_or(|from| event.received >= from)
            && filter.until.is_none_or(|until| event.received < until)
    }

    #[test]
    fn whatever_is_looked_for_is_found_once_and_in_order() {
        let (mut file, mut dice) = (Connection::open_in_memory().expect("a file"), Dice(7));
        let kept = fill(&mut file, &mut dice, 400);
        for _ in 0..600 {
            let time = |dice: &mut Dice| Moment::from_millis(BEGIN + dice.below(3_600_000));
            let filter = Filter {
                source: None,
                state: None,
                kind: dice.maybe(|dice| format!("type-{}", dice.below(4))),
                id: dice.maybe(|dice| format!("id-{}", dice.below(21))),
                from: dice.maybe(time),
                until: dice.maybe(time),
            };
            let states = match dice.below(6) {
                state @ 0..4 => vec![State::ALL[usize::try_from(state).expect("small")]],
                4 => State::ALL.to_vec(),
                _ => vec![State::Dead, State::Delivered],
            };
            let direction = if dice.below(2) == 0 { Direction::NewestFirst } else { Direction::OldestFirst };
            let mut search = Search {
                filter: &filter,
                source: dice.maybe(|dice| 1 + dice.below(4)),
                sources: vec![1, 2, 3],
                states: &states,
                direction,
                behind: None,
                limit: usize::try_from(1 + dice.below(20)).expect("small"),
                looks: 1 + dice.below(60),
                sorted: dice.below(60),
            };
            let mut expected: Vec<_> = kept
                .iter()
                .filter(|event| means(&filter, search.source, &states, event))
                .map(|event| event.row)
                .collect();
            expected.sort_by_key(|row| direction.place(*row));
            let mut found = Vec::new();
            loop {
                let part = search.run(&file, "events.id", |row| row.get::<_, String>(1)).expect("a search");
                assert!(part.events.len() <= search.limit);
                found.extend(part.events.iter().map(|(row, _)| *row));
                match part.next {
                    Some(next) => search.behind = Some(next),
                    None => break,
                }
            }
            assert_eq!(found, expected, "{search:?}");
        }
    }

    #[test]
    fn a_full_page_at_the_end_is_the_last() {
        let (mut file, mut dice) = (Connection::open_in_memory().expect("a file"), Dice(7));
        let kept = fill(&mut file, &mut dice, 20);
        let filter = Filter::default();
        let search = Search {
            filter: &filter,
            source: None,
            sources: vec![1, 2, 3],
            states: &State::ALL,
            direction: Direction::NewestFirst,
            behind: None,
            limit: kept.len(),
            looks: usual().max_scanned,
            sorted: usual().max_sorted,
        };
        let found = search.run(&file, "0", |_| Ok(())).expect("a search");
        assert_eq!((found.events.len(), found.next), (20, None));
    }

    /// A million events, over a day and of three sources. Most are delivered; others are spread, but for an outage in the
    /// last tenth of the day.
    fn million(file: &mut Connection) {
        schema::create(file).expect("a layout");
        file.execute_batch(&format!(
            "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 999999)
             INSERT INTO events
                 (event, source, state, attempts, spent, received, settled, due, checksum, id, type, reason, answer)
             SELECT ({BEGIN} + n * 864 / 10) * 4096 + n % 8, 1 + n % 3,
                 CASE WHEN n > 900000 THEN 3 WHEN n % 1000 < 3 THEN 5 WHEN n % 5000 = 7 THEN 2 ELSE 4 END,
                 1, 0, {BEGIN} + n * 864 / 10, {BEGIN}, {BEGIN} + n, 12345678, printf('evt_%016d', n),
                 'type.' || (n % 7), 'the upstream answered 500', '{{\"status\":500,\"body\":\"{}\"}}'
             FROM n;",
            "sorry ".repeat(20)
        ))
        .expect("events");
    }

    /// How fast a list is; only an optimised build says so.
    #[test]
    #[ignore = "takes a minute; tests/bench/run --ledger runs it"]
    fn a_page_of_a_million_events_takes_milliseconds() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = Connection::open(folder.path().join("store.db")).expect("a file");
        million(&mut file);
        let hour = |hour: i64| Some(Moment::from_millis(BEGIN + hour * 3_600_000));
        let none = Filter::default();
        let kind = Filter { kind: Some("type.3".to_owned()), ..none.clone() };
        let time = Filter { from: hour(3), until: hour(5), ..none.clone() };
        let id = |id: &str| Filter { id: Some(id.to_owned()), ..none.clone() };
        let (all, dead) = (&State::ALL[..], &[State::Dead][..]);
        measure(&file, "no filter", &none, None, all);
        measure(&file, "source", &none, Some(2), all);
        measure(&file, "dead", &none, None, dead);
        measure(&file, "dead of a source", &none, Some(1), dead);
        measure(&file, "queued", &none, None, &[State::Queued]);
        measure(&file, "retrying", &none, None, &[State::Retrying]);
        measure(&file, "delivered", &none, Some(3), &[State::Delivered]);
        measure(&file, "type", &kind, None, all);
        measure(&file, "dead, type", &kind, None, dead);
        measure(&file, "time", &time, None, all);
        measure(&file, "dead, time", &time, None, dead);
        measure(&file, "id, recent", &id("evt_0000000000999000"), None, all);
        measure(&file, "id, nowhere", &id("nowhere"), None, all);
        measure(&file, "dead, id, nowhere", &id("nowhere"), None, dead);
    }

    #[expect(clippy::print_stdout, reason = "the figures are what it is for")]
    fn measure(file: &Connection, what: &str, filter: &Filter, source: Option<i64>, states: &[State]) {
        let (sources, direction) = (vec![1, 2, 3], Direction::NewestFirst);
        let (looks, sorted) = (usual().max_scanned, usual().max_sorted);
        let mut search = Search { filter, source, sources, states, direction, behind: None, limit: 50, looks, sorted };
        let page = |search: &Search<'_>| {
            let begun = std::time::Instant::now();
            let found = search.run(file, SUMMARY, |row| summary(row, &[].into())).expect("a page");
            (begun.elapsed(), found)
        };
        let mut times: Vec<_> = (0..20).map(|_| page(&search).0).collect();
        times.sort_unstable();
        let (mut found, mut parts) = (0, 0);
        while found < 50 {
            let (_, part) = page(&search);
            found += part.events.len();
            parts += 1;
            search.behind = part.next;
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
