//! Queued events in Redis: a stream for each source, from which all gateways that share the Redis take.
//!
//! What a gateway takes is pending in the consumer group of the stream, under its name. When it has not said what came of
//! it until its lease is over, another one takes it. Nobody asks Redis again and again: who queues an event wakes the one
//! who delivers in the same process, and what others have left is found by looking now and then.

mod entry;
mod ledger;
mod local;
mod record;
mod scripts;
mod search;
mod tend;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use redis::Value;

use self::entry::Entry;
use self::local::Asking;
use self::local::Local;
use self::local::Unrecorded;
use super::Redis;
use super::connection::Failed;
use super::scripts::millis;
use crate::clock::Clock;
use crate::limits;
use crate::message::Message;
use crate::store::Published;
use crate::store::Token;
use crate::store::Unavailable;
use crate::store::queued::Counts;
use crate::store::queued::Queue;
use crate::store::queued::Settlement;
use crate::store::queued::Taken;
use crate::store::queued::Verdict;

/// What the threads of one process share of its queues.
#[derive(Debug)]
pub struct Queues {
    queues: Vec<Local>,
    /// The name under which this process takes events.
    consumer: String,
    lease: Duration,
    limits: limits::Redis,
    clock: Clock,
}

impl Queues {
    /// The queues of a process. Another one takes over what this one has in hand for longer than `lease`.
    pub fn new(queues: &[Queue], lease: Duration, Token(name): Token, limits: &limits::Redis, clock: &Clock) -> Self {
        Self {
            queues: queues.iter().map(|queue| Local::new(queue, limits.max_in_hand, clock.clone())).collect(),
            consumer: format!("{name:032x}"),
            lease,
            limits: limits.clone(),
            clock: clock.clone(),
        }
    }
}

/// The queues as one thread sees them.
#[derive(Debug, Clone)]
pub struct RedisBacklog {
    redis: Redis,
    queues: Arc<Queues>,
}

impl RedisBacklog {
    /// The queues over the connection of one thread.
    pub fn new(redis: Redis, queues: Arc<Queues>) -> Self {
        Self { redis, queues }
    }

    fn local(&self, queue: usize) -> Result<&Local, Unavailable> {
        self.queues.queues.get(queue).ok_or_else(|| Unavailable("there is no such queue".to_owned()))
    }

    pub(in crate::store) async fn enqueue(
        &self,
        queue: usize,
        message: &Message,
        attempt: (Token, Duration),
    ) -> Result<Published, Unavailable> {
        let local = self.local(queue)?;
        let fields = entry::fields(message);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        let published = self.redis.publish(message.keys, attempt, &local.stream, &fields).await;
        match published {
            // It may be there without an answer.
            Ok(Published::Appended) | Err(_) => local.wake(),
            Ok(Published::Earlier(_)) => {}
        }
        published
    }

    /// Takes what is there for at most one lease, after which others may have it.
    pub(in crate::store) async fn take(&self, queue: usize, max: usize) -> Result<Vec<Taken>, Unavailable> {
        let local = self.local(queue)?;
        let Some(asking) = local.begin()? else { return Ok(Vec::new()) };
        if asking.uncertain {
            self.release(local, false).await.map_err(|failed| failed.error)?;
        }
        let asked = self.queues.clock.instant();
        let sent = AtomicU32::new(0);
        let answer = match self.ask(local, asking, max, &sent).await {
            Err(failed) if failed.error.0.contains("NOGROUP") => {
                self.redis
                    .call::<i64>(&local.space, &scripts::call(&scripts::BEGIN, &local.space))
                    .await
                    .map_err(error)?;
                self.ask(local, asking, max, &sent).await
            }
            answer => answer,
        };
        let Value::Array(parts) = answer.map_err(error)? else { return Err(no_answer()) };
        let Ok([Value::Int(more), Value::Int(pause), Value::Array(entries)]) = <[Value; 3]>::try_from(parts) else {
            return Err(no_answer());
        };
        let entries: Vec<_> = entries.into_iter().filter_map(|entry| Entry::read(&local.source, entry)).collect();
        let next_due =
            u64::try_from(pause).ok().map(|pause| self.queues.clock.instant() + Duration::from_millis(pause));
        local.took(entries.iter().map(|entry| entry.number), more == 1, next_due);
        // What came from a take whose answer nobody heard is given back with the next one.
        if sent.load(Ordering::Relaxed) > 1 {
            local.doubt();
        }
        let lease_end = asked + self.queues.lease;
        Ok(entries.into_iter().filter_map(|entry| self.hand_out(local, entry, lease_end)).collect())
    }

    /// An event that cannot be read is given up.
    fn hand_out(&self, local: &Local, entry: Entry, lease_end: Instant) -> Option<Taken> {
        let Entry { number, tries, lane, message } = entry;
        if let Some(message) = message {
            return Some(Taken { number, message, tries, lease_end: Some(lease_end) });
        }
        tracing::error!(
            source = local.source,
            %number,
            "a queued event is damaged in Redis and cannot be delivered; it is kept as a dead letter"
        );
        let (clock, reason) = (&self.queues.clock, Some("damaged in Redis".to_owned()));
        let attempts = tries.attempts;
        let settlement = Settlement { verdict: Verdict::Dead, attempts, at: clock.now(), reason, answer: None };
        local.record(Unrecorded::new(number, lane, tries, settlement, clock.instant()));
        None
    }

    async fn ask(&self, local: &Local, asking: Asking, max: usize, sent: &AtomicU32) -> Result<Value, Failed> {
        let call = scripts::call(&scripts::TAKE, &local.space)
            .argument(self.queues.consumer.as_str())
            .argument(millis(self.queues.lease).to_string())
            .argument(max.to_string())
            .argument(if asking.silent { "1" } else { "0" });
        let limits::Redis { take_step, take_bytes, take_scanned, .. } = self.queues.limits;
        let call =
            [take_step, take_bytes, take_scanned].iter().fold(call, |call, most| call.argument(most.to_string()));
        let call = &call;
        let way = self.redis.way(&local.space)?;
        way.connection
            .run(|connection| {
                sent.fetch_add(1, Ordering::Relaxed);
                call.run(connection)
            })
            .await
    }

    /// Gives back what this process has in hand without knowing.
    async fn release(&self, local: &Local, for_good: bool) -> Result<i64, Failed> {
        let call = scripts::call(&scripts::RELEASE, &local.space)
            .argument(self.queues.consumer.as_str())
            .argument(if for_good { "1" } else { "0" });
        let known = local.in_hand();
        let call = known.iter().fold(call, |call, number| call.argument(number.to_string()));
        self.redis.call(&local.space, &call).await
    }

    pub(in crate::store) fn settle(&self, queue: usize, taken: &Taken, settlement: Settlement) {
        if let Ok(local) = self.local(queue) {
            let since = self.queues.clock.instant();
            local.record(Unrecorded::new(taken.number, taken.message.lane, taken.tries, settlement, since));
        }
    }

    pub(in crate::store) fn forget(&self, queue: usize, taken: &Taken) {
        if let Ok(local) = self.local(queue) {
            local.forget(taken.number);
        }
    }

    pub(in crate::store) async fn more(&self, queue: usize) {
        let Ok(local) = self.local(queue) else { return std::future::pending().await };
        let due = async {
            match local.next_due() {
                Some(due) => {
                    let clock = &self.queues.clock;
                    clock.sleep(due.saturating_duration_since(clock.instant())).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = local.more.notified() => {}
            () = due => {}
        }
    }

    /// Waits until everything is recorded.
    pub(in crate::store) async fn flush(&self, queue: usize) -> Result<(), Unavailable> {
        let local = self.local(queue)?;
        loop {
            let recorded = local.recorded.notified();
            if local.is_recorded() {
                return Ok(());
            }
            recorded.await;
        }
    }

    /// Waits until everything is recorded, and lets go of the rest.
    pub(in crate::store) async fn finish(&self, queue: usize) -> Result<(), Unavailable> {
        self.flush(queue).await?;
        self.release(self.local(queue)?, true).await.map(drop).map_err(error)
    }

    pub(in crate::store) fn counts(&self, queue: usize) -> Result<Counts, Unavailable> {
        self.local(queue).map(Local::counts)
    }
}

fn error(failed: Failed) -> Unavailable {
    failed.error
}

fn no_answer() -> Unavailable {
    Unavailable("Redis answers something else than what it was asked".to_owned())
}
