//! Polls a connection future from the task that waits for its result, only after the connection's own waker was called.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;

/// A connection future, polled by the task that waits for its result.
#[derive(Debug)]
pub(super) struct Driver<D> {
    /// Absent once it has ended.
    connection: Option<Pin<Box<D>>>,
    wakes: Arc<Wakes>,
    /// The waker of `wakes`.
    waker: Waker,
}

impl<D: Future> Driver<D> {
    /// Drives this connection.
    pub(super) fn new(connection: D) -> Self {
        let wakes = Arc::new(Wakes { pending: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) });
        let waker = Waker::from(Arc::clone(&wakes));
        Self { connection: Some(Box::pin(connection)), wakes, waker }
    }

    /// Waits for a future that the connection completes.
    pub(super) async fn drive<F: Future>(&mut self, mut future: Pin<&mut F>) -> F::Output {
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            // The connection may have completed the future.
            if self.poll(cx.waker()) { future.as_mut().poll(cx) } else { Poll::Pending }
        })
        .await
    }

    /// Polls the connection if it was woken since the last poll, and registers `task` to be woken next time. Returns
    /// whether the connection was woken.
    pub(super) fn poll(&mut self, task: &Waker) -> bool {
        let was_woken = self.wakes.take(task);
        if was_woken
            && let Some(connection) = &mut self.connection
            && connection.as_mut().poll(&mut Context::from_waker(&self.waker)).is_ready()
        {
            self.connection = None;
        }
        was_woken
    }

    /// Whether the connection has not ended yet.
    pub(super) fn is_open(&self) -> bool {
        self.connection.is_some()
    }
}

/// The waker of the connection: records the wake-up, and wakes the task that polled it last.
#[derive(Debug)]
struct Wakes {
    pending: AtomicBool,
    /// The task that polled it last.
    task: Mutex<Waker>,
}

impl Wakes {
    /// Takes the recorded wake-up, if there is one. Registers the task first, so that a concurrent wake-up is not lost.
    fn take(&self, task: &Waker) -> bool {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(task);
        self.pending.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.pending.store(true, Ordering::Release);
        self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_polled_when_it_asks_for_it_and_not_when_the_task_is_woken_by_others() {
        let (mut polls, mut asks) = (0, 0);
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let connection = poll_fn(|cx: &mut Context<'_>| {
            polls += 1;
            if polls < 3 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let _sent = sender.try_send(());
            Poll::<()>::Pending
        });
        let mut driver = Driver::new(connection);
        let awaited = poll_fn(|cx: &mut Context<'_>| {
            asks += 1;
            cx.waker().wake_by_ref();
            receiver.poll_recv(cx)
        });
        assert_eq!(driver.drive(std::pin::pin!(awaited)).await, Some(()));
        for _ in 0..3 {
            assert!(!driver.poll(Waker::noop()), "it asked for nothing");
        }
        assert!(driver.is_open());
        drop(driver);
        assert_eq!(polls, 3);
        assert!(asks > 3, "{asks}");
    }

    #[tokio::test]
    async fn what_a_connection_leaves_undone_as_it_ends_is_seen() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let mut driver = Driver::new(async move { drop(sender) });
        assert!(driver.drive(std::pin::pin!(receiver)).await.is_err());
        assert!(!driver.is_open());
    }
}
