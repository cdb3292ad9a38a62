//! An eventcount: a task without work sleeps until something has changed since it last checked for work.
//!
//! Read [`Signal::count`], then check for work. If there is none, await [`Signal::changed_since`] that count. A change
//! between the two ends the wait at once, so no wake-up is lost. Only one task may wait at a time: a second one
//! replaces the waker of the first.

use std::future::poll_fn;
use std::task::Poll;
use std::task::Waker;

use crate::base::sync::AtomicU64;
use crate::base::sync::Mutex;
use crate::base::sync::Ordering;

/// Counts changes, and wakes the task that waits for one.
#[derive(Debug, Default)]
pub struct Signal {
    count: AtomicU64,
    waiting: Mutex<Option<Waker>>,
}

impl Signal {
    /// The number of changes so far. Read it before checking for work.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Counts a change and wakes the waiting task.
    pub fn raise(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if let Some(waker) = self.waiting().take() {
            waker.wake();
        }
    }

    /// Waits until the number of changes is no longer `seen`.
    pub async fn changed_since(&self, seen: u64) {
        poll_fn(|cx| {
            if self.count() != seen {
                return Poll::Ready(());
            }
            *self.waiting() = Some(cx.waker().clone());
            // A change that came before the waker was stored did not wake this task.
            if self.count() == seen { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    fn waiting(&self) -> impl std::ops::DerefMut<Target = Option<Waker>> + '_ {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn a_change_since_the_look_ends_the_wait_and_one_before_it_does_not() {
        let signal = Signal::default();
        signal.raise();
        let seen = signal.count();
        let mut wait = pin!(signal.changed_since(seen));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        signal.raise();
        assert!(wait.as_mut().poll(&mut cx).is_ready());
        assert!(pin!(signal.changed_since(seen)).poll(&mut cx).is_ready());
    }
}
