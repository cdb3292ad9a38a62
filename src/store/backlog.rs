//! The queues of a store that has any.

use std::sync::Arc;
use std::time::Duration;

use super::Published;
use super::RedisBacklog;
use super::Sqlite;
use super::Token;
use super::Unavailable;
use super::queued::Counts;
use super::queued::Settlement;
use super::queued::Taken;
use crate::message::Message;
use crate::supervisor::Supervisor;
use crate::time::Moment;

/// The queues of a store, by their position in the settings.
#[derive(Debug, Clone)]
pub enum Backlog {
    /// In a SQLite file.
    Sqlite(Arc<Sqlite>),
    /// In Redis, for several gateways.
    Redis(RedisBacklog),
}

impl Backlog {
    /// Puts a message on a queue together with the marks of its keys, unless one of them is there.
    ///
    /// # Errors
    /// [`Unavailable`] when the store did not say that it has the message.
    pub async fn enqueue(
        &self,
        queue: usize,
        message: Arc<Message>,
        (token, ttl): (Token, Duration),
    ) -> Result<Published, Unavailable> {
        match self {
            Self::Sqlite(sqlite) => sqlite.enqueue(queue, message, ttl).await,
            Self::Redis(redis) => redis.enqueue(queue, &message, (token, ttl)).await,
        }
    }

    /// Takes at most `max` events off a queue that are due at `now`. Each has to be settled.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer.
    pub async fn take(&self, queue: usize, now: Moment, max: usize) -> Result<Vec<Taken>, Unavailable> {
        match self {
            Self::Sqlite(sqlite) => sqlite.take(queue, now, max).await,
            Self::Redis(redis) => redis.take(queue, max).await,
        }
    }

    /// Records what an attempt came to.
    pub fn settle(&self, queue: usize, taken: &Taken, settlement: Settlement) {
        match self {
            Self::Sqlite(sqlite) => sqlite.settle(queue, taken, settlement),
            Self::Redis(redis) => redis.settle(queue, taken, settlement),
        }
    }

    /// Does what has to be done beside taking, from now on and on the runtime that this is called on.
    pub fn tend(&self, supervisor: &Supervisor) {
        match self {
            // The file has threads of its own.
            Self::Sqlite(_) => {}
            Self::Redis(redis) => redis.tend(supervisor),
        }
    }

    /// Waits until there may be more to take, or until an event has to be tried again.
    pub async fn more(&self, queue: usize, now: Moment) {
        match self {
            Self::Sqlite(sqlite) => sqlite.more(queue, now).await,
            Self::Redis(redis) => redis.more(queue).await,
        }
    }

    /// Others may have taken over an event: it is neither tried nor settled.
    pub fn forget(&self, queue: usize, taken: &Taken) {
        match self {
            Self::Sqlite(_) => {}
            Self::Redis(redis) => redis.forget(queue, taken),
        }
    }

    /// Waits until everything that was settled of a queue so far is safe.
    ///
    /// # Errors
    /// [`Unavailable`] when it is not.
    pub async fn flush(&self, queue: usize) -> Result<(), Unavailable> {
        match self {
            Self::Sqlite(sqlite) => sqlite.flush().await,
            Self::Redis(redis) => redis.flush(queue).await,
        }
    }

    /// Waits until everything that was recorded of a queue is safe; nothing more is taken off it.
    ///
    /// # Errors
    /// [`Unavailable`] when it is not.
    pub async fn finish(&self, queue: usize) -> Result<(), Unavailable> {
        match self {
            Self::Sqlite(sqlite) => sqlite.flush().await,
            Self::Redis(redis) => redis.finish(queue).await,
        }
    }

    /// How much there is of a queue.
    ///
    /// # Errors
    /// [`Unavailable`] when the store does not answer.
    pub async fn counts(&self, queue: usize) -> Result<Counts, Unavailable> {
        match self {
            Self::Sqlite(sqlite) => sqlite.counts(queue).await,
            Self::Redis(redis) => redis.counts(queue),
        }
    }
}
