//! The writer: the one thread that writes the file. What came while it wrote a batch is the next batch, with one fsync (group commit).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::TransactionBehavior;
use rusqlite::config::DbConfig;

use super::inbox::Arrival;
use super::inbox::Attempt;
use super::inbox::Batch;
use super::inbox::Completion;
use super::inbox::Inbox;
use super::keeper::Keeper;
use super::lines::Lines;
use super::retention::Retention;
use super::rows;
use super::salvage;
use super::writes::Writing;
use crate::clock::Clock;
use crate::message::Message;
use crate::store::DedupeRecords;
use crate::store::Earlier;
use crate::store::KeyMap;
use crate::store::Keys;
use crate::store::Known;
use crate::store::Published;
use crate::store::dedupe_log::DedupeLog;
use crate::store::dedupe_log::Record;
use crate::store::queued::Verdict;
use crate::supervisor::Heartbeat;
use crate::time::Moment;

/// How long the writer waits for work before it checks the free space of the disk and whether retention is due.
const IDLE: Duration = Duration::from_secs(1);
/// Events and attempts in a batch from which on many senders are at it, and how far apart batches begin then: fewer and
/// larger ones leave the disk and the processor more time for everything else.
const MANY: usize = 5;
const PACE: Duration = Duration::from_millis(1);

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) inbox: Arc<Inbox>,
    pub(super) log: Arc<DedupeLog>,
    pub(super) lines: Arc<Lines>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) retention: Retention,
    /// Bytes that stay free on the disk for what is queued already.
    pub(super) min_free: u64,
    /// The last row that was given out.
    pub(super) last_row: i64,
    pub(super) clock: Clock,
}

/// A batch while it is written, and what is done when it is committed.
struct Work {
    inbox: Arc<Inbox>,
    log: Arc<DedupeLog>,
    lines: Arc<Lines>,
    batch: Batch,
    effects: Effects,
    committed: bool,
}

/// What is done when a batch is committed.
#[derive(Default)]
struct Effects {
    records: Vec<Record>,
    arrived: Vec<(usize, i64, Arc<Message>)>,
    settled: Vec<Settled>,
    completions: Vec<Completion>,
}

/// An outcome as it was written; its line learns of it after the commit.
struct Settled {
    attempt: Attempt,
    due: Option<i64>,
}

impl Writer {
    /// Writes until there will be nothing more, or until the file cannot be written. After a panic it is called again.
    pub(super) fn run(&mut self, beat: &Heartbeat) {
        self.check_free_space();
        while let Some(batch) = self.inbox.next(IDLE) {
            let mut work = self.begin(batch);
            beat.beat();
            let begun = Instant::now();
            let shortened = self.keep_log_short();
            // Another thread may have found that the file is damaged or cannot be written.
            if self.inbox.sound().is_err() {
                break;
            }
            self.check_free_space();
            if let Err(error) = shortened.and_then(|()| self.write(&mut work)) {
                self.inbox.fail(&error, salvage::is_damage(&error));
                break;
            }
            let many = work.effects.arrived.len() + work.effects.settled.len() >= MANY;
            work.committed = true;
            drop(work);
            if many {
                std::thread::sleep(PACE.saturating_sub(begun.elapsed()));
            }
        }
        if self.inbox.sound().is_ok() {
            // The file alone is then the whole store; if that cannot be done, its log goes with it.
            drop(self.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE"));
            return;
        }
        // No second try: after a failed fsync the system may have thrown away what was not written, and the next one would
        // succeed without it. Closing the file must not sync it either.
        drop(self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true));
        self.keeper.close();
    }

    fn begin(&self, batch: Batch) -> Work {
        let (inbox, log, lines) = (Arc::clone(&self.inbox), Arc::clone(&self.log), Arc::clone(&self.lines));
        Work { inbox, log, lines, batch, effects: Effects::default(), committed: false }
    }

    fn keep_log_short(&self) -> rusqlite::Result<()> {
        let short = self.keeper.restart(&self.connection, &self.inbox)?;
        if self.inbox.set_long(!short) {
            if short {
                tracing::info!("the log of the store's file has begun anew: events are taken again");
            } else {
                tracing::error!(
                    path = %self.path.display(),
                    "somebody has been reading the store's file for so long that its log cannot begin anew: no more \
                     events are taken until they have finished"
                );
            }
        }
        Ok(())
    }

    /// New events are refused before the disk is full, so that there is room to record what becomes of the others.
    fn check_free_space(&self) {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| std::path::Path::new("."));
        // A file system that does not say has no limit.
        let free = rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let full = free < self.min_free;
        if self.inbox.set_full(full) {
            if full {
                tracing::error!(free, min_free = self.min_free, "the disk is nearly full: no more events are taken");
            } else {
                tracing::info!(free, "there is room on the disk again");
            }
        }
    }

    fn write(&mut self, Work { batch, effects, .. }: &mut Work) -> rusqlite::Result<()> {
        let now = self.clock.now();
        let idle = batch.is_empty();
        let purge = self.retention.is_due(now);
        if idle && !purge {
            return Ok(());
        }
        if self.inbox.healthy().is_err() {
            // Their senders are answered when the replies are dropped.
            batch.arrivals.clear();
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut writing = Writing::new(&transaction)?;
            settle(&mut writing, &self.lines, batch, effects)?;
            for (row, arrival) in admit(batch, self.log.records(), &self.lines, &mut self.last_row, now) {
                writing.insert(row, self.lines.source(arrival.queue), &arrival)?;
                self.retention.queued(arrival.bytes());
                effects.arrived(row, &self.lines, arrival, batch);
            }
        }
        for order in std::mem::take(&mut batch.orders) {
            effects.completions.push((order.0)(&transaction)?);
        }
        if purge {
            self.retention.purge(&transaction, now, (self.last_row, self.log.checkpoint()))?;
        }
        transaction.commit()
    }
}

impl Work {
    /// The batch is safe.
    fn conclude(&mut self) {
        if let Some((_, last, _)) = self.effects.arrived.last() {
            // Without the log, the rows say what is queued already; it has said so.
            drop(self.log.append(std::mem::take(&mut self.effects.records), Some(*last)));
        }
        self.lines.arrived(&std::mem::take(&mut self.effects.arrived));
        self.inbox.recorded(self.effects.settled.len());
        for settled in self.effects.settled.drain(..) {
            self.lines.settled(&settled.attempt, settled.due);
        }
        self.inbox.wake(self.batch.waiting.drain(..));
        self.effects.completions.drain(..).for_each(|complete| complete());
    }
}

impl Drop for Work {
    /// Also when the writer panics: what is committed is concluded; outcomes that are not are written with the next batch. For
    /// anything else, the dropped replies say that it was not written.
    fn drop(&mut self) {
        if self.committed {
            return self.conclude();
        }
        let written = self.effects.settled.drain(..).map(|settled| settled.attempt);
        let outcomes: Vec<_> = written.chain(self.batch.attempts.drain(..)).collect();
        self.inbox.give_back(outcomes);
    }
}

impl Drop for Writer {
    /// When it was given up, whoever waits for it is answered.
    fn drop(&mut self) {
        self.inbox.abandon();
    }
}

impl Effects {
    fn arrived(&mut self, row: i64, lines: &Lines, arrival: Arrival, batch: &mut Batch) {
        let Arrival { queue, keys, until, event, reply, .. } = arrival;
        let (source, keys) = (lines.tag(queue), keys.into_iter().flat_map(Keys::iter));
        self.records.extend(keys.map(|key| Record { source, key, until }));
        batch.wait_queued(reply, Published::Appended);
        self.arrived.push((queue, row, event));
    }
}

/// Writes what attempts came to.
fn settle(writing: &mut Writing<'_>, lines: &Lines, batch: &mut Batch, effects: &mut Effects) -> rusqlite::Result<()> {
    for attempt in std::mem::take(&mut batch.attempts) {
        let due = match attempt.settlement.verdict {
            Verdict::Retry(at) => Some(lines.due(attempt.queue, at.millis())),
            Verdict::Delivered | Verdict::Dead => None,
        };
        writing.settle(attempt.row, &attempt.settlement, due)?;
        effects.settled.push(Settled { attempt, due });
    }
    Ok(())
}

/// The events of a batch that are neither finished nor in it before, with their rows. The senders of the others are answered
/// after the commit, because the first of two may be in the batch.
fn admit(
    batch: &mut Batch,
    records: &DedupeRecords,
    lines: &Lines,
    last_row: &mut i64,
    now: Moment,
) -> Vec<(i64, Arrival)> {
    let mut new: KeyMap<()> = KeyMap::default();
    let mut admitted = Vec::with_capacity(batch.arrivals.len());
    for arrival in std::mem::take(&mut batch.arrivals) {
        if let Some(keys) = arrival.keys {
            let in_batch = keys.iter().position(|key| new.contains_key(&key));
            let in_batch = in_batch.map(|at| Earlier::Finished(if at == 0 { Known::Id } else { Known::Content }));
            if let Some(earlier) = in_batch.or_else(|| records.earlier(lines.tag(arrival.queue), keys)) {
                batch.wait_queued(arrival.reply, Published::Earlier(earlier));
                continue;
            }
            new.extend(keys.iter().map(|key| (key, ())));
        }
        *last_row = (*last_row + 1).max(rows::first_of(now));
        admitted.push((*last_row, arrival));
    }
    admitted
}
