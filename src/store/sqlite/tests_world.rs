//! A SQLite store in a folder of its own, for tests.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tempfile::TempDir;

use super::Sqlite;
use crate::base::clock::Clock;
use crate::base::limits;
use crate::base::limits::Limits;
use crate::base::supervisor::Supervisor;
use crate::base::time::Moment;
use crate::message::Message;
use crate::store::Delivery;
use crate::store::DestinationId;
use crate::store::Enqueued;
use crate::store::FailedAttempt;
use crate::store::Keyspace;
use crate::store::Kind;
use crate::store::Once;
use crate::store::Options;
use crate::store::Outcome;
use crate::store::Queue;
use crate::store::QueueTerms;
use crate::store::Route;
use crate::store::Stats;
use crate::store::Store;
use crate::store::TakeLimit;
use crate::store::Taken;
use crate::store::Token;
use crate::verify::event_key::Key;

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
        self.store.take(queue, TakeLimit { max, bytes: usize::MAX }).await.expect("taken")
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

pub(super) async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for {what}");
}
