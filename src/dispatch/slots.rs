//! Counts the attempts of a destination that are under way. How many may be is told at each look, since it may change.

use std::sync::Arc;

use tokio::sync::watch;

/// How many attempts are under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<watch::Sender<usize>>);

/// An attempt under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(Slots);

impl Slots {
    /// Waits until fewer than `max` are under way.
    pub(super) async fn wait_below(&self, max: usize) {
        // It cannot fail: `self` is the sender.
        drop(self.0.subscribe().wait_for(|taken| *taken < max.max(1)).await);
    }

    /// Counts one more.
    pub(super) fn take(&self) -> Slot {
        self.0.send_modify(|taken| *taken += 1);
        Slot(self.clone())
    }

    /// How many are under way.
    pub(super) fn taken(&self) -> usize {
        *self.0.borrow()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.send_modify(|taken| *taken = taken.saturating_sub(1));
    }
}
