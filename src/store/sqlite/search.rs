//! Finds the deliveries in the file that a filter means, in the order of their messages, by looks of bounded length.

use std::collections::BinaryHeap;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Rows;
use rusqlite::params;

use super::ids;
use crate::store::Filter;
use crate::store::State;
use crate::time::Moment;

/// How far apart, in milliseconds, a message's reception and its id may be: a slow body, or a clock that was put back.
const SLACK: i64 = 5 * 60 * 1000;
/// After so many deliveries, the time is checked.
const STRIDE: i64 = 64;
/// After so many messages that are walked through.
const STEP: i64 = 2_048;

/// What is looked for.
#[derive(Debug, Clone)]
pub(super) struct Search<'f> {
    pub(super) filter: &'f Filter,
    /// The rows of the destinations that are meant, sorted.
    pub(super) destinations: Vec<i64>,
    /// The states that are meant.
    pub(super) states: &'f [State],
    pub(super) direction: Direction,
    /// The message behind which it begins.
    pub(super) after: Option<i64>,
    /// About so many deliveries are found.
    pub(super) limit: usize,
    /// About so many are looked at.
    pub(super) max_scanned: i64,
    /// About so long.
    pub(super) max_time: Duration,
}

/// Which messages are found first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    NewestFirst,
    OldestFirst,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Messages and destinations: all that are meant of each message.
    pub(super) deliveries: Vec<(i64, i64)>,
    /// The message behind which it goes on; nothing when there are no more.
    pub(super) next: Option<i64>,
}

/// A delivery of one walk that was not looked at yet. The walk whose message comes first is the greatest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    rank: i64,
    message: i64,
    destination: i64,
    state: i64,
    walk: usize,
}

/// Through the deliveries to one destination in one state, which is not "delivered".
pub(super) const BY_STATE: &str = "SELECT message, destination, state FROM deliveries INDEXED BY by_state
     WHERE destination = ?3 AND state = ?4 AND state <> 5 AND message > ?1 AND message < ?2 ORDER BY message";
/// Through all deliveries.
pub(super) const ALL: &str = "SELECT message, destination, state FROM deliveries NOT INDEXED
     WHERE message > ?1 AND message < ?2 ORDER BY message";
/// Through all messages.
pub(super) const IDS: &str = "SELECT id FROM messages WHERE id > ?1 AND id < ?2 ORDER BY id";
/// Through the messages that are what a filter says of messages.
pub(super) const MEANT: &str = "SELECT id FROM messages WHERE id > ?1 AND id < ?2 AND (?3 IS NULL OR event_id = ?3)
     AND (?4 IS NULL OR type = ?4) AND received >= ?5 AND received < ?6 ORDER BY id";
/// The deliveries of one message.
pub(super) const DELIVERIES: &str = "SELECT destination, state FROM deliveries WHERE message = ?1";
/// What a filter asks of a message.
pub(super) const MESSAGE: &str = "SELECT received, event_id, type FROM messages WHERE id = ?1";

impl Direction {
    /// A statement that walks this way.
    pub(super) fn of(self, walk: &str) -> String {
        match self {
            Self::NewestFirst => format!("{walk} DESC"),
            Self::OldestFirst => walk.to_owned(),
        }
    }

    /// The greater, the earlier a message is found.
    fn rank(self, message: i64) -> i64 {
        match self {
            Self::NewestFirst => message,
            Self::OldestFirst => message.saturating_neg(),
        }
    }
}

impl Search<'_> {
    /// Finds deliveries. To read them, the caller has to be in the same transaction.
    pub(super) fn run(&self, file: &Connection) -> rusqlite::Result<Found> {
        let (began, walks) = (Instant::now(), self.walks());
        if walks.is_empty() && self.asks_of_messages() {
            return self.by_message(file, began);
        }
        let (low, high) = self.bounds();
        let walk = self.direction.of(if walks.is_empty() { ALL } else { BY_STATE });
        let mut statements =
            (0..walks.len().max(1)).map(|_| file.prepare_cached(&walk)).collect::<rusqlite::Result<Vec<_>>>()?;
        let mut rows = Vec::with_capacity(statements.len());
        for (at, statement) in statements.iter_mut().enumerate() {
            rows.push(match walks.get(at) {
                Some((destination, state)) => statement.query(params![low, high, destination, state])?,
                None => statement.query([low, high])?,
            });
        }
        let mut heads = BinaryHeap::with_capacity(rows.len());
        for (at, rows) in rows.iter_mut().enumerate() {
            heads.extend(self.head(at, rows)?);
        }
        let (mut found, mut scanned) = (Found::default(), 0);
        // The message that is looked at, and whether it is meant, once that is known.
        let mut current: Option<(i64, Option<bool>)> = None;
        while let Some(Head { message, destination, state, walk, .. }) = heads.pop() {
            if let Some((last, _)) = current.filter(|(last, _)| *last != message) {
                // Deliveries of one message are not separated.
                let late = scanned % STRIDE == 0 && began.elapsed() >= self.max_time;
                if found.deliveries.len() >= self.limit || scanned >= self.max_scanned || late {
                    found.next = Some(last);
                    break;
                }
                current = None;
            }
            scanned += 1;
            let (_, meant) = current.get_or_insert((message, None));
            if self.means(destination, state) {
                let meant = match *meant {
                    Some(meant) => meant,
                    None => *meant.insert(self.means_message(file, message)?),
                };
                found.deliveries.extend(meant.then_some((message, destination)));
            }
            if let Some(rows) = rows.get_mut(walk) {
                heads.extend(self.head(walk, rows)?);
            }
        }
        found.deliveries.sort_unstable_by_key(|(message, destination)| (-self.direction.rank(*message), *destination));
        Ok(found)
    }

    /// The same by a walk through the messages, where most of these are not meant.
    fn by_message(&self, file: &Connection, began: Instant) -> rusqlite::Result<Found> {
        let Filter { kind, id, from, until, .. } = self.filter;
        let received = |bound: &Option<Moment>, none: i64| bound.map_or(none, Moment::millis);
        let (from, until) = (received(from, i64::MIN), received(until, i64::MAX));
        let mut last = file.prepare_cached(&format!("{} LIMIT 1 OFFSET ?3", self.direction.of(IDS)))?;
        let mut meant = file.prepare_cached(&self.direction.of(MEANT))?;
        let mut deliveries = file.prepare_cached(DELIVERIES)?;
        let (step, (mut low, mut high)) = (self.max_scanned.clamp(1, STEP), self.bounds());
        let (mut found, mut scanned) = (Found::default(), 0);
        loop {
            let end: Option<i64> = last.query_row([low, high, step - 1], |row| row.get(0)).optional()?;
            let (first, behind) = match (self.direction, end) {
                (_, None) => (low, high),
                (Direction::NewestFirst, Some(end)) => (end.saturating_sub(1), high),
                (Direction::OldestFirst, Some(end)) => (low, end.saturating_add(1)),
            };
            let mut messages = meant.query(params![first, behind, id, kind, from, until])?;
            while let Some(message) = messages.next()? {
                let message: i64 = message.get(0)?;
                let mut rows = deliveries.query([message])?;
                while let Some(row) = rows.next()? {
                    let number = |column| row.get_ref(column).map(|value| value.as_i64().ok());
                    if let (Some(destination), Some(state)) = (number(0)?, number(1)?)
                        && self.means(destination, state)
                    {
                        found.deliveries.push((message, destination));
                    }
                }
                if found.deliveries.len() >= self.limit {
                    found.next = Some(message);
                    return Ok(found);
                }
            }
            let Some(end) = end else { return Ok(found) };
            scanned += step;
            if scanned >= self.max_scanned || began.elapsed() >= self.max_time {
                found.next = Some(end);
                return Ok(found);
            }
            match self.direction {
                Direction::NewestFirst => high = end,
                Direction::OldestFirst => low = end,
            }
        }
    }

    /// The shortest ways: destinations and states whose index is walked; none when all deliveries are.
    fn walks(&self) -> Vec<(i64, i64)> {
        if self.states.contains(&State::Delivered) || self.states.len() == State::ALL.len() {
            return Vec::new();
        }
        let of = |destination: &i64| {
            let destination = *destination;
            self.states.iter().map(move |state| (destination, ids::state(*state)))
        };
        self.destinations.iter().flat_map(of).collect()
    }

    /// The next delivery of a walk. What is no number was written by nobody, and is passed.
    fn head(&self, walk: usize, rows: &mut Rows<'_>) -> rusqlite::Result<Option<Head>> {
        while let Some(row) = rows.next()? {
            let number = |column| row.get_ref(column).map(|value| value.as_i64().ok());
            if let (Some(message), Some(destination), Some(state)) = (number(0)?, number(1)?, number(2)?) {
                let rank = self.direction.rank(message);
                return Ok(Some(Head { rank, message, destination, state, walk }));
            }
        }
        Ok(None)
    }

    fn means(&self, destination: i64, state: i64) -> bool {
        ids::state_of(state).is_some_and(|state| self.states.contains(&state))
            && self.destinations.binary_search(&destination).is_ok()
    }

    /// Whether the filter says something of messages.
    fn asks_of_messages(&self) -> bool {
        let Filter { kind, id, from, until, .. } = self.filter;
        kind.is_some() || id.is_some() || from.is_some() || until.is_some()
    }

    /// Whether a message is what the filter says of messages.
    fn means_message(&self, file: &Connection, message: i64) -> rusqlite::Result<bool> {
        if !self.asks_of_messages() {
            return Ok(true);
        }
        let Filter { kind, id, from, until, .. } = self.filter;
        let mut statement = file.prepare_cached(MESSAGE)?;
        let meant = statement.query_row([message], |row| {
            let is = |column: usize, wanted: &Option<String>| {
                let said = row.get_ref(column)?;
                Ok::<_, rusqlite::Error>(wanted.as_ref().is_none_or(|wanted| said.as_str() == Ok(wanted)))
            };
            let received = row.get_ref(0)?.as_i64().map(Moment::from_millis);
            let received = received.unwrap_or_else(|_damaged| ids::stored(message));
            let in_time = from.is_none_or(|from| received >= from) && until.is_none_or(|until| received < until);
            Ok(in_time && is(1, id)? && is(2, kind)?)
        });
        Ok(meant.optional()?.unwrap_or_default())
    }

    /// The messages between which all that is looked for stands, neither of them included. Ids are in the order of time, but for
    /// [`SLACK`].
    fn bounds(&self) -> (i64, i64) {
        let near = |bound: Moment, slack: i64| ids::first_of(Moment::from_millis(bound.millis().saturating_add(slack)));
        let low = self.filter.from.map_or(0, |from| near(from, -SLACK)).saturating_sub(1);
        let high = self.filter.until.map_or(i64::MAX, |until| near(until, SLACK));
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

    #[derive(Debug, Clone)]
    struct Kept {
        message: i64,
        destination: i64,
        state: State,
        received: Moment,
        kind: String,
        id: String,
    }

    /// Messages over an hour, stored a little after their reception, each with one to three deliveries to four destinations.
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
            expected.sort_unstable_by_key(|(message, destination)| (-direction.rank(*message), *destination));
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
        for direction in [Direction::NewestFirst, Direction::OldestFirst] {
            assert_eq!(plan(&direction.of(ALL)), "SEARCH deliveries USING PRIMARY KEY (message>? AND message<?)");
            assert_eq!(
                plan(&direction.of(BY_STATE)),
                "SEARCH deliveries USING COVERING INDEX by_state (destination=? AND state=? AND message>? AND message<?)"
            );
        }
        let ids = "SEARCH messages USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)";
        for direction in [Direction::NewestFirst, Direction::OldestFirst] {
            assert_eq!([IDS, MEANT].map(|walk| plan(&direction.of(walk))), [ids; 2]);
        }
        assert_eq!(plan(DELIVERIES), "SEARCH deliveries USING PRIMARY KEY (message=?)");
        assert_eq!(plan(MESSAGE), "SEARCH messages USING INTEGER PRIMARY KEY (rowid=?)");
    }

    /// A million deliveries, over a day and to three destinations. Most are delivered; others are spread, but for an outage in the
    /// last tenth of the day. Bodies are small.
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
