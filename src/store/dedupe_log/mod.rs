#![doc = include_str!("log.md")]

mod entry;
mod files;
mod recover;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_faults;
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
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use prometheus::IntCounter;
use prometheus::core::AtomicF64;
use prometheus::core::Collector;
use tokio::sync::oneshot;

pub use self::entry::ENTRY;
pub use self::entry::Entry;
pub use self::entry::Kind;
pub use self::entry::Scanner;
pub use self::entry::VERSION;
use self::recover::Existing;
use super::DedupeRecords;
use super::Unavailable;
use super::gauge::ComputedGauge;
use super::records::Record;
use crate::base::clock::Clock;
use crate::base::limits;

/// [`ENTRY`], as the type of file sizes.
const ENTRY_BYTES: u64 = 28;

/// The records in memory and their log.
#[derive(Debug)]
pub(crate) struct DedupeLog {
    /// The store's file, whose path the names of the log's files begin with.
    path: PathBuf,
    records: Arc<DedupeRecords>,
    limits: limits::DedupeLog,
    clock: Clock,
    state: Mutex<State>,
    /// Wakes the log's thread.
    more: Condvar,
    /// The keys of all messages up to this one are in the log and synced.
    checkpoint: AtomicI64,
    /// Why new records are in memory only. Not in `state`, whose lock is held while a write waits for the disk.
    failure: ArcSwapOption<Unavailable>,
    failures: IntCounter,
}

/// The contents of the files of a log.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The number of files that are not empty.
    pub(crate) files: usize,
    /// The number of records, including expired ones.
    pub(crate) records: u64,
    /// The number of damaged bytes, which were skipped.
    pub(crate) skipped: u64,
    /// The highest checkpoint: the keys of all messages up to this one are in the log.
    pub(crate) checkpoint: i64,
}

#[derive(Debug)]
struct State {
    /// The segment that is appended to.
    file: Arc<File>,
    number: u64,
    /// The minimum size of the segment: what was appended to it.
    length: u64,
    /// The number of a snapshot that is not complete yet; the segment after it exists.
    reserved: Option<u64>,
    /// The size of all files.
    bytes: u64,
    /// The size from which on the thread checks whether a snapshot is due; 0 before the first check.
    check_at: u64,
    /// When a snapshot is due whatever the size.
    snapshot_at: Option<Instant>,
    /// The keys of all messages up to this one are in memory, and in the files unless an append failed.
    message: i64,
    /// The number of failed appends and syncs.
    failed: u64,
    /// How many of these a snapshot has repaired. The log is healthy when both are equal.
    repaired: u64,
    /// Since when there are records that no sync has begun for.
    unsynced: Option<Instant>,
    /// Since when there are records that a sync has begun for.
    syncing: Option<Instant>,
    /// The calls that wait for the next sync.
    waiting: Vec<oneshot::Sender<()>>,
    closed: bool,
}

impl DedupeLog {
    /// Opens the log of the store's file at `path`, or creates one, and loads its records into memory.
    ///
    /// # Errors
    /// Why the log cannot be used, for the operator.
    pub(crate) fn open(
        path: &Path,
        records: Arc<DedupeRecords>,
        limits: limits::DedupeLog,
        clock: Clock,
    ) -> Result<(Self, Found), String> {
        let failed = |error: io::Error| {
            format!(
                "the dedupe log beside {} cannot be used ({error}); its files and their folder must be writable",
                path.display()
            )
        };
        let existing = Existing::find(path).map_err(failed)?;
        existing.is_readable(path)?;
        let found = existing.load(path, &records, clock.now()).map_err(failed)?;
        let (number, file) = existing.segment(path).map_err(failed)?;
        let bytes = existing.remove_replaced(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let state = State {
            file: Arc::new(file),
            number,
            length,
            reserved: None,
            bytes,
            check_at: 0,
            // Damaged files are replaced at once.
            snapshot_at: (found.skipped > 0).then(|| clock.instant()),
            message: found.checkpoint,
            failed: 0,
            repaired: 0,
            unsynced: None,
            syncing: None,
            waiting: Vec::new(),
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
            failure: ArcSwapOption::empty(),
            failures: failures(),
        };
        Ok((log, found))
    }

    /// Reads the files of the log, and changes nothing.
    ///
    /// # Errors
    /// Why they cannot be read, for the operator.
    pub(crate) fn inspect(path: &Path) -> Result<Found, String> {
        let existing = Existing::list(path).map_err(|error| error.to_string())?;
        existing.is_readable(path)?;
        existing.read(path, |_record| {}).map_err(|error| error.to_string())
    }

    /// Writes all records to a snapshot for a copy of the store's file at `path`, whose last message is `message`. The
    /// copy must not have a log.
    ///
    /// # Errors
    /// The snapshot cannot be written; its file is removed.
    pub(crate) fn copy(&self, path: &Path, message: i64) -> io::Result<()> {
        self.write_snapshot((path, 1), message, || ())
    }

    /// Metrics: the size of the files, the age of the oldest unsynced record, and the number of failures.
    pub(crate) fn collectors(self: &Arc<Self>) -> prometheus::Result<Vec<Box<dyn Collector>>> {
        // A scrape does not wait for a write that waits for the disk.
        let log = Arc::clone(self);
        let bytes = move || log.state.try_lock().ok().and_then(|state| i64::try_from(state.bytes).ok());
        let (log, seen) = (Arc::clone(self), Mutex::new(None));
        let unsynced = move || {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(state) = log.state.try_lock() {
                *seen = state.syncing.or(state.unsynced);
            }
            let age = seen.map(|since| log.clock.instant().saturating_duration_since(since));
            Some(age.unwrap_or_default().as_secs_f64())
        };
        let age = "Age of the oldest record that a power failure would take; 0 when there is none.";
        Ok(vec![
            ComputedGauge::<prometheus::core::AtomicI64, _>::boxed(
                "doorward_dedupe_log_bytes",
                "Size of the dedupe log's files.",
                bytes,
            )?,
            ComputedGauge::<AtomicF64, _>::boxed("doorward_dedupe_log_unsynced_seconds", age, unsynced)?,
            Box::new(self.failures.clone()),
        ])
    }

    /// The records in memory.
    pub(crate) fn records(&self) -> &Arc<DedupeRecords> {
        &self.records
    }

    /// The keys of all messages up to this one are in the log and safe.
    pub(crate) fn checkpoint(&self) -> i64 {
        self.checkpoint.load(Ordering::Relaxed)
    }

    /// Whether new records outlive a crash.
    ///
    /// # Errors
    /// [`Unavailable`] after a failed append or sync, until a snapshot has repaired the log.
    pub(crate) fn healthy(&self) -> Result<(), Unavailable> {
        self.failure.load().as_deref().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Inserts records in memory, and appends them to the log with one write, so that they outlive a kill of the
    /// process. `message` is the last one of a batch of messages whose keys these are.
    ///
    /// # Errors
    /// [`Unavailable`] when the log cannot be written; the records are in memory all the same.
    pub(crate) fn append(
        &self,
        records: impl IntoIterator<Item = Record>,
        message: Option<i64>,
    ) -> Result<(), Unavailable> {
        let now = self.clock.now();
        let mut bytes = Vec::with_capacity(2 * ENTRY);
        for record in records {
            // Memory first: a snapshot that begins now replaces the segment that this is written to.
            self.records.insert_until(record.source, record.key, record.until, now);
            bytes.extend(Entry::Record(record).encode());
        }
        let mut state = self.lock();
        state.message = state.message.max(message.unwrap_or(0));
        let (mut wake, was_small) = (false, state.bytes <= state.check_at);
        let written = if bytes.is_empty() { Ok(()) } else { state.write(&bytes) };
        if state.unsynced.is_none() && !bytes.is_empty() {
            state.unsynced = Some(self.clock.instant());
            wake = true;
        }
        wake |= was_small && state.bytes > state.check_at;
        let written = written.map_err(|error| self.fail(&mut state, "written", &error));
        drop(state);
        if wake || written.is_err() {
            self.more.notify_one();
        }
        written
    }

    /// Requests a sync of everything that was appended before. The receiver fails when the sync fails.
    pub(crate) fn sync(&self) -> oneshot::Receiver<()> {
        let (sender, synced) = oneshot::channel();
        let mut state = self.lock();
        if state.waiting.len() == state.waiting.capacity() {
            // While a sync waits for the disk, earlier calls may have timed out.
            state.waiting.retain(|waiter| !waiter.is_closed());
        }
        state.waiting.push(sender);
        drop(state);
        self.more.notify_one();
        synced
    }

    /// Ends the log's thread after a last sync.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_one();
    }

    /// Records a failure, which a snapshot has to repair.
    fn fail(&self, state: &mut State, done: &str, error: &io::Error) -> Unavailable {
        self.failures.inc();
        let failure =
            Unavailable(format!("the dedupe log beside {} could not be {done} ({error})", self.path.display()));
        if state.is_healthy() {
            tracing::error!(
                %error,
                path = %self.path.display(),
                "the dedupe log could not be {done}: what is finished now is in memory alone, and may be delivered again \
                 after a crash, until a snapshot takes its place. See to the disk"
            );
            state.snapshot_at = Some(self.clock.instant());
        }
        state.failed += 1;
        self.failure.store(Some(Arc::new(failure.clone())));
        failure
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failures() -> IntCounter {
    let help = "Appends, syncs and snapshots of the dedupe log that failed.";
    #[expect(clippy::expect_used, reason = "the name is a constant")]
    IntCounter::new("doorward_dedupe_log_failures_total", help).expect("a valid metric")
}

impl State {
    /// Whether the thread has to check now if a snapshot is needed.
    fn is_due(&self, now: Instant) -> bool {
        self.snapshot_at.map_or(self.bytes > self.check_at, |from| from <= now)
    }

    /// Records that a sync begins.
    fn begin_sync(&mut self) {
        let unsynced = self.unsynced.take();
        self.syncing = self.syncing.or(unsynced);
    }

    fn is_healthy(&self) -> bool {
        self.failed == self.repaired
    }

    /// Appends whole entries, usually with one system call.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(bytes)?;
        let written = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        (self.bytes, self.length) = (self.bytes.saturating_add(written), self.length.saturating_add(written));
        Ok(())
    }
}
