//! An eventcount: a task that finds nothing to do sleeps until something has changed since it looked.
//!
//! Read [`Signal::count`], then look; if there is nothing, wait for [`Signal::past`] that count. A change between the
//! two ends the wait at once, so that none is missed. One task waits at a time.

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
    /// How many changes there were. Read it before looking for something to do.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Something has changed: wakes whoever waits.
    pub fn raise(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if let Some(waker) = self.waiting().take() {
            waker.wake();
        }
    }

    /// Ends when there were more changes than `seen`.
    pub async fn past(&self, seen: u64) {
        poll_fn(|cx| {
            if self.count() != seen {
                return Poll::Ready(());
            }
            *self.waiting() = Some(cx.waker().clone());
            // It may have been raised before the waker stood there.
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
        let mut wait = pin!(signal.past(seen));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        signal.raise();
        assert!(wait.as_mut().poll(&mut cx).is_ready());
        assert!(pin!(signal.past(seen)).poll(&mut cx).is_ready());
    }
}
