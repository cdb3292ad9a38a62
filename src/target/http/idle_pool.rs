//! The idle connections to an app, kept to be reused.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use super::connection::Connection;

/// How long an idle connection is kept: less than the keep-alive timeout of common servers (Node.js: 5 s).
const MAX_IDLE: Duration = Duration::from_secs(4);
/// Most connections that are kept while idle.
const MAX_KEPT: usize = 1024;

/// Idle connections, the one that was used last at the end.
#[derive(Debug, Default)]
pub(super) struct IdlePool(Mutex<Vec<Idle>>);

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl IdlePool {
    /// The connection that was used last, which is the one most likely to be open.
    pub(super) fn take(&self, now: Instant) -> Option<Connection> {
        let mut idle = self.lock();
        let newest = idle.pop()?;
        if now.saturating_duration_since(newest.since) < MAX_IDLE {
            return Some(newest.connection);
        }
        // All others are older.
        idle.clear();
        None
    }

    /// Keeps a connection, if there is room.
    pub(super) fn put(&self, connection: Connection) {
        let mut idle = self.lock();
        if idle.len() < MAX_KEPT {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes the connections that have been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        let mut idle = self.lock();
        // The oldest are first.
        let old = idle.partition_point(|kept| now.saturating_duration_since(kept.since) >= MAX_IDLE);
        drop(idle.drain(..old));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
