//! Delivers by putting the event on the queue: acknowledged when the store has it, sent by the workers of
//! [`crate::queue`].

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::headers;
use crate::event::Event;
use crate::profile::Credentials;
use crate::store::Backlog;
use crate::store::Keys;
use crate::store::Published;
use crate::store::Token;
use crate::store::Unavailable;
use crate::store::queued::QueuedEvent;

/// The queue of one source, as one worker sees it.
#[derive(Debug)]
pub struct Queue {
    backlog: Backlog,
    /// Which of the backlog's queues.
    queue: usize,
    source: HeaderValue,
    credentials: Credentials,
}

impl Queue {
    /// Puts the events of `source` on the `queue`th queue, without the headers that are its credentials.
    pub fn new(backlog: Backlog, queue: usize, source: HeaderValue, credentials: Credentials) -> Self {
        Self { backlog, queue, source, credentials }
    }

    /// Puts an event on the queue, unless one with these keys is there or was finished.
    ///
    /// # Errors
    /// [`Unavailable`] when the store did not say that it has the event.
    pub async fn publish(
        &self,
        event: &Event,
        keys: Option<Keys>,
        attempt: (Token, Duration),
    ) -> Result<Published, Unavailable> {
        let inbound = event.inbound();
        let queued = QueuedEvent {
            id: event.id().clone(),
            kind: event.kind().cloned(),
            received_at: inbound.received_at(),
            method: inbound.method().clone(),
            headers: headers::to_keep(event, &self.source, &self.credentials),
            body: inbound.sent().clone(),
            lane: event.lane(),
        };
        self.backlog.enqueue(self.queue, Arc::new(queued), keys, attempt).await
    }
}
