#![doc = include_str!("log.md")]

mod entry;
mod files;
mod metrics;
mod recover;
#[cfg(test)]
mod tests;

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
use std::time::Duration;
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
use crate::supervisor::Beat;
use crate::supervisor::Lost;

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
    /// Since when something is not synced.
    unsynced: Option<Instant>,
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

    /// The log's thread: syncs what was appended, and writes snapshots.
    ///
    /// # Errors
    /// Never; what fails is tried again.
    pub(crate) fn run(&self, beat: &Beat) -> Result<(), Lost> {
        loop {
            beat.rest();
            let closed = self.wait();
            beat.show();
            self.tend(closed, || beat.show());
            if closed {
                return Ok(());
            }
        }
    }

    /// Waits until there is something to do; whether that is the last.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.closed || !state.waiting.is_empty() || state.due == Due::Look {
                return state.closed;
            }
            let from = if let Due::From(from) = state.due { Some(from) } else { None };
            let due = state.unsynced.map(|since| since + self.limits.sync_every).into_iter().chain(from).min();
            let left = due.map(|due| due.saturating_duration_since(self.clock.instant()));
            state = match left {
                Some(Duration::ZERO) => return false,
                Some(left) => self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Does what is due now.
    fn tend(&self, closed: bool, beat: impl Fn()) {
        let now = self.clock.instant();
        let state = self.lock();
        let late = state.unsynced.is_some_and(|since| now.saturating_duration_since(since) >= self.limits.sync_every);
        let (sync, due) = (late || closed || !state.waiting.is_empty(), state.due);
        drop(state);
        if sync {
            self.sync_now();
        }
        let grown = || {
            let live = u64::try_from(self.records.forget_expired(self.clock.now())).unwrap_or(u64::MAX);
            let most = self.most(live);
            let mut state = self.lock();
            (state.look_at, state.due) = (most, Due::Grown);
            state.bytes > most
        };
        let replace = match due {
            _ if closed => false,
            Due::Grown => false,
            Due::Look => grown(),
            Due::From(from) => from <= now,
        };
        if replace && let Err(error) = self.replace(&beat) {
            self.failures.inc();
            tracing::error!(
                %error,
                path = %self.path.display(),
                "no snapshot of the dedupe log can be written: it grows, and what could not be appended stays in memory \
                 alone; it is tried again. See to the room on the disk"
            );
            self.lock().due = Due::From(self.clock.instant() + self.limits.retry_every);
        }
    }

    /// Most bytes that all files have, with so many records, before a snapshot takes their place.
    fn most(&self, live: u64) -> u64 {
        let live = live.saturating_mul(ENTRY_BYTES);
        live.saturating_mul(self.limits.factor.saturating_add(1)).saturating_add(self.limits.slack)
    }

    /// Makes safe what was appended, and says up to which message, unless an append has failed.
    fn sync_now(&self) {
        let (file, message, waiting) = {
            let mut state = self.lock();
            state.unsynced = None;
            let waiting = std::mem::take(&mut state.waiting);
            if !state.is_healthy() {
                // Only a snapshot helps; those who wait are told so.
                return;
            }
            (Arc::clone(&state.file), state.message, waiting)
        };
        if let Err(error) = file.sync_data() {
            // What was not written may be thrown away now, and the next sync would succeed without it.
            self.fail(&mut self.lock(), "synced", &error);
            return;
        }
        tell(waiting);
        if message > self.checkpoint() {
            let mut state = self.lock();
            match state.write(&Entry::Checkpoint(message).encode()) {
                Ok(()) => self.checkpoint.store(message, Ordering::Relaxed),
                Err(error) => drop(self.fail(&mut state, "written", &error)),
            }
        }
    }

    /// Writes everything that is in memory to a new file, which takes the place of the older ones.
    fn replace(&self, beat: impl Fn()) -> io::Result<()> {
        let number = self.begin_behind_snapshot()?;
        let (message, failed) = {
            let state = self.lock();
            (state.message, state.failed)
        };
        let written = self.write_snapshot(number, message, beat);
        if written.is_err() {
            // It may take room that others need.
            drop(files::discard(&self.path));
        }
        written?;
        files::remove_below(&self.path, number)?;
        let bytes = files::list(&self.path)?.iter().map(|file| file.bytes).sum();
        self.checkpoint.fetch_max(message, Ordering::Relaxed);
        let mut state = self.lock();
        let was_healthy = state.is_healthy();
        (state.reserved, state.healed, state.bytes) = (None, failed, bytes);
        if !state.is_healthy() {
            // Something has failed since.
            return Err(io::Error::other("an append failed while it was written"));
        }
        self.failing.store(false, Ordering::Relaxed);
        if matches!(state.due, Due::From(_)) {
            state.due = Due::Look;
        }
        if !was_healthy {
            tracing::info!("a snapshot has taken the place of the dedupe log that could not be written");
        }
        Ok(())
    }

    fn write_snapshot(&self, number: u64, message: i64, beat: impl Fn()) -> io::Result<()> {
        let mut snapshot = files::Snapshot::begin(&self.path)?;
        for part in self.records.parts(self.clock.now()) {
            snapshot.add(&part)?;
            beat();
        }
        snapshot.finish(&self.path, number, message)
    }

    /// Begins a segment with room for a snapshot in front of it, whose number this is; unless that was done before and the
    /// snapshot failed.
    fn begin_behind_snapshot(&self) -> io::Result<u64> {
        let (reserved, number) = {
            let state = self.lock();
            (state.reserved, state.number)
        };
        if let Some(reserved) = reserved {
            return Ok(reserved);
        }
        // Behind whatever is there.
        let number = files::list(&self.path)?.last().map_or(number, |last| last.number.max(number));
        let (snapshot, segment) = (number + 1, number + 2);
        let new = Arc::new(files::create(&self.path, segment)?);
        let (old, waiting, healthy) = {
            let mut state = self.lock();
            (state.number, state.reserved, state.unsynced) = (segment, Some(snapshot), None);
            state.bytes = state.bytes.saturating_add(ENTRY_BYTES);
            (std::mem::replace(&mut state.file, new), std::mem::take(&mut state.waiting), state.is_healthy())
        };
        // Until the snapshot is there, the old files are what a restart reads.
        match old.sync_data() {
            Ok(()) if healthy => tell(waiting),
            Ok(()) => {}
            Err(error) => drop(self.fail(&mut self.lock(), "synced", &error)),
        }
        Ok(snapshot)
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

/// Tells those who wait that everything is safe.
fn tell(waiting: Vec<oneshot::Sender<()>>) {
    for waiter in waiting {
        // Whoever stopped waiting does not need to know.
        let _gone = waiter.send(());
    }
}

impl State {
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
