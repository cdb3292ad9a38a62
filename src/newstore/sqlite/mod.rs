//! Messages and deliveries in a SQLite file, and dedupe records in memory and in a log beside the file.

mod schema;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::*;
use crate::clock::Clock;
use crate::event::Key;
use crate::limits::Limits;
use crate::store::SourceTag;

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
    pub(super) async fn list(self: &Arc<Self>, part: Part) -> Result<Page, AdminError> {
        todo!()
    }
    pub(super) async fn show(self: &Arc<Self>, source: &str, id: MessageId) -> Result<Option<Details>, AdminError> {
        todo!()
    }
    pub(super) async fn replay(
        self: &Arc<Self>,
        source: &str,
        id: MessageId,
        destination: Option<&str>,
    ) -> Result<u64, AdminError> {
        todo!()
    }
    pub(super) async fn replay_all(self: &Arc<Self>, part: Part) -> Result<Done, AdminError> {
        todo!()
    }
    pub(super) async fn purge(self: &Arc<Self>, part: Part) -> Result<Done, AdminError> {
        todo!()
    }
}
