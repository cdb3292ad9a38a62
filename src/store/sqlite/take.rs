//! Takes deliveries: loads the messages of claimed deliveries from the cache or the file, or returns them to their
//! queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::Sqlite;
use super::execute::closing;
use super::execute::reopening;
use super::fault::Fault;
use super::ids;
use super::queue::Entry;
use super::queue::Need;
use super::rows;
use super::shared::Shared;
use super::shared::SqliteQueue;
use super::statements;
use crate::base::time::Moment;
use crate::message::Message;
use crate::store::Claimed;
use crate::store::FailedAttempt;
use crate::store::Failures;
use crate::store::Outcome;
use crate::store::Queue;
use crate::store::TakeLimit;
use crate::store::Tries;
use crate::store::Unavailable;
use crate::verify::event_key::Lane;

impl Sqlite {
    /// See [`Store::take`](crate::store::Store::take).
    pub(in crate::store) async fn take(
        self: &Arc<Self>,
        queue: &Queue,
        want: TakeLimit,
    ) -> Result<(Vec<Claimed>, Option<Instant>), Unavailable> {
        let shared = &self.shared;
        let Some(queue) = shared.queues.get(queue.index()) else { return Ok((Vec::new(), None)) };
        loop {
            self.sound()?;
            if shared.mailbox.outcomes() >= shared.limits.max_outcomes {
                return Err(Unavailable("the SQLite file does not take what was delivered fast enough".to_owned()));
            }
            let entries = self.claimed(&queue, want.max).await?;
            let mut taking = Taking::new(Arc::clone(shared), Arc::clone(&queue), want, entries);
            if taking.reads() {
                let sqlite = Arc::clone(self);
                let read = move || (sqlite.shared.connections.reader.with(|file| taking.read(file)), taking);
                let (read, loaded) = tokio::task::spawn_blocking(read).await.map_err(|_ending| closing())?;
                // Deliveries whose messages are loaded are returned all the same.
                let read = read.ok_or_else(reopening).and_then(|read| Ok(read?));
                read.or_else(|error| if loaded.is_empty() { Err(error) } else { Ok(()) })?;
                taking = loaded;
            }
            if taking.has_only_damaged() {
                continue;
            }
            let claimed = taking.hand_out();
            let next_due = queue.claims.next_due(shared.pauses.now()).map(|due| shared.pauses.instant_of(due));
            return Ok((claimed, next_due));
        }
    }

    /// Takes ready deliveries. If there are none, but may be some in the file, waits for a refill.
    async fn claimed(&self, queue: &SqliteQueue, max: usize) -> Result<VecDeque<Entry>, Unavailable> {
        let (shared, index) = (&self.shared, queue.handle.index());
        let (entries, need) = queue.claims.take(max, shared.pauses.now());
        match need {
            Need::Nothing => Ok(entries),
            Need::Soon => {
                // Without the writer, only ready deliveries are taken.
                drop(shared.mailbox.submit(|batch| batch.refills.push((index, None))));
                Ok(entries)
            }
            Need::Now => {
                let (sender, refilled) = oneshot::channel();
                shared.mailbox.submit(|batch| batch.refills.push((index, Some(sender))))?;
                refilled.await.map_err(|_gone| self.gone())?;
                Ok(queue.claims.take(max, shared.pauses.now()).0)
            }
        }
    }
}

/// Deliveries that are being taken off a queue, in their order. Dropped, they return to it.
pub(super) struct Taking {
    shared: Arc<Shared>,
    queue: Arc<SqliteQueue>,
    want: TakeLimit,
    left: VecDeque<Entry>,
    /// Deliveries whose messages cannot be read at the moment.
    unread: VecDeque<Entry>,
    loaded: Vec<(Entry, Arc<Message>, Failures)>,
    /// Bytes of messages so far.
    bytes: usize,
    /// Whether some were damaged.
    damaged: bool,
}

impl Taking {
    pub(super) fn new(shared: Arc<Shared>, queue: Arc<SqliteQueue>, want: TakeLimit, left: VecDeque<Entry>) -> Self {
        let loaded = Vec::with_capacity(left.len());
        Self { shared, queue, want, left, unread: VecDeque::new(), loaded, bytes: 0, damaged: false }
    }

    /// Loads messages from the cache, until one has to be read from the file. Returns whether there is one.
    pub(super) fn reads(&mut self) -> bool {
        while let Some(entry) = self.left.front() {
            // Earlier failures are only in the file.
            let Some(message) = self.shared.cache.get(entry.id).filter(|_| entry.attempts == 0) else { return true };
            if !self.has_room(message.weight()) {
                return false;
            }
            self.push(message, Failures::default());
        }
        false
    }

    /// Reads messages within the limits of bytes and time. A delivery whose message is on a damaged page becomes a dead
    /// letter, and one whose message cannot be read at the moment is put back after all others, so that neither blocks
    /// the queue. Fails when there was one of the latter.
    pub(super) fn read(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let (began, longest) = (Instant::now(), self.shared.limits.max_read);
        let (mut any, mut failed) = (false, Ok(()));
        while self.reads()
            && let Some(&Entry { id, attempts, .. }) = self.left.front()
        {
            let cached = self.shared.cache.get(id);
            let size = match &cached {
                Some(message) => message.weight(),
                // The result of that read is handled below.
                None => rows::size(connection, id).ok().flatten().unwrap_or_default(),
            };
            if !self.has_room(size) || any && began.elapsed() >= longest {
                break;
            }
            any = true;
            match self.load(connection, (id, attempts), cached) {
                Ok(Some((message, failures))) => self.push(message, failures),
                Ok(None) => self.give_up(None),
                Err(error) if Fault::of(&error) == Fault::Damage => self.give_up(Some(&error)),
                Err(error) => {
                    failed = Err(error);
                    self.unread.extend(self.left.pop_front());
                }
            }
        }
        failed
    }

    /// A message and the failures of its delivery; `None` when the message is damaged.
    fn load(
        &self,
        connection: &Connection,
        (id, attempts): (i64, u32),
        cached: Option<Arc<Message>>,
    ) -> rusqlite::Result<Option<(Arc<Message>, Failures)>> {
        let message = match cached {
            Some(message) => Some(message),
            None => rows::whole(connection, id)?.map(Arc::new),
        };
        let failures = match attempts {
            0 => Failures::default(),
            _ => statements::failures_of(connection, id, self.queue.destination())?,
        };
        Ok(message.map(|message| (message, failures)))
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.loaded.is_empty() || self.bytes.saturating_add(bytes) <= self.want.bytes
    }

    fn push(&mut self, message: Arc<Message>, failures: Failures) {
        if let Some(entry) = self.left.pop_front() {
            self.bytes = self.bytes.saturating_add(message.weight());
            self.loaded.push((entry, message, failures));
        }
    }

    /// Makes the first delivery a dead letter, because its message, or the page of it, is damaged.
    fn give_up(&mut self, error: Option<&rusqlite::Error>) {
        let Some(entry) = self.left.pop_front() else { return };
        self.damaged = true;
        tracing::error!(
            id = %ids::public(entry.id),
            source = self.queue.handle.id().source,
            error = error.map(tracing::field::display),
            "a queued event is damaged on disk and cannot be delivered; it is kept as a dead letter"
        );
        let (at, reason) = (self.shared.wall.now(), rows::DAMAGED.to_owned());
        let failed = FailedAttempt { at, ms: 0, status: None, reason, answer: String::new() };
        let attempts = entry.attempts;
        self.shared.settle(self.queue.handle.index(), entry, attempts, Outcome::Dead { failed });
    }

    /// Whether no message is loaded.
    pub(super) fn is_empty(&self) -> bool {
        self.loaded.is_empty()
    }

    /// Whether nothing is left because all messages were damaged.
    pub(super) fn has_only_damaged(&self) -> bool {
        self.damaged && self.loaded.is_empty()
    }

    /// Returns the deliveries whose messages are loaded.
    pub(super) fn hand_out(mut self) -> Vec<Claimed> {
        let claimed = |(entry, message, failures): (Entry, _, _)| Claimed {
            id: ids::public(entry.id),
            message,
            lane: entry.lane.map(Lane),
            tries: Tries {
                attempts: entry.attempts,
                before_replay: entry.before_replay,
                replayed_at: entry.replayed.map(Moment::from_millis),
                failures,
            },
            lease: None,
        };
        self.queue.claims.give_back(std::mem::take(&mut self.left));
        self.queue.claims.put_behind(std::mem::take(&mut self.unread));
        std::mem::take(&mut self.loaded).into_iter().map(claimed).collect()
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let mut entries: VecDeque<_> = self.loaded.drain(..).map(|(entry, ..)| entry).collect();
        entries.append(&mut self.left);
        self.queue.claims.put_behind(std::mem::take(&mut self.unread));
        if !entries.is_empty() {
            self.queue.claims.give_back(entries);
            self.queue.handle.signal().raise();
        }
    }
}
