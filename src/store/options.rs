//! The options with which a store is opened.

use std::path::PathBuf;
use std::time::Duration;

use super::Durability;
use super::Keyspace;
use super::RedisUrl;
use crate::base::clock::Clock;
use crate::base::limits::Limits;
use crate::base::supervisor::Supervisor;

/// `store.url`.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `memory:`
    Memory,
    /// `sqlite:PATH`
    Sqlite(PathBuf),
    /// `redis://…`, `redis-cluster://…`, `redis-sentinel://…`, or one of them with `rediss`.
    Redis(RedisUrl),
}

/// The options with which a store is opened.
#[derive(Debug, Clone)]
pub struct Options<'o> {
    /// Which store is opened, and where.
    pub kind: &'o Kind,
    /// The keyspaces of all sources and streams; each has a share of the dedupe records.
    pub spaces: &'o [Keyspace],
    /// Most dedupe records that memory and SQLite keep.
    pub max_events: usize,
    /// Bytes to keep free on the disk of a SQLite file.
    pub min_free: u64,
    /// Whether an event is finished only when its dedupe records are synced to the disk of a SQLite store.
    pub fsync: bool,
    /// How long Redis may take to answer a command of a request.
    pub timeout: Duration,
    /// What Redis has to confirm before a write counts as durable; its answer suffices when absent.
    pub durability: Option<Durability>,
    /// How long a gateway holds a delivery that it took, where others use the same store.
    pub lease: Duration,
    /// Sizes, intervals and thresholds.
    pub limits: &'o Limits,
    /// The wall clock and the monotonic one.
    pub clocks: (Clock, Clock),
    /// The owner of the store's tasks and threads.
    pub supervisor: &'o Supervisor,
}
