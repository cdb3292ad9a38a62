//! The mailbox of the writer: what is to be written in its next batch, and whether it can be written at all.

use std::path::PathBuf;
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

use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::salvage;
use super::writes::Columns;
use crate::event::Lane;
use crate::message::Message;
use crate::store::Keys;
use crate::store::Published;
use crate::store::Unavailable;
use crate::store::queued::Settlement;
use crate::store::queued::State;
use crate::supervisor::Background;

/// Between those who have something to write and the writer.
#[derive(Debug)]
pub(super) struct Inbox {
    /// The file.
    path: PathBuf,
    pending: Mutex<Batch>,
    more: Condvar,
    /// Why nothing is written any more.
    poisoned: OnceLock<String>,
    /// Bytes of events that are written together at most, so that one batch cannot make the log a long one.
    max_batch: usize,
    /// Outcomes of attempts that are not written yet.
    outcomes: AtomicUsize,
    /// Whether there is too little room on the disk for more events.
    full: AtomicBool,
    /// Whether the log is too long for more events.
    long: AtomicBool,
    /// Tasks that send the replies.
    wakes: Background,
}

/// What is written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) arrivals: Vec<Arrival>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) orders: Vec<Order>,
    /// Replies that are sent after the commit.
    pub(super) waiting: Vec<Waiting>,
    closed: bool,
}

/// An event to queue.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Which of the queues.
    pub(super) queue: usize,
    pub(super) keys: Option<Keys>,
    pub(super) until: u32,
    pub(super) event: Arc<Message>,
    /// The event as it is written, made on the thread of the request to spare the writer.
    pub(super) columns: Columns,
    pub(super) reply: Reply<Published>,
}

impl Arrival {
    /// About how many bytes it takes on disk.
    pub(super) fn bytes(&self) -> usize {
        self.columns.bytes() + self.event.body.len()
    }
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) queue: usize,
    pub(super) row: i64,
    pub(super) lane: Option<Lane>,
    /// The state that it was in.
    pub(super) was: State,
    pub(super) settlement: Settlement,
}

/// Anything else that is done on the writer's connection, in the same transaction.
pub(super) struct Order(pub(super) Act);

type Act = Box<dyn FnOnce(&Connection) -> rusqlite::Result<Completion> + Send>;

/// What is called when an order is safe.
pub(super) type Completion = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Order")
    }
}

/// The sender of a reply to a task, with the task's runtime.
#[derive(Debug)]
pub(super) struct Reply<T> {
    runtime: Handle,
    sender: oneshot::Sender<T>,
}

impl<T> Reply<T> {
    /// A reply to the task that calls this, and the receiver of it.
    pub(super) fn new() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self { runtime: Handle::current(), sender }, receiver)
    }
}

/// Replies to tasks of one runtime. One task sends them there: waking each receiver from the writer's thread would be a
/// system call for each.
#[derive(Debug)]
pub(super) struct Waiting {
    runtime: Handle,
    queued: Vec<(oneshot::Sender<Published>, Published)>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.arrivals.is_empty() && self.attempts.is_empty() && self.orders.is_empty()
    }

    fn waiting_on(&mut self, runtime: Handle) -> Option<&mut Waiting> {
        let known = self.waiting.iter().position(|waiting| waiting.runtime.id() == runtime.id());
        let at = known.unwrap_or_else(|| {
            self.waiting.push(Waiting { runtime, queued: Vec::new() });
            self.waiting.len() - 1
        });
        self.waiting.get_mut(at)
    }

    /// Has a reply sent after the commit.
    pub(super) fn wait_queued(&mut self, reply: Reply<Published>, published: Published) {
        let Reply { runtime, sender } = reply;
        if let Some(waiting) = self.waiting_on(runtime) {
            waiting.queued.push((sender, published));
        }
    }
}

impl Inbox {
    /// For this file.
    pub(super) fn new(path: PathBuf, max_batch: usize) -> Self {
        Self {
            path,
            max_batch,
            pending: Mutex::default(),
            more: Condvar::new(),
            poisoned: OnceLock::new(),
            outcomes: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            long: AtomicBool::new(false),
            wakes: Background::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands something to the writer.
    pub(super) fn submit(&self, put: impl FnOnce(&mut Batch)) -> Result<(), Unavailable> {
        {
            let mut pending = self.lock();
            self.sound()?;
            put(&mut pending);
        }
        self.more.notify_one();
        Ok(())
    }

    /// Hands over what an attempt came to.
    pub(super) fn record(&self, attempt: Attempt) -> Result<(), Unavailable> {
        self.submit(|batch| {
            self.outcomes.fetch_add(1, Ordering::Relaxed);
            batch.attempts.push(attempt);
        })
    }

    /// So many outcomes are written.
    pub(super) fn recorded(&self, count: usize) {
        self.outcomes.fetch_sub(count, Ordering::Relaxed);
    }

    /// How many outcomes are not written yet.
    pub(super) fn outcomes(&self) -> usize {
        self.outcomes.load(Ordering::Relaxed)
    }

    /// Waits for something to write, for at most this long; `None` when there will be nothing more.
    pub(super) fn next(&self, patience: Duration) -> Option<Batch> {
        let pending = self.lock();
        let idle = |batch: &mut Batch| batch.is_empty() && !batch.closed;
        let (mut pending, _elapsed) =
            self.more.wait_timeout_while(pending, patience, idle).unwrap_or_else(PoisonError::into_inner);
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

    /// Wakes those who wait for a batch that is safe.
    pub(super) fn wake(&self, waiting: impl Iterator<Item = Waiting>) {
        for Waiting { runtime, queued } in waiting {
            self.wakes.spawn_on("wake", &runtime, async move {
                // One that is gone has stopped waiting.
                for (sender, published) in queued {
                    let _gone = sender.send(published);
                }
            });
        }
    }

    /// Puts outcomes that were not written before all that came since.
    pub(super) fn give_back(&self, mut outcomes: Vec<Attempt>) {
        let mut pending = self.lock();
        if self.sound().is_ok() {
            outcomes.append(&mut pending.attempts);
            pending.attempts = outcomes;
        }
    }

    /// The writer is gone. Unless that was the end, nothing is written any more.
    pub(super) fn abandon(&self) {
        let closed = self.lock().closed;
        if !closed && self.sound().is_ok() {
            self.poison("the thread that writes the SQLite file died; restart the gateway".to_owned());
        }
    }

    /// Lets the writer end when everything is written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_one();
    }

    /// Nothing is written any more, because what was written last may not be on the disk, or what is there is `damaged`;
    /// whoever waits, or comes later, is told so.
    pub(super) fn fail(&self, error: &dyn std::fmt::Display, damaged: bool) {
        let path = self.path.display();
        if damaged {
            salvage::mark(&self.path);
            tracing::error!(
                %error,
                %path,
                "the store's file is damaged: no more events are queued, and none of a queue is delivered. Restart the gateway: it \
                 will save what can be read into a new file, and keep this one"
            );
            self.poison(format!("the SQLite file is damaged ({error}); restart to save what can be read"));
        } else {
            tracing::error!(
                %error,
                %path,
                "the store cannot be written: no more events are queued. What was acknowledged is in the file; see to the \
                 disk and restart the gateway"
            );
            self.poison(format!("the SQLite file could not be written ({error}); restart when the disk is well"));
        }
    }

    fn poison(&self, why: String) {
        let abandoned = {
            let mut pending = self.lock();
            // The first cause is the one that matters.
            let _later = self.poisoned.set(why);
            let closed = pending.closed;
            std::mem::replace(&mut *pending, Batch { closed, ..Batch::default() })
        };
        drop(abandoned);
    }

    /// Whether anything can be written at all.
    pub(super) fn sound(&self) -> Result<(), Unavailable> {
        match self.poisoned.get() {
            Some(why) => Err(Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    /// Whether more events can be taken.
    pub(super) fn healthy(&self) -> Result<(), Unavailable> {
        self.sound()?;
        self.room()?;
        if self.long.load(Ordering::Relaxed) {
            return Err(Unavailable(
                "somebody reads the SQLite file for so long that its log gets too long".to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether there is room on the disk.
    pub(super) fn room(&self) -> Result<(), Unavailable> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Unavailable("the disk of the SQLite file has less than store.min_free left".to_owned()));
        }
        Ok(())
    }

    /// Notes whether there is too little room; whether that is news.
    pub(super) fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::Relaxed) != full
    }

    /// Notes whether the log is too long; whether that is news.
    pub(super) fn set_long(&self, long: bool) -> bool {
        self.long.swap(long, Ordering::Relaxed) != long
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const BODY: usize = 1000;

    /// How many of three events of [`BODY`] bytes are in each batch.
    fn batches(max_batch: usize) -> Vec<usize> {
        let inbox = Inbox::new(PathBuf::from("store.db"), max_batch);
        let event = Arc::new(Message { body: Bytes::from_static(&[b'x'; BODY]), ..Message::example() });
        for _ in 0..3 {
            let (event, columns) = (Arc::clone(&event), Columns::of(&event));
            let arrival = Arrival { queue: 0, keys: None, until: 0, event, columns, reply: Reply::new().0 };
            inbox.submit(|batch| batch.arrivals.push(arrival)).expect("taken");
        }
        inbox.close();
        std::iter::from_fn(|| inbox.next(Duration::ZERO)).map(|batch| batch.arrivals.len()).collect()
    }

    #[tokio::test]
    async fn a_batch_has_no_more_bytes_than_it_may_and_at_least_one_event() {
        assert_eq!(batches(4 * BODY), [3]);
        assert_eq!(batches(3 * BODY), [2, 1], "an event is more than its body");
        assert_eq!(batches(BODY), [1, 1, 1]);
    }
}
