//! Messages and deliveries in a SQLite file, and dedupe records in memory and in a log beside the file.

mod admin;
mod backup;
mod changes;
pub(crate) mod check;
mod ids;
mod message_row;
mod recover;
mod schema;
mod search;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;

use self::changes::Changes;
use super::*;
use crate::clock::Clock;
use crate::event::Key;
use crate::limits::Limits;
use crate::store::SourceTag;
use crate::supervisor::Lost;

/// What a file is opened with.
#[derive(Debug, Clone)]
pub struct Options<'o> {
    /// Where it is.
    pub path: PathBuf,
    /// Most dedupe keys that are remembered.
    pub max_events: usize,
    /// All sources: each has a share of them.
    pub sources: &'o [Keyspace],
    /// Bytes that stay free on its disk.
    pub min_free: u64,
    /// Owns its threads.
    pub supervisor: &'o Supervisor,
    /// Whether an event is finished only when its dedupe records are synced to disk.
    pub fsync: bool,
    /// Sizes, intervals and thresholds.
    pub limits: Limits,
    /// The wall clock, for dedupe records, and the steady one, for pauses.
    pub clocks: (Clock, Clock),
}

/// The file and what is in memory of it.
#[derive(Debug)]
pub struct Sqlite {}

#[allow(unused_variables, clippy::todo, clippy::unused_async)]
impl Sqlite {
    /// Opens or makes the file.
    pub fn open(options: &Options<'_>) -> Result<Self, String> {
        todo!()
    }
    pub(super) fn records(&self) -> &DedupeRecords {
        todo!()
    }
    pub(super) fn healthy(&self) -> Result<(), Unavailable> {
        todo!()
    }
    pub(super) fn sound(&self) -> Result<(), Unavailable> {
        todo!()
    }
    pub(super) fn remembers(&self) -> Result<(), Unavailable> {
        todo!()
    }
    pub(super) async fn commit(
        &self,
        source: SourceTag,
        keys: impl Iterator<Item = Key>,
        ttl: Duration,
    ) -> Result<(), Unavailable> {
        todo!()
    }
    pub(super) async fn register(&self, destinations: &[QueueTerms]) -> Result<Vec<Queue>, Unavailable> {
        todo!()
    }
    pub(super) async fn enqueue(
        &self,
        message: Arc<Message>,
        to: &[Route],
        once: Option<&Once>,
    ) -> Result<Published, Unavailable> {
        todo!()
    }
    pub(super) async fn take(
        self: &Arc<Self>,
        queue: &Queue,
        want: Want,
    ) -> Result<(Vec<Claimed>, Option<Instant>), Unavailable> {
        todo!()
    }
    pub(super) async fn flush(&self) -> Result<(), Unavailable> {
        todo!()
    }
    pub(super) async fn stats(self: &Arc<Self>, queue: &Queue) -> Result<Stats, Unavailable> {
        todo!()
    }
    pub(super) fn settle(&self, queue: &Queue, claimed: &Claimed, outcome: Outcome) {
        todo!()
    }
    pub(super) fn give_back(&self, queue: &Queue, claimed: &Claimed) {
        todo!()
    }
    /// Reads on the connection for operators, on a thread that may wait. The read is given up after a while when it keeps the WAL from
    /// restarting, so it looks at a bounded number of rows.
    pub(super) async fn view<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        todo!()
    }
    /// Has the writer do something in the transaction of its next batch; answers when it is safe on disk. `act` notes what it changes
    /// of deliveries in [`Changes`], so that counts are right and what may be attempted is.
    pub(super) async fn command<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection, &mut Changes) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        todo!()
    }
    /// Has the writer do something that takes longer, on its connection and outside of a transaction. The function that `act` gets
    /// writes the next batch, if there is one: it is called every few milliseconds, so that nobody waits.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection, &mut dyn FnMut() -> Result<(), Lost>) -> Result<T, Lost> + Send + 'static,
    ) -> Result<T, Unavailable> {
        todo!()
    }
    /// The rows of the destinations that are registered: what is replayed for others would not be delivered.
    pub(super) fn registered(&self) -> Vec<i64> {
        todo!()
    }
    pub(super) fn limits(&self) -> &crate::limits::Sqlite {
        todo!()
    }
    /// What the wall clock shows.
    pub(super) fn now(&self) -> crate::time::Moment {
        todo!()
    }
    pub(super) fn path(&self) -> &std::path::Path {
        todo!()
    }
    /// The recovery that goes on with the next call.
    pub(super) fn recovery(&self) -> &tokio::sync::Mutex<Option<recover::Recovery>> {
        todo!()
    }
    /// The outcomes that came after a file was quarantined that they belong to.
    pub(super) fn kept_outcomes(&self) -> Arc<recover::Outcomes> {
        todo!()
    }
    pub(super) fn log(&self) -> &Arc<crate::store::dedupe_log::DedupeLog> {
        todo!()
    }
    /// Bytes that stay free on the disk of the file.
    pub(super) fn min_free(&self) -> u64 {
        todo!()
    }
}
