//! The writer's input: the next batch, the health of the writer, and the replies to calls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::changes::Changes;
use super::queue::Entry;
use super::rows::Columns;
use crate::base::supervisor::Background;
use crate::base::supervisor::TaskError;
use crate::message::Keys;
use crate::message::Message;
use crate::store::Enqueued;
use crate::store::Outcome;
use crate::store::SourceTag;
use crate::store::Unavailable;
use crate::verify::event_key::Lane;

/// The queue between calls and the writer.
pub(super) struct Mailbox {
    pending: Mutex<Batch>,
    more: Condvar,
    /// Why the writer has stopped for good.
    dead: OnceLock<String>,
    /// Why the writer cannot write at the moment.
    failing: ArcSwapOption<String>,
    /// Most bytes of messages in one batch, so that a batch cannot make the WAL long.
    max_batch: usize,
    /// The number of outcomes that are not written yet.
    outcomes: AtomicUsize,
    /// Whether the disk has too little room for more messages.
    full: AtomicBool,
    /// Whether the WAL is too long for more messages.
    long: AtomicBool,
    /// Whether the store's path has another file, or none.
    displaced: AtomicBool,
    /// Tasks that send the replies.
    wakes: Background,
}

/// The work that shares one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) outcomes: VecDeque<Settled>,
    pub(super) arrivals: VecDeque<Arrival>,
    pub(super) commands: VecDeque<Command>,
    pub(super) asides: Vec<SideTask>,
    /// The queues to refill, and the calls that wait for that.
    pub(super) refills: Vec<(usize, Option<oneshot::Sender<()>>)>,
    /// Replies that are sent after the commit.
    pub(super) waiting: Vec<Waiting>,
    /// The error of another connection that failed to write.
    pub(super) trouble: Option<rusqlite::Error>,
    closed: bool,
}

/// A message to store.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) message: Arc<Message>,
    pub(super) columns: Columns,
    /// The queues that it goes to, without repetitions.
    pub(super) routes: Vec<(usize, Option<Lane>)>,
    pub(super) once: Option<Finished>,
    pub(super) reply: Reply<Enqueued>,
}

impl Arrival {
    /// About how many bytes it takes on disk.
    pub(super) fn bytes(&self) -> usize {
        self.columns.bytes() + self.message.body.len()
    }
}

/// The dedupe keys of an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finished {
    pub(super) source: SourceTag,
    pub(super) keys: Keys,
    /// In seconds since 1970.
    pub(super) until: u32,
}

/// The outcome of an attempt.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    pub(super) queue: usize,
    /// The delivery when it was taken.
    pub(super) entry: Entry,
    /// Attempts, including this one.
    pub(super) attempts: u32,
    pub(super) outcome: Outcome,
    /// When the attempt ended, by the clock of due times.
    pub(super) at: i64,
    /// When the next attempt is due.
    pub(super) due: i64,
}

/// Other work in the transaction of a batch: returns its result, and the reply to send after the commit.
pub(super) type Command = Box<dyn FnOnce(&Connection, &mut Changes) -> (rusqlite::Result<()>, OnCommit) + Send>;
pub(super) type OnCommit = Box<dyn FnOnce() + Send>;

/// Work on the writer's connection between batches.
pub(super) type SideTask =
    Box<dyn FnOnce(&Connection, &mut dyn FnMut() -> Result<(), TaskError>) -> Result<(), TaskError> + Send>;

/// The sender of a reply to a task, and the task's runtime.
#[derive(Debug)]
pub(super) struct Reply<T> {
    runtime: Handle,
    sender: oneshot::Sender<T>,
}

impl<T> Reply<T> {
    /// A reply to the calling task, and its receiver.
    pub(super) fn new() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self { runtime: Handle::current(), sender }, receiver)
    }
}

/// Replies to tasks of one runtime. A task on that runtime sends them, because waking each receiver from the writer's
/// thread would need a system call.
#[derive(Debug)]
pub(super) struct Waiting {
    runtime: Handle,
    published: Vec<(oneshot::Sender<Enqueued>, Enqueued)>,
}

impl Batch {
    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.is_read_only() && self.refills.is_empty() && self.asides.is_empty() && self.trouble.is_none()
    }

    /// Whether there is nothing to write.
    pub(super) fn is_read_only(&self) -> bool {
        self.arrivals.is_empty() && self.outcomes.is_empty() && self.commands.is_empty()
    }

    /// Has a reply sent after the commit.
    pub(super) fn reply(&mut self, reply: Reply<Enqueued>, published: Enqueued) {
        let Reply { runtime, sender } = reply;
        match self.waiting.iter_mut().find(|waiting| waiting.runtime.id() == runtime.id()) {
            Some(waiting) => waiting.published.push((sender, published)),
            None => self.waiting.push(Waiting { runtime, published: vec![(sender, published)] }),
        }
    }
}

impl Mailbox {
    pub(super) fn new(max_batch: usize) -> Self {
        Self {
            max_batch,
            pending: Mutex::default(),
            more: Condvar::new(),
            dead: OnceLock::new(),
            failing: ArcSwapOption::empty(),
            outcomes: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            long: AtomicBool::new(false),
            displaced: AtomicBool::new(false),
            wakes: Background::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds work for the writer.
    pub(super) fn submit(&self, put: impl FnOnce(&mut Batch)) -> Result<(), Unavailable> {
        let is_first = {
            let mut pending = self.lock();
            self.sound()?;
            let is_first = pending.is_empty();
            put(&mut pending);
            is_first
        };
        // Notifying is a system call, and the writer takes everything that is pending.
        if is_first {
            self.more.notify_one();
        }
        Ok(())
    }

    /// Adds an outcome. When the writer has stopped for good, the outcome is lost, and the attempt is repeated after a
    /// restart.
    pub(super) fn settle(&self, settled: Settled) {
        let submitted = self.submit(|batch| {
            self.outcomes.fetch_add(1, Ordering::Relaxed);
            batch.outcomes.push_back(settled);
        });
        drop(submitted);
    }

    /// Subtracts outcomes that are written.
    pub(super) fn recorded(&self, count: usize) {
        self.outcomes.fetch_sub(count, Ordering::Relaxed);
    }

    /// The number of outcomes that are not written yet.
    pub(super) fn outcomes(&self) -> usize {
        self.outcomes.load(Ordering::Relaxed)
    }

    /// Waits for work, at most for the timeout; `None` when the mailbox is closed and empty.
    pub(super) fn next(&self, timeout: Duration) -> Option<Batch> {
        let pending = self.lock();
        let idle = |batch: &mut Batch| batch.is_empty() && !batch.closed;
        let (mut pending, _elapsed) =
            self.more.wait_timeout_while(pending, timeout, idle).unwrap_or_else(PoisonError::into_inner);
        if pending.closed && pending.is_empty() {
            return None;
        }
        let closed = pending.closed;
        let mut batch = std::mem::replace(&mut *pending, Batch { closed, ..Batch::default() });
        let mut bytes = 0;
        let too_many = batch.arrivals.iter().position(|arrival| {
            bytes += arrival.bytes();
            bytes > self.max_batch
        });
        if let Some(fit) = too_many {
            pending.arrivals = batch.arrivals.split_off(fit.max(1));
        }
        Some(batch)
    }

    /// Sends the replies of a committed batch.
    pub(super) fn wake(&self, waiting: impl Iterator<Item = Waiting>) {
        for Waiting { runtime, published } in waiting {
            self.wakes.spawn_on("wake", &runtime, async move {
                // One that is gone has stopped waiting.
                for (sender, published) in published {
                    let _gone = sender.send(published);
                }
            });
        }
    }

    /// Puts back outcomes that were not written, before later ones.
    pub(super) fn give_back(&self, mut outcomes: VecDeque<Settled>) {
        let mut pending = self.lock();
        outcomes.append(&mut pending.outcomes);
        pending.outcomes = outcomes;
    }

    /// The writer has stopped for good: unless the mailbox was closed, later calls fail. Drops all pending replies.
    pub(super) fn abandon(&self) {
        let abandoned = {
            let mut pending = self.lock();
            if !pending.closed {
                let why = self.failing.load().as_deref().cloned();
                let why = why.unwrap_or_else(|| "the thread that writes the SQLite file died".to_owned());
                let _earlier = self.dead.set(format!("{why}; restart the gateway when the disk is well"));
            }
            let closed = pending.closed;
            std::mem::replace(&mut *pending, Batch { closed, ..Batch::default() })
        };
        drop(abandoned);
    }

    /// Closes the mailbox: the writer ends when everything is written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_one();
    }

    /// Whether the writer may write again.
    pub(super) fn sound(&self) -> Result<(), Unavailable> {
        self.dead.get().map_or(Ok(()), |why| Err(Unavailable(why.clone())))
    }

    /// Whether more messages can be stored.
    pub(super) fn healthy(&self) -> Result<(), Unavailable> {
        self.sound()?;
        if let Some(why) = self.failing.load().as_deref() {
            return Err(Unavailable(why.clone()));
        }
        self.room()?;
        if self.displaced.load(Ordering::Relaxed) {
            return Err(Unavailable("the SQLite file was removed or replaced while it was in use".to_owned()));
        }
        if self.long.load(Ordering::Relaxed) {
            return Err(Unavailable(
                "somebody reads the SQLite file for so long that its WAL gets too long".to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether the disk has room.
    pub(super) fn room(&self) -> Result<(), Unavailable> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Unavailable("the disk of the SQLite file has less than store.min_free left".to_owned()));
        }
        Ok(())
    }

    /// Whether nothing can be written at the moment.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load().is_some()
    }

    /// Sets why the writer cannot write, or that it can. Returns whether that has changed.
    pub(super) fn set_failing(&self, why: Option<String>) -> bool {
        let news = why.is_some() != self.failing.load().is_some();
        self.failing.store(why.map(Arc::new));
        news
    }

    /// Sets whether the disk has too little room. Returns whether that has changed.
    pub(super) fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::Relaxed) != full
    }

    /// Sets whether the store's path has another file, or none. Returns whether that has changed.
    pub(super) fn set_displaced(&self, displaced: bool) -> bool {
        self.displaced.swap(displaced, Ordering::Relaxed) != displaced
    }

    /// Sets whether the WAL is too long. Returns whether that has changed.
    pub(super) fn set_long(&self, long: bool) -> bool {
        self.long.swap(long, Ordering::Relaxed) != long
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const BODY: usize = 1000;

    /// How many of three messages of [`BODY`] bytes are in each batch.
    fn batches(max_batch: usize) -> Vec<usize> {
        let mailbox = Mailbox::new(max_batch);
        let message = Arc::new(Message { body: Bytes::from_static(&[b'x'; BODY]), ..Message::example() });
        for _ in 0..3 {
            let (message, columns) = (Arc::clone(&message), Columns::of(&message));
            let arrival = Arrival { message, columns, routes: Vec::new(), once: None, reply: Reply::new().0 };
            mailbox.submit(|batch| batch.arrivals.push_back(arrival)).expect("taken");
        }
        mailbox.close();
        std::iter::from_fn(|| mailbox.next(Duration::ZERO)).map(|batch| batch.arrivals.len()).collect()
    }

    #[tokio::test]
    async fn a_batch_has_no_more_bytes_than_it_may_and_at_least_one_message() {
        assert_eq!(batches(5 * BODY), [3]);
        assert_eq!(batches(3 * BODY), [2, 1], "a message is more than its body");
        assert_eq!(batches(BODY), [1, 1, 1]);
    }
}
