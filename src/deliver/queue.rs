//! Delivers by putting the event on the queue: acknowledged when the store has it, sent by the workers of
//! [`crate::queue`].

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::headers;
use super::query::Names;
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
    secrets: Names,
}

impl Queue {
    /// Puts the events of `source` on the `queue`th queue, without its credentials in headers and query.
    pub fn new(backlog: Backlog, queue: usize, source: HeaderValue, credentials: Credentials) -> Self {
        let secrets = Names::of_secrets(&credentials);
        Self { backlog, queue, source, credentials, secrets }
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
            headers: headers::to_keep(event, &self.source, &self.credentials, &self.secrets),
            body: inbound.sent().clone(),
            lane: event.lane(),
        };
        self.backlog.enqueue(self.queue, Arc::new(queued), keys, attempt).await
    }
}
