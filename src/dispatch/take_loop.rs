//! The loop of a dispatcher: takes deliveries off its queue and starts their attempts. A take needs a free slot (one of
//! `concurrency`), the permission of the circuit breaker and memory in the budget.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::breaker::Pass;
use super::budget::Reserved;
use super::dispatcher::Dispatcher;
use super::dispatcher::Resources;
use super::dispatcher::Terms;
use super::slots::Slot;
use super::slots::Slots;
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
    slots: Slots,
    attempts: Background,
    supervisor: Supervisor,
}

impl Running {
    async fn run(self: Arc<Self>, end: impl Future<Output = ()>) {
        self.take_until(end).await;
        self.slots.wait_below(1).await;
        let dispatcher = &self.dispatcher;
        if let Err(error) = dispatcher.resources.store.flush(&dispatcher.queue).await {
            let (source, destination) = (dispatcher.source(), dispatcher.destination());
            tracing::error!(source, destination, %error, "the outcomes of the last attempts could not be recorded");
        }
    }

    /// Takes and attempts until `end`. A take in progress is never cancelled: the deliveries that the store has leased
    /// by then would have to wait for the end of their leases.
    async fn take_until(self: &Arc<Self>, end: impl Future<Output = ()>) {
        let Dispatcher { resources: Resources { store, clock, .. }, queue, .. } = &self.dispatcher;
        let mut given = self.dispatcher.terms.clone();
        let mut end = pin!(end);
        loop {
            let terms = given.borrow_and_update().clone();
            let ready = tokio::select! {
                biased;
                () = &mut end => return,
                Ok(()) = given.changed() => continue,
                ready = self.ready(terms) => ready,
            };
            let (terms, (slot, pass, room)) = ready;
            let is_probe = matches!(pass, Pass::Probe(_));
            let free = terms.concurrency.saturating_sub(self.slots.taken());
            let max = if is_probe || room.bytes() == 0 { 1 } else { 1 + free };
            let seen = queue.signal().count();
            let wait = match store.take(queue, TakeLimit { max, bytes: room.bytes() }).await {
                Ok(Taken { deliveries, next_due }) => {
                    let least = if deliveries.is_empty() { MIN_WAIT } else { Duration::ZERO };
                    if deliveries.is_empty() {
                        drop((slot, pass, room));
                    } else {
                        self.attempt_all(&terms, deliveries, (slot, pass, room));
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
                    Ok(()) = given.changed() => {}
                }
            }
        }
    }

    /// Waits for what an attempt on these terms needs; forever without terms. The slot comes before the take, because
    /// deliveries are attempted as soon as they are taken: their leases already run.
    async fn ready(&self, terms: Option<Arc<Terms>>) -> (Arc<Terms>, (Slot, Pass, Reserved)) {
        let Some(terms) = terms else { return pending().await };
        self.slots.wait_below(terms.concurrency).await;
        let slot = self.slots.take();
        let pass = terms.breaker.pass().await;
        let room = self.room(&terms).await;
        (terms, (slot, pass, room))
    }

    /// Reserves memory for the largest message, and for more if it is free; none when this dispatcher has no attempt in
    /// flight and the others have reserved all.
    async fn room(&self, terms: &Terms) -> Reserved {
        tokio::select! {
            biased;
            reserved = self.dispatcher.resources.budget.reserve(terms.largest, TAKE_BYTES.max(terms.largest)) => reserved,
            // The one that is left is the caller's.
            () = self.slots.wait_below(2) => Reserved::default(),
        }
    }

    fn attempt_all(
        self: &Arc<Self>,
        terms: &Arc<Terms>,
        deliveries: Vec<Delivery>,
        (slot, pass, mut room): (Slot, Pass, Reserved),
    ) {
        let mut slot = Some(slot);
        let mut probe = if let Pass::Probe(probe) = pass { Some(probe) } else { None };
        for delivery in deliveries {
            let probe = probe.take();
            let slot = slot.take().unwrap_or_else(|| self.slots.take());
            let room = room.split(delivery.message().weight());
            let (running, terms) = (Arc::clone(self), Arc::clone(terms));
            // Boxed, because the future is large and would be moved several times.
            let attempt = Box::pin(async move {
                running.dispatcher.attempt(&terms, delivery, probe, &running.supervisor).await;
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
    let (slots, attempts, owner) = (Slots::default(), Background::default(), supervisor.clone());
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
