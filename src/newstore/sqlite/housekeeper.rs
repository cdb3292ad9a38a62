//! Keeps the WAL short: checkpoints move its frames into the file, on a thread and a connection of their own while the writer
//! goes on; where that is not enough, the writer waits for one that lets the WAL restart.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;

use super::connections::Connections;
use super::fault::Fault;
use super::mailbox::Mailbox;
use crate::limits::Sqlite as Limits;
use crate::supervisor::Heartbeat;

/// SQLite's busy timeout of the writer, but for the checkpoint that restarts the WAL.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// When nothing was committed for so long, what is in the WAL is moved, however little that is.
const IDLE: Duration = Duration::from_secs(1);

/// How long the WAL is, and when the next checkpoint is due.
#[derive(Debug)]
pub(super) struct Housekeeper {
    limits: Limits,
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug)]
struct State {
    /// Frames in the WAL.
    frames: u32,
    /// How many of them are in the file, how many there were at the last checkpoint, and when a restart was last tried.
    moved: u32,
    seen: u32,
    tried: u32,
    /// When something was last committed or a checkpoint was tried.
    last: Instant,
    closed: bool,
}

impl Housekeeper {
    pub(super) fn new(limits: Limits) -> Self {
        let state = State { frames: 0, moved: 0, seen: 0, tried: 0, last: Instant::now(), closed: false };
        Self { limits, state: Mutex::new(state), more: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the WAL of the writer's connection, which is empty.
    pub(super) fn watch(self: &Arc<Self>, writer: &mut Connection) -> rusqlite::Result<()> {
        // The file of a WAL that was longer is cut to this when it restarts.
        writer.pragma_update(None, "journal_size_limit", i64::from(self.limits.restart_frames) * 4096)?;
        self.committed(0);
        let housekeeper = Arc::clone(self);
        writer.wal_hook(Some(move |_wal: &mut rusqlite::hooks::Wal, frames| {
            housekeeper.committed(u32::try_from(frames).unwrap_or(0));
            Ok(())
        }))
    }

    fn committed(&self, frames: u32) {
        let mut state = self.lock();
        if frames < state.frames {
            // It has restarted.
            (state.moved, state.seen, state.tried) = (0, 0, 0);
        }
        let first = state.frames <= state.moved;
        state.frames = frames;
        state.last = Instant::now();
        if first || frames.saturating_sub(state.seen) >= self.limits.checkpoint_frames {
            self.more.notify_one();
        }
    }

    /// Waits until a checkpoint is due; whether there will be one.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.closed {
                return false;
            }
            let idle = state.last.elapsed();
            let long = state.frames.saturating_sub(state.seen) >= self.limits.checkpoint_frames;
            let left = state.frames > state.moved;
            if long || left && idle >= IDLE {
                state.seen = state.frames;
                return true;
            }
            state = if left {
                self.more.wait_timeout(state, IDLE.saturating_sub(idle)).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.more.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Moves frames until it is closed.
    pub(super) fn run(&self, connections: &Connections, mailbox: &Mailbox, beat: &Heartbeat) {
        loop {
            beat.idle();
            if !self.wait() {
                return;
            }
            beat.beat();
            let moved = connections.housekeeper.with(|connection| {
                connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(2))
            });
            let mut state = self.lock();
            state.last = Instant::now();
            match moved {
                Some(Ok(moved)) => state.moved = u32::try_from(moved).unwrap_or(0).min(state.frames),
                // It is tried again. Without a connection, the file is being opened anew.
                None => {}
                Some(Err(error)) if Fault::of(&error) == Fault::Passing => {}
                Some(Err(error)) => {
                    drop(state);
                    // The writer sees to it.
                    drop(mailbox.submit(|batch| batch.trouble = Some(error)));
                }
            }
        }
    }

    /// The writer's part: restarts the WAL when it is long. Returns whether more messages may be stored.
    pub(super) fn restart(&self, writer: &Connection, connections: &Connections) -> rusqlite::Result<bool> {
        let frames = {
            let state = self.lock();
            let due = state.frames >= self.limits.restart_frames
                && state.frames - state.tried >= self.limits.checkpoint_frames;
            if !due && state.frames < self.limits.refuse_frames {
                return Ok(true);
            }
            state.frames
        };
        // SQLite refuses a second checkpoint at the same time.
        let alone = connections.housekeeper.lock();
        writer.busy_timeout(self.limits.restart_timeout)?;
        let busy = writer.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, bool>(0));
        writer.busy_timeout(PATIENCE)?;
        let busy = busy?;
        drop(alone);
        if busy {
            // They are done by the next time.
            connections.interrupt(self.limits.max_read);
        }
        let mut state = self.lock();
        (state.moved, state.seen, state.tried) = if busy { (state.moved, frames, frames) } else { (0, 0, 0) };
        state.frames = if busy { frames } else { 0 };
        Ok(state.frames < self.limits.refuse_frames)
    }

    /// Ends it.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_one();
    }
}
