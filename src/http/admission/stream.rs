//! One stream of a connection that has several (HTTP/2), as the status of the connection counts it.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::status::Status;

/// How far a stream is.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Whether its request is complete.
    busy: AtomicBool,
    ended: AtomicBool,
}

impl Stream {
    /// Counts it as busy. One that the client has given up is finished in the background, and does not keep its
    /// connection.
    pub(super) fn occupy(&self, status: &Status) {
        if !self.ended.load(Relaxed) && !self.busy.swap(true, Relaxed) {
            status.occupy_stream();
        }
    }

    /// Counts it no more. Returns whether its connection waits from now on.
    pub(super) fn end(&self, status: &Status, now: u64) -> bool {
        !self.ended.swap(true, Relaxed) && status.end_stream(self.busy.load(Relaxed), now)
    }
}
