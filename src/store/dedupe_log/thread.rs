//! The thread of a dedupe log: syncs appended records, and replaces the files by a snapshot when they are too large or
//! damaged. (`impl DedupeLog` here, because `mod.rs` would be too long.)

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::DedupeLog;
use super::ENTRY_BYTES;
use super::entry::Entry;
use super::files;
use crate::base::supervisor::Heartbeat;
use crate::base::supervisor::TaskError;

/// The interval of syncs.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

impl DedupeLog {
    /// Runs until the log is closed.
    ///
    /// # Errors
    /// Never; failures are retried.
    pub(crate) fn run(&self, beat: &Heartbeat) -> Result<(), TaskError> {
        loop {
            beat.idle();
            let closed = self.wait();
            beat.beat();
            self.maintain(closed, || beat.beat());
            if closed {
                return Ok(());
            }
        }
    }

    /// Waits until there is something to do. Returns whether the log is closed.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            let now = self.clock.instant();
            if state.closed || !state.waiting.is_empty() || state.is_due(now) {
                return state.closed;
            }
            // An unhealthy log needs a snapshot; a sync does not help.
            let unsynced = state.unsynced.filter(|_| state.is_healthy());
            let due = unsynced.map(|since| since + SYNC_INTERVAL).into_iter().chain(state.snapshot_at).min();
            let left = due.map(|due| due.saturating_duration_since(now));
            state = match left {
                Some(Duration::ZERO) => return false,
                Some(left) => self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Syncs, and writes a snapshot, if these are due.
    pub(super) fn maintain(&self, closed: bool, beat: impl Fn()) {
        let now = self.clock.instant();
        let state = self.lock();
        let late = state.unsynced.is_some_and(|since| now.saturating_duration_since(since) >= SYNC_INTERVAL);
        let sync = late || closed || !state.waiting.is_empty();
        let (due, whatever_size) = (state.is_due(now) && !closed, state.snapshot_at.is_some());
        drop(state);
        if sync {
            self.sync_now();
        }
        if due
            && (whatever_size || self.has_outgrown())
            && let Err(error) = self.replace(&beat)
        {
            self.failures.inc();
            tracing::error!(
                %error,
                path = %self.path.display(),
                "no snapshot of the dedupe log can be written: it grows, and what could not be appended stays in memory \
                 alone; it is tried again. See to the room on the disk"
            );
            self.lock().snapshot_at = Some(self.clock.instant() + self.limits.retry_every);
        }
    }

    /// Whether the files are larger than the limits allow for the number of live records.
    fn has_outgrown(&self) -> bool {
        let live = u64::try_from(self.records.remove_expired(self.clock.now())).unwrap_or(u64::MAX);
        let live = live.saturating_mul(ENTRY_BYTES);
        let most = live.saturating_mul(self.limits.factor.saturating_add(1)).saturating_add(self.limits.slack);
        let mut state = self.lock();
        state.check_at = most;
        state.bytes > most
    }

    /// Syncs the segment, and appends a checkpoint; does nothing when the log is unhealthy.
    pub(super) fn sync_now(&self) {
        let (file, number, length, message, waiting) = {
            let mut state = self.lock();
            state.begin_sync();
            let waiting = std::mem::take(&mut state.waiting);
            if !state.is_healthy() {
                // Only a snapshot helps. Dropping the senders fails the waiting calls.
                return;
            }
            (Arc::clone(&state.file), state.number, state.length, state.message, waiting)
        };
        let synced = files::is_there(&self.path, number, &file, length).and_then(|()| file.sync_data());
        if let Err(error) = synced {
            // The kernel may have dropped the unsynced pages, and the next sync of this file would succeed without
            // them. So a new segment begins, even if a failed snapshot had begun this one.
            let mut state = self.lock();
            state.reserved = None;
            drop(self.fail(&mut state, "synced", &error));
            return;
        }
        notify(waiting);
        let mut state = self.lock();
        if message > self.checkpoint() {
            match state.write(&Entry::Checkpoint(message).encode()) {
                Ok(()) => self.checkpoint.store(message, Ordering::Relaxed),
                Err(error) => drop(self.fail(&mut state, "written", &error)),
            }
        }
        if state.is_healthy() {
            state.syncing = None;
        }
    }

    /// Replaces the files by a snapshot of the records in memory, and a new segment.
    pub(super) fn replace(&self, beat: impl Fn()) -> io::Result<()> {
        let number = self.begin_segment()?;
        let (message, failed) = {
            let state = self.lock();
            (state.message, state.failed)
        };
        self.write_snapshot((&self.path, number), message, beat)?;
        files::remove_below(&self.path, number)?;
        let bytes = files::list(&self.path)?.iter().map(|file| file.bytes).sum();
        self.checkpoint.fetch_max(message, Ordering::Relaxed);
        let mut state = self.lock();
        let was_healthy = state.is_healthy();
        (state.reserved, state.repaired, state.bytes) = (None, failed, bytes);
        if !state.is_healthy() {
            // An append has failed since.
            return Err(io::Error::other("an append failed while it was written"));
        }
        state.syncing = None;
        self.failure.store(None);
        state.snapshot_at = None;
        if !was_healthy {
            tracing::info!("a snapshot has taken the place of the dedupe log that could not be written");
        }
        Ok(())
    }

    /// Writes the records in memory to a snapshot with this number. Removes its file when that fails, since the disk
    /// may be full.
    pub(super) fn write_snapshot(&self, (path, number): (&Path, u64), message: i64, beat: impl Fn()) -> io::Result<()> {
        let written = files::Snapshot::begin(path).and_then(|mut snapshot| {
            for part in self.records.parts(self.clock.now()) {
                snapshot.add(&part)?;
                beat();
            }
            snapshot.finish(path, number, message)
        });
        if written.is_err() {
            drop(files::discard(path));
        }
        written
    }

    /// Begins a new segment, and reserves the number before it for a snapshot. Returns that number; the same one again
    /// after a snapshot that failed.
    fn begin_segment(&self) -> io::Result<u64> {
        let (reserved, number) = {
            let state = self.lock();
            (state.reserved, state.number)
        };
        if let Some(reserved) = reserved {
            return Ok(reserved);
        }
        // After all existing files.
        let number = files::list(&self.path)?.last().map_or(number, |last| last.number.max(number));
        let (snapshot, segment) = (number + 1, number + 2);
        let new = Arc::new(files::create(&self.path, segment)?);
        let (old, waiting, healthy) = {
            let mut state = self.lock();
            (state.number, state.length, state.reserved) = (segment, ENTRY_BYTES, Some(snapshot));
            state.begin_sync();
            state.bytes = state.bytes.saturating_add(ENTRY_BYTES);
            let healthy = state.is_healthy();
            (std::mem::replace(&mut state.file, new), std::mem::take(&mut state.waiting), healthy)
        };
        // Until the snapshot is complete, a restart reads the old files.
        match old.sync_data() {
            Ok(()) if healthy => {
                self.lock().syncing = None;
                notify(waiting);
            }
            Ok(()) => {}
            Err(error) => drop(self.fail(&mut self.lock(), "synced", &error)),
        }
        Ok(snapshot)
    }
}

/// Notifies the calls that wait for a sync.
fn notify(waiting: Vec<oneshot::Sender<()>>) {
    for waiter in waiting {
        // The call may have stopped waiting.
        let _gone = waiter.send(());
    }
}
