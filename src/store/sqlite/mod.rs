//! Messages and deliveries in a SQLite file, and dedupe records in memory and in a log in the same folder.
//!
//! One thread, the writer, writes the file: a message, its deliveries and its dedupe keys are written in one
//! transaction, and all that arrived while the previous batch was written shares one fsync. Events that are not queued
//! touch the dedupe log alone. After a failed write everything is read again from the disk before the next answer; a
//! damaged file is set aside (quarantine), and an empty one takes its place. The file is locked for this process, and
//! the lock covers its log.

mod admin;
mod backup;
mod batch;
mod changes;
pub(crate) mod check;
mod conditions;
mod connections;
mod execute;
mod fault;
mod housekeeper;
mod ids;
mod log_repair;
mod mailbox;
mod open;
mod queue;
mod recover;
mod refill;
mod register;
mod retention;
mod rows;
mod schema;
mod search;
mod shared;
mod start;
mod statements;
mod take;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_faults;
#[cfg(test)]
mod tests_open;
#[cfg(test)]
mod tests_world;
mod volatile;
mod writer;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use prometheus::core::AtomicI64;
use prometheus::core::Collector;

use self::execute::closing;
use self::mailbox::Arrival;
use self::mailbox::Finished;
use self::mailbox::Reply;
use self::queue::Counts;
use self::queue::Entry;
use self::recover::Recovery;
use self::rows::Columns;
use self::shared::Shared;
pub use self::volatile::why_volatile;
use super::Claimed;
use super::Once;
use super::Outcome;
use super::Queue;
use super::Route;
use super::Stats;
use super::Tries;
use crate::base::time::Moment;
use crate::message::Message;
use crate::store::DedupeRecords;
use crate::store::Enqueued;
use crate::store::Record;
use crate::store::SourceTag;
use crate::store::Unavailable;
use crate::store::gauge::ComputedGauge;
use crate::verify::event_key::Key;

/// Most destinations of one message.
const MAX_ROUTES: usize = 16;
/// How long an answer waits for a sync, where it waits for one. The event is delivered by then, so a slower disk can
/// only cause a duplicate.
const COMMIT_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the end of a gateway waits for what is still to be written.
const CLOSE: Duration = Duration::from_secs(5);
/// How often it is looked whether a thread has ended, where nothing tells.
const JOIN_PAUSE: Duration = Duration::from_millis(1);

/// The file and what is in memory of it.
pub struct Sqlite {
    shared: Arc<Shared>,
    fsync: bool,
    /// The housekeeper, the writer and the dedupe log's; none when it is closed.
    threads: Mutex<Option<[JoinHandle<()>; 3]>>,
    min_free: u64,
    /// A recovery that goes on with the next call.
    recovery: tokio::sync::Mutex<Option<Recovery>>,
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Sqlite").field(&self.shared.path).finish()
    }
}

impl Sqlite {
    /// The dedupe records in memory.
    pub fn records(&self) -> &DedupeRecords {
        self.shared.log.records()
    }

    /// What is counted of the file and its log.
    pub(super) fn collectors(&self) -> prometheus::Result<Vec<Box<dyn Collector>>> {
        let (path, help) = (self.shared.path.clone(), "Damaged files that were set aside and wait to be recovered.");
        let quarantined = move || i64::try_from(open::quarantined(&path)).ok();
        let quarantined = ComputedGauge::<AtomicI64, _>::boxed("doorward_store_quarantined", help, quarantined)?;
        let mut collectors = self.shared.log.collectors()?;
        collectors.extend([quarantined, Box::new(self.records().evicted().clone())]);
        Ok(collectors)
    }

    /// Whether messages can be stored.
    pub(super) fn healthy(&self) -> Result<(), Unavailable> {
        self.shared.mailbox.healthy()
    }

    /// Whether the file will be written again without a restart of the process.
    pub(super) fn sound(&self) -> Result<(), Unavailable> {
        self.shared.mailbox.sound()
    }

    /// Whether dedupe records survive a crash of the process.
    pub(super) fn remembers(&self) -> Result<(), Unavailable> {
        self.shared.mailbox.room()?;
        self.shared.log.healthy()
    }

    /// Remembers keys of a source, so that they are known when the process is killed; with `fsync`, when the machine
    /// is.
    pub(super) async fn commit(
        &self,
        source: SourceTag,
        keys: impl Iterator<Item = Key>,
        ttl: Duration,
    ) -> Result<(), Unavailable> {
        let log = &self.shared.log;
        let (until, _now) = self.records().until(ttl);
        log.append(keys.map(|key| Record { source, key, until }), None)?;
        if !self.fsync {
            return Ok(());
        }
        match tokio::time::timeout(COMMIT_TIMEOUT, log.sync()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_failed)) => Err(log.healthy().err().unwrap_or_else(closing)),
            Err(_elapsed) => {
                Err(Unavailable(format!("the sync of the dedupe log took longer than {COMMIT_TIMEOUT:?}")))
            }
        }
    }

    pub(super) async fn enqueue(
        &self,
        message: Arc<Message>,
        to: &[Route],
        once: Option<&Once>,
    ) -> Result<Enqueued, Unavailable> {
        self.healthy()?;
        let mut routes: Vec<_> = to.iter().map(|route| (route.queue.index(), route.lane)).collect();
        routes.sort_by_key(|(index, _)| *index);
        routes.dedup_by_key(|(index, _)| *index);
        if routes.is_empty() || routes.len() > MAX_ROUTES {
            let count = routes.len();
            return Err(Unavailable(format!("an event goes to 1 to {MAX_ROUTES} destinations, and not to {count}")));
        }
        let once = once.map(|once| Finished {
            source: once.space.tag(),
            keys: once.keys,
            until: self.records().until(once.ttl).0,
        });
        let (columns, (reply, written)) = (Columns::of(&message), Reply::new());
        let arrival = Arrival { message, columns, routes, once, reply };
        self.shared.mailbox.submit(|batch| batch.arrivals.push_back(arrival))?;
        written.await.map_err(|_gone| self.gone())
    }

    pub(super) fn settle(&self, queue: &Queue, claimed: &Claimed, outcome: Outcome) {
        let Some(entry) = entry_of(claimed) else { return };
        let attempts = entry.attempts.saturating_add(1);
        self.shared.settle(queue.index(), entry, attempts, outcome);
    }

    pub(super) fn give_back(&self, queue: &Queue, claimed: &Claimed) {
        let (Some(queue), Some(entry)) = (self.shared.queues.get(queue.index()), entry_of(claimed)) else { return };
        queue.claims.give_back_one(entry);
        queue.handle.signal().raise();
    }

    pub(super) async fn flush(&self) -> Result<(), Unavailable> {
        self.command(|_file, _changes| Ok(())).await
    }

    pub(super) async fn stats(self: &Arc<Self>, queue: &Queue) -> Result<Stats, Unavailable> {
        let Some(queue) = self.shared.queues.get(queue.index()) else { return Ok(Stats::default()) };
        let destination = queue.destination();
        let oldest = self.view(move |file| Ok::<_, Unavailable>(statements::oldest(file, destination)?)).await?;
        let Counts { blocked, queued, retrying, dead } = queue.claims.counts();
        Ok(Stats { blocked, queued, retrying, dead, oldest })
    }

    /// Waits until everything is written, but not for ever: a disk that hangs must not keep a gateway from ending,
    /// which is then the same as a kill. Nothing is stored from then on.
    pub(super) fn close(&self) {
        let Some(threads) = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let ([housekeeper, writer, log], deadline) = (threads, Instant::now() + CLOSE);
        self.shared.housekeeper.close();
        if !joined(housekeeper, deadline) {
            return;
        }
        // What the housekeeper could not do, the writer must not try again.
        self.shared.mailbox.close();
        if !joined(writer, deadline) {
            return;
        }
        // What was stored last is in the log before that ends.
        self.shared.log.close();
        joined(log, deadline);
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

/// Waits for the end of a thread until this moment; whether it has ended.
fn joined(thread: JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            tracing::error!(
                thread = thread.thread().name(),
                "the disk does not take what is still to be written: the gateway ends without that, as when it is killed"
            );
            return false;
        }
        std::thread::sleep(JOIN_PAUSE);
    }
    // A thread that panicked has nothing left to write.
    let _ended = thread.join();
    true
}

/// A delivery as it was taken.
fn entry_of(claimed: &Claimed) -> Option<Entry> {
    let Tries { attempts, before_replay, replayed_at, .. } = claimed.tries;
    let (id, lane) = (ids::written(claimed.id)?, claimed.lane.map(|lane| lane.0));
    Some(Entry { id, lane, attempts, before_replay, replayed: replayed_at.map(Moment::millis) })
}
