//! The lines of all queues, between the writer who fills them and those who take from them.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::sync::Notify;

use super::inbox::Attempt;
use super::line::Line;
use crate::message::Message;
use crate::store::SourceTag;
use crate::store::queued::Counts;
use crate::store::queued::State;
use crate::store::queued::Verdict;

#[derive(Debug)]
pub(super) struct Lines(Vec<Queue>);

/// One queue.
#[derive(Debug)]
pub(super) struct Queue {
    /// The number of its source in the file.
    pub(super) source: i64,
    tag: SourceTag,
    line: Mutex<Tallied>,
    /// Somebody may take more.
    pub(super) more: Notify,
}

/// A line with how many events there are of each state.
#[derive(Debug)]
pub(super) struct Tallied {
    pub(super) line: Line,
    pub(super) counts: Counts,
}

impl Tallied {
    /// An event went from one state to another.
    pub(super) fn moved(&mut self, from: Option<State>, to: Option<State>) {
        for (state, step) in [(from, -1), (to, 1)] {
            let count = match state {
                Some(State::Queued) => &mut self.counts.queued,
                Some(State::Retrying) => &mut self.counts.retrying,
                Some(State::Dead) => &mut self.counts.dead,
                Some(State::Delivered) | None => continue,
            };
            *count = count.saturating_add_signed(step);
        }
    }
}

impl Queue {
    pub(super) fn new((source, tag): (i64, SourceTag), line: Line, counts: Counts) -> Self {
        Self { source, tag, line: Mutex::new(Tallied { line, counts }), more: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Tallied> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    pub(super) fn new(queues: Vec<Queue>) -> Self {
        Self(queues)
    }

    pub(super) fn get(&self, queue: usize) -> Option<&Queue> {
        self.0.get(queue)
    }

    /// The number of a queue's source.
    pub(super) fn source(&self, queue: usize) -> i64 {
        self.get(queue).map_or(0, |queue| queue.source)
    }

    /// Whose the ids of a queue's events are.
    pub(super) fn tag(&self, queue: usize) -> SourceTag {
        self.get(queue).map_or(SourceTag(0), |queue| queue.tag)
    }

    /// When an event can be tried again that is asked for at `due`.
    pub(super) fn due(&self, queue: usize, due: i64) -> i64 {
        self.get(queue).map_or(due, |queue| queue.lock().line.due(due))
    }

    /// The queue of a source; `None` when it has none.
    pub(super) fn of(&self, source: i64) -> Option<&Queue> {
        self.0.iter().find(|queue| queue.source == source)
    }

    /// Events have been written.
    pub(super) fn arrived(&self, events: &[(usize, i64, Arc<Message>)]) {
        for (at, queue) in self.0.iter().enumerate() {
            let mut those = events.iter().filter(|(queue, ..)| *queue == at).peekable();
            if those.peek().is_none() {
                continue;
            }
            let mut tallied = queue.lock();
            for (_, row, event) in those {
                tallied.line.arrived(*row, event);
                tallied.moved(None, Some(State::Queued));
            }
            drop(tallied);
            queue.more.notify_one();
        }
    }

    /// It was written what an attempt came to.
    pub(super) fn settled(&self, attempt: &Attempt, due: Option<i64>) {
        let Some(queue) = self.get(attempt.queue) else { return };
        let mut tallied = queue.lock();
        match (attempt.settlement.verdict, due) {
            (Verdict::Retry(_), Some(due)) => {
                tallied.line.retrying(attempt.row, due);
                tallied.moved(Some(attempt.was), Some(State::Retrying));
            }
            (verdict, _) => {
                tallied.line.finished(attempt.row, attempt.lane);
                let to = if verdict == Verdict::Dead { State::Dead } else { State::Delivered };
                tallied.moved(Some(attempt.was), Some(to));
            }
        }
        drop(tallied);
        queue.more.notify_one();
    }

    /// It was written that finished events have another state, or none.
    pub(super) fn changed(&self, events: &[Changed]) {
        for event in events {
            let Some(queue) = self.of(event.source) else { continue };
            let mut tallied = queue.lock();
            tallied.moved(Some(event.was), event.due.map(|_due| State::Retrying));
            if let Some(due) = event.due {
                tallied.line.retrying(event.row, due);
            }
            drop(tallied);
            if event.due.is_some() {
                queue.more.notify_one();
            }
        }
    }
}

/// A finished event that was replayed or purged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed {
    pub(super) row: i64,
    /// The number of its source.
    pub(super) source: i64,
    /// The state that it was in.
    pub(super) was: State,
    /// When it is tried again; never when it was purged.
    pub(super) due: Option<i64>,
}
