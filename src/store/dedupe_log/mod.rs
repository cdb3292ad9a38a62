#![doc = include_str!("log.md")]

mod entry;
mod files;
mod metrics;
mod recover;
#[cfg(test)]
mod tests;
mod thread;

use std::fs::File;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use prometheus::IntCounter;
use tokio::sync::oneshot;

pub use self::entry::ENTRY;
pub use self::entry::Entry;
pub use self::entry::Kind;
pub use self::entry::Record;
pub use self::entry::Scanner;
pub use self::entry::VERSION;
pub(crate) use self::metrics::LogMetrics;
use self::recover::Left;
use super::DedupeRecords;
use super::Unavailable;
use crate::clock::Clock;
use crate::limits;

/// [`ENTRY`], where sizes of files are meant.
const ENTRY_BYTES: u64 = 28;

/// The records in memory and their log.
#[derive(Debug)]
pub(crate) struct DedupeLog {
    /// The file beside which the log is.
    path: PathBuf,
    records: Arc<DedupeRecords>,
    limits: limits::DedupeLog,
    clock: Clock,
    state: Mutex<State>,
    /// There is something to do for the log's thread.
    more: Condvar,
    /// The keys of all messages up to this one are in the log and safe.
    checkpoint: AtomicI64,
    /// Why what is finished now is in memory alone. Beside the state, which a write that the disk holds up has locked.
    failing: AtomicBool,
    why: Mutex<String>,
    failures: IntCounter,
}

/// What an earlier process has left.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// How many files there were.
    pub(crate) files: usize,
    /// Bytes that made no sense.
    pub(crate) passed: u64,
    /// The keys of all messages up to this one were in the log, and safe.
    pub(crate) checkpoint: i64,
}

#[derive(Debug)]
struct State {
    /// The segment that is appended to, and its number.
    file: Arc<File>,
    number: u64,
    /// The number of a snapshot that was begun and is not there yet; the segment behind it is there.
    reserved: Option<u64>,
    /// Of all files, and from how many on it is time to see whether a snapshot is worth it.
    bytes: u64,
    look_at: u64,
    /// The keys of all messages up to this one are in memory, and in the files unless something failed.
    message: i64,
    /// Appends and syncs that failed, and how many of them a snapshot has made up for.
    failed: u64,
    healed: u64,
    /// Since when something is not synced that no sync has begun for, and the same of what a sync was begun for.
    unsynced: Option<Instant>,
    syncing: Option<Instant>,
    /// Those who wait until what is not synced is safe.
    waiting: Vec<oneshot::Sender<()>>,
    /// A snapshot is to be tried: now, or when this time has come.
    due: Due,
    closed: bool,
}

/// When to see whether a snapshot is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// When the files have grown enough.
    Grown,
    /// Now, if they have.
    Look,
    /// From this time on, whatever their size.
    From(Instant),
}

impl DedupeLog {
    /// Reads the log beside the file at `path`, or begins one. The records that are found are in memory from now on.
    ///
    /// # Errors
    /// What keeps the log from being used, for the operator.
    pub(crate) fn open(
        path: &Path,
        records: Arc<DedupeRecords>,
        limits: limits::DedupeLog,
        clock: Clock,
    ) -> Result<(Self, Found), String> {
        let failed = |error: io::Error| {
            format!("the dedupe log beside {} cannot be used ({error}); its folder must be writable", path.display())
        };
        let left = Left::look(path).map_err(failed)?;
        left.is_readable(path)?;
        let found = left.load(path, &records, clock.now()).map_err(failed)?;
        let (number, file) = left.segment(path).map_err(failed)?;
        let bytes = left.remove_replaced(path).map_err(failed)?;
        let state = State {
            file: Arc::new(file),
            number,
            reserved: None,
            bytes,
            look_at: 0,
            message: found.checkpoint,
            failed: 0,
            healed: 0,
            unsynced: None,
            syncing: None,
            waiting: Vec::new(),
            // What is damaged is replaced at once.
            due: if found.passed > 0 { Due::From(clock.instant()) } else { Due::Look },
            closed: false,
        };
        let log = Self {
            path: path.to_owned(),
            records,
            limits,
            clock,
            state: Mutex::new(state),
            more: Condvar::new(),
            checkpoint: AtomicI64::new(found.checkpoint),
            failing: AtomicBool::new(false),
            why: Mutex::default(),
            failures: metrics::failures(),
        };
        Ok((log, found))
    }

    /// The records in memory.
    pub(crate) fn records(&self) -> &Arc<DedupeRecords> {
        &self.records
    }

    /// The keys of all messages up to this one are in the log and safe.
    pub(crate) fn checkpoint(&self) -> i64 {
        self.checkpoint.load(Ordering::Relaxed)
    }

    /// Whether what is finished is known after a crash.
    ///
    /// # Errors
    /// [`Unavailable`] from an append or sync that failed until a snapshot has made up for it.
    pub(crate) fn healthy(&self) -> Result<(), Unavailable> {
        if !self.failing.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Unavailable(self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }

    /// Remembers keys, in memory and with one write in the log, so that they are known when the process is killed. With the
    /// keys of a batch of messages comes the last of these.
    ///
    /// # Errors
    /// [`Unavailable`] when the log cannot be written; they are in memory all the same.
    pub(crate) fn append(
        &self,
        records: impl IntoIterator<Item = Record>,
        message: Option<i64>,
    ) -> Result<(), Unavailable> {
        let now = self.clock.now();
        let mut bytes = Vec::with_capacity(2 * ENTRY);
        for record in records {
            // Memory first: a snapshot that begins now takes the place of the segment that this is written to.
            self.records.insert_until(record.source, record.key, record.until, now);
            bytes.extend(Entry::Record(record).encode());
        }
        let mut state = self.lock();
        state.message = state.message.max(message.unwrap_or(0));
        let mut wake = false;
        let written = if bytes.is_empty() { Ok(()) } else { state.write(&bytes) };
        if state.unsynced.is_none() && !bytes.is_empty() {
            state.unsynced = Some(self.clock.instant());
            wake = true;
        }
        if state.bytes > state.look_at && state.due == Due::Grown {
            state.due = Due::Look;
            wake = true;
        }
        let written = written.map_err(|error| self.fail(&mut state, "written", &error));
        drop(state);
        if wake || written.is_err() {
            self.more.notify_one();
        }
        written
    }

    /// Waits for the sync of what was appended before; an error when that fails.
    pub(crate) fn sync(&self) -> oneshot::Receiver<()> {
        let (sender, synced) = oneshot::channel();
        self.lock().waiting.push(sender);
        self.more.notify_one();
        synced
    }

    /// Lets the log's thread end when everything is synced.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_one();
    }

    /// Notes that something failed: a snapshot has to make up for it.
    fn fail(&self, state: &mut State, done: &str, error: &io::Error) -> Unavailable {
        self.failures.inc();
        let why = format!("the dedupe log beside {} could not be {done} ({error})", self.path.display());
        if state.is_healthy() {
            tracing::error!(
                %error,
                path = %self.path.display(),
                "the dedupe log could not be {done}: what is finished now is in memory alone, and may be delivered again \
                 after a crash, until a snapshot takes its place. See to the disk"
            );
            state.due = Due::From(self.clock.instant());
        }
        state.failed += 1;
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&why);
        self.failing.store(true, Ordering::Relaxed);
        Unavailable(why)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes that a sync begins.
    fn begin_sync(&mut self) {
        let unsynced = self.unsynced.take();
        self.syncing = self.syncing.or(unsynced);
    }

    fn is_healthy(&self) -> bool {
        self.failed == self.healed
    }

    /// Appends whole entries, usually with one system call.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(bytes)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}
