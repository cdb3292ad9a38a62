//! Which store is opened, and with what.

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

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct Options<'o> {
    /// Which store is opened, and where.
    pub kind: &'o Kind,
    /// All sources, and the tags of streams: each has a share of the dedupe keys.
    pub spaces: &'o [Keyspace],
    /// Most dedupe keys that memory and SQLite remember.
    pub max_events: usize,
    /// Bytes that stay free on the disk of a SQLite file.
    pub min_free: u64,
    /// Whether an event is finished only when its dedupe records are synced to the disk of a SQLite store.
    pub fsync: bool,
    /// How long Redis may take to answer a command of a request.
    pub timeout: Duration,
    /// When what is stored in Redis counts as safe; as soon as it answers without one.
    pub durability: Option<Durability>,
    /// How long a delivery stays with the gateway that took it, where others use the same store.
    pub lease: Duration,
    /// Sizes, intervals and thresholds.
    pub limits: &'o Limits,
    /// The wall clock and the steady one.
    pub clocks: (Clock, Clock),
    /// The owner of the store's tasks and threads.
    pub supervisor: &'o Supervisor,
}
