//! Queued events in a SQLite file, and the dedupe records of finished events in memory and in a log beside the file.
//!
//! One thread, the writer, writes the file: an event and the keys that keep it from being queued twice are one row, and all that
//! came while the previous batch was written share one fsync. After a failed write or fsync nothing more is written until the
//! gateway is restarted. Events that are not queued touch the dedupe log alone. The file is locked for this process, and the
//! lock covers its log. At a start, a damaged file is replaced by what can be read of it.

mod inbox;
mod keeper;
mod ledger;
mod line;
mod lines;
mod log_repair;
mod open;
mod pages;
mod private;
mod retention;
mod rows;
mod salvage;
mod schema;
mod search;
mod volatile;
mod wal;
mod writer;
mod writes;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::oneshot;

use self::inbox::Arrival;
use self::inbox::Attempt;
use self::inbox::Inbox;
use self::inbox::Order;
use self::inbox::Reply;
use self::keeper::Keeper;
use self::line::Load;
use self::line::Standing;
use self::lines::Lines;
use self::rows::Damaged;
use self::rows::Most;
pub use self::volatile::why_volatile;
use self::writes::Columns;
use super::DedupeRecords;
use super::Keyspace;
use super::Published;
use super::SourceTag;
use super::Unavailable;
use super::dedupe_log::DedupeLog;
use super::dedupe_log::LogMetrics;
use super::dedupe_log::Record;
use super::queued::Counts;
use super::queued::Queue;
use super::queued::Settlement;
use super::queued::Taken;
use super::queued::Verdict;
use crate::clock::Clock;
use crate::event::Key;
use crate::limits;
use crate::limits::Limits;
use crate::message::Message;
use crate::supervisor::Supervisor;
use crate::time::Moment;

/// How often it is looked whether a thread has ended, where nothing tells.
const JOIN_PAUSE: Duration = Duration::from_millis(1);

/// What a file is opened with.
#[derive(Debug, Clone)]
pub struct Options<'o> {
    /// Where it is.
    pub path: PathBuf,
    /// Most ids of finished events that are remembered.
    pub max_events: usize,
    /// All sources: each has a share of them.
    pub sources: &'o [Keyspace],
    /// Bytes that stay free on its disk.
    pub min_free: u64,
    /// The sources whose events are queued.
    pub queues: &'o [Queue],
    /// Owns its threads.
    pub supervisor: &'o Supervisor,
    /// Whether an event is finished only when its dedupe records are synced to disk.
    pub fsync: bool,
    /// Sizes, windows and thresholds.
    pub limits: Limits,
    /// The wall clock, and the steady one for pauses.
    pub clock: Clock,
}

#[cfg(test)]
impl Options<'static> {
    /// A store of no sources.
    fn for_tests(path: &std::path::Path) -> Self {
        static SUPERVISOR: std::sync::LazyLock<Supervisor> = std::sync::LazyLock::new(Supervisor::default);
        Self {
            path: path.to_owned(),
            max_events: 1000,
            sources: &[],
            min_free: 0,
            queues: &[],
            fsync: false,
            limits: Limits::default(),
            clock: Clock::System,
            supervisor: &SUPERVISOR,
        }
    }
}

/// The file and what it says.
#[derive(Debug)]
pub struct Sqlite {
    log: Arc<DedupeLog>,
    fsync: bool,
    inbox: Arc<Inbox>,
    lines: Arc<Lines>,
    keeper: Arc<Keeper>,
    /// Reads what is to be tried next.
    loader: Mutex<Connection>,
    /// Reads for lists and other requests of operators, which may take longer.
    viewer: Mutex<Connection>,
    threads: Vec<JoinHandle<()>>,
    log_thread: Option<JoinHandle<()>>,
    limits: limits::Sqlite,
    clock: Clock,
    /// Keeps the file locked, and the log with it.
    _owned: std::fs::File,
}

impl Sqlite {
    /// The dedupe records in memory.
    pub fn records(&self) -> &DedupeRecords {
        self.log.records()
    }

    /// Whether dedupe records survive a crash of the process.
    ///
    /// # Errors
    /// [`Unavailable`] while the dedupe log cannot be written, and while the disk is nearly full.
    pub fn remembers(&self) -> Result<(), Unavailable> {
        self.inbox.room()?;
        self.log.healthy()
    }

    /// The metrics of the dedupe log.
    ///
    /// # Errors
    /// Only when a metric has no valid name, which is a bug.
    pub fn metrics(&self) -> prometheus::Result<impl prometheus::core::Collector + use<>> {
        LogMetrics::new(Arc::clone(&self.log))
    }

    /// Whether events can be queued.
    ///
    /// # Errors
    /// [`Unavailable`] after a failed write, and while the disk is nearly full.
    pub fn healthy(&self) -> Result<(), Unavailable> {
        self.inbox.healthy()
    }

    /// Whether the file can be written at all.
    ///
    /// # Errors
    /// [`Unavailable`] after a failed write; only a restart helps.
    pub fn sound(&self) -> Result<(), Unavailable> {
        self.inbox.sound()
    }

    /// Remembers keys of a source in memory alone.
    pub fn remember(&self, source: SourceTag, keys: impl Iterator<Item = Key>, ttl: Duration) {
        keys.for_each(|key| self.records().insert(source, key, ttl));
    }

    /// Remembers keys of a source, so that they are known when the process is killed; with `fsync`, when the machine is.
    ///
    /// # Errors
    /// [`Unavailable`] when that takes too long or cannot be done; they are still remembered in memory.
    pub async fn commit(
        &self,
        source: SourceTag,
        keys: impl Iterator<Item = Key>,
        ttl: Duration,
    ) -> Result<(), Unavailable> {
        let (until, _now) = self.records().until(ttl);
        self.log.append(keys.map(|key| Record { source, key, until }), None)?;
        if !self.fsync {
            return Ok(());
        }
        let timeout = self.log.limits().commit_timeout;
        match tokio::time::timeout(timeout, self.log.sync()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_failed)) => Err(self.log.healthy().err().unwrap_or_else(closing)),
            Err(_elapsed) => Err(Unavailable(format!("the sync of the dedupe log took longer than {timeout:?}"))),
        }
    }

    /// Puts a message on a queue, unless one with its keys is there or was finished; answers when it is safe on disk.
    ///
    /// # Errors
    /// [`Unavailable`] when it is not.
    pub async fn enqueue(&self, queue: usize, event: Arc<Message>, ttl: Duration) -> Result<Published, Unavailable> {
        self.healthy()?;
        let (until, _now) = self.records().until(ttl);
        let (keys, columns) = (event.keys, Columns::of(&event));
        let (reply, written) = Reply::new();
        let arrival = Arrival { queue, keys, until, event, columns, reply };
        self.inbox.submit(|batch| batch.arrivals.push(arrival))?;
        written.await.map_err(|_gone| self.gone())
    }

    fn gone(&self) -> Unavailable {
        self.healthy().err().unwrap_or_else(closing)
    }

    /// Takes at most `max` events off a queue that are due at `now`. Each has to be settled.
    ///
    /// # Errors
    /// [`Unavailable`] when the file cannot be read or written.
    pub async fn take(self: &Arc<Self>, queue: usize, now: Moment, max: usize) -> Result<Vec<Taken>, Unavailable> {
        self.sound()?;
        if self.inbox.outcomes() >= self.limits.max_outcomes {
            return Err(Unavailable("the SQLite file does not take what was delivered fast enough".to_owned()));
        }
        let Some(known) = self.lines.get(queue) else { return Ok(Vec::new()) };
        let mut taken = Vec::new();
        while taken.len() < max {
            let left = max - taken.len();
            let load = {
                let mut tallied = known.lock();
                let load = tallied.line.wants(now.millis());
                match &load {
                    Some(load) => tallied.line.begin(load),
                    None => taken.extend(tallied.line.take(left)),
                }
                load
            };
            let Some(load) = load else { break };
            taken.extend(self.load(queue, load, left).await?);
        }
        Ok(taken.into_iter().map(hand_out).collect())
    }

    fn next_due(&self, queue: usize) -> Option<Moment> {
        self.lines.get(queue)?.lock().line.next_due().map(Moment::from_millis)
    }

    /// Waits until there may be more to take at `now`, or the next event of the queue has to be tried again.
    pub async fn more(&self, queue: usize, now: Moment) {
        let Some(known) = self.lines.get(queue) else { return std::future::pending().await };
        let due = self.next_due(queue);
        let due = async {
            match due {
                Some(due) => self.clock.sleep(due.since(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = known.more.notified() => {}
            () = due => {}
        }
    }

    async fn load(self: &Arc<Self>, queue: usize, load: Load, max: usize) -> Result<Vec<Standing>, Unavailable> {
        let Some(known) = self.lines.get(queue) else { return Ok(Vec::new()) };
        let source = known.source;
        let most = |events: usize| Most { events, bytes: self.limits.max_load_bytes };
        let (most, due_most) = (most(self.limits.max_load), most(max.min(self.limits.max_load)));
        let read = match load {
            Load::Next { from } => self.read(move |file| rows::next(file, source, from, most)).await,
            Load::Row(row, _) => self.read(move |file| rows::one(file, row)).await,
            // By the writer, so that nothing is written behind what is being read.
            Load::Due { behind, now } => self.order(move |file| rows::due(file, source, behind, now, due_most)).await,
        };
        match read {
            Ok((loaded, damaged)) => {
                let events = known.lock().line.loaded(&load, loaded);
                self.quarantine(queue, damaged);
                Ok(events)
            }
            Err(error) => {
                known.lock().line.unread(&load);
                Err(error)
            }
        }
    }

    /// Gives up events that are not what was written.
    fn quarantine(&self, queue: usize, damaged: Vec<Damaged>) {
        for Damaged { row, lane, tries } in damaged {
            tracing::error!(
                number = %rows::number(row),
                "a queued event is damaged on disk and cannot be delivered; it is kept as a dead letter"
            );
            let settlement = Settlement {
                verdict: Verdict::Dead,
                attempts: tries.attempts,
                at: self.clock.now(),
                reason: Some(rows::DAMAGED.to_owned()),
                answer: None,
            };
            let attempt = Attempt { queue, row, lane, was: tries.state(), settlement };
            // A store that takes no more finds it again when it is opened.
            let _unwritten = self.inbox.record(attempt);
        }
    }

    /// Records what an attempt came to. It is written soon; an event whose record is lost in a crash is tried again.
    pub fn settle(&self, queue: usize, taken: &Taken, settlement: Settlement) {
        let Some(row) = rows::row(taken.number) else { return };
        let attempt = Attempt { queue, row, lane: taken.message.lane, was: taken.tries.state(), settlement };
        // After a failed write nothing is recorded any more; the store has said so.
        let _unwritten = self.inbox.record(attempt);
    }

    /// How much there is of a queue.
    pub async fn counts(self: &Arc<Self>, queue: usize) -> Result<Counts, Unavailable> {
        let Some(known) = self.lines.get(queue) else { return Ok(Counts::default()) };
        let source = known.source;
        let oldest = self.read(move |file| rows::oldest(file, source)).await?;
        Ok(Counts { oldest, ..known.lock().counts })
    }

    /// Waits until everything that was settled so far is safe.
    ///
    /// # Errors
    /// [`Unavailable`] when it is not.
    pub async fn flush(&self) -> Result<(), Unavailable> {
        self.order(|_file| Ok(())).await
    }

    /// Reads what is to be tried next.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.read_with(|sqlite| &sqlite.loader, read).await
    }

    /// Reads from the file on a thread that may wait.
    async fn read_with<T: Send + 'static>(
        self: &Arc<Self>,
        connection: fn(&Self) -> &Mutex<Connection>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let sqlite = Arc::clone(self);
        let read = move || read(&connection(&sqlite).lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) if salvage::is_damage(&error) => {
                self.inbox.fail(&error, true);
                Err(self.gone())
            }
            Ok(Err(error)) => Err(Unavailable(format!("the SQLite file cannot be read: {error}"))),
            Err(_ending) => Err(Unavailable("the gateway is ending".to_owned())),
        }
    }

    /// Has the writer do something between two batches; answers when it is safe.
    async fn order<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.order_and(act, |_acted| {}).await
    }

    /// The same; the writer calls `safe` after the commit and before the next batch, even when the caller is gone.
    async fn order_and<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        safe: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (sender, done) = oneshot::channel();
        let order = Order(Box::new(move |file| {
            let acted = act(file)?;
            Ok(Box::new(move || {
                safe(&acted);
                drop(sender.send(acted));
            }))
        }));
        self.inbox.submit(|batch| batch.orders.push(order))?;
        done.await.map_err(|_gone| self.gone())
    }
}

impl Drop for Sqlite {
    /// Waits until everything is written, but not for ever: a disk that hangs must not keep a gateway from ending, which is then
    /// the same as a kill.
    fn drop(&mut self) {
        let deadline = Instant::now() + self.limits.close;
        self.keeper.close();
        for thread in self.threads.drain(..) {
            if !joined(thread, deadline) {
                return;
            }
            // The keeper is the first: what it could not do, the writer must not try again.
            self.inbox.close();
        }
        // What was queued last is in the log before that ends.
        self.log.close();
        if let Some(thread) = self.log_thread.take() {
            joined(thread, deadline);
        }
    }
}

/// Waits for the end of a thread until this moment; whether it has ended.
fn joined(thread: JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            tracing::error!(
                thread = thread.thread().name(),
                "the disk does not take what is still to be written: the gateway ends without that, as when it is killed"
            );
            return false;
        }
        std::thread::sleep(JOIN_PAUSE);
    }
    // A thread that panicked has nothing left to write.
    let _ended = thread.join();
    true
}

fn closing() -> Unavailable {
    Unavailable("the store is being closed".to_owned())
}

fn hand_out(standing: Standing) -> Taken {
    Taken { number: rows::number(standing.row), message: standing.event, tries: standing.tries, lease_end: None }
}
