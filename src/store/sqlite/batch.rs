//! One batch of the writer: the messages, outcomes and commands that share a transaction, and what follows its commit.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;

use super::changes::Change;
use super::changes::Changes;
use super::mailbox::Arrival;
use super::mailbox::Batch;
use super::mailbox::OnCommit;
use super::mailbox::Settled;
use super::queue::Entry;
use super::shared::Shared;
use super::statements;
use super::statements::WriteStatements;
use crate::base::time::Moment;
use crate::message::Message;
use crate::store::Earlier;
use crate::store::Enqueued;
use crate::store::KeyMap;
use crate::store::KnownBy;
use crate::store::Outcome;
use crate::store::Record;
use crate::store::State;

/// A batch that is being written. If it is dropped before the commit, its outcomes are written with the next batch;
/// everything else fails, because its replies are dropped.
pub(super) struct OpenBatch {
    shared: Arc<Shared>,
    pub(super) batch: Batch,
    /// Dedupe records that are appended to the log after the commit.
    records: Vec<Record>,
    last: Option<i64>,
    arrived: Vec<(i64, Arc<Message>)>,
    /// Deliveries that may be attempted at once.
    ready: Vec<(usize, Entry)>,
    settled: Vec<(Settled, bool)>,
    /// Changes of deliveries, and whether each may make a delivery available that is not in `ready` or `settled`.
    moved: Vec<(Change, bool)>,
    on_commit: Vec<OnCommit>,
    bytes: usize,
}

impl OpenBatch {
    pub(super) fn new(shared: Arc<Shared>, batch: Batch) -> Self {
        let (arrivals, outcomes) = (batch.arrivals.len(), batch.outcomes.len());
        Self {
            shared,
            batch,
            records: Vec::with_capacity(arrivals),
            last: None,
            arrived: Vec::with_capacity(arrivals),
            ready: Vec::with_capacity(arrivals),
            settled: Vec::with_capacity(outcomes),
            moved: Vec::with_capacity(arrivals + outcomes),
            on_commit: Vec::new(),
            bytes: 0,
        }
    }

    /// The number of arrivals and outcomes that were written.
    pub(super) fn len(&self) -> usize {
        self.arrived.len() + self.settled.len()
    }

    /// The number of messages that were stored.
    pub(super) fn arrived(&self) -> usize {
        self.arrived.len()
    }

    /// About how many bytes they take on disk.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the outcomes. A delivery that ends unblocks the next one of its lane, which is due at `due`.
    pub(super) fn settle(&mut self, writing: &mut WriteStatements<'_>, due: i64) -> rusqlite::Result<()> {
        while let Some(settled) = self.batch.outcomes.pop_front() {
            // Moved before it is written: `Drop` gives it back if the write fails or panics.
            self.settled.push((settled, false));
            if let Some((settled, applied)) = self.settled.last_mut() {
                *applied = settle(&self.shared, writing, settled, due, &mut self.moved)?;
            }
        }
        Ok(())
    }

    /// Stores messages, except duplicates of finished events or of messages in the batch. Duplicates are answered after
    /// the commit, because their first message may be in the batch.
    pub(super) fn admit(
        &mut self,
        writing: &mut WriteStatements<'_>,
        last: &mut i64,
        now: Moment,
    ) -> rusqlite::Result<()> {
        let mut new: KeyMap<()> = KeyMap::default();
        new.reserve(self.batch.arrivals.len());
        while let Some(arrival) = self.batch.arrivals.pop_front() {
            if let Some(once) = arrival.once {
                let in_batch = once.keys.iter().position(|key| new.contains_key(&key));
                let in_batch =
                    in_batch.map(|at| Earlier::Finished(if at == 0 { KnownBy::Id } else { KnownBy::Content }));
                let earlier = in_batch.or_else(|| self.shared.log.records().earlier(once.source, once.keys));
                if let Some(earlier) = earlier {
                    self.batch.reply(arrival.reply, Enqueued::Earlier(earlier));
                    continue;
                }
                new.extend(once.keys.iter().map(|key| (key, ())));
            }
            *last = super::ids::next(*last, now);
            self.insert(writing, *last, arrival, now)?;
        }
        Ok(())
    }

    fn insert(
        &mut self,
        writing: &mut WriteStatements<'_>,
        id: i64,
        arrival: Arrival,
        now: Moment,
    ) -> rusqlite::Result<()> {
        let Arrival { message, columns, routes, once, reply } = arrival;
        // Added first, so that it is dropped with the others if the write fails.
        self.batch.reply(reply, Enqueued::Stored);
        writing.message(id, (&message, &columns, once.as_ref()))?;
        self.bytes += columns.bytes() + message.body.len();
        for (index, lane) in routes {
            let Some(queue) = self.shared.queues.get(index) else { continue };
            let (destination, lane) = (queue.destination(), lane.map(|lane| lane.0));
            let state = writing.delivery((id, destination), lane, now)?;
            self.moved.push((Change { destination, from: None, to: Some(state) }, false));
            if state == State::Queued {
                let entry = Entry { id, lane, attempts: 0, before_replay: 0, replayed: None };
                self.ready.push((index, entry));
            }
        }
        if let Some(once) = once {
            let record = |key| Record { source: once.source, key, until: once.until };
            self.records.extend(once.keys.iter().map(record));
        }
        self.last = Some(id);
        self.arrived.push((id, message));
        Ok(())
    }

    /// Adds the changes of a command, and what to do after the commit.
    pub(super) fn follow(&mut self, changes: Changes, on_commit: OnCommit) {
        let claimable = |to| matches!(to, Some(State::Queued | State::Retrying));
        self.moved.extend(changes.moved.into_iter().map(|change| (change, claimable(change.to))));
        self.records.extend(changes.records);
        if changes.stored {
            self.last = Some(changes.last);
        }
        self.on_commit.push(on_commit);
    }

    /// Acts after the commit: appends records, updates claims and sends replies. Returns the queues that have changed.
    pub(super) fn conclude(mut self) -> BTreeSet<usize> {
        if self.last.is_some() || !self.records.is_empty() {
            // If the log fails, it logs that; the rows also have the keys.
            drop(self.shared.log.append(std::mem::take(&mut self.records), self.last));
        }
        self.shared.cache.insert(self.arrived.drain(..));
        let mut touched = BTreeSet::new();
        for (index, entry) in self.ready.drain(..) {
            if let Some(queue) = self.shared.queues.get(index) {
                queue.claims.arrived(entry);
                touched.insert(index);
            }
        }
        self.shared.mailbox.recorded(self.settled.len());
        for (settled, applied) in self.settled.drain(..) {
            let Some(queue) = self.shared.queues.get(settled.queue) else { continue };
            let retries = applied && matches!(settled.outcome, Outcome::Retry { .. });
            queue.claims.settled(settled.entry.id, retries.then_some(settled.due));
            if retries {
                touched.insert(settled.queue);
            } else if !applied {
                self.shared.forgotten.insert(queue.handle.id(), settled);
            }
        }
        for (Change { destination, from, to }, claimable) in self.moved.drain(..) {
            let Some(queue) = self.shared.queues.of(destination) else { continue };
            queue.claims.count(|counts| {
                counts.add(from, -1);
                counts.add(to, 1);
            });
            if claimable {
                queue.claims.changed();
                touched.insert(queue.handle.index());
            }
        }
        self.shared.mailbox.wake(self.batch.waiting.drain(..));
        self.on_commit.drain(..).for_each(|on_commit| on_commit());
        touched
    }
}

/// Writes one outcome. Returns whether the delivery was open.
fn settle(
    shared: &Shared,
    writing: &mut WriteStatements<'_>,
    settled: &Settled,
    due: i64,
    moved: &mut Vec<(Change, bool)>,
) -> rusqlite::Result<bool> {
    let Some(queue) = shared.queues.get(settled.queue) else { return Ok(false) };
    let destination = queue.destination();
    if !writing.settle(destination, settled)? {
        return Ok(false);
    }
    let to = settled.outcome.state();
    let was_tried = settled.entry.attempts > 0 || settled.entry.replayed.is_some();
    let from = if was_tried { State::Retrying } else { State::Queued };
    moved.push((Change { destination, from: Some(from), to: Some(to) }, false));
    if let (false, Some(lane)) = (to.is_open(), settled.entry.lane)
        && let Some(state) = statements::promote(writing.connection, destination, lane, due)?
    {
        moved.push((Change { destination, from: Some(State::Blocked), to: Some(state) }, true));
    }
    Ok(true)
}

impl Drop for OpenBatch {
    fn drop(&mut self) {
        let written = self.settled.drain(..).map(|(settled, _)| settled);
        let outcomes: VecDeque<_> = written.chain(self.batch.outcomes.drain(..)).collect();
        if !outcomes.is_empty() {
            self.shared.mailbox.give_back(outcomes);
        }
    }
}
