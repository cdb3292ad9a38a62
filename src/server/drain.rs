//! The drain state: the gateway is not ready for a limited time, after which the drain ends unless a shutdown has
//! followed.

use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::Shared;

/// Until when the gateway is not ready.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// It is not asked to drain.
    #[default]
    None,
    /// It is draining until then, unless it is asked again.
    Until(Instant),
    /// It is shutting down.
    Stopping,
}

impl Shared {
    /// Not ready any more for this long, counted anew each time; whether that is news.
    pub(super) fn drain_for(&self, time: Duration, now: Instant) -> bool {
        let mut drain = self.drain();
        if *drain != Drain::Stopping {
            // What is longer than a clock can count is without an end.
            *drain = now.checked_add(time).map_or(Drain::Stopping, Drain::Until);
        }
        !self.draining.swap(true, Ordering::Relaxed)
    }

    /// Ready again when the time is up; whether it was just now.
    pub(super) fn end_drain(&self, now: Instant) -> bool {
        let mut drain = self.drain();
        let over = matches!(*drain, Drain::Until(end) if end <= now);
        if over {
            *drain = Drain::None;
            self.draining.store(false, Ordering::Relaxed);
        }
        over
    }

    /// Not ready any more, for good.
    pub(super) fn stop_taking(&self) {
        *self.drain() = Drain::Stopping;
        self.draining.store(true, Ordering::Relaxed);
    }

    fn drain(&self) -> MutexGuard<'_, Drain> {
        self.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
