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

/// Pages that are written before they are moved: 8 MiB.
const EAGER: usize = 2048;
/// Pages in the log from which on the writer makes a pause for the last of them, so that the log begins anew: 48 MiB. Less
/// than `store.min_free` by default: recording deliveries must not fill the disk.
const LONG: i64 = 12 * 1024;

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
                // More was written meanwhile: without a pause, a log that is never idle would grow for ever.
                Ok(log) => self.quiet.store(log > LONG, Ordering::Relaxed),
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

/// Moves what can be moved without making anybody wait; how many pages were in the log.
fn checkpoint(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use http::HeaderValue;
    use http::Method;

    use super::super::Options;
    use super::super::Sqlite;
    use super::*;
    use crate::store::queued::Queue;
    use crate::store::queued::QueuedEvent;
    use crate::time::Moment;

    #[test]
    fn the_log_does_not_grow_for_ever_under_load_that_never_ceases() {
        const BODY: usize = 128 * 1024;
        const SENDERS: usize = 8;
        const EACH: usize = 200;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("queue.db");
        let hour = std::time::Duration::from_secs(3600);
        let queues = [Queue { source: "shop".to_owned(), ordered: false, keep: hour }];
        let options = Options { path: path.clone(), max_events: 10, min_free: 0, queues: &queues };
        let sqlite = Arc::new(Sqlite::open(&options).expect("a store"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let event = Arc::new(QueuedEvent {
            id: HeaderValue::from_static("1"),
            kind: None,
            received_at: Moment::now(),
            method: Method::POST,
            headers: HeaderMap::new(),
            body: Bytes::from(vec![b'x'; BODY]),
            lane: None,
        });
        runtime.block_on(async {
            let mut senders = tokio::task::JoinSet::new();
            for _ in 0..SENDERS {
                let (sqlite, event) = (Arc::clone(&sqlite), Arc::clone(&event));
                let _sender = senders.spawn(async move {
                    for _ in 0..EACH {
                        sqlite.enqueue(0, Arc::clone(&event), None, hour).await.expect("queued");
                    }
                });
            }
            drop(senders.join_all().await);
        });
        let log = std::fs::metadata(path.with_extension("db-wal")).expect("a log").len();
        assert!(log < 100 * 1024 * 1024, "of 200 MiB that were written, the log has {log} bytes");
    }
}
