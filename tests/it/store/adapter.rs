//! Today's stores as the conformance suite uses them: the only file of the suite that knows how a store is opened and called.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use doorward::clock::Clock;
use doorward::event::Key;
use doorward::event::Keys;
use doorward::event::Lane;
use doorward::limits::Limits;
use doorward::message;
use doorward::store::Backlog;
use doorward::store::Denied;
use doorward::store::Earlier;
use doorward::store::Keyspace;
use doorward::store::Known;
use doorward::store::Ledger;
use doorward::store::Options;
use doorward::store::Published;
use doorward::store::Queues;
use doorward::store::Redis;
use doorward::store::RedisBacklog;
use doorward::store::RedisUrl;
use doorward::store::Sqlite;
use doorward::store::Token;
use doorward::store::queued::Counts;
use doorward::store::queued::Details;
use doorward::store::queued::Done;
use doorward::store::queued::Filter;
use doorward::store::queued::Number;
use doorward::store::queued::Queue;
use doorward::store::queued::Settlement;
use doorward::store::queued::State;
use doorward::store::queued::Summary;
use doorward::store::queued::Taken;
use doorward::store::queued::Verdict;
use doorward::supervisor::Supervisor;
use doorward::time::Moment;
use http::HeaderValue;
use http::Method;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::model::Outcome;

const DAYS: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// Where a store is.
pub enum Place {
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
    pub clock: Clock,
}

/// One gateway process, as far as its store goes.
pub struct Process {
    runtime: Runtime,
    pub backlog: Backlog,
    ledger: Ledger,
    clock: Clock,
    began: (Moment, Instant),
    pub queues: usize,
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

/// What is queued.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    pub serial: u32,
    pub key: u32,
    pub lane: Option<u64>,
    pub size: usize,
}

pub type Wake = Pin<Box<dyn Future<Output = ()>>>;

pub fn source(queue: usize) -> String {
    format!("q{queue}")
}

impl Message {
    pub const FIRST: Self = Self { serial: 1, key: 1, lane: None, size: 1 };
}

impl Terms {
    /// Of a process that gives its Redis little time.
    pub fn one_queue(clock: &Clock, limits: Limits) -> Self {
        let (lease, timeout) = (Duration::from_secs(60), Duration::from_millis(50));
        Self { queues: 1, limits, lease, timeout, clock: clock.clone() }
    }
}

impl Place {
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
    pub fn start(place: &Place, terms: &Terms, token: u128) -> Self {
        let runtime = Runtime::start();
        let queue = |queue| Queue { source: source(queue), ordered: true, keep: DAYS };
        let queues: Vec<_> = (0..terms.queues).map(queue).collect();
        let spaces: Vec<_> = queues.iter().map(|queue| Keyspace::of_source(&queue.source)).collect();
        let (limits, clock) = (terms.limits.clone(), terms.clock.clone());
        let supervisor = &Supervisor::default();
        let (backlog, ledger) = runtime.0.block_on(async {
            match place {
                Place::Sqlite(folder) => {
                    let (path, queues, sources) = (folder.path().join("store.db"), &queues, &spaces);
                    let options = Options {
                        path,
                        max_events: 10_000,
                        sources,
                        min_free: 0,
                        queues,
                        limits,
                        clock,
                        fsync: false,
                        supervisor,
                    };
                    let sqlite = Arc::new(Sqlite::open(&options).expect("a store"));
                    (Backlog::Sqlite(Arc::clone(&sqlite)), Ledger::Sqlite(sqlite))
                }
                Place::Redis(url) => {
                    let redis = Redis::connect(
                        &RedisUrl::parse(url).expect("an address"),
                        terms.timeout,
                        None,
                        spaces,
                        supervisor,
                    );
                    let queues = Queues::new(&queues, terms.lease, Token(token), &limits.redis, &clock);
                    let redis = RedisBacklog::new(redis, Arc::new(queues));
                    (Backlog::Redis(redis.clone()), Ledger::Redis(redis))
                }
            }
        });
        runtime.0.block_on(async { backlog.tend(supervisor) });
        let (clock, queues) = (terms.clock.clone(), terms.queues);
        let began = (clock.now(), clock.instant());
        Self { runtime, backlog, ledger, clock, began, queues }
    }

    /// Where what goes on beside being asked runs.
    pub fn runtime(&self) -> &Handle {
        &self.runtime.0
    }

    /// The time of those who deliver, which goes on steadily.
    pub fn now(&self) -> Moment {
        let (wall, instant) = self.began;
        wall.after(self.clock.instant() - instant)
    }

    /// Whether it is new.
    pub fn enqueue(&self, queue: usize, message: Message) -> Result<bool, String> {
        let key = (u128::from(message.key) << 8 | queue as u128).to_be_bytes();
        let event = message::Message {
            source: HeaderValue::from_str(&source(queue)).expect("a name"),
            event_id: HeaderValue::from(message.serial),
            kind: None,
            received_at: self.clock.now(),
            method: Method::POST,
            headers: Vec::new(),
            body: Bytes::from(vec![b'x'; message.size]),
            target: "/".into(),
            trace: None,
            verified: true,
            keys: Some(Keys { id: Key(key), guard: None, ignored: None }),
            lane: message.lane.map(Lane),
        };
        let attempt = (Token(u128::from(message.serial) << 8 | queue as u128), DAYS);
        match self.runtime.0.block_on(self.backlog.enqueue(queue, Arc::new(event), attempt)) {
            Ok(Published::Appended) => Ok(true),
            Ok(Published::Earlier(Earlier::Finished(Known::Id))) => Ok(false),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    pub fn take(&self, queue: usize, max: usize) -> Result<Vec<Taken>, String> {
        self.runtime.0.block_on(self.backlog.take(queue, self.now(), max)).map_err(|error| error.to_string())
    }

    /// Ends when there may be more to take.
    pub fn more(&self, queue: usize) -> Wake {
        let (backlog, now) = (self.backlog.clone(), self.now());
        Box::pin(async move { backlog.more(queue, now).await })
    }

    pub fn settle(&self, queue: usize, taken: &Taken, outcome: Outcome) {
        let at = self.now();
        let verdict = match outcome {
            Outcome::Delivered => Verdict::Delivered,
            Outcome::Retry(pause) => Verdict::Retry(Moment::from_millis(at.millis() + pause)),
            Outcome::Dead => Verdict::Dead,
        };
        let attempts = taken.tries.attempts + 1;
        self.backlog.settle(queue, taken, Settlement { verdict, attempts, at, reason: None, answer: None });
    }

    /// Waits until what was settled is safe.
    pub fn flush(&self, queue: usize) -> Result<(), String> {
        self.runtime.0.block_on(self.backlog.flush(queue)).map_err(|error| error.to_string())
    }

    /// All of a queue, newest first, a page after the other.
    pub fn list(&self, queue: usize, limit: usize) -> Result<Vec<Summary>, String> {
        let filter = Filter { source: Some(source(queue)), ..Filter::default() };
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let list = self.ledger.list(&filter, cursor.as_deref(), limit);
            let page = self.runtime.0.block_on(list).map_err(|error| error.to_string())?;
            all.extend(page.events);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    pub fn show(&self, queue: usize, number: Number) -> Result<Details, Denied> {
        self.runtime.0.block_on(self.ledger.show(&source(queue), number))
    }

    pub fn replay(&self, queue: usize, number: Number) -> Result<(), Denied> {
        self.runtime.0.block_on(self.ledger.replay(&source(queue), number))
    }

    /// Replays or purges all of a queue in a state, a part after the other; how many.
    pub fn change(&self, queue: usize, state: State, purge: bool, limit: usize) -> Result<u64, String> {
        let filter = Filter { source: Some(source(queue)), state: Some(state), ..Filter::default() };
        let (mut changed, mut cursor) = (0, None);
        loop {
            let cursor_now: Option<String> = cursor;
            let done: Result<Done, Denied> = self.runtime.0.block_on(async {
                match purge {
                    true => self.ledger.purge(&filter, cursor_now.as_deref(), limit).await,
                    false => self.ledger.replay_all(&filter, cursor_now.as_deref(), limit).await,
                }
            });
            let done = done.map_err(|error| error.to_string())?;
            changed += done.events;
            cursor = done.next;
            if cursor.is_none() {
                return Ok(changed);
            }
        }
    }

    pub fn counts(&self, queue: usize) -> Result<Counts, String> {
        self.runtime.0.block_on(self.backlog.counts(queue)).map_err(|error| error.to_string())
    }

    /// Ends in order, with nothing under way.
    pub fn stop(self) {
        for queue in 0..self.queues {
            self.runtime.0.block_on(self.backlog.finish(queue)).expect("all is recorded");
        }
        self.kill();
    }

    /// Ends at once, as far as others can see.
    pub fn kill(self) {
        let Self { runtime, backlog, ledger, .. } = self;
        drop((backlog, ledger));
        drop(runtime);
    }

    /// Is killed. In a file, what is settled by `settle` comes too late to be written.
    pub fn crash(self, place: &mut Place, settle: impl FnOnce(&Self)) {
        if let Place::Sqlite(folder) = place {
            let Place::Sqlite(after) = Place::sqlite() else { return };
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

/// Polls once, and tells whether it has ended.
pub fn has_ended(process: &Process, wake: &mut Wake) -> bool {
    let _entered = process.runtime.0.enter();
    wake.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
}
