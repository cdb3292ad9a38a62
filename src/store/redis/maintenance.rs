//! The background tasks of queues in Redis: recording outcomes, polling for deliveries that other gateways have left,
//! and deleting what is past its retention.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::runtime::Handle;

use super::Again;
use super::Purpose;
use super::Redis;
use super::RedisQueue;
use super::Unrecorded;
use super::connections::Connections;
use super::queue;
use super::queue_scripts;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::base::time::Moment;
use crate::store::Keyspace;
use crate::store::Stats;
use crate::store::redis::claim_scripts::millis;
use crate::store::redis::connection::Failed;

/// Pauses after outcomes could not be recorded.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two parts of a sweep, for others; and how many times as long as it took a round rests.
const PART_PAUSE: Duration = Duration::from_millis(2);
const REST: u32 = 20;
/// Messages that a part of a sweep looks at.
const TRIMMED: u32 = 200;
/// Parts of a sweep between two polls.
const MAX_PARTS: usize = 200;

/// The runtime on which the background tasks run; none before they are started.
#[derive(Debug, Default)]
pub(super) struct Maintenance(Mutex<Option<Worker>>);

impl Maintenance {
    fn worker(&self) -> MutexGuard<'_, Option<Worker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runtime, and what it uses for as long as its own handle is there.
#[derive(Debug, Clone)]
struct Worker {
    runtime: Handle,
    supervisor: Supervisor,
    connections: Weak<Connections>,
    again: Weak<Again>,
}

/// The progress of a round of retention.
#[derive(Debug, Default)]
struct Sweep {
    /// The message behind which it goes on; nothing before a round.
    behind: String,
    began: Option<Instant>,
    /// Messages that it has looked at and deleted, and that it has looked at and left.
    deleted: u32,
    left: u32,
    /// When the next round may begin.
    next: Option<Instant>,
}

impl Sweep {
    /// How long a round rests that has mostly looked at what stays: what is deleted is not looked at again.
    fn rest(&self, now: Instant) -> Duration {
        let spent = self.began.map(|began| now.saturating_duration_since(began)).unwrap_or_default();
        let share = f64::from(self.left) / f64::from(self.left.saturating_add(self.deleted).max(1));
        spent.saturating_mul(REST).mul_f64(share)
    }
}

/// What of a batch has to be done next.
enum Recorded {
    Yes,
    /// One of so many is refused.
    Refused(usize),
    Unheard(Failed),
}

impl Redis {
    pub(in crate::store) fn maintain(&self, supervisor: &Supervisor) {
        let (connections, again) = (Arc::downgrade(&self.connections), Arc::downgrade(&self.again));
        let worker = Worker { runtime: Handle::current(), supervisor: supervisor.clone(), connections, again };
        let queues = self.queues().clone();
        *self.process.maintenance.worker() = Some(worker);
        for queue in &queues {
            // The tasks of a runtime that died have ended with it.
            queue.has_tasks.store(false, Ordering::Relaxed);
            self.start_tasks(queue);
        }
    }

    /// Starts the tasks of a queue that has become known, once [`Self::maintain`] was called.
    pub(super) fn start_tasks(&self, queue: &Arc<RedisQueue>) {
        let Some(worker) = self.process.maintenance.worker().clone() else { return };
        let (Some(connections), Some(again)) = (worker.connections.upgrade(), worker.again.upgrade()) else { return };
        if queue.has_tasks.swap(true, Ordering::Relaxed) {
            return;
        }
        let redis = Self { process: Arc::clone(&self.process), connections, again };
        let _on_it = worker.runtime.enter();
        let (store, recorded) = (redis.clone(), Arc::clone(queue));
        worker.supervisor.task(Task::RedisRecorder, move || {
            let (redis, queue) = (store.clone(), Arc::clone(&recorded));
            async move {
                redis.record(&queue).await;
                Ok(())
            }
        });
        // The first queue of a source.
        let first = self.queues().iter().find(|other| other.space == queue.space).map(Arc::clone);
        if first.is_some_and(|first| Arc::ptr_eq(&first, queue)) {
            let space = queue.space.clone();
            worker.supervisor.task(Task::RedisWatcher, move || {
                let (redis, space) = (redis.clone(), space.clone());
                async move {
                    redis.maintain_queues(&space).await;
                    Ok(())
                }
            });
        }
    }

    /// Records outcomes for ever, in their order.
    async fn record(&self, queue: &RedisQueue) {
        let (source, destination) = (&queue.id().source, &queue.id().name);
        let max = self.process.limits.max_batch.max(1);
        let (mut most, mut pause) = (max, MIN_PAUSE);
        loop {
            let batch = queue.batch(most);
            if batch.is_empty() {
                queue.more.notified().await;
                continue;
            }
            match self.send(queue, &batch).await {
                Recorded::Yes => {
                    if pause > MIN_PAUSE {
                        tracing::info!(source, destination, "what came of deliveries can be recorded again");
                    }
                    queue.recorded(&batch);
                    (most, pause) = ((most * 2).min(max), MIN_PAUSE);
                }
                Recorded::Refused(1) => {
                    self.process.refused.inc();
                    queue.recorded(&batch);
                    most = max;
                }
                Recorded::Refused(count) => most = count / 2,
                Recorded::Unheard(failed) => {
                    if pause == MIN_PAUSE {
                        let error = failed.error.0;
                        tracing::error!(source, destination, error, "what came of deliveries cannot be recorded yet");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    async fn send(&self, queue: &RedisQueue, batch: &[Unrecorded]) -> Recorded {
        let now = self.process.clock.instant();
        let call = queue_scripts::SETTLE.call(queue.keys()).argument(self.now());
        let call = batch.iter().flat_map(|outcome| outcome.arguments(now)).fold(call, |call, part| call.argument(part));
        match self.connections.call::<i64>(&queue.space, Purpose::Maintenance, &call).await {
            Ok(_) => Recorded::Yes,
            Err(failed) if failed.refused => {
                if let [outcome] = batch {
                    let (source, destination, error) = (&queue.id().source, &queue.id().name, failed.error.0);
                    let id = outcome.id();
                    tracing::error!(
                        source, destination, %id, error,
                        "Redis refuses to record what came of a delivery; it is made again when its lease is over"
                    );
                }
                Recorded::Refused(batch.len())
            }
            Err(failed) => Recorded::Unheard(failed),
        }
    }

    /// Polls, repairs and trims the queues of a source, for ever.
    async fn maintain_queues(&self, space: &Keyspace) {
        let (mut sweep, mut next_repair, mut refused) = (Sweep::default(), None, false);
        loop {
            let queues: Vec<_> = self.queues().iter().filter(|queue| queue.space == *space).map(Arc::clone).collect();
            let done = async {
                let damaged = self.refresh_stats(space, &queues).await?;
                let now = self.process.clock.instant();
                if !damaged.is_empty() && next_repair.is_none_or(|next| next <= now) {
                    next_repair = Some(now + self.process.limits.trim_every);
                    for queue in damaged {
                        self.repair(queue).await?;
                    }
                }
                self.sweep(space, &queues, &mut sweep).await
            };
            match done.await {
                Ok(()) => refused = false,
                // Of a Redis that does not answer, its connections tell.
                Err(failed) if failed.refused => {
                    if !std::mem::replace(&mut refused, true) {
                        let (source, error) = (space.source(), failed.error.0);
                        tracing::error!(source, error, "Redis refuses to look after the queues of a source");
                    }
                }
                Err(_) => {}
            }
            self.process.clock.sleep(self.process.limits.poll_every).await;
        }
    }

    /// Reads how much there is of each queue; returns those of which a key is missing.
    async fn refresh_stats<'q>(
        &self,
        space: &Keyspace,
        queues: &'q [Arc<RedisQueue>],
    ) -> Result<Vec<&'q RedisQueue>, Failed> {
        for queue in queues {
            self.begin(queue, Purpose::Maintenance).await?;
        }
        let of_queue = |queue: &Arc<RedisQueue>| {
            ["ready", "due", "lanes", "blocked", "retrying", "dead", "open"]
                .map(|part| queue::key(space, &queue.id().name, part))
        };
        let call = queue_scripts::STATS.call(queues.iter().flat_map(of_queue)).argument(self.now());
        let seen: Vec<i64> = self.connections.call(space, Purpose::Maintenance, &call).await?;
        let mut damaged = Vec::new();
        for (queue, seen) in queues.iter().zip(seen.chunks(7)) {
            let [open, retrying, blocked, dead, oldest, work, is_damaged] = *seen else { continue };
            let count = |count: i64| u64::try_from(count).unwrap_or(0);
            let stats = Stats {
                blocked: count(blocked),
                queued: count(open - retrying - blocked),
                retrying: count(retrying),
                dead: count(dead),
                oldest: (oldest >= 0).then(|| Moment::from_millis(oldest)),
            };
            queue.set_stats(stats, work > 0);
            if is_damaged > 0 {
                damaged.push(&**queue);
            }
        }
        Ok(damaged)
    }

    /// Puts deliveries back that have lost their place with a key that was deleted or evicted.
    async fn repair(&self, queue: &RedisQueue) -> Result<(), Failed> {
        let (limits, mut behind, mut misplaced) = (&self.process.limits, String::new(), 0);
        loop {
            let call = queue_scripts::MEND.call(queue.keys()).argument(self.now()).argument(queue.id().name.as_str());
            let call = call.argument(behind).argument(TRIMMED.to_string());
            let call = call.argument(limits.list_bytes.to_string());
            let (next, found): (String, u64) = self.connections.call(&queue.space, Purpose::Maintenance, &call).await?;
            (behind, misplaced) = (next, misplaced + found);
            if behind.is_empty() {
                break;
            }
            tokio::time::sleep(PART_PAUSE).await;
        }
        let (source, destination) = (&queue.id().source, &queue.id().name);
        tracing::error!(
            source,
            destination,
            misplaced,
            "a key of this queue was deleted or evicted in Redis; the deliveries that were in it are put back"
        );
        queue.handle.signal().raise();
        Ok(())
    }

    /// Deletes a part of what is past its time, or has a rest.
    async fn sweep(&self, space: &Keyspace, queues: &[Arc<RedisQueue>], sweep: &mut Sweep) -> Result<(), Failed> {
        let (clock, limits) = (&self.process.clock, &self.process.limits);
        let now = clock.instant();
        if sweep.behind.is_empty() {
            if sweep.next.is_some_and(|next| now < next) {
                return Ok(());
            }
            // A Redis that has lost its data has to be told again.
            for queue in queues {
                self.make_known(queue, Purpose::Maintenance).await?;
            }
            *sweep = Sweep { began: Some(now), ..Sweep::default() };
        }
        let names: BTreeSet<String> = self.destinations(space).await?;
        let retention = |name: &str| queues.iter().find(|queue| queue.id().name == name).map(|queue| queue.retention());
        let longest = queues.iter().map(|queue| queue.retention()).max().unwrap_or_default();
        let of_name = |name: &String| ["due", "dead", "open", "records"].map(|part| queue::key(space, name, part));
        for _part in 0..MAX_PARTS {
            let keys = std::iter::once(queue::stream(space)).chain(names.iter().flat_map(of_name));
            let call = queue_scripts::SWEEP.call(keys).argument(self.now()).argument(sweep.behind.as_str());
            let call = call.argument(TRIMMED.to_string()).argument(limits.list_bytes.to_string());
            let call = names.iter().fold(call, |call, name| {
                call.argument(name.as_str()).argument(millis(retention(name).unwrap_or(longest)).to_string())
            });
            let (behind, seen, deleted): (String, u32, u32) =
                self.connections.call(space, Purpose::Maintenance, &call).await?;
            sweep.behind = behind;
            sweep.deleted = sweep.deleted.saturating_add(deleted);
            sweep.left = sweep.left.saturating_add(seen.saturating_sub(deleted));
            if sweep.behind.is_empty() {
                sweep.next = Some(clock.instant() + limits.trim_every.max(sweep.rest(clock.instant())));
                break;
            }
            tokio::time::sleep(PART_PAUSE).await;
        }
        Ok(())
    }

    /// The names of all destinations that a source has had.
    pub(super) async fn destinations(&self, space: &Keyspace) -> Result<BTreeSet<String>, Failed> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(format!("{}destinations", space.prefix()));
        let command = &command;
        let connection = self.connections.connection(space, Purpose::Maintenance);
        connection.run(|mut connection| async move { command.query_async(&mut connection).await }).await
    }
}
