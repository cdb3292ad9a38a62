//! The state that the handle of a file, its writer and its housekeeper share.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::connections::Connections;
use super::housekeeper::Housekeeper;
use super::mailbox::Mailbox;
use super::mailbox::Settled;
use super::queue::Claims;
use super::queue::Counts;
use super::queue::Entry;
use crate::base::clock::Clock;
use crate::base::limits;
use crate::message::Message;
use crate::store::DestinationId;
use crate::store::Outcome;
use crate::store::Queue;
use crate::store::State;
use crate::store::dedupe_log::DedupeLog;

/// Most outcomes that are kept for quarantined files.
const MAX_FORGOTTEN: usize = 16 * 1024;

pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) limits: limits::Sqlite,
    pub(super) wall: Clock,
    pub(super) pauses: Pauses,
    pub(super) log: Arc<DedupeLog>,
    pub(super) mailbox: Mailbox,
    pub(super) housekeeper: Arc<Housekeeper>,
    pub(super) connections: Connections,
    pub(super) queues: Queues,
    pub(super) cache: Cache,
    pub(super) forgotten: Forgotten,
    /// The lock on the file, which covers the log.
    pub(super) owned: Mutex<File>,
}

impl Shared {
    /// Has the writer record an outcome; `attempts` includes this one.
    pub(super) fn settle(&self, queue: usize, entry: Entry, attempts: u32, outcome: Outcome) {
        let at = self.pauses.now();
        let pause = if let Outcome::Retry { after, .. } = &outcome { *after } else { Duration::ZERO };
        let due = at.saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
        self.mailbox.settle(Settled { queue, entry, attempts, outcome, at, due });
    }
}

/// The clock of due times: begins with the wall clock when the file was opened, and is monotonic from there.
#[derive(Debug)]
pub(super) struct Pauses {
    clock: Clock,
    began: Instant,
    at: i64,
}

impl Pauses {
    /// Begins at this time, in milliseconds since 1970.
    pub(super) fn new(clock: Clock, at: i64) -> Self {
        Self { began: clock.instant(), clock, at }
    }

    /// In milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        let elapsed = self.clock.instant().saturating_duration_since(self.began);
        self.at.saturating_add(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    /// The instant of a due time.
    pub(super) fn instant_of(&self, due: i64) -> Instant {
        let since = u64::try_from(due.saturating_sub(self.at)).unwrap_or(0);
        // Capped at the range of `Instant`.
        self.began.checked_add(Duration::from_millis(since)).unwrap_or(self.began)
    }
}

/// The registered queues, by index.
#[derive(Debug, Default)]
pub(super) struct Queues(RwLock<Vec<Arc<SqliteQueue>>>);

/// One queue.
#[derive(Debug)]
pub(super) struct SqliteQueue {
    pub(super) handle: Queue,
    pub(super) claims: Claims,
    /// The row id of its destination.
    destination: AtomicI64,
    retention: Mutex<Duration>,
}

impl SqliteQueue {
    pub(super) fn destination(&self) -> i64 {
        self.destination.load(Ordering::Relaxed)
    }

    pub(super) fn set_destination(&self, row: i64) {
        self.destination.store(row, Ordering::Relaxed);
    }

    /// How long delivered messages are kept.
    pub(super) fn retention(&self) -> Duration {
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_retention(&self, retention: Duration) {
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner) = retention;
    }
}

impl Counts {
    /// Adds to the number of a state.
    pub(super) fn add(&mut self, state: Option<State>, step: i64) {
        let count = match state {
            Some(State::Blocked) => &mut self.blocked,
            Some(State::Queued) => &mut self.queued,
            Some(State::Retrying) => &mut self.retrying,
            Some(State::Dead) => &mut self.dead,
            Some(State::Delivered) | None => return,
        };
        *count = count.saturating_add_signed(step);
    }
}

impl Queues {
    pub(super) fn all(&self) -> Vec<Arc<SqliteQueue>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn get(&self, index: usize) -> Option<Arc<SqliteQueue>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }

    /// The queue of the destination with this row id.
    pub(super) fn of(&self, destination: i64) -> Option<Arc<SqliteQueue>> {
        let queues = self.0.read().unwrap_or_else(PoisonError::into_inner);
        queues.iter().find(|queue| queue.destination() == destination).cloned()
    }

    /// The queue of a destination.
    pub(super) fn named(&self, id: &DestinationId) -> Option<Arc<SqliteQueue>> {
        let queues = self.0.read().unwrap_or_else(PoisonError::into_inner);
        queues.iter().find(|queue| queue.handle.id() == id).cloned()
    }

    /// Adds the queue of a destination that has none.
    pub(super) fn add(&self, id: &DestinationId, (row, retention): (i64, Duration), claims: Claims) -> Queue {
        let mut queues = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let handle = Queue::new(id.clone(), queues.len());
        queues.push(Arc::new(SqliteQueue {
            handle: handle.clone(),
            claims,
            destination: AtomicI64::new(row),
            retention: Mutex::new(retention),
        }));
        handle
    }
}

/// Memory that a cached message takes besides its weight: headers and a small body are slices of the connection's read
/// buffer, which is kept as a whole.
const READ_BUFFER: usize = 8 * 1024;

/// A cache of messages that were just stored, so that they need not be read; FIFO eviction.
#[derive(Debug)]
pub(super) struct Cache {
    max_bytes: usize,
    inner: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    /// In the order of ids.
    messages: VecDeque<(i64, Arc<Message>)>,
    bytes: usize,
}

impl Cache {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Cached> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, messages: impl Iterator<Item = (i64, Arc<Message>)>) {
        let mut cached = self.lock();
        for (id, message) in messages {
            cached.bytes += READ_BUFFER + message.weight();
            cached.messages.push_back((id, message));
        }
        while cached.bytes > self.max_bytes {
            let Some((_, oldest)) = cached.messages.pop_front() else { break };
            cached.bytes -= READ_BUFFER + oldest.weight();
        }
    }

    pub(super) fn get(&self, id: i64) -> Option<Arc<Message>> {
        let cached = self.lock();
        let at = cached.messages.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        cached.messages.get(at).map(|(_, message)| Arc::clone(message))
    }
}

/// Outcomes of attempts whose deliveries were in a quarantined file. They are applied when it is recovered.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    /// Messages up to this one were in such a file.
    gone: AtomicI64,
    outcomes: Mutex<HashMap<(DestinationId, i64), Settled>>,
}

impl Forgotten {
    pub(super) fn set_aside(&self, gone: i64) {
        self.gone.store(gone, Ordering::Relaxed);
    }

    /// Keeps an outcome without a delivery in the file, if the delivery may have been in a quarantined one.
    pub(super) fn insert(&self, destination: &DestinationId, settled: Settled) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.entry.id <= self.gone.load(Ordering::Relaxed) && outcomes.len() < MAX_FORGOTTEN {
            outcomes.insert((destination.clone(), settled.entry.id), settled);
        }
    }

    /// The outcome for a message and a destination.
    pub(super) fn of(&self, destination: &DestinationId, id: i64) -> Option<Settled> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.get(&(destination.clone(), id)).cloned()
    }
}
