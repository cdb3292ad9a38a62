//! The loop of a dispatcher: takes deliveries off its queue when there is a slot, an endpoint that answers and memory
//! for them, and has them attempted.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use super::breaker::Pass;
use super::budget::Reserved;
use super::dispatcher::Dispatcher;
use crate::base::supervisor::Background;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::store::Delivery;
use crate::store::TakeLimit;
use crate::store::Taken;

/// The shortest wait for a delivery that is due, so that a clock that is a little ahead of the store's does no harm.
const MIN_WAIT: Duration = Duration::from_millis(1);
/// Bytes of messages that one take reserves in the budget, where there is room; the largest message in any case.
const TAKE_BYTES: usize = 4 * 1024 * 1024;
/// How long a dispatcher that has taken all there is waits at most until it asks the store again.
const IDLE_WAIT: Duration = Duration::from_secs(5);
/// The pause after the store did not answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// A dispatcher that was started: what outlives a restart of its task.
#[derive(Debug)]
struct Running {
    dispatcher: Dispatcher,
    slots: Arc<Semaphore>,
    attempts: Background,
    supervisor: Supervisor,
}

impl Running {
    async fn run(self: Arc<Self>, end: impl Future<Output = ()>) {
        self.take_until(end).await;
        let dispatcher = &self.dispatcher;
        let _all_ended = self.slots.acquire_many(permits(dispatcher.concurrency)).await;
        if let Err(error) = dispatcher.store.flush(&dispatcher.queue).await {
            let (source, destination) = (dispatcher.source(), dispatcher.destination());
            tracing::error!(source, destination, %error, "the outcomes of the last attempts could not be recorded");
        }
    }

    /// Takes and attempts until `end`. A take is never given up half-way: what the store has claimed by then would have
    /// to wait for the end of its lease.
    async fn take_until(self: &Arc<Self>, end: impl Future<Output = ()>) {
        let Dispatcher { store, queue, clock, .. } = &self.dispatcher;
        let mut end = pin!(end);
        loop {
            let ready = tokio::select! {
                biased;
                () = &mut end => return,
                ready = self.ready() => ready,
            };
            let Some((slot, pass, room)) = ready else { return };
            let is_probe = matches!(pass, Pass::Probe(_));
            let max = if is_probe || room.bytes() == 0 { 1 } else { 1 + self.slots.available_permits() };
            let seen = queue.signal().count();
            let wait = match store.take(queue, TakeLimit { max, bytes: room.bytes() }).await {
                Ok(Taken { deliveries, next_due }) => {
                    let least = if deliveries.is_empty() { MIN_WAIT } else { Duration::ZERO };
                    if deliveries.is_empty() {
                        drop((slot, pass, room));
                    } else {
                        self.attempt_all(deliveries, (slot, pass, room));
                    }
                    let due = next_due.map(|due| due.saturating_duration_since(clock.instant()).max(least));
                    due.unwrap_or(IDLE_WAIT).min(IDLE_WAIT)
                }
                Err(error) => {
                    drop((slot, pass, room));
                    let (source, destination) = (self.dispatcher.source(), self.dispatcher.destination());
                    tracing::debug!(source, destination, %error, "nothing can be taken off the queue");
                    tokio::select! {
                        () = clock.sleep(STORE_PAUSE) => continue,
                        () = &mut end => return,
                    }
                }
            };
            if !wait.is_zero() {
                tokio::select! {
                    () = queue.signal().changed_since(seen) => {}
                    () = clock.sleep(wait) => {}
                    () = &mut end => return,
                }
            }
        }
    }

    /// What an attempt needs: a slot has to be free before anything is taken, because what is taken is attempted at
    /// once.
    async fn ready(&self) -> Option<(OwnedSemaphorePermit, Pass, Reserved)> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let pass = self.dispatcher.breaker.pass().await;
        Some((slot, pass, self.room().await))
    }

    /// Reserves memory for the largest message, and for more where there is some; none when nothing is in hand and
    /// others have it all.
    async fn room(&self) -> Reserved {
        let Dispatcher { budget, largest, concurrency, .. } = &self.dispatcher;
        tokio::select! {
            biased;
            reserved = budget.reserve(*largest, TAKE_BYTES.max(*largest)) => reserved,
            // One slot is that of whoever asks.
            _nothing_in_hand = self.slots.acquire_many(permits(concurrency.saturating_sub(1))) => Reserved::default(),
        }
    }

    fn attempt_all(
        self: &Arc<Self>,
        deliveries: Vec<Delivery>,
        (slot, pass, mut room): (OwnedSemaphorePermit, Pass, Reserved),
    ) {
        let mut slot = Some(slot);
        let mut probe = if let Pass::Probe(probe) = pass { Some(probe) } else { None };
        for delivery in deliveries {
            let probe = probe.take();
            let slot = slot.take().or_else(|| Arc::clone(&self.slots).try_acquire_owned().ok());
            let room = room.split(delivery.message().weight());
            let running = Arc::clone(self);
            // In a box: it is large, and would be moved several times.
            let attempt = Box::pin(async move {
                running.dispatcher.attempt(delivery, probe, &running.supervisor).await;
                drop((slot, room));
            });
            self.attempts.spawn("attempt", attempt);
        }
    }
}

/// Delivers on the runtime that this is called on until the future ends that `end` makes, and until the last attempt
/// has ended and is recorded. `supervisor` starts it again when it dies; `end` is dropped when it has ended.
pub(super) fn start<F>(dispatcher: Dispatcher, supervisor: &Supervisor, end: impl Fn() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(dispatcher.concurrency));
    let (attempts, owner) = (Background::default(), supervisor.clone());
    let running = Arc::new(Running { dispatcher, slots, attempts, supervisor: owner });
    let shown = Arc::clone(&running);
    supervisor.task(Task::QueueMetrics, move || {
        let running = Arc::clone(&shown);
        async move { running.dispatcher.update_metrics().await }
    });
    supervisor.task(Task::Dispatcher, move || {
        let (running, end) = (Arc::clone(&running), end());
        async move {
            running.run(end).await;
            Ok(())
        }
    });
}

fn permits(slots: usize) -> u32 {
    u32::try_from(slots).unwrap_or(u32::MAX)
}
