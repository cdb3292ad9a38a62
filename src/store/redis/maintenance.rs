//! The background tasks of queues in Redis: they record outcomes, poll statistics (and so find deliveries whose leases
//! have expired), repair queues, and delete messages after their retention.

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

use super::Purpose;
use super::Redis;
use super::RedisQueue;
use super::Retries;
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

/// The pause after outcomes could not be recorded, doubled up to `MAX_PAUSE`.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two steps of a sweep, so that other commands are not delayed.
const STEP_PAUSE: Duration = Duration::from_millis(2);
/// A round of a sweep is followed by a pause of up to this many times its duration.
const PAUSE_FACTOR: u32 = 20;
/// Messages that one step of a sweep or a repair scans.
const STEP_MESSAGES: u32 = 200;
/// Most steps of a sweep between two polls.
const MAX_STEPS: usize = 200;

/// The runtime of the background tasks; `None` before [`Redis::maintain`] is called.
#[derive(Debug, Default)]
pub(super) struct Maintenance(Mutex<Option<Worker>>);

impl Maintenance {
    fn worker(&self) -> MutexGuard<'_, Option<Worker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A runtime, and the resources of its handle while that exists.
#[derive(Debug, Clone)]
struct Worker {
    runtime: Handle,
    supervisor: Supervisor,
    connections: Weak<Connections>,
    retries: Weak<Retries>,
}

/// The progress of a round of retention.
#[derive(Debug, Default)]
struct Sweep {
    /// The message after which it continues; empty between two rounds.
    after: String,
    began: Option<Instant>,
    /// Scanned messages that were deleted.
    deleted: u32,
    /// Scanned messages that were not deleted.
    kept: u32,
    /// When the next round may begin.
    next: Option<Instant>,
}

impl Sweep {
    /// The pause after a round: longer, the more of the scanned messages were kept, because the next round scans these
    /// again.
    fn pause(&self, now: Instant) -> Duration {
        let spent = self.began.map(|began| now.saturating_duration_since(began)).unwrap_or_default();
        let share = f64::from(self.kept) / f64::from(self.kept.saturating_add(self.deleted).max(1));
        spent.saturating_mul(PAUSE_FACTOR).mul_f64(share)
    }
}

/// The result of recording a batch of outcomes.
enum Recorded {
    Yes,
    /// Redis refuses the batch of this size: at least one of its outcomes is bad.
    Refused(usize),
    Unavailable(Failed),
}

impl Redis {
    pub(in crate::store) fn maintain(&self, supervisor: &Supervisor) {
        let (connections, retries) = (Arc::downgrade(&self.connections), Arc::downgrade(&self.retries));
        let worker = Worker { runtime: Handle::current(), supervisor: supervisor.clone(), connections, retries };
        let queues = self.queues().clone();
        *self.process.maintenance.worker() = Some(worker);
        for queue in &queues {
            // The tasks of a runtime that died have ended with it.
            queue.has_tasks.store(false, Ordering::Relaxed);
            self.start_tasks(queue);
        }
    }

    /// Starts the tasks of a queue, if [`Self::maintain`] was called.
    pub(super) fn start_tasks(&self, queue: &Arc<RedisQueue>) {
        let Some(worker) = self.process.maintenance.worker().clone() else { return };
        let (Some(connections), Some(retries)) = (worker.connections.upgrade(), worker.retries.upgrade()) else {
            return;
        };
        if queue.has_tasks.swap(true, Ordering::Relaxed) {
            return;
        }
        let redis = Self { process: Arc::clone(&self.process), connections, retries };
        let _on_it = worker.runtime.enter();
        let (store, recorded) = (redis.clone(), Arc::clone(queue));
        worker.supervisor.task(Task::RedisRecorder, move || {
            let (redis, queue) = (store.clone(), Arc::clone(&recorded));
            async move {
                redis.record(&queue).await;
                Ok(())
            }
        });
        // One task for all queues of a source.
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

    /// Records outcomes in their order; never returns. A batch that Redis refuses is halved, to find the bad outcome.
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
                Recorded::Unavailable(failed) => {
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
            Err(failed) => Recorded::Unavailable(failed),
        }
    }

    /// Polls, repairs and sweeps the queues of a source; never returns.
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
                // The connection logs that Redis does not answer.
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

    /// Reads the statistics of the queues; returns the queues of which a key is missing.
    async fn refresh_stats<'q>(
        &self,
        space: &Keyspace,
        queues: &'q [Arc<RedisQueue>],
    ) -> Result<Vec<&'q RedisQueue>, Failed> {
        for queue in queues {
            self.ensure_registered(queue, Purpose::Maintenance).await?;
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

    /// Restores deliveries that were lost with a key that was deleted or evicted.
    async fn repair(&self, queue: &RedisQueue) -> Result<(), Failed> {
        let (limits, mut behind, mut misplaced) = (&self.process.limits, String::new(), 0);
        loop {
            let call = queue_scripts::REPAIR.call(queue.keys()).argument(self.now()).argument(queue.id().name.as_str());
            let call = call.argument(behind).argument(STEP_MESSAGES.to_string());
            let call = call.argument(limits.list_bytes.to_string());
            let (next, found): (String, u64) = self.connections.call(&queue.space, Purpose::Maintenance, &call).await?;
            (behind, misplaced) = (next, misplaced + found);
            if behind.is_empty() {
                break;
            }
            tokio::time::sleep(STEP_PAUSE).await;
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

    /// Runs some steps of a sweep, unless it pauses.
    async fn sweep(&self, space: &Keyspace, queues: &[Arc<RedisQueue>], sweep: &mut Sweep) -> Result<(), Failed> {
        let (clock, limits) = (&self.process.clock, &self.process.limits);
        let now = clock.instant();
        if sweep.after.is_empty() {
            if sweep.next.is_some_and(|next| now < next) {
                return Ok(());
            }
            // Redis may have lost its data.
            for queue in queues {
                self.register_destination(queue, Purpose::Maintenance).await?;
            }
            *sweep = Sweep { began: Some(now), ..Sweep::default() };
        }
        let names: BTreeSet<String> = self.destinations(space).await?;
        let retention = |name: &str| queues.iter().find(|queue| queue.id().name == name).map(|queue| queue.retention());
        let longest = queues.iter().map(|queue| queue.retention()).max().unwrap_or_default();
        let of_name = |name: &String| ["due", "dead", "open", "records"].map(|part| queue::key(space, name, part));
        for _part in 0..MAX_STEPS {
            let keys = std::iter::once(queue::stream(space)).chain(names.iter().flat_map(of_name));
            let call = queue_scripts::SWEEP.call(keys).argument(self.now()).argument(sweep.after.as_str());
            let call = call.argument(STEP_MESSAGES.to_string()).argument(limits.list_bytes.to_string());
            let call = names.iter().fold(call, |call, name| {
                call.argument(name.as_str()).argument(millis(retention(name).unwrap_or(longest)).to_string())
            });
            let (behind, seen, deleted): (String, u32, u32) =
                self.connections.call(space, Purpose::Maintenance, &call).await?;
            sweep.after = behind;
            sweep.deleted = sweep.deleted.saturating_add(deleted);
            sweep.kept = sweep.kept.saturating_add(seen.saturating_sub(deleted));
            if sweep.after.is_empty() {
                sweep.next = Some(clock.instant() + limits.trim_every.max(sweep.pause(clock.instant())));
                break;
            }
            tokio::time::sleep(STEP_PAUSE).await;
        }
        Ok(())
    }

    /// The names of all destinations that a source ever had.
    pub(super) async fn destinations(&self, space: &Keyspace) -> Result<BTreeSet<String>, Failed> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(format!("{}destinations", space.prefix()));
        let command = &command;
        let connection = self.connections.connection(space, Purpose::Maintenance);
        connection.run(|mut connection| async move { command.query_async(&mut connection).await }).await
    }
}
