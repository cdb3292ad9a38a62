//! The thread of a dedupe log: syncs what was appended, and replaces the files by a snapshot when they are too large or
//! damaged.

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

/// How often what was appended is synced to disk.
const SYNC_EVERY: Duration = Duration::from_secs(1);

impl DedupeLog {
    /// Runs until the log is closed.
    ///
    /// # Errors
    /// Never; what fails is tried again.
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

    /// Waits until there is something to do; whether the log is closed.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            let now = self.clock.instant();
            if state.closed || !state.waiting.is_empty() || state.is_due(now) {
                return state.closed;
            }
            // What a sync cannot help any more waits for a snapshot.
            let unsynced = state.unsynced.filter(|_| state.is_healthy());
            let due = unsynced.map(|since| since + SYNC_EVERY).into_iter().chain(state.snapshot_at).min();
            let left = due.map(|due| due.saturating_duration_since(now));
            state = match left {
                Some(Duration::ZERO) => return false,
                Some(left) => self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Syncs and writes a snapshot, as far as either is due.
    pub(super) fn maintain(&self, closed: bool, beat: impl Fn()) {
        let now = self.clock.instant();
        let state = self.lock();
        let late = state.unsynced.is_some_and(|since| now.saturating_duration_since(since) >= SYNC_EVERY);
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

    /// Whether the files have more bytes than the limits say for the records that are live now.
    fn has_outgrown(&self) -> bool {
        let live = u64::try_from(self.records.remove_expired(self.clock.now())).unwrap_or(u64::MAX);
        let live = live.saturating_mul(ENTRY_BYTES);
        let most = live.saturating_mul(self.limits.factor.saturating_add(1)).saturating_add(self.limits.slack);
        let mut state = self.lock();
        state.check_at = most;
        state.bytes > most
    }

    /// Makes safe what was appended, and says up to which message, unless an append has failed.
    pub(super) fn sync_now(&self) {
        let (file, number, length, message, waiting) = {
            let mut state = self.lock();
            state.begin_sync();
            let waiting = std::mem::take(&mut state.waiting);
            if !state.is_healthy() {
                // Only a snapshot helps; those who wait get an error.
                return;
            }
            (Arc::clone(&state.file), state.number, state.length, state.message, waiting)
        };
        let synced = files::is_there(&self.path, number, &file, length).and_then(|()| file.sync_data());
        if let Err(error) = synced {
            // What was not written may be thrown away now, and the next sync of this file would succeed without it:
            // another one begins, even where a snapshot that failed had begun this one.
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

    /// Writes everything that is in memory to a new file, which takes the place of the older ones.
    pub(super) fn replace(&self, beat: impl Fn()) -> io::Result<()> {
        let number = self.begin_behind_snapshot()?;
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
        (state.reserved, state.healed, state.bytes) = (None, failed, bytes);
        if !state.is_healthy() {
            // Something has failed since.
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

    /// Writes everything that is in memory to a file of this number; nothing is left of one that cannot be written,
    /// which may take room that others need.
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

    /// Begins a segment with room for a snapshot in front of it, whose number this is; unless that was done before and
    /// the snapshot failed.
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
            (state.number, state.length, state.reserved) = (segment, ENTRY_BYTES, Some(snapshot));
            state.begin_sync();
            state.bytes = state.bytes.saturating_add(ENTRY_BYTES);
            let healthy = state.is_healthy();
            (std::mem::replace(&mut state.file, new), std::mem::take(&mut state.waiting), healthy)
        };
        // Until the snapshot is there, the old files are what a restart reads.
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

/// Notifies those who wait for a sync.
fn notify(waiting: Vec<oneshot::Sender<()>>) {
    for waiter in waiting {
        // One that is gone has stopped waiting.
        let _gone = waiter.send(());
    }
}
