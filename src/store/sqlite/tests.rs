//! Tests of the SQLite store as a whole, with real files.

use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use http::HeaderValue;
use tempfile::TempDir;

use super::*;
use crate::base::clock::Clock;
use crate::base::limits;
use crate::base::limits::Limits;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::base::time::Moment;
use crate::store::Delivery;
use crate::store::DestinationId;
use crate::store::Earlier;
use crate::store::FailedAttempt;
use crate::store::Keyspace;
use crate::store::Kind;
use crate::store::Known as KnownBy;
use crate::store::Options;
use crate::store::QueueTerms;
use crate::store::State;
use crate::store::Store;
use crate::store::Taken;
use crate::store::Token;
use crate::store::Want;
use crate::store::owner_only;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// A store in a folder of its own, with what moves its clocks.
pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) store: Store,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    pub(super) hand: Arc<crate::base::clock::Manual>,
    pub(super) supervisor: Supervisor,
}

impl World {
    pub(super) fn new(limits: limits::Sqlite) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (clock, hand) = Clock::manual(Moment::from_unix(1_700_000_000));
        let limits = Limits { sqlite: limits, ..Limits::default() };
        let supervisor = Supervisor::default();
        let sqlite = open(&folder.path().join("store.db"), &limits, &clock, &supervisor).expect("a store");
        Self { folder, store: Store::Sqlite(Arc::new(sqlite)), limits, clock, hand, supervisor }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    pub(super) fn sqlite(&self) -> &Arc<Sqlite> {
        let Store::Sqlite(sqlite) = &self.store else { panic!("it is one") };
        sqlite
    }

    /// Closes the file and opens it again.
    pub(super) fn restart(self) -> Self {
        self.reopen(|_path| {}).expect("a store")
    }

    /// Closes the file, does something to it, and opens it again.
    pub(super) fn reopen(self, between: impl FnOnce(&Path)) -> Result<Self, String> {
        let Self { folder, store, limits, clock, hand, supervisor } = self;
        let path = folder.path().join("store.db");
        drop(store);
        between(&path);
        let sqlite = open(&path, &limits, &clock, &supervisor)?;
        Ok(Self { folder, store: Store::Sqlite(Arc::new(sqlite)), limits, clock, hand, supervisor })
    }

    pub(super) async fn queue(&self, source: &str) -> Queue {
        let terms = QueueTerms { id: DestinationId::unnamed(source), keep: HOUR };
        self.store.register(&[terms]).await.expect("registered").remove(0)
    }

    pub(super) async fn enqueue(&self, queue: &Queue, id: &str, lane: Option<u64>) {
        let route = Route { queue: queue.clone(), lane: lane.map(crate::verify::event_key::Lane) };
        let stored = self.store.enqueue(message(id), &[route], None).await.expect("stored");
        assert_eq!(stored, Enqueued::Stored);
    }

    pub(super) async fn take(&self, queue: &Queue, max: usize) -> Vec<Delivery> {
        self.taken(queue, max).await.deliveries
    }

    /// Takes until there is nothing.
    pub(super) async fn take_all(&self, queue: &Queue) -> Vec<Delivery> {
        let mut all = Vec::new();
        loop {
            match self.take(queue, 9).await {
                some if some.is_empty() => return all,
                some => all.extend(some),
            }
        }
    }

    pub(super) async fn taken(&self, queue: &Queue, max: usize) -> Taken {
        self.store.take(queue, Want { max, bytes: usize::MAX }).await.expect("taken")
    }

    pub(super) async fn stats(&self, queue: &Queue) -> (u64, u64, u64, u64) {
        self.store.flush(queue).await.expect("recorded");
        let Stats { blocked, queued, retrying, dead, .. } = self.store.stats(queue).await.expect("counts");
        (blocked, queued, retrying, dead)
    }

    pub(super) fn delivered(&self) -> Outcome {
        Outcome::Delivered { at: self.clock.now(), status: Some(200) }
    }

    pub(super) fn failed(&self) -> FailedAttempt {
        let reason = "the upstream answered 500".to_owned();
        FailedAttempt { at: self.clock.now(), ms: 3, status: Some(500), reason, answer: "no".to_owned() }
    }

    pub(super) fn retry(&self, after: Duration) -> Outcome {
        Outcome::Retry { after, failed: self.failed() }
    }
}

pub(super) fn open(path: &Path, limits: &Limits, clock: &Clock, supervisor: &Supervisor) -> Result<Sqlite, String> {
    let options = Options {
        kind: &Kind::Sqlite(path.to_owned()),
        spaces: &[Keyspace::of_source("shop")],
        max_events: 1000,
        min_free: 0,
        fsync: false,
        timeout: HOUR,
        durability: None,
        lease: HOUR,
        limits,
        clocks: (clock.clone(), clock.clone()),
        supervisor,
    };
    Sqlite::open(path, &options)
}

pub(super) fn message(id: &str) -> Arc<Message> {
    let event_id = HeaderValue::from_str(id).expect("a value");
    Arc::new(Message { event_id, body: Bytes::from_static(b"{}"), ..Message::example() })
}

pub(super) fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|taken| taken.message().event_id.to_str().expect("text").to_owned()).collect()
}

pub(super) fn once(byte: u8) -> Once {
    let keys = crate::message::Keys { id: Key([byte; 16]), guard: Some(Key([byte + 100; 16])), ignored: None };
    Once { space: Keyspace::of_source("shop"), keys, token: Token(1), ttl: HOUR }
}

#[tokio::test]
async fn what_is_stored_is_taken_in_order_and_known_again_after_a_restart() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    let route = [Route { queue: queue.clone(), lane: None }];
    for byte in 1..4 {
        let stored = world.store.enqueue(message(&byte.to_string()), &route, Some(&once(byte))).await;
        assert_eq!(stored.expect("stored"), Enqueued::Stored);
    }
    let again = world.store.enqueue(message("1"), &route, Some(&once(1))).await.expect("known");
    assert_eq!(again, Enqueued::Earlier(Earlier::Finished(KnownBy::Id)));
    let mut taken = world.take(&queue, 2).await;
    assert_eq!(ids(&taken), ["1", "2"]);
    taken.remove(0).settle(world.delivered());
    drop(taken);
    assert_eq!(world.stats(&queue).await, (0, 2, 0, 0));
    assert_eq!(ids(&world.take(&queue, 9).await), ["2", "3"], "what was not settled is back");
    let world = world.restart();
    let queue = world.queue("shop").await;
    assert_eq!(world.stats(&queue).await, (0, 2, 0, 0));
    assert_eq!(ids(&world.take(&queue, 9).await), ["2", "3"]);
    assert!(world.sqlite().records().contains(Keyspace::of_source("shop").tag(), Key([1; 16])));
}

#[tokio::test]
async fn a_retry_comes_when_it_is_due_and_not_before_it() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    world.take(&queue, 1).await.remove(0).settle(world.retry(Duration::from_secs(60)));
    assert_eq!(world.stats(&queue).await, (0, 0, 1, 0));
    let taken = world.taken(&queue, 1).await;
    assert!(taken.deliveries.is_empty());
    assert_eq!(taken.next_due, Some(world.clock.instant() + Duration::from_secs(60)));
    world.hand.set(Moment::from_unix(10));
    world.hand.advance(Duration::from_millis(59_999));
    assert!(world.take(&queue, 1).await.is_empty());
    world.hand.advance(Duration::from_millis(1));
    let mut taken = world.take(&queue, 1).await;
    assert_eq!(taken[0].tries().attempts, 1);
    assert_eq!(taken[0].tries().failures.list()[0].reason, "the upstream answered 500");
    taken.remove(0).settle(Outcome::Dead { failed: world.failed() });
    assert_eq!(world.stats(&queue).await, (0, 0, 0, 1));
}

#[tokio::test]
async fn of_a_lane_one_is_attempted_at_a_time_and_no_other_lane_waits_for_it() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    for (id, lane) in [("a1", 1), ("a2", 1), ("b1", 2), ("a3", 1)] {
        world.enqueue(&queue, id, Some(lane)).await;
    }
    assert_eq!(world.stats(&queue).await, (2, 2, 0, 0));
    let mut taken = world.take(&queue, 9).await;
    assert_eq!(ids(&taken), ["a1", "b1"]);
    taken.remove(0).settle(world.retry(Duration::from_secs(1)));
    assert_eq!(world.stats(&queue).await, (2, 1, 1, 0));
    assert!(world.take(&queue, 9).await.is_empty(), "a retry keeps its lane");
    world.hand.advance(Duration::from_secs(1));
    for (id, rest) in [("a1", (1, 2, 0, 0)), ("a2", (0, 2, 0, 0)), ("a3", (0, 1, 0, 0))] {
        let mut taken = world.take_all(&queue).await;
        assert_eq!(ids(&taken), [id]);
        taken.remove(0).settle(world.delivered());
        assert_eq!(world.stats(&queue).await, rest);
    }
}

pub(super) async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for {what}");
}

/// Has the writer meet this error.
fn fail(world: &World, code: i32) {
    let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    world.sqlite().shared.mailbox.submit(|batch| batch.trouble = Some(error)).expect("it is told");
}

fn restarts(world: &World) -> u64 {
    world.supervisor.restarts(Task::SqliteWriter)
}

#[tokio::test]
async fn a_message_goes_to_all_its_destinations_in_one_step() {
    let world = World::new(limits::Sqlite::default());
    let (one, other) = (world.queue("shop").await, world.queue("other").await);
    let route = |queue: &Queue| Route { queue: queue.clone(), lane: None };
    let routes = [route(&one), route(&other), route(&one)];
    assert_eq!(world.store.enqueue(message("a"), &routes, None).await.expect("stored"), Enqueued::Stored);
    let (mut first, mut second) = (world.take(&one, 9).await, world.take(&other, 9).await);
    assert_eq!((ids(&first), ids(&second)), (vec!["a".to_owned()], vec!["a".to_owned()]));
    assert_eq!(first[0].id(), second[0].id());
    first.remove(0).settle(world.delivered());
    second.remove(0).settle(Outcome::Dead { failed: world.failed() });
    assert_eq!((world.stats(&one).await, world.stats(&other).await), ((0, 0, 0, 0), (0, 0, 0, 1)));
    let many: Vec<_> = (0..=MAX_ROUTES).map(|at| format!("source-{at}")).collect();
    let mut queues = Vec::new();
    for source in &many {
        queues.push(route(&world.queue(source).await));
    }
    assert!(world.store.enqueue(message("b"), &queues, None).await.is_err(), "too many");
    assert!(world.store.enqueue(message("b"), &queues[1..], None).await.is_ok());
    assert!(world.store.enqueue(message("b"), &[], None).await.is_err(), "none");
}

#[tokio::test]
async fn whoever_takes_until_there_is_nothing_gets_everything_whatever_the_limits_are() {
    for (claimed_ahead, cached_bytes, max_read) in [
        (0, 0, Duration::ZERO),
        (1, 0, HOUR),
        (2, 600, Duration::ZERO),
        (3, 1_000, HOUR),
        (1024, usize::MAX, Duration::ZERO),
    ] {
        let limits = limits::Sqlite { claimed_ahead, cached_bytes, max_read, ..Default::default() };
        let world = World::new(limits);
        let queue = world.queue("shop").await;
        for number in 0..40 {
            world.enqueue(&queue, &number.to_string(), (number % 3 == 0).then_some(number % 2)).await;
        }
        let mut seen = Vec::new();
        loop {
            let taken = world.take(&queue, 7).await;
            if taken.is_empty() {
                break;
            }
            seen.extend(ids(&taken));
            for delivery in taken {
                let first = delivery.tries().attempts == 0;
                let retry = first && delivery.message().event_id.as_bytes().ends_with(b"5");
                delivery.settle(if retry { world.retry(Duration::ZERO) } else { world.delivered() });
            }
            world.store.flush(&queue).await.expect("recorded");
        }
        assert_eq!(seen.len(), 44, "claimed_ahead = {claimed_ahead}: {seen:?}");
        assert_eq!(world.stats(&queue).await, (0, 0, 0, 0));
    }
}

#[tokio::test]
async fn of_what_is_due_and_what_is_new_half_and_half_is_ready() {
    let world = World::new(limits::Sqlite { claimed_ahead: 4, ..Default::default() });
    let queue = world.queue("shop").await;
    for number in 0..4 {
        world.enqueue(&queue, &format!("old-{number}"), None).await;
    }
    for delivery in world.take(&queue, 4).await {
        delivery.settle(world.retry(Duration::from_secs(1)));
    }
    for number in 0..4 {
        world.enqueue(&queue, &format!("new-{number}"), None).await;
    }
    let world = world.restart();
    world.hand.advance(Duration::from_secs(1));
    let queue = world.queue("shop").await;
    assert_eq!(ids(&world.take(&queue, 4).await), ["old-0", "new-0", "old-1", "new-1"]);
}

#[tokio::test]
async fn a_take_has_no_more_bytes_than_are_wanted_and_one_delivery_in_any_case() {
    let weight = message("a").weight();
    for cached_bytes in [usize::MAX, 0] {
        let world = World::new(limits::Sqlite { cached_bytes, max_read: HOUR, ..Default::default() });
        let queue = world.queue("shop").await;
        for id in ["a", "b", "c"] {
            world.enqueue(&queue, id, None).await;
        }
        for (bytes, count) in [(0, 1), (weight, 1), (2 * weight - 1, 1), (2 * weight, 2), (9 * weight, 3)] {
            let taken = world.store.take(&queue, Want { max: 9, bytes }).await.expect("taken").deliveries;
            assert_eq!(taken.len(), count, "{bytes} bytes");
            assert_eq!(ids(&taken)[0], "a", "the others went back in their order");
        }
    }
}

#[tokio::test]
async fn nothing_more_is_taken_while_too_many_outcomes_are_not_written() {
    let world = World::new(limits::Sqlite { max_outcomes: 2, ..Default::default() });
    let queue = world.queue("shop").await;
    for id in ["a", "b", "c", "d"] {
        world.enqueue(&queue, id, None).await;
    }
    let mut taken = world.take(&queue, 2).await;
    let blocking = Connection::open(world.path()).expect("a file");
    blocking.execute_batch("BEGIN IMMEDIATE").expect("it is locked");
    taken.remove(0).settle(world.delivered());
    assert_eq!(ids(&world.take(&queue, 1).await), ["c"], "one outcome is not too many");
    taken.remove(0).settle(world.delivered());
    let refused = world.store.take(&queue, Want { max: 9, bytes: 9 }).await.expect_err("two are");
    assert!(refused.to_string().contains("fast enough"), "{refused}");
    blocking.execute_batch("COMMIT").expect("it is free");
    world.store.flush(&queue).await.expect("recorded");
    assert_eq!(ids(&world.take(&queue, 9).await), ["c", "d"]);
}

#[tokio::test]
async fn after_a_failed_write_the_file_is_opened_anew_and_nothing_is_lost() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    for id in ["a", "b"] {
        world.enqueue(&queue, id, Some(1)).await;
    }
    let mut taken = world.take(&queue, 1).await;
    let seen = queue.signal().count();
    fail(&world, rusqlite::ffi::SQLITE_IOERR_FSYNC);
    wait_until("a restart", || restarts(&world) == 1 && queue.signal().count() > seen).await;
    world.enqueue(&queue, "c", None).await;
    assert_eq!(ids(&world.take(&queue, 9).await), ["c"], "what is in hand stays in hand");
    taken.remove(0).settle(world.delivered());
    assert_eq!(world.stats(&queue).await, (0, 2, 0, 0));
    assert_eq!(ids(&world.take_all(&queue).await), ["c", "b"]);
    assert_eq!(open::quarantined(&world.path()), 0);
    fail(&world, rusqlite::ffi::SQLITE_IOERR_FSYNC);
    wait_until("the end", || world.store.sound().is_err()).await;
    assert!(world.store.take(&queue, Want { max: 1, bytes: 1 }).await.is_err());
    let route = [Route { queue, lane: None }];
    assert!(world.store.enqueue(message("d"), &route, None).await.is_err());
    assert_eq!(world.stats_after_restart().await, (0, 2, 0, 0));
}

impl World {
    async fn stats_after_restart(self) -> (u64, u64, u64, u64) {
        let world = self.restart();
        let queue = world.queue("shop").await;
        world.stats(&queue).await
    }
}

#[tokio::test]
async fn a_panic_of_the_writer_loses_neither_outcomes_nor_what_comes_later() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    let mut taken = world.take(&queue, 1).await;
    world.supervisor.inject_panic(Task::SqliteWriter);
    taken.remove(0).settle(world.delivered());
    wait_until("a restart", || restarts(&world) == 1).await;
    wait_until("it to be well", || world.store.ready(true).is_ok()).await;
    assert_eq!(world.stats(&queue).await, (0, 0, 0, 0));
    world.enqueue(&queue, "b", None).await;
    assert_eq!(ids(&world.take(&queue, 9).await), ["b"]);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_while_the_gateway_serves_and_its_outcomes_are_kept() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    for id in ["a", "b", "c"] {
        world.enqueue(&queue, id, None).await;
    }
    let mut taken = world.take(&queue, 2).await;
    let (first, last) = (taken[0].id(), taken[1].id());
    fail(&world, rusqlite::ffi::SQLITE_CORRUPT);
    wait_until("a fresh file", || open::quarantined(&world.path()) == 1 && world.store.ready(true).is_ok()).await;
    assert_eq!(world.stats(&queue).await, (0, 0, 0, 0));
    taken.remove(0).settle(world.delivered());
    drop(taken);
    world.enqueue(&queue, "d", None).await;
    let fresh = world.take(&queue, 9).await;
    assert_eq!(ids(&fresh), ["d"], "what was in the damaged file waits to be recovered");
    assert!(fresh[0].id() > last, "ids go on");
    world.store.flush(&queue).await.expect("recorded");
    let (shared, id) = (&world.sqlite().shared, ids::written(first).expect("an id"));
    assert!(shared.forgotten.of(queue.id(), id).is_some());
    assert!(shared.forgotten.of(queue.id(), id + 1).is_none());
    let aside = owner_only::endings(&world.path()).into_iter().find(|it| it.to_str().is_some_and(open::is_quarantined));
    let aside = owner_only::beside(&world.path(), aside.expect("a file").to_str().expect("text"));
    let name = aside.file_name().expect("a name").to_str().expect("text").to_owned();
    drop(fresh);
    let done = world.store.recover(&name, None).await.expect("recovered");
    assert_eq!((done.imported, done.next), (3, None));
    world.store.flush(&queue).await.expect("recorded");
    assert_eq!(ids(&world.take_all(&queue).await).len(), 3, "b, c and d: a was delivered");
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_messages_and_keeps_outcomes_until_there_is_room() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    let mut taken = world.take(&queue, 1).await;
    let limit = |pages: i64| {
        move |file: &Connection, _: &mut Changes| {
            file.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))
        }
    };
    world.sqlite().command(limit(1)).await.expect("as many pages as there are");
    let route = [Route { queue: queue.clone(), lane: None }];
    let large = Arc::new(Message { body: Bytes::from(vec![b'x'; 100_000]), ..Message::example() });
    let refused = world.store.enqueue(Arc::clone(&large), &route, None).await.expect_err("no room");
    assert!(refused.to_string().contains("cannot be written at the moment"), "{refused}");
    taken.remove(0).settle(world.delivered());
    wait_until("it to be tried again", || world.store.ready(true).is_ok()).await;
    assert_eq!((world.stats(&queue).await, restarts(&world)), ((0, 0, 0, 0), 0), "the outcome found room");
    assert!(world.store.enqueue(Arc::clone(&large), &route, None).await.is_err());
    wait_until("it to be tried again", || world.store.ready(true).is_ok()).await;
    world.sqlite().command(limit(1_000_000)).await.expect("room");
    assert!(world.store.enqueue(large, &route, None).await.is_ok());
}

#[tokio::test]
async fn a_command_that_fails_fails_alone() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    let wrong = |file: &Connection, _: &mut Changes| {
        file.execute("UPDATE deleted SET message = 99", [])?;
        file.execute("INSERT INTO destinations (id, source, name) SELECT id, 'x', 'y' FROM destinations", [])
    };
    let (failed, ()) = tokio::join!(world.sqlite().command(wrong), world.enqueue(&queue, "a", None));
    assert!(failed.expect_err("it is there").to_string().contains("UNIQUE"), "and it says why");
    let read = |file: &Connection| file.query_row("SELECT message FROM deleted", [], |row| row.get::<_, i64>(0));
    let deleted = world.sqlite().view(move |file| Ok::<_, Unavailable>(read(file)?));
    assert_eq!((deleted.await.expect("a row"), restarts(&world)), (0, 0));
}

#[tokio::test]
async fn a_damaged_message_becomes_a_dead_letter_and_the_others_go_on() {
    let world = World::new(limits::Sqlite { cached_bytes: 0, ..Default::default() });
    let queue = world.queue("shop").await;
    for id in ["a", "b", "c"] {
        world.enqueue(&queue, id, Some(1)).await;
    }
    let damage = |file: &Connection, _: &mut Changes| {
        file.execute("UPDATE messages SET body = 'other' WHERE event_id = 'a'", [])?;
        file.execute("DELETE FROM messages WHERE event_id = 'b'", [])
    };
    world.sqlite().command(damage).await.expect("damaged");
    let mut seen = Vec::new();
    while seen.is_empty() {
        seen = ids(&world.take(&queue, 9).await);
        world.store.flush(&queue).await.expect("recorded");
    }
    assert_eq!(seen, ["c"]);
    assert_eq!(world.stats(&queue).await, (0, 1, 0, 2));
    let page = world.store.list(&crate::store::Filter::default(), None, 9).await.expect("a page");
    let dead: Vec<_> = page.deliveries.iter().filter(|delivery| delivery.state == State::Dead).collect();
    assert!(dead.iter().all(|dead| dead.attempts == 0 && dead.failures.list()[0].reason == rows::DAMAGED), "{dead:?}");
}

#[tokio::test]
async fn what_is_replayed_is_taken_again_at_once() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    let mut taken = world.take(&queue, 9).await;
    let id = taken[0].id();
    taken.remove(0).settle(Outcome::Dead { failed: world.failed() });
    world.store.flush(&queue).await.expect("recorded");
    assert!(world.take(&queue, 9).await.is_empty());
    let seen = queue.signal().count();
    assert_eq!(world.store.replay("shop", id, None).await.expect("replayed"), 1);
    wait_until("the signal", || queue.signal().count() > seen).await;
    let taken = world.take(&queue, 9).await;
    assert_eq!((taken[0].tries().attempts, taken[0].tries().before_replay), (1, 1));
    assert!(taken[0].tries().replayed_at.is_some());
    assert_eq!(world.stats(&queue).await, (0, 0, 1, 0));
}

#[tokio::test]
async fn when_the_clock_was_set_back_between_two_processes_pauses_begin_anew() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    world.take(&queue, 1).await.remove(0).settle(world.retry(Duration::from_secs(60)));
    world.store.flush(&queue).await.expect("recorded");
    world.hand.set(Moment::from_unix(1_000_000));
    let world = world.restart();
    let queue = world.queue("shop").await;
    world.hand.advance(Duration::from_secs(59));
    assert!(world.take(&queue, 1).await.is_empty());
    world.hand.advance(Duration::from_secs(1));
    assert_eq!(ids(&world.take(&queue, 1).await), ["a"]);
}

#[tokio::test]
async fn a_registered_destination_keeps_its_handle_and_its_terms_are_exchanged() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    let terms = |source: &str, keep| QueueTerms { id: DestinationId::unnamed(source), keep };
    let queues = world.store.register(&[terms("new", HOUR), terms("shop", Duration::ZERO)]).await.expect("registered");
    assert_eq!(queues.iter().map(|queue| queue.id().source.as_str()).collect::<Vec<_>>(), ["new", "shop"]);
    assert_eq!(queues[1].index(), queue.index());
    assert_eq!(ids(&world.take(&queues[1], 9).await), ["a"]);
    assert_eq!(world.stats(&queue).await, (0, 1, 0, 0));
    assert_eq!(world.sqlite().registered().len(), 2);
}

#[tokio::test]
async fn whoever_asks_after_a_while_gets_what_nobody_told_of() {
    let world = World::new(limits::Sqlite::default());
    let queue = world.queue("shop").await;
    world.enqueue(&queue, "a", None).await;
    world.take(&queue, 1).await.remove(0).settle(world.delivered());
    world.store.flush(&queue).await.expect("recorded");
    assert!(world.take(&queue, 9).await.is_empty());
    let untold = |file: &Connection, _: &mut Changes| file.execute("UPDATE deliveries SET state = 3, attempts = 0", []);
    world.sqlite().command(untold).await.expect("written");
    assert!(world.take(&queue, 9).await.is_empty(), "nothing is known of it");
    world.hand.advance(Duration::from_millis(queue::STALE.unsigned_abs()));
    assert_eq!(ids(&world.take(&queue, 9).await), ["a"]);
}
