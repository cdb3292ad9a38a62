//! Claims, dedupe records, messages and deliveries in Redis, shared by all gateways that use the same one.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::*;
use crate::clock::Clock;
use crate::limits::Limits;
use crate::store::Durability;
use crate::store::RedisUrl;
use crate::store::redis::connection::Failed;
use crate::store::redis::script::Call;

/// How a Redis is used.
#[derive(Debug, Clone)]
pub struct Options<'o> {
    /// Where it is.
    pub url: &'o RedisUrl,
    /// How long a command of a request may take.
    pub timeout: Duration,
    /// When what is stored counts as safe; as soon as Redis answers without one.
    pub durability: Option<Durability>,
    /// How long a delivery stays with the gateway that took it.
    pub lease: Duration,
    /// All sources, and the tags of streams: what keys there may be.
    pub spaces: &'o [Keyspace],
    /// Sizes, intervals and thresholds.
    pub limits: Limits,
    /// A steady clock.
    pub clock: Clock,
    /// Owns its tasks.
    pub supervisor: &'o Supervisor,
}

/// A handle to a Redis, for one runtime.
#[derive(Debug, Clone)]
pub struct Redis {}

#[allow(unused_variables, clippy::todo, clippy::unused_async)]
impl Redis {
    /// A handle that connects when it is first used, on the runtime that uses it.
    pub fn new(options: &Options<'_>) -> Self {
        todo!()
    }
    /// Runs a script on the keys of `space`, for targets that are in the same Redis. It may run more than once. What it wrote is as
    /// safe as `store.durability` says when there is an answer; for that it has to write even what it finds done.
    ///
    /// # Errors
    /// Why there is no answer, and whether the script may have run.
    pub(crate) async fn run(&self, space: &Keyspace, call: Call) -> Result<i64, Failed> {
        todo!()
    }
    pub(super) fn local(&self) -> Self {
        todo!()
    }
    pub(super) fn has_answered(&self) -> bool {
        todo!()
    }
    pub(super) async fn claim(&self, once: &Once, lease: Duration) -> Result<Option<Earlier>, Unavailable> {
        todo!()
    }
    pub(super) async fn commit(&self, once: &Once) -> Result<(), Unavailable> {
        todo!()
    }
    pub(super) async fn release(&self, once: &Once, after: Duration) {
        todo!()
    }
    pub(super) async fn ignore(&self, space: &Keyspace, ignored: Ignored, ttl: Duration) -> Result<Noted, Unavailable> {
        todo!()
    }
    pub(super) fn register(&self, destinations: &[QueueTerms]) -> Result<Vec<Queue>, Unavailable> {
        todo!()
    }
    pub(super) fn maintain(&self, supervisor: &Supervisor) {
        todo!()
    }
    pub(super) async fn enqueue(
        &self,
        message: &Arc<Message>,
        to: &[Route],
        once: Option<&Once>,
    ) -> Result<Published, Unavailable> {
        todo!()
    }
    pub(super) async fn take(&self, queue: &Queue, want: Want) -> Result<(Vec<Claimed>, Option<Instant>), Unavailable> {
        todo!()
    }
    pub(super) async fn flush(&self, queue: &Queue) -> Result<(), Unavailable> {
        todo!()
    }
    pub(super) fn stats(&self, queue: &Queue) -> Result<Stats, Unavailable> {
        todo!()
    }
    pub(super) fn settle(&self, queue: &Queue, claimed: &Claimed, outcome: Outcome) {
        todo!()
    }
    pub(super) fn give_back(&self, queue: &Queue, claimed: &Claimed) {
        todo!()
    }
    pub(super) async fn list(&self, part: Part) -> Result<Page, AdminError> {
        todo!()
    }
    pub(super) async fn show(&self, source: &str, id: MessageId) -> Result<Option<Details>, AdminError> {
        todo!()
    }
    pub(super) async fn replay(
        &self,
        source: &str,
        id: MessageId,
        destination: Option<&str>,
    ) -> Result<u64, AdminError> {
        todo!()
    }
    pub(super) async fn replay_all(&self, part: Part) -> Result<Done, AdminError> {
        todo!()
    }
    pub(super) async fn purge(&self, part: Part) -> Result<Done, AdminError> {
        todo!()
    }
}
