//! The drain state: while it drains, the gateway is not ready, but takes requests. A drain ends after a time limit,
//! unless a shutdown follows. (`impl Shared` here, because `mod.rs` would be too long.)

use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::Shared;

/// The state; `Shared::draining` is set in all states but `None`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// Not draining.
    #[default]
    None,
    /// Draining until then, unless it is asked again.
    Until(Instant),
    /// Shutting down, or draining without a limit.
    Stopping,
}

impl Shared {
    /// Begins a drain, or restarts its time limit. Returns whether the gateway was not draining before.
    pub(super) fn drain_for(&self, time: Duration, now: Instant) -> bool {
        let mut drain = self.drain();
        if *drain != Drain::Stopping {
            // A time limit beyond the range of the clock is none.
            *drain = now.checked_add(time).map_or(Drain::Stopping, Drain::Until);
        }
        !self.draining.swap(true, Ordering::Relaxed)
    }

    /// Ends a drain whose time limit has passed. Returns whether it did.
    pub(super) fn end_drain(&self, now: Instant) -> bool {
        let mut drain = self.drain();
        let is_over = matches!(*drain, Drain::Until(end) if end <= now);
        if is_over {
            *drain = Drain::None;
            self.draining.store(false, Ordering::Relaxed);
        }
        is_over
    }

    /// Begins the shutdown: the gateway does not become ready again.
    pub(super) fn begin_shutdown(&self) {
        *self.drain() = Drain::Stopping;
        self.draining.store(true, Ordering::Relaxed);
    }

    fn drain(&self) -> MutexGuard<'_, Drain> {
        self.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
