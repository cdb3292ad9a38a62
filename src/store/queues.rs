//! Operations on queues: register destinations, enqueue messages, take deliveries and record outcomes.

use std::sync::Arc;

use super::Claimed;
use super::Delivery;
use super::Enqueued;
use super::Once;
use super::Outcome;
use super::Queue;
use super::QueueTerms;
use super::Route;
use super::Stats;
use super::Store;
use super::TakeLimit;
use super::Taken;
use super::Unavailable;
use crate::message::Message;

impl Store {
    /// Registers destinations. A destination that is registered already keeps its handle, and gets the new terms.
    /// Returns the handles in the order of `destinations`.
    ///
    /// # Errors
    /// [`Unavailable`] when they cannot be stored, or the store has no queues.
    pub async fn register(&self, destinations: &[QueueTerms]) -> Result<Vec<Queue>, Unavailable> {
        match self {
            Self::Memory(_) if destinations.is_empty() => Ok(Vec::new()),
            Self::Memory(_) => Err(no_queues()),
            Self::Sqlite(sqlite) => sqlite.register(destinations).await,
            Self::Redis(redis) => redis.register(destinations).await,
        }
    }

    /// Stores a message, a delivery for each route and the dedupe records atomically, unless the event came earlier. A
    /// claim with the same token does not count. When this returns, the message is as durable as `store.durability`
    /// says.
    ///
    /// # Errors
    /// [`Unavailable`] when the message may not be stored.
    pub async fn enqueue(
        &self,
        message: Arc<Message>,
        to: &[Route],
        once: Option<&Once>,
    ) -> Result<Enqueued, Unavailable> {
        match self {
            Self::Memory(_) => Err(no_queues()),
            Self::Sqlite(sqlite) => sqlite.enqueue(message, to, once).await,
            Self::Redis(redis) => redis.enqueue(&message, to, once).await,
        }
    }

    /// Takes deliveries that are due, possibly not all. Each has to be settled. The caller takes again at
    /// [`Taken::next_due`], when the queue's signal was raised after the take began, and after some time in any case.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer, or does not record what was delivered.
    pub async fn take(&self, queue: &Queue, want: TakeLimit) -> Result<Taken, Unavailable> {
        let (claimed, next_due) = match self {
            Self::Memory(_) => return Err(no_queues()),
            Self::Sqlite(sqlite) => sqlite.take(queue, want).await?,
            Self::Redis(redis) => redis.take(queue, want).await?,
        };
        let delivery = |claimed| Delivery { claimed, queue: queue.clone(), store: self.clone(), settled: false };
        Ok(Taken { deliveries: claimed.into_iter().map(delivery).collect(), next_due })
    }

    /// Waits until all outcomes of a queue so far are recorded.
    ///
    /// # Errors
    /// [`Unavailable`] when one cannot be recorded.
    pub async fn flush(&self, queue: &Queue) -> Result<(), Unavailable> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Sqlite(sqlite) => sqlite.flush().await,
            Self::Redis(redis) => redis.flush(queue).await,
        }
    }

    /// The numbers of a queue's deliveries.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer.
    pub async fn stats(&self, queue: &Queue) -> Result<Stats, Unavailable> {
        match self {
            Self::Memory(_) => Err(no_queues()),
            Self::Sqlite(sqlite) => sqlite.stats(queue).await,
            Self::Redis(redis) => redis.stats(queue),
        }
    }

    /// Records an outcome, in the background.
    pub(super) fn settle(&self, queue: &Queue, claimed: &Claimed, outcome: Outcome) {
        match self {
            Self::Memory(_) => {}
            Self::Sqlite(sqlite) => sqlite.settle(queue, claimed, outcome),
            Self::Redis(redis) => redis.settle(queue, claimed, outcome),
        }
    }

    /// Returns a delivery that was not attempted to its queue.
    pub(super) fn give_back(&self, queue: &Queue, claimed: &Claimed) {
        match self {
            Self::Memory(_) => {}
            Self::Sqlite(sqlite) => sqlite.give_back(queue, claimed),
            Self::Redis(redis) => redis.give_back(queue, claimed),
        }
    }
}

pub(super) fn no_queues() -> Unavailable {
    Unavailable("the store in memory has no queues; set store.url to sqlite:PATH or the URL of a Redis".to_owned())
}
