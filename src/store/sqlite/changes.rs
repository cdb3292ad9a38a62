//! The changes of an operator's command that the writer has to act on after the commit, besides the rows that it
//! writes.

use crate::base::time::Moment;
use crate::store::Record;
use crate::store::State;

/// What a command of an operator changes within the transaction of its batch.
#[derive(Debug)]
pub(super) struct Changes {
    /// When the batch was begun, by the wall clock.
    pub(super) now: Moment,
    /// The same by the clock of pauses: the column `due` of what may be attempted at once.
    pub(super) due: i64,
    /// The last id that was given to a message.
    pub(super) last: i64,
    /// Whether messages were stored.
    pub(super) stored: bool,
    pub(super) moved: Vec<Change>,
    /// Dedupe records, which are added to the log after the commit.
    pub(super) records: Vec<Record>,
}

/// A delivery that goes from one state to another; from nothing when it is new, to nothing when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// The row of its destination.
    pub(super) destination: i64,
    pub(super) from: Option<State>,
    pub(super) to: Option<State>,
}

impl Changes {
    /// No changes yet.
    pub(super) fn new(now: Moment, due: i64, last: i64) -> Self {
        Self { now, due, last, stored: false, moved: Vec::new(), records: Vec::new() }
    }

    /// Notes that a delivery went from one state to another.
    pub(super) fn moved(&mut self, destination: i64, from: Option<State>, to: Option<State>) {
        self.moved.push(Change { destination, from, to });
    }

    /// Notes that a message was stored: later ones have higher ids.
    pub(super) fn stored(&mut self, id: i64) {
        (self.last, self.stored) = (self.last.max(id), true);
    }
}
