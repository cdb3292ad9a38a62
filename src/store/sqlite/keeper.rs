//! Moves what was written from the log into the file (a checkpoint), on a thread and a connection of its own: the writer
//! goes on meanwhile.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::inbox::Inbox;
use super::salvage;

/// Pages that are written before they are moved: 4 MiB.
const EAGER: usize = 1024;
/// Pages in the log from which on the writer makes a pause for the last of them, so that the log begins anew: 32 MiB.
const LONG: i64 = 8192;

/// Counts what was written, and when to move it.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    state: Mutex<State>,
    more: Condvar,
    quiet: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    pages: usize,
    closed: bool,
}

impl Keeper {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// About this many pages were written.
    pub(super) fn written(&self, pages: usize) {
        let mut state = self.lock();
        state.pages += pages;
        if state.pages >= EAGER {
            self.more.notify_one();
        }
    }

    /// Moves pages until it is closed.
    pub(super) fn run(&self, connection: &Connection, inbox: &Arc<Inbox>) {
        loop {
            {
                let idle = |state: &mut State| state.pages < EAGER && !state.closed;
                let mut state = self.more.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
                if state.closed {
                    return;
                }
                state.pages = 0;
            }
            match checkpoint(connection) {
                Ok((log, moved)) => self.quiet.store(moved < log && log > LONG, Ordering::Relaxed),
                Err(error) => return inbox.fail(&error, salvage::is_damage(&error)),
            }
        }
    }

    /// Whether the writer should make a pause for a checkpoint.
    pub(super) fn wants_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// The writer's own checkpoint: nothing is written meanwhile, so that the log can begin anew.
    pub(super) fn checkpoint(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.quiet.store(false, Ordering::Relaxed);
        checkpoint(connection).map(drop)
    }

    /// Ends it.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_one();
    }
}

/// The pages in the log, and how many of them are in the file now.
fn checkpoint(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
}
