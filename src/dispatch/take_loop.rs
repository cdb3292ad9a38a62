//! The loop of a dispatcher: takes deliveries off its queue and starts their attempts. A take needs a free slot (one of
//! `concurrency`), the permission of the circuit breaker and memory in the budget.

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

/// The shortest wait after a take that found nothing, so that a clock slightly ahead of the store's causes no busy
/// loop.
const MIN_WAIT: Duration = Duration::from_millis(1);
/// Bytes that one take reserves in the budget, if they are free; at least those of the largest message.
const TAKE_BYTES: usize = 4 * 1024 * 1024;
/// The longest wait before the store is asked again, when nothing is due.
const IDLE_WAIT: Duration = Duration::from_secs(5);
/// The pause after a take that failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// A started dispatcher: the state that outlives a restart of its task.
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

    /// Takes and attempts until `end`. A take in progress is never cancelled: the deliveries that the store has leased
    /// by then would have to wait for the end of their leases.
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

    /// Waits for what an attempt needs. The slot comes before the take, because deliveries are attempted as soon as
    /// they are taken: their leases already run.
    async fn ready(&self) -> Option<(OwnedSemaphorePermit, Pass, Reserved)> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let pass = self.dispatcher.breaker.pass().await;
        Some((slot, pass, self.room().await))
    }

    /// Reserves memory for the largest message, and for more if it is free; none when this dispatcher has no attempt in
    /// flight and the others have reserved all.
    async fn room(&self) -> Reserved {
        let Dispatcher { budget, largest, concurrency, .. } = &self.dispatcher;
        tokio::select! {
            biased;
            reserved = budget.reserve(*largest, TAKE_BYTES.max(*largest)) => reserved,
            // The caller has the remaining slot.
            _idle = self.slots.acquire_many(permits(concurrency.saturating_sub(1))) => Reserved::default(),
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
            // Boxed, because the future is large and would be moved several times.
            let attempt = Box::pin(async move {
                running.dispatcher.attempt(delivery, probe, &running.supervisor).await;
                drop((slot, room));
            });
            self.attempts.spawn("attempt", attempt);
        }
    }
}

/// Starts the tasks of a dispatcher on the current runtime; `supervisor` restarts them when they die. They take until
/// the future of `end` completes, and end, and drop `end`, when the last outcome is recorded.
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
