//! Lists, shows, replays and purges deliveries in the SQLite file. (`impl Sqlite` here and in other files of this
//! folder, because `mod.rs` would be too long.)

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;

use super::Sqlite;
use super::changes::Changes;
use super::fault::Fault;
use super::ids;
use super::rows;
use super::search::Found;
use super::search::Search;
use super::statements;
use crate::base::limits;
use crate::base::time::Moment;
use crate::store::AdminError;
use crate::store::DestinationId;
use crate::store::Details;
use crate::store::Done;
use crate::store::Filter;
use crate::store::MessageId;
use crate::store::Page;
use crate::store::Part;
use crate::store::State;
use crate::store::Summary;
use crate::store::search::Direction;

impl Sqlite {
    /// See [`Store::list`](crate::store::Store::list).
    pub(in crate::store) async fn list(self: &Arc<Self>, part: Part) -> Result<Page, AdminError> {
        let limits = self.shared.limits.clone();
        self.view(move |file| list(file, &part, &limits)).await
    }

    /// See [`Store::show`](crate::store::Store::show).
    pub(in crate::store) async fn show(
        self: &Arc<Self>,
        source: &str,
        id: MessageId,
    ) -> Result<Option<Details>, AdminError> {
        let (Some(id), source) = (ids::written(id), source.to_owned()) else { return Ok(None) };
        self.view(move |file| Ok(show(file, &source, id)?)).await
    }

    /// Replays these deliveries, if they are still dead or delivered; returns their number.
    pub(in crate::store) async fn replay(&self, deliveries: &[Summary]) -> Result<u64, AdminError> {
        let row = |delivery: &Summary| {
            let known = self.shared.queues.named(&delivery.destination_id())?;
            Some((ids::written(delivery.id)?, known.destination()))
        };
        let found: Vec<_> = deliveries.iter().filter_map(row).collect();
        if let (true, Some(delivery)) = (found.is_empty(), deliveries.first()) {
            return Err(AdminError::NoQueue(delivery.source.clone()));
        }
        let states = [State::Dead, State::Delivered];
        Ok(self.command(move |file, changes| reopen(file, &found, &states, changes)).await?)
    }

    /// See [`Store::replay_all`](crate::store::Store::replay_all).
    pub(in crate::store) async fn replay_all(
        self: &Arc<Self>,
        part: Part,
        served: impl Fn(&DestinationId) -> bool,
    ) -> Result<Done, AdminError> {
        let (limits, registered, states) = (self.shared.limits.clone(), self.registered(served), part.states.clone());
        let found = self.view(move |file| finished(file, &part, &limits, Some(&registered))).await?;
        let next = found.next.map(ids::public);
        let reopen = move |file: &Connection, changes: &mut _| reopen(file, &found.deliveries, &states, changes);
        Ok(Done { deliveries: self.command(reopen).await?, next })
    }

    /// See [`Store::purge`](crate::store::Store::purge).
    pub(in crate::store) async fn purge(self: &Arc<Self>, part: Part) -> Result<Done, AdminError> {
        let (limits, states) = (self.shared.limits.clone(), part.states.clone());
        let found = self.view(move |file| finished(file, &part, &limits, None)).await?;
        let next = found.next.map(ids::public);
        let purge = move |file: &Connection, changes: &mut _| purge(file, &found.deliveries, &states, changes);
        Ok(Done { deliveries: self.command(purge).await?, next })
    }
}

/// All destinations in the file, by their row ids.
#[derive(Debug, Default)]
pub(super) struct Names(pub(super) BTreeMap<i64, DestinationId>);

impl Names {
    pub(super) fn read(file: &Connection) -> rusqlite::Result<Self> {
        let mut statement = file.prepare_cached("SELECT id, source, name FROM destinations")?;
        let id = |row: &Row<'_>| Ok::<_, rusqlite::Error>(DestinationId { source: row.get(1)?, name: row.get(2)? });
        // Skips damaged rows.
        let names = statement.query_map([], |row| Ok(row.get(0).and_then(|at| Ok((at, id(row)?))).ok()))?;
        Ok(Self(names.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()?))
    }

    /// The row ids of the selected destinations, sorted.
    fn selected(&self, filter: &Filter) -> Result<Vec<i64>, AdminError> {
        filter.check(&self.0.values().collect::<Vec<_>>())?;
        Ok(self.0.iter().filter(|(_, id)| filter.selects(id)).map(|(row, _)| *row).collect())
    }
}

/// A page of the list, newest first.
fn list(file: &Connection, part: &Part, limits: &limits::Sqlite) -> Result<Page, AdminError> {
    let names = Names::read(file)?;
    let destinations = names.selected(&part.filter)?;
    let Found { deliveries, next } = search(part, Direction::NewestFirst, destinations, limits)?.run(file)?;
    Ok(Page { deliveries: summaries(file, &deliveries, &names)?, next: next.map(ids::public) })
}

/// Finished deliveries, the oldest first; only those to `registered` destinations, if given. A filter that names a
/// source without a registered destination is an error.
fn finished(
    file: &Connection,
    part: &Part,
    limits: &limits::Sqlite,
    registered: Option<&[i64]>,
) -> Result<Found, AdminError> {
    let filter = &part.filter;
    let mut destinations = Names::read(file)?.selected(filter)?;
    if let Some(registered) = registered {
        destinations.retain(|destination| registered.contains(destination));
        if let Some(source) = filter.source.as_ref().filter(|_| destinations.is_empty()) {
            return Err(AdminError::NoQueue(source.clone()));
        }
    }
    Ok(search(part, Direction::OldestFirst, destinations, limits)?.run(file)?)
}

fn search<'p>(
    part: &'p Part,
    direction: Direction,
    destinations: Vec<i64>,
    limits: &limits::Sqlite,
) -> Result<Search<'p>, AdminError> {
    let written = |after| ids::written(after).ok_or(AdminError::BadCursor(after));
    let after = part.after.map(written).transpose()?;
    let Part { filter, states, limit, .. } = part;
    let (max_scanned, max_time) = (limits.max_scanned, limits.max_read);
    Ok(Search { filter, destinations, states, direction, after, limit: *limit, max_scanned, max_time })
}

/// The columns of a delivery's summary.
pub(super) const SUMMARY: &str =
    "SELECT message, destination, state, attempts, settled, due, status, failures, event_id, type, received
     FROM deliveries NOT INDEXED LEFT JOIN messages ON id = message";

/// The same without the message, for a message on a damaged page.
const SUMMARY_WITHOUT_MESSAGE: &str =
    "SELECT message, destination, state, attempts, settled, due, status, failures, NULL, NULL, NULL
     FROM deliveries NOT INDEXED";

/// The summaries of deliveries that a search has found.
pub(super) fn summaries(file: &Connection, deliveries: &[(i64, i64)], names: &Names) -> rusqlite::Result<Vec<Summary>> {
    let read = |at: &(i64, i64)| summary_of(file, *at, names);
    deliveries.iter().map(read).filter_map(Result::transpose).collect()
}

fn summary_of(
    file: &Connection,
    (message, destination): (i64, i64),
    names: &Names,
) -> rusqlite::Result<Option<Summary>> {
    let read = |columns: &str| {
        let mut statement = file.prepare_cached(&format!("{columns} WHERE message = ?1 AND destination = ?2"))?;
        statement.query_row([message, destination], |row| Ok(summary(row, names))).optional().map(Option::flatten)
    };
    match read(SUMMARY) {
        Err(error) if Fault::of(&error) == Fault::Damage => read(SUMMARY_WITHOUT_MESSAGE),
        read => read,
    }
}

/// The summary in a row; `None` when it is damaged.
fn summary(row: &Row<'_>, names: &Names) -> Option<Summary> {
    let state = row.get(2).ok().and_then(ids::state_of);
    let (Ok(message), Ok(destination), Some(state)) = (row.get(0), row.get(1), state) else { return None };
    let DestinationId { source, name: destination } = names.0.get(&destination).cloned().unwrap_or_default();
    let attempts = row.get(3).unwrap_or_default();
    let settled = row.get(4).ok().filter(|_| attempts > 0 || matches!(state, State::Delivered | State::Dead));
    let due = row.get(5).ok().filter(|_| state == State::Retrying);
    let status = row.get(6).ok().filter(|_| state == State::Delivered);
    Some(Summary {
        source,
        destination,
        id: ids::public(message),
        event_id: row.get(8).unwrap_or_default(),
        kind: row.get(9).ok(),
        received_at: row.get(10).map_or_else(|_damaged| ids::stored(message), Moment::from_millis),
        state,
        attempts,
        due: due.map(Moment::from_millis),
        settled_at: settled.map(Moment::from_millis),
        status: status.and_then(|status: i64| u16::try_from(status.saturating_add(statements::STATUS)).ok()),
        failures: statements::failures(row, 7),
    })
}

const DESTINATIONS: &str = "SELECT destination FROM deliveries WHERE message = ?1 ORDER BY destination";

/// One message of a source with all its deliveries.
fn show(file: &Connection, source: &str, id: i64) -> rusqlite::Result<Option<Details>> {
    let names = Names::read(file)?;
    let mut statement = file.prepare_cached(DESTINATIONS)?;
    let found = statement.query_map([id], |row| Ok(row.get(0).ok().map(|destination| (id, destination))))?;
    let found = found.filter_map(Result::transpose).collect::<rusqlite::Result<Vec<_>>>()?;
    let mut deliveries = summaries(file, &found, &names)?;
    deliveries.retain(|delivery| delivery.source == source);
    if deliveries.is_empty() {
        return Ok(None);
    }
    let message = match rows::whole(file, id) {
        Err(error) if Fault::of(&error) == Fault::Damage => None,
        message => message?,
    };
    Ok(Some(Details { deliveries, message: message.map(Arc::new) }))
}

pub(super) const STATE: &str = "SELECT state, lane FROM deliveries WHERE message = ?1 AND destination = ?2";
pub(super) const REOPEN: &str = "UPDATE deliveries SET state = ?3, before_replay = attempts, replayed = ?4, due = ?5
     WHERE message = ?1 AND destination = ?2";

/// State and lane of a delivery; `None` when there is none, or its state is damaged.
fn state_and_lane(file: &Connection, message: i64, destination: i64) -> rusqlite::Result<Option<(State, Option<i64>)>> {
    let found = file.prepare_cached(STATE)?.query_row([message, destination], |row| {
        Ok(row.get(0).ok().and_then(ids::state_of).zip(Some(row.get(1).ok())))
    });
    found.optional().map(Option::flatten)
}

/// Replays deliveries that are still in one of these states; returns their number. A delivery is blocked if its lane
/// has an open one.
fn reopen(
    file: &Connection,
    deliveries: &[(i64, i64)],
    states: &[State],
    changes: &mut Changes,
) -> rusqlite::Result<u64> {
    let mut reopened = 0;
    for (message, destination) in deliveries.iter().copied() {
        let Some((was, lane)) = state_and_lane(file, message, destination)?.filter(|(was, _)| states.contains(was))
        else {
            continue;
        };
        let busy = match lane {
            Some(lane) => statements::is_busy(file, destination, lane.cast_unsigned())?,
            None => false,
        };
        // Due now, by the clock of due times.
        let (state, due) = if busy { (State::Blocked, None) } else { (State::Retrying, Some(changes.due)) };
        let mut statement = file.prepare_cached(REOPEN)?;
        statement.execute(params![message, destination, ids::state(state), changes.now.millis(), due])?;
        changes.moved(destination, Some(was), Some(state));
        reopened += 1;
    }
    Ok(reopened)
}

pub(super) const DELETE: &str = "DELETE FROM deliveries WHERE message = ?1 AND destination = ?2";
pub(super) const DELETE_MESSAGE: &str = "DELETE FROM messages WHERE id = ?1
     AND NOT EXISTS (SELECT 1 FROM deliveries NOT INDEXED WHERE message = ?1)";

/// Deletes deliveries that are still in one of these states, and messages with their last delivery; returns the number
/// of deliveries.
fn purge(
    file: &Connection,
    deliveries: &[(i64, i64)],
    states: &[State],
    changes: &mut Changes,
) -> rusqlite::Result<u64> {
    let mut purged = 0;
    for (message, destination) in deliveries.iter().copied() {
        let Some((was, _)) = state_and_lane(file, message, destination)?.filter(|(was, _)| states.contains(was)) else {
            continue;
        };
        file.prepare_cached(DELETE)?.execute([message, destination])?;
        changes.moved(destination, Some(was), None);
        purged += 1;
        if file.prepare_cached(DELETE_MESSAGE)?.execute([message])? > 0 {
            statements::mark_deleted(file, message)?;
        }
    }
    Ok(purged)
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::super::tests_world::World;
    use super::*;
    use crate::message::Message;
    use crate::store::Outcome;

    const NOW: i64 = 5_000;

    /// A file with the destinations 1 shop/default, 2 shop/copy and 3 bank/default.
    fn file() -> Connection {
        let file = Connection::open_in_memory().expect("a file");
        schema::create(&file).expect("a layout");
        file.execute_batch("INSERT INTO destinations VALUES (1, 'shop', 'default', 0), (2, 'shop', 'copy', 0), (3, 'bank', 'default', 0)")
            .expect("destinations");
        file
    }

    /// Stores a message and its deliveries: destination, state and lane.
    fn put(file: &Connection, id: i64, deliveries: &[(i64, State, Option<i64>)]) {
        let message =
            Message { event_id: http::HeaderValue::from_str(&id.to_string()).expect("an id"), ..Message::example() };
        let checksum = crate::message::codec::checksum(&message, "[]");
        file.execute(
            "INSERT INTO messages (id, source, received, size, checksum, event_id, method, target, verified, headers, body)
             VALUES (?1, 'shop', 0, 0, ?2, ?1, 'POST', '/', 1, '[]', x'')",
            params![id, checksum],
        )
        .expect("a message");
        for (destination, state, lane) in deliveries {
            file.execute(
                "INSERT INTO deliveries (message, destination, state, attempts, before_replay, settled, lane)
                 VALUES (?1, ?2, ?3, 7, 0, 9, ?4)",
                params![id, destination, ids::state(*state), lane],
            )
            .expect("a delivery");
        }
    }

    fn changes() -> Changes {
        Changes::new(Moment::from_millis(NOW + 1), NOW, 0)
    }

    fn part(filter: Filter, states: &[State]) -> Part {
        Part { filter, states: states.to_vec(), after: None, limit: 100 }
    }

    /// The deliveries of the file: message, destination, state, attempts before the last replay, due.
    fn stored(file: &Connection) -> Vec<(i64, i64, State, i64, Option<i64>)> {
        let mut statement = file
            .prepare("SELECT message, destination, state, before_replay, due FROM deliveries")
            .expect("a statement");
        let rows = statement.query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, ids::state_of(row.get(2)?).expect("a state"), row.get(3)?, row.get(4)?))
        });
        rows.expect("rows").map(|row| row.expect("a row")).collect()
    }

    #[test]
    fn a_list_has_what_the_filter_means_and_unknown_names_are_told_with_known_ones() {
        let file = file();
        put(&file, 1, &[(1, State::Delivered, None), (2, State::Dead, None)]);
        put(&file, 2, &[(3, State::Blocked, Some(1))]);
        let listed = |source: Option<&str>, destination: Option<&str>, states: &[State]| {
            let (source, destination) = (source.map(str::to_owned), destination.map(str::to_owned));
            let part = part(Filter { source, destination, ..Filter::default() }, states);
            let page = list(&file, &part, &limits::Sqlite::default()).map_err(|it| it.to_string())?;
            let name = |it: &Summary| format!("{}/{} {} {}", it.source, it.destination, it.event_id, it.state.name());
            Ok::<_, String>(page.deliveries.iter().map(name).collect::<Vec<_>>().join(", "))
        };
        let all = "bank/default 2 blocked, shop/default 1 delivered, shop/copy 1 dead";
        assert_eq!(listed(None, None, &State::ALL).as_deref(), Ok(all));
        assert_eq!(listed(None, None, &[State::Blocked]).as_deref(), Ok("bank/default 2 blocked"));
        assert_eq!(
            listed(None, Some("default"), &State::ALL).as_deref(),
            Ok("bank/default 2 blocked, shop/default 1 delivered")
        );
        assert_eq!(listed(Some("shop"), Some("copy"), &[State::Dead]).as_deref(), Ok("shop/copy 1 dead"));
        for (source, destination, expected) in [
            (Some("shoe"), None, "no events of a source \"shoe\" are stored; there are those of bank, shop"),
            (None, Some("no"), "no events for a destination \"no\" are stored; there are those for copy, default"),
            (
                Some("bank"),
                Some("copy"),
                "no events for a destination \"copy\" are stored; there are those for default",
            ),
        ] {
            assert_eq!(listed(source, destination, &State::ALL), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_message_is_shown_with_all_its_deliveries_and_to_its_source_alone() {
        let file = file();
        put(&file, 1, &[(1, State::Delivered, None), (2, State::Dead, None)]);
        let details = show(&file, "shop", 1).expect("it can be read").expect("a message");
        let states: Vec<_> =
            details.deliveries.iter().map(|delivery| (&*delivery.destination, delivery.state)).collect();
        assert_eq!(states, [("default", State::Delivered), ("copy", State::Dead)]);
        assert_eq!(details.message.expect("a message").event_id, "1");
        assert!(show(&file, "bank", 1).expect("it can be read").is_none());
        file.execute_batch("UPDATE messages SET body = x'00'").expect("damaged");
        let details = show(&file, "shop", 1).expect("it can be read").expect("a message");
        assert!(details.message.is_none() && details.deliveries.len() == 2);
    }

    #[test]
    fn a_replay_waits_for_what_is_open_in_its_lane_and_what_is_open_is_left_alone() {
        let (file, lane) = (file(), Some(-3));
        put(&file, 1, &[(1, State::Dead, lane)]);
        put(&file, 2, &[(1, State::Dead, lane), (3, State::Queued, lane)]);
        put(&file, 3, &[(1, State::Delivered, Some(4))]);
        let (mut changes, states) = (changes(), [State::Dead, State::Delivered]);
        let all = [(1, 1), (2, 1), (2, 3), (3, 1), (9, 1)];
        assert_eq!(reopen(&file, &all, &states, &mut changes), Ok(3));
        let moved: Vec<_> = changes.moved.iter().map(|change| (change.destination, change.to)).collect();
        assert_eq!(moved, [(1, Some(State::Retrying)), (1, Some(State::Blocked)), (1, Some(State::Retrying))]);
        let (retrying, now) = (State::Retrying, Some(NOW));
        assert_eq!(
            stored(&file),
            [
                (1, 1, retrying, 7, now),
                (2, 1, State::Blocked, 7, None),
                (2, 3, State::Queued, 0, None),
                (3, 1, retrying, 7, now)
            ]
        );
    }

    #[test]
    fn what_is_purged_goes_with_its_message_when_it_is_the_last_and_ids_go_on() {
        let file = file();
        put(&file, 1, &[(1, State::Dead, None), (2, State::Delivered, None)]);
        put(&file, 2, &[(1, State::Dead, None)]);
        put(&file, 3, &[(1, State::Queued, None)]);
        let count = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number");
        let mut changes = changes();
        let dead = part(Filter::default(), &[State::Dead]);
        let found = finished(&file, &dead, &limits::Sqlite::default(), None).expect("found").deliveries;
        assert_eq!(found, [(1, 1), (2, 1)]);
        let all = [&found[..], &[(3, 1)]].concat();
        assert_eq!(purge(&file, &all, &dead.states, &mut changes).expect("purged"), 2);
        assert_eq!(changes.moved.len(), 2);
        assert_eq!((count("SELECT count(*) FROM messages"), count("SELECT max(message) FROM deleted")), (2, 2));
        let all = part(Filter::default(), &[State::Dead, State::Delivered]);
        let found = finished(&file, &all, &limits::Sqlite::default(), None).expect("found").deliveries;
        assert_eq!(purge(&file, &found, &all.states, &mut changes).expect("purged"), 1);
        assert_eq!((count("SELECT min(id) FROM messages"), count("SELECT max(message) FROM deleted")), (3, 2));
    }

    #[test]
    fn a_source_that_nobody_delivers_for_is_not_replayed() {
        let file = file();
        put(&file, 1, &[(1, State::Dead, None), (3, State::Dead, None)]);
        let found = |source: Option<&str>, registered: &[i64]| {
            let filter = Filter { source: source.map(str::to_owned), ..Filter::default() };
            finished(&file, &part(filter, &[State::Dead]), &limits::Sqlite::default(), Some(registered))
        };
        assert_eq!(found(None, &[1]).expect("found").deliveries, [(1, 1)]);
        assert!(matches!(found(Some("shop"), &[3]), Err(AdminError::NoQueue(source)) if source == "shop"));
        assert_eq!(found(None, &[]).expect("found").deliveries, []);
    }

    #[test]
    fn every_statement_has_the_plan_that_it_was_written_for() {
        let file = file();
        let plan = |sql: &str| {
            let mut statement = file.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
            let lines = statement.raw_query().mapped(|row| row.get::<_, String>(3));
            lines.map(|line| line.expect("a line")).collect::<Vec<_>>().join("; ")
        };
        let one = "SEARCH deliveries USING PRIMARY KEY (message=? AND destination=?)";
        let message = "SEARCH messages USING INTEGER PRIMARY KEY (rowid=?)";
        assert_eq!([STATE, REOPEN, DELETE].map(plan), [one; 3]);
        assert_eq!(
            plan(&format!("{SUMMARY} WHERE message = ?1 AND destination = ?2")),
            format!("{one}; {message} LEFT-JOIN")
        );
        assert_eq!(plan(DESTINATIONS), "SEARCH deliveries USING PRIMARY KEY (message=?)");
        assert_eq!(
            plan(DELETE_MESSAGE),
            format!("{message}; SCALAR SUBQUERY 1; SEARCH deliveries USING PRIMARY KEY (message=?)")
        );
    }

    #[tokio::test]
    async fn what_is_replayed_is_taken_again_and_what_is_purged_is_gone_and_counts_follow() {
        let world = World::new(limits::Sqlite::default());
        let queue = world.queue("shop").await;
        for id in ["1", "2", "3"] {
            world.enqueue(&queue, id, Some(7)).await;
        }
        while let Some(taken) = world.take(&queue, 1).await.pop() {
            taken.settle(Outcome::Dead { failed: world.failed() });
            world.stats(&queue).await;
        }
        assert_eq!(world.stats(&queue).await, (0, 0, 0, 3));
        let store = &world.store;
        let replayed = store.replay_all(&Filter::default(), None, 2, |_| true).await.expect("replayed");
        assert_eq!((replayed.deliveries, replayed.next.is_some()), (2, true));
        assert_eq!(world.stats(&queue).await, (1, 0, 1, 1));
        let taken = world.take(&queue, 9).await;
        assert_eq!((super::super::tests_world::ids(&taken), taken[0].tries().before_replay), (vec!["1".to_owned()], 1));
        taken.into_iter().for_each(|taken| taken.settle(world.delivered()));
        assert_eq!(world.stats(&queue).await, (0, 0, 1, 1));
        let delivered = Filter { state: Some(State::Delivered), ..Filter::default() };
        let id = store.list(&delivered, None, 9).await.expect("a list").deliveries[0].id;
        assert!(matches!(store.replay("bank", id, None).await, Err(AdminError::NoSuchEvent(..))));
        assert_eq!(store.replay("shop", id, None).await.expect("replayed"), 1);
        assert_eq!(world.stats(&queue).await, (1, 0, 1, 1));
        assert_eq!(store.purge(&Filter::default(), None, 9).await.expect("purged").deliveries, 1);
        assert_eq!(world.stats(&queue).await, (1, 0, 1, 0));
        assert!(store.show("shop", id).await.expect("a message").message.is_some());
    }
}
