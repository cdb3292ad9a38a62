//! Tests of the store as a whole, with real files.

use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use http::HeaderValue;
use tempfile::TempDir;

use super::*;
use crate::limits;
use crate::newstore::Delivery;
use crate::newstore::FailedAttempt;
use crate::newstore::Store;
use crate::newstore::Taken;
use crate::store::Earlier;
use crate::store::Keyspace;
use crate::store::Known as KnownBy;
use crate::store::Token;
use crate::time::Moment;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// A store in a folder of its own, with what moves its clocks.
pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) store: Store,
    pub(super) limits: limits::Limits,
    pub(super) clock: Clock,
    pub(super) hand: Arc<crate::clock::Manual>,
    pub(super) supervisor: Supervisor,
}

impl World {
    pub(super) fn new(limits: limits::Sqlite) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (clock, hand) = Clock::manual(Moment::from_unix(1_700_000_000));
        let limits = limits::Limits { sqlite: limits, ..limits::Limits::default() };
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
        let Self { folder, store, limits, clock, hand, supervisor } = self;
        drop(store);
        let sqlite = open(&folder.path().join("store.db"), &limits, &clock, &supervisor).expect("a store");
        Self { folder, store: Store::Sqlite(Arc::new(sqlite)), limits, clock, hand, supervisor }
    }

    pub(super) async fn queue(&self, source: &str) -> Queue {
        let terms = QueueTerms { id: DestinationId::unnamed(source), keep: HOUR };
        self.store.register(&[terms]).await.expect("registered").remove(0)
    }

    pub(super) async fn enqueue(&self, queue: &Queue, id: &str, lane: Option<u64>) {
        let route = Route { queue: queue.clone(), lane: lane.map(crate::event::Lane) };
        let stored = self.store.enqueue(message(id), &[route], None).await.expect("stored");
        assert_eq!(stored, Published::Appended);
    }

    pub(super) async fn take(&self, queue: &Queue, max: usize) -> Vec<Delivery> {
        self.taken(queue, max).await.deliveries
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

pub(super) fn open(
    path: &Path,
    limits: &limits::Limits,
    clock: &Clock,
    supervisor: &Supervisor,
) -> Result<Sqlite, String> {
    Sqlite::open(&Options {
        path: path.to_owned(),
        max_events: 1000,
        sources: &[Keyspace::of_source("shop")],
        min_free: 0,
        supervisor,
        fsync: false,
        limits: limits.clone(),
        clocks: (clock.clone(), clock.clone()),
    })
}

pub(super) fn message(id: &str) -> Arc<Message> {
    let event_id = HeaderValue::from_str(id).expect("a value");
    Arc::new(Message { event_id, body: Bytes::from_static(b"{}"), ..Message::example() })
}

pub(super) fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|taken| taken.message().event_id.to_str().expect("text").to_owned()).collect()
}

fn once(byte: u8) -> Once {
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
        assert_eq!(stored.expect("stored"), Published::Appended);
    }
    let again = world.store.enqueue(message("1"), &route, Some(&once(1))).await.expect("known");
    assert_eq!(again, Published::Earlier(Earlier::Finished(KnownBy::Id)));
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
        let mut taken = world.take(&queue, 9).await;
        assert_eq!(ids(&taken), [id]);
        taken.remove(0).settle(world.delivered());
        assert_eq!(world.stats(&queue).await, rest);
    }
}
