//! How long a delivery may take, and the timer that says when that time is up.

use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tokio::time::Sleep;
use tokio::time::sleep_until;

/// What an answer is granted beyond its time: a gateway that was stopped for a while sees that the time is up before it
/// sees the answer that came meanwhile, and would send the event again.
const GRACE: Duration = Duration::from_millis(20);
/// Longer than any timeout of an operator: a century.
const FAR: Duration = Duration::from_hours(24 * 36_525);

/// When a delivery has to be done.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Instant,
    /// Whether [`GRACE`] was added.
    is_extended: bool,
}

/// The time was up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elapsed;

/// Wakes a task when its time is up; made when something has to be waited for. It may be set to the deadline of an
/// earlier delivery, and is set to the next one only when that has come: most deliveries leave the timers of the
/// runtime alone.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// So long after this moment.
    pub(super) fn after(begin: std::time::Instant, timeout: Duration) -> Self {
        let begin = Instant::from_std(begin);
        Self { at: begin.checked_add(timeout).unwrap_or(begin + FAR), is_extended: false }
    }

    /// Waits for a future for as long as there is time.
    pub(super) async fn limit<F: Future>(&mut self, timer: &mut Timer, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_elapsed(timer, cx).map(Err),
        })
        .await
    }

    fn poll_elapsed(&mut self, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<Elapsed> {
        let sleep = timer.0.get_or_insert_with(|| Box::pin(sleep_until(self.at)));
        if sleep.deadline() > self.at {
            sleep.as_mut().reset(self.at);
        }
        loop {
            // What is received without an end would leave it no turn.
            ready!(pin!(unconstrained(sleep.as_mut())).poll(cx));
            if sleep.deadline() >= self.at {
                if self.is_extended {
                    return Poll::Ready(Elapsed);
                }
                self.is_extended = true;
                self.at = Instant::now() + GRACE;
            }
            sleep.as_mut().reset(self.at);
        }
    }
}
