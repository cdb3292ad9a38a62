//! Looks at the queued events in the file, replays them and purges them.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;

use super::Sqlite;
use super::lines::Changed;
use super::rows;
use super::search::Direction;
use super::search::Found;
use super::search::Search;
use super::writes;
use crate::limits;
use crate::store::Denied;
use crate::store::Part;
use crate::store::queued::Details;
use crate::store::queued::Done;
use crate::store::queued::Number;
use crate::store::queued::Page;
use crate::store::queued::State;
use crate::store::queued::Summary;
use crate::time::Moment;

impl Sqlite {
    /// See [`crate::store::Ledger::list`].
    pub(in crate::store) async fn list(self: &Arc<Self>, part: Part) -> Result<Page, Denied> {
        let limits = self.limits.clone();
        self.view(move |file| {
            let names = sources(file)?;
            let search = match search(&part, Direction::NewestFirst, &names, &limits) {
                Ok(search) => search,
                Err(denied) => return Ok(Err(denied)),
            };
            let Found { events, next } = search.run(file, SUMMARY, |row| summary(row, &names))?;
            let events = events.into_iter().filter_map(|(_, summary)| summary).collect();
            Ok(Ok(Page { events, next: next.map(|row| rows::number(row).to_string()) }))
        })
        .await
    }

    /// See [`crate::store::Ledger::show`].
    pub(in crate::store) async fn show(
        self: &Arc<Self>,
        source: &str,
        number: Number,
    ) -> Result<Option<Details>, Denied> {
        let (Some(row), source) = (rows::row(number), source.to_owned()) else { return Ok(None) };
        self.view(move |file| {
            let details = details(file, row, &sources(file)?)?;
            Ok(Ok(details.filter(|details| details.summary.source == source)))
        })
        .await
    }

    /// See [`crate::store::Ledger::replay`].
    pub(in crate::store) async fn replay(self: &Arc<Self>, source: &str, number: Number) -> Result<(), Denied> {
        let unknown = || Denied::NoSuchEvent(source.to_owned(), number);
        let row = rows::row(number).ok_or_else(unknown)?;
        let (name, lines) = (source.to_owned(), Arc::clone(&self.lines));
        let standing = self
            .view(move |file| {
                let Some((of, state)) = standing(file, row)? else { return Ok(Ok(None)) };
                let stands = sources(file)?.get(&of).is_some_and(|known| *known == name);
                Ok(if stands && lines.of(of).is_none() {
                    Err(Denied::NoQueue(name))
                } else {
                    Ok(stands.then_some(state))
                })
            })
            .await?;
        match standing.ok_or_else(unknown)? {
            State::Dead | State::Delivered => {}
            open @ (State::Queued | State::Retrying) => return Err(Denied::Waiting(open)),
        }
        match self.reopen(vec![row], vec![State::Dead, State::Delivered]).await? {
            // Somebody was faster.
            0 => Err(Denied::Waiting(State::Retrying)),
            _ => Ok(()),
        }
    }

    /// See [`crate::store::Ledger::replay_all`].
    pub(in crate::store) async fn replay_all(self: &Arc<Self>, part: Part) -> Result<Done, Denied> {
        let (lines, states) = (Arc::clone(&self.lines), part.states.clone());
        let (rows, next) = self.finished(part, move |source| lines.of(source).is_some()).await?;
        Ok(Done { events: self.reopen(rows, states).await?, next })
    }

    /// See [`crate::store::Ledger::purge`].
    pub(in crate::store) async fn purge(self: &Arc<Self>, part: Part) -> Result<Done, Denied> {
        let states = part.states.clone();
        let (rows, next) = self.finished(part, |_source| true).await?;
        let delete = |file: &Connection, event: Changed| {
            writes::delete(file, &[event.row])?;
            Ok(Some(event))
        };
        Ok(Done { events: self.change(rows, states, delete).await?, next })
    }

    /// The rows of finished events, the oldest first, and where to go on. A source that the filter names has to be usable.
    async fn finished(
        self: &Arc<Self>,
        part: Part,
        usable: impl Fn(i64) -> bool + Send + 'static,
    ) -> Result<(Vec<i64>, Option<String>), Denied> {
        let limits = self.limits.clone();
        self.view(move |file| {
            let names = sources(file)?;
            let search = match search(&part, Direction::OldestFirst, &names, &limits) {
                Ok(search) => search,
                Err(denied) => return Ok(Err(denied)),
            };
            if let (Some(source), Some(name)) = (search.source, &part.filter.source)
                && !usable(source)
            {
                return Ok(Err(Denied::NoQueue(name.clone())));
            }
            let Found { events, next } = search.run(file, "0", |_row| Ok(()))?;
            let rows = events.into_iter().map(|(row, ())| row).collect();
            Ok(Ok((rows, next.map(|row| rows::number(row).to_string()))))
        })
        .await
    }

    /// Has events delivered again that are still in one of these states and whose sources have queues; how many.
    async fn reopen(self: &Arc<Self>, rows: Vec<i64>, states: Vec<State>) -> Result<u64, Denied> {
        let (lines, clock) = (Arc::clone(&self.lines), self.clock.clone());
        self.change(rows, states, move |file, event| {
            let Some(queue) = lines.of(event.source) else { return Ok(None) };
            // At once, by the clock of those who deliver, which need not be the system's.
            let due = queue.lock().line.due(0);
            reopen(file, event.row, clock.now().millis(), due)?;
            Ok(Some(Changed { due: Some(due), ..event }))
        })
        .await
    }

    /// Changes events that are still in one of these states, in one transaction; how many.
    async fn change(
        self: &Arc<Self>,
        rows: Vec<i64>,
        states: Vec<State>,
        change: impl Fn(&Connection, Changed) -> rusqlite::Result<Option<Changed>> + Send + 'static,
    ) -> Result<u64, Denied> {
        if rows.is_empty() {
            return Ok(0);
        }
        let act = move |file: &Connection| {
            let mut changed = Vec::with_capacity(rows.len());
            for row in rows {
                if let Some((source, was)) = standing(file, row)?.filter(|(_, state)| states.contains(state)) {
                    changed.extend(change(file, Changed { row, source, was, due: None })?);
                }
            }
            Ok(changed)
        };
        let lines = Arc::clone(&self.lines);
        let changed = self.order_and(act, move |changed: &Vec<Changed>| lines.changed(changed));
        Ok(u64::try_from(changed.await?.len()).unwrap_or(u64::MAX))
    }

    /// Looks at the file.
    async fn view<T: Send + 'static>(
        self: &Arc<Self>,
        view: impl FnOnce(&Connection) -> rusqlite::Result<Result<T, Denied>> + Send + 'static,
    ) -> Result<T, Denied> {
        self.read_with(|sqlite| &sqlite.viewer, view).await?
    }
}

fn search<'p>(
    part: &'p Part,
    direction: Direction,
    names: &HashMap<i64, String>,
    limits: &limits::Sqlite,
) -> Result<Search<'p>, Denied> {
    let Part { filter, states, behind, limit } = part;
    let number = |name: &String| {
        let known = names.iter().find(|(_, known)| *known == name).map(|(source, _)| *source);
        known.ok_or_else(|| {
            let mut names: Vec<_> = names.values().cloned().collect();
            names.sort();
            Denied::NoSuchSource(name.clone(), names)
        })
    };
    let row = |number: &Number| rows::row(*number).ok_or_else(|| Denied::BadCursor(number.to_string()));
    Ok(Search {
        filter,
        source: filter.source.as_ref().map(number).transpose()?,
        sources: names.keys().copied().collect(),
        states,
        direction,
        behind: behind.as_ref().map(row).transpose()?,
        limit: *limit,
        looks: limits.max_scanned,
        sorted: limits.max_sorted,
    })
}

/// The names of all sources in the file by their numbers.
fn sources(file: &Connection) -> rusqlite::Result<HashMap<i64, String>> {
    let mut statement = file.prepare_cached("SELECT source, name FROM sources")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The source and the state of a row; `None` when there is no such row.
fn standing(file: &Connection, row: i64) -> rusqlite::Result<Option<(i64, State)>> {
    let mut statement = file.prepare_cached("SELECT source, state FROM events WHERE event = ?1")?;
    let integer = |row: &Row<'_>, column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_i64().ok());
    let found = statement.query_row([row], |row| Ok(integer(row, 0)?.zip(integer(row, 1)?))).optional()?.flatten();
    Ok(found.and_then(|(source, state)| Some((source, rows::state_of(state)?))))
}

/// What a list shows of an event.
pub(super) const SUMMARY: &str = "events.event, events.source, events.state, events.attempts, events.received, \
     events.settled, events.due, events.id, events.type, events.reason, events.answer";

/// The summary in a row that has [`SUMMARY`] behind its first column; `None` when it is not what was written.
pub(super) fn summary(row: &Row<'_>, sources: &HashMap<i64, String>) -> rusqlite::Result<Option<Summary>> {
    let integer = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_i64().ok());
    let owned = |column| Ok::<_, rusqlite::Error>(rows::text(row, column)?.map(str::to_owned));
    let (Some(event), Some(source), Some(state)) = (integer(1)?, integer(2)?, integer(3)?.and_then(rows::state_of))
    else {
        return Ok(None);
    };
    let attempts = integer(4)?.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or_default();
    let settled = integer(6)?.filter(|_| attempts > 0 || matches!(state, State::Delivered | State::Dead));
    Ok(Some(Summary {
        source: sources.get(&source).cloned().unwrap_or_default(),
        number: rows::number(event),
        id: owned(8)?.unwrap_or_default(),
        kind: owned(9)?,
        received_at: Moment::from_millis(integer(5)?.unwrap_or_else(|| rows::received(event))),
        state,
        attempts,
        due: integer(7)?.filter(|_| state == State::Retrying).map(Moment::from_millis),
        settled_at: settled.map(Moment::from_millis),
        reason: owned(10)?,
        answer: rows::text(row, 11)?.and_then(|answer| serde_json::from_str(answer).ok()),
    }))
}

/// Reads one event whole.
fn details(file: &Connection, row: i64, sources: &HashMap<i64, String>) -> rusqlite::Result<Option<Details>> {
    let mut statement = file.prepare_cached(&format!("SELECT 0, {SUMMARY} FROM events WHERE events.event = ?1"))?;
    let summary = statement.query_row([row], |columns| summary(columns, sources)).optional()?.flatten();
    let message = rows::whole(file, row)?.map(Arc::new);
    Ok(summary.map(|summary| Details { summary, message }))
}

/// Has a finished event tried again at `due`.
fn reopen(connection: &Connection, row: i64, now: i64, due: i64) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare_cached("UPDATE events SET state = 3, spent = attempts, replayed = ?2, due = ?3 WHERE event = ?1")?;
    statement.execute([row, now, due]).map(drop)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;
    use crate::message::Message;
    use crate::store::Ledger;
    use crate::store::Options;
    use crate::store::queued::Counts;
    use crate::store::queued::Filter;
    use crate::store::queued::LastAnswer;
    use crate::store::queued::Queue;
    use crate::store::queued::Settlement;
    use crate::store::queued::Verdict;

    fn open(path: &Path, sources: &[&str]) -> (Arc<Sqlite>, Ledger) {
        let queue =
            |source: &&str| Queue { source: (*source).to_owned(), ordered: false, keep: Duration::from_secs(3600) };
        let queues: Vec<_> = sources.iter().map(queue).collect();
        let options = Options { queues: &queues, ..Options::for_tests(path) };
        let sqlite = Arc::new(Sqlite::open(&options).expect("a store"));
        (Arc::clone(&sqlite), Ledger::Sqlite(sqlite))
    }

    /// Queues this many events, the oldest first.
    async fn enqueue(sqlite: &Sqlite, queue: usize, count: usize) {
        for at in 0..count {
            let id = HeaderValue::from_str(&format!("{queue}-{at}")).expect("a value");
            let message = Message {
                event_id: id,
                kind: Some(HeaderValue::from_static(if at % 2 == 0 { "even" } else { "odd" })),
                received_at: Moment::now(),
                body: Bytes::from_static(b"{}"),
                ..Message::example()
            };
            sqlite.enqueue(queue, Arc::new(message), Duration::from_secs(60)).await.expect("queued");
        }
    }

    /// Takes what is due and records what came of it; how many those were.
    async fn settle(sqlite: &Arc<Sqlite>, queue: usize, verdict: Verdict) -> usize {
        let taken = sqlite.take(queue, Moment::now(), 100).await.expect("events");
        for event in &taken {
            let delivered = verdict == Verdict::Delivered;
            let settlement = Settlement {
                verdict,
                attempts: event.tries.attempts + 1,
                at: Moment::now(),
                reason: (!delivered).then(|| "the upstream answered 500".to_owned()),
                answer: Some(LastAnswer { status: if delivered { 200 } else { 500 }, body: "said".to_owned() }),
            };
            sqlite.settle(queue, event, settlement);
        }
        sqlite.flush().await.expect("recorded");
        taken.len()
    }

    async fn ids(ledger: &Ledger, filter: &Filter) -> Vec<String> {
        let (mut ids, mut cursor) = (Vec::new(), None);
        loop {
            let page = ledger.list(filter, cursor.as_deref(), 3).await.expect("a page");
            ids.extend(page.events.into_iter().map(|event| event.id));
            match page.next {
                Some(next) => cursor = Some(next),
                None => return ids,
            }
        }
    }

    async fn number(ledger: &Ledger, id: &str) -> Number {
        let filter = Filter { id: Some(id.to_owned()), ..Filter::default() };
        ledger.list(&filter, None, 1).await.expect("a page").events[0].number
    }

    fn of(source: &str) -> Filter {
        Filter { source: Some(source.to_owned()), ..Filter::default() }
    }

    #[tokio::test]
    async fn events_are_listed_newest_first_and_shown_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sqlite, ledger) = open(&folder.path().join("store.db"), &["a", "b"]);
        enqueue(&sqlite, 0, 3).await;
        enqueue(&sqlite, 1, 2).await;
        assert_eq!(ids(&ledger, &Filter::default()).await, ["1-1", "1-0", "0-2", "0-1", "0-0"]);
        assert_eq!(settle(&sqlite, 1, Verdict::Dead).await, 2);
        assert_eq!(ids(&ledger, &Filter { state: Some(State::Dead), ..Filter::default() }).await, ["1-1", "1-0"]);
        let details = ledger.show("b", number(&ledger, "1-0").await).await.expect("an event");
        assert_eq!((details.summary.state, details.summary.attempts), (State::Dead, 1));
        assert_eq!(details.summary.reason.as_deref(), Some("the upstream answered 500"));
        assert_eq!(details.summary.answer.map(|answer| answer.status), Some(500));
        assert_eq!(details.message.expect("it is whole").body, "{}");
        let other = ledger.show("a", number(&ledger, "1-0").await).await;
        assert!(matches!(other, Err(Denied::NoSuchEvent(..))), "{other:?}");
        let unknown = ledger.list(&of("c"), None, 1).await.expect_err("an unknown source");
        assert!(unknown.to_string().ends_with("a, b"), "{unknown}");
        assert!(matches!(ledger.list(&of("a"), Some("x"), 1).await, Err(Denied::BadCursor(_))));
        assert!(matches!(ledger.list(&of("a"), Some("1-5000"), 1).await, Err(Denied::BadCursor(_))));
    }

    #[tokio::test]
    async fn what_is_replayed_is_taken_again_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sqlite, ledger) = open(&folder.path().join("store.db"), &["a", "b"]);
        enqueue(&sqlite, 0, 4).await;
        enqueue(&sqlite, 1, 1).await;
        assert_eq!(settle(&sqlite, 0, Verdict::Dead).await, 4);
        assert_eq!(settle(&sqlite, 1, Verdict::Delivered).await, 1);
        let done = ledger.replay_all(&of("a"), None, 3).await.expect("replayed");
        assert_eq!(done.events, 3);
        let done = ledger.replay_all(&of("a"), done.next.as_deref(), 3).await.expect("replayed");
        assert_eq!(done, Done { events: 1, next: None });
        assert_eq!(ledger.replay_all(&Filter::default(), None, 3).await.expect("none is left").events, 0);
        let counts = sqlite.counts(0).await.expect("counts");
        assert_eq!((counts.retrying, counts.dead), (4, 0));
        let taken = sqlite.take(0, Moment::now().after(Duration::from_secs(1)), 10).await.expect("events");
        assert_eq!(taken.iter().map(|taken| &taken.message.event_id).collect::<Vec<_>>(), ["0-0", "0-1", "0-2", "0-3"]);
        assert!(taken.iter().all(|taken| (taken.tries.attempts, taken.tries.spent) == (1, 1)));
        assert!(taken.iter().all(|taken| taken.tries.replayed_at.is_some()));
        let again = ledger.replay("a", taken[0].number).await;
        assert!(matches!(again, Err(Denied::Waiting(State::Retrying))), "{again:?}");
        let (delivered, nowhere) = (number(&ledger, "1-0").await, Number { millis: 1, sequence: 0 });
        ledger.replay("b", delivered).await.expect("what is delivered can be delivered again");
        assert_eq!(settle(&sqlite, 1, Verdict::Delivered).await, 1);
        assert!(matches!(ledger.replay("b", nowhere).await, Err(Denied::NoSuchEvent(..))));
    }

    #[tokio::test]
    async fn what_is_not_finished_is_neither_replayed_nor_purged() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sqlite, ledger) = open(&folder.path().join("store.db"), &["a", "b"]);
        enqueue(&sqlite, 0, 2).await;
        enqueue(&sqlite, 1, 2).await;
        settle(&sqlite, 0, Verdict::Retry(Moment::now().after(Duration::from_secs(3600)))).await;
        for state in [State::Queued, State::Retrying] {
            let filter = Filter { state: Some(state), ..Filter::default() };
            assert!(matches!(ledger.replay_all(&filter, None, 9).await, Err(Denied::NotReplayed(_))));
            assert!(matches!(ledger.purge(&filter, None, 9).await, Err(Denied::NotPurged(_))));
        }
        let all = Filter::default();
        assert_eq!(ledger.purge(&all, None, 9).await.expect("nothing").events, 0);
        assert_eq!(ledger.replay_all(&all, None, 9).await.expect("nothing").events, 0);
        assert_eq!(ids(&ledger, &all).await.len(), 4);
    }

    #[tokio::test]
    async fn finished_events_are_purged_and_counted_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let (sqlite, ledger) = open(&path, &["a"]);
        enqueue(&sqlite, 0, 3).await;
        settle(&sqlite, 0, Verdict::Dead).await;
        enqueue(&sqlite, 0, 2).await;
        settle(&sqlite, 0, Verdict::Delivered).await;
        enqueue(&sqlite, 0, 1).await;
        let odd = Filter { kind: Some("odd".to_owned()), ..of("a") };
        assert_eq!(ledger.purge(&odd, None, 9).await.expect("purged"), Done { events: 2, next: None });
        let dead = Filter { state: Some(State::Dead), ..Filter::default() };
        assert_eq!(ledger.purge(&dead, None, 9).await.expect("purged").events, 2);
        assert_eq!(ledger.purge(&Filter::default(), None, 9).await.expect("purged").events, 1);
        let counts = sqlite.counts(0).await.expect("counts");
        assert_eq!(Counts { oldest: None, ..counts }, Counts { queued: 1, ..Counts::default() });
        drop((sqlite, ledger));
        let payloads = Connection::open(&path)
            .expect("a file")
            .query_row("SELECT count(*) FROM payloads", [], |row| row.get::<_, i64>(0));
        assert_eq!(payloads.expect("a count"), 1);
    }

    #[tokio::test]
    async fn events_of_a_source_without_a_queue_can_be_seen_and_purged_but_not_replayed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let (sqlite, ledger) = open(&path, &["a"]);
        enqueue(&sqlite, 0, 2).await;
        settle(&sqlite, 0, Verdict::Dead).await;
        drop((sqlite, ledger));
        let (_sqlite, ledger) = open(&path, &["b"]);
        let number = number(&ledger, "0-1").await;
        assert!(matches!(ledger.replay("a", number).await, Err(Denied::NoQueue(_))));
        assert!(matches!(ledger.replay_all(&of("a"), None, 9).await, Err(Denied::NoQueue(_))));
        assert_eq!(ledger.replay_all(&Filter::default(), None, 9).await.expect("none").events, 0);
        assert_eq!(ledger.purge(&of("a"), None, 9).await.expect("purged").events, 2);
    }

    #[tokio::test]
    async fn a_damaged_event_is_shown_without_its_body() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let (sqlite, ledger) = open(&path, &["a"]);
        enqueue(&sqlite, 0, 2).await;
        drop((sqlite, ledger));
        let file = Connection::open(&path).expect("a file");
        file.execute_batch(
            "UPDATE payloads SET body = 'other' WHERE event = (SELECT min(event) FROM events);
             UPDATE events SET id = x'ff00', attempts = 'many', answer = 7 WHERE event = (SELECT min(event) FROM events);",
        )
        .expect("damaged");
        drop(file);
        let (_sqlite, ledger) = open(&path, &["a"]);
        let page = ledger.list(&of("a"), None, 9).await.expect("a page");
        assert_eq!(page.events.len(), 2);
        let details = ledger.show("a", page.events[1].number).await.expect("an event");
        assert!(details.message.is_none() && details.summary.answer.is_none());
    }
}
