//! The changes of a command, apart from its rows, that the writer acts on after the commit.

use crate::base::time::Moment;
use crate::store::Record;
use crate::store::State;

/// The changes of a command within the transaction of its batch.
#[derive(Debug)]
pub(super) struct Changes {
    /// When the batch began, by the wall clock.
    pub(super) now: Moment,
    /// The same by the clock of due times: the value of the column `due` for "now".
    pub(super) due: i64,
    /// The last id that was given to a message.
    pub(super) last: i64,
    /// Whether messages were stored.
    pub(super) stored: bool,
    pub(super) moved: Vec<Change>,
    /// Dedupe records, which are added to the log after the commit.
    pub(super) records: Vec<Record>,
}

/// A change of a delivery's state; `from` is `None` for a new one, `to` for a deleted one.
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

    /// Records a change of a delivery's state.
    pub(super) fn moved(&mut self, destination: i64, from: Option<State>, to: Option<State>) {
        self.moved.push(Change { destination, from, to });
    }

    /// Records that a message was stored: later ones get higher ids.
    pub(super) fn stored(&mut self, id: i64) {
        (self.last, self.stored) = (self.last.max(id), true);
    }
}
