//! A gateway process as far as its store goes: the only file of the suite that knows how a store is opened and called.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use doorward::base::clock::Clock;
use doorward::base::clock::Manual;
use doorward::base::limits::Limits;
use doorward::base::supervisor::Supervisor;
use doorward::base::time::Moment;
use doorward::message;
use doorward::store::AdminError;
use doorward::store::Delivery;
use doorward::store::DestinationId;
use doorward::store::Details;
use doorward::store::Done;
use doorward::store::Earlier;
use doorward::store::Enqueued;
use doorward::store::FailedAttempt;
use doorward::store::Filter;
use doorward::store::Keyspace;
use doorward::store::Kind;
use doorward::store::KnownBy;
use doorward::store::MessageId;
use doorward::store::Once;
use doorward::store::Options;
use doorward::store::Queue;
use doorward::store::QueueTerms;
use doorward::store::RedisUrl;
use doorward::store::Route;
use doorward::store::State;
use doorward::store::Stats;
use doorward::store::Store;
use doorward::store::Summary;
use doorward::store::TakeLimit;
use doorward::store::Taken;
use doorward::store::Token;
use doorward::verify::event_key::Key;
use doorward::verify::event_key::Keys;
use doorward::verify::event_key::Lane;
use http::HeaderValue;
use http::Method;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::model::Outcome;
use crate::harness::wait_for;

const DAYS: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// Two queues of one source, and one of another.
pub const QUEUES: usize = 3;

/// Where a store is.
pub enum Location {
    /// A file in a folder in memory, where nothing has to be waited for.
    Sqlite(TempDir),
    /// The address of a Redis.
    Redis(String),
}

/// How a process opens it.
#[derive(Clone)]
pub struct Terms {
    /// The queues that it knows, by number.
    pub queues: usize,
    pub limits: Limits,
    pub lease: Duration,
    /// How long a command to Redis may take.
    pub timeout: Duration,
    /// The wall clock.
    pub wall: Clock,
}

/// One gateway process.
pub struct Process {
    runtime: Runtime,
    /// Keeps what goes on beside being asked alive.
    _supervisor: Supervisor,
    pub store: Store,
    pub queues: Vec<Queue>,
    /// The clock for pauses, and what moves it where that is not the wall clock.
    pub clock: Clock,
    pub hand: Option<Arc<Manual>>,
}

/// A runtime on a thread of its own, so that what a process does beside being asked goes on.
struct Runtime(Handle, Option<oneshot::Sender<()>>, Option<JoinHandle<()>>);

impl Runtime {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (end, ended) = oneshot::channel();
        let handle = runtime.handle().clone();
        Self(handle, Some(end), Some(std::thread::spawn(move || drop(runtime.block_on(ended)))))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.1.take());
        self.2.take().map(JoinHandle::join);
    }
}

/// What is enqueued.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    pub serial: u32,
    pub key: u32,
    pub lane: Option<u64>,
    pub size: usize,
}

impl Message {
    pub const FIRST: Self = Self { serial: 1, key: 1, lane: None, size: 1 };
}

pub fn source_of(queue: usize) -> usize {
    queue / 2
}

pub fn source(queue: usize) -> String {
    format!("s{}", source_of(queue))
}

pub fn destination(queue: usize) -> DestinationId {
    DestinationId { source: source(queue), name: format!("d{queue}") }
}

impl Terms {
    /// Of a process that gives its Redis little time.
    pub fn usual(wall: &Clock, limits: Limits) -> Self {
        let (lease, timeout) = (Duration::from_secs(60), Duration::from_millis(50));
        Self { queues: QUEUES, limits, lease, timeout, wall: wall.clone() }
    }
}

impl Location {
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir_in("/dev/shm").expect("a folder in memory"))
    }

    pub fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Sqlite(folder) => Some(folder.path().join("store.db")),
            Self::Redis(_) => None,
        }
    }
}

impl Process {
    pub fn start(place: &Location, terms: &Terms) -> Self {
        let runtime = Runtime::start();
        // A server keeps the time of what is in it.
        let (clock, hand) = match place {
            Location::Sqlite(_) => {
                let (clock, hand) = Clock::manual(terms.wall.now());
                (clock, Some(hand))
            }
            Location::Redis(_) => (terms.wall.clone(), None),
        };
        let spaces: Vec<_> = (0..QUEUES).map(|queue| Keyspace::of_source(&source(queue))).collect();
        let supervisor = Supervisor::default();
        let kind = match place {
            Location::Sqlite(folder) => Kind::Sqlite(folder.path().join("store.db")),
            Location::Redis(url) => Kind::Redis(RedisUrl::parse(url).expect("an address")),
        };
        let options = Options {
            kind: &kind,
            spaces: &spaces,
            max_events: 10_000,
            min_free: 0,
            fsync: false,
            timeout: terms.timeout,
            durability: None,
            lease: terms.lease,
            limits: &terms.limits,
            clocks: (terms.wall.clone(), clock.clone()),
            supervisor: &supervisor,
        };
        // A program that another test is starting has the file of the process before open for a moment.
        let store = wait_for("a store", || runtime.0.block_on(async { Store::open(&options) }).ok());
        let queue = |queue| QueueTerms { id: destination(queue), keep: DAYS };
        let queues: Vec<_> = (0..terms.queues).map(queue).collect();
        let queues = runtime.0.block_on(async {
            let queues = store.register(&queues).await.expect("known from now on");
            store.maintain(&supervisor);
            queues
        });
        Self { runtime, _supervisor: supervisor, store, queues, clock, hand }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.0.block_on(future)
    }

    /// Whether it is new.
    pub fn enqueue(&self, queues: &[usize], message: Message) -> Result<bool, String> {
        let Some(first) = queues.first() else { return Ok(false) };
        let (source, tag) = (source(*first), source_of(*first));
        let key = (u128::from(message.key) << 8 | u128::try_from(tag).expect("small")).to_be_bytes();
        let keys = Keys { id: Key(key), guard: None, ignored: None };
        let event = message::Message {
            source: HeaderValue::from_str(&source).expect("a name"),
            event_id: HeaderValue::from(message.serial),
            kind: None,
            received_at: Moment::now(),
            method: Method::POST,
            headers: Vec::new(),
            body: Bytes::from(vec![b'x'; message.size]),
            target: "/".into(),
            trace: None,
            verified: true,
            keys: Some(keys),
        };
        let lane = message.lane.map(Lane);
        let routes: Vec<_> = queues.iter().map(|queue| Route { queue: self.queues[*queue].clone(), lane }).collect();
        let token = Token(u128::from(message.serial) << 8 | u128::try_from(tag).expect("small"));
        let once = Once { space: Keyspace::of_source(&source), keys, token, ttl: DAYS };
        match self.wait(self.store.enqueue(Arc::new(event), &routes, Some(&once))) {
            Ok(Enqueued::Stored) => Ok(true),
            Ok(Enqueued::Earlier(Earlier::Finished(KnownBy::Id))) => Ok(false),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    pub fn take(&self, queue: usize, max: usize, bytes: usize) -> Result<Taken, String> {
        let taken = self.wait(self.store.take(&self.queues[queue], TakeLimit { max, bytes }));
        taken.map_err(|error| error.to_string())
    }

    /// As [`take`](Self::take), of any number of bytes, without the time of the next one.
    pub fn take_any(&self, queue: usize, max: usize) -> Result<Vec<Delivery>, String> {
        self.take(queue, max, usize::MAX / 4).map(|taken| taken.deliveries)
    }

    pub fn settle(&self, delivery: Delivery, outcome: Outcome) {
        // Where it is told may be a task of the runtime.
        let _entered = self.runtime.0.enter();
        let at = self.clock.now();
        let failed = FailedAttempt { at, ms: 1, status: Some(500), reason: "no".to_owned(), answer: String::new() };
        match outcome {
            Outcome::Delivered => delivery.settle(doorward::store::Outcome::Delivered { at, status: Some(204) }),
            Outcome::Retry(pause) => {
                let after = Duration::from_millis(pause.unsigned_abs());
                delivery.settle(doorward::store::Outcome::Retry { after, failed });
            }
            Outcome::Dead => delivery.settle(doorward::store::Outcome::Dead { failed }),
            Outcome::Dropped => drop(delivery),
        }
    }

    /// Waits until what was settled is safe.
    pub fn flush(&self, queue: usize) -> Result<(), String> {
        self.wait(self.store.flush(&self.queues[queue])).map_err(|error| error.to_string())
    }

    /// All that a filter means, newest first, a page after the other.
    pub fn list(&self, filter: &Filter, limit: usize) -> Result<Vec<Summary>, String> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.wait(self.store.list(filter, after, limit)).map_err(|error| error.to_string())?;
            all.extend(page.deliveries);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    pub fn show(&self, queue: usize, id: MessageId) -> Result<Details, AdminError> {
        self.wait(self.store.show(&source(queue), id))
    }

    pub fn replay(&self, queue: usize, id: MessageId, all: bool) -> Result<u64, AdminError> {
        let destination = destination(queue);
        let name = (!all).then_some(destination.name.as_str());
        self.wait(self.store.replay(&destination.source, id, name))
    }

    /// Replays or purges all of a queue in a state, a part after the other; how many.
    pub fn change(&self, queue: usize, state: State, purge: bool, limit: usize) -> Result<u64, String> {
        let filter = filter(queue, Some(state));
        let (mut changed, mut after) = (0, None);
        loop {
            let done: Result<Done, AdminError> = self.wait(async {
                match purge {
                    true => self.store.purge(&filter, after, limit).await,
                    false => self.store.replay_all(&filter, after, limit, |_| true).await,
                }
            });
            let done = done.map_err(|error| error.to_string())?;
            changed += done.deliveries;
            after = done.next;
            if after.is_none() {
                return Ok(changed);
            }
        }
    }

    pub fn stats(&self, queue: usize) -> Result<Stats, String> {
        self.wait(self.store.stats(&self.queues[queue])).map_err(|error| error.to_string())
    }

    /// Ends in order, with nothing under way.
    pub fn stop(self) {
        for queue in &self.queues {
            self.wait(self.store.flush(queue)).expect("all is recorded");
        }
        self.kill();
    }

    /// Ends at once, as far as others can see.
    pub fn kill(self) {
        let Self { runtime, store, queues, .. } = self;
        drop((store, queues));
        drop(runtime);
    }

    /// Is killed. In a file, what is settled by `settle` comes too late to be written.
    pub fn crash(self, place: &mut Location, settle: impl FnOnce(&Self)) {
        if let Location::Sqlite(folder) = place {
            let Location::Sqlite(after) = Location::sqlite() else { return };
            let other = rusqlite::Connection::open(folder.path().join("store.db")).expect("a file");
            other.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
            settle(&self);
            for entry in std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("a file")) {
                if entry.file_name() != "store.db-shm" {
                    std::fs::copy(entry.path(), after.path().join(entry.file_name())).expect("a copy");
                }
            }
            other.execute_batch("ROLLBACK").expect("an end");
            drop(other);
            self.kill();
            *folder = after;
        } else {
            self.kill();
        }
    }
}

pub fn filter(queue: usize, state: Option<State>) -> Filter {
    let DestinationId { source, name } = destination(queue);
    Filter { source: Some(source), destination: Some(name), state, ..Filter::default() }
}

/// What a dispatcher that found nothing waits for.
pub struct Wait {
    pub seen: u64,
    pub next_due: Option<Instant>,
    pub since: Instant,
}
