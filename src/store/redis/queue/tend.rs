//! What is done for queues beside taking: what came of attempts is recorded, and now and then somebody looks whether others
//! have left something, and deletes what is past its time.

use std::time::Duration;
use std::time::Instant;

use super::Local;
use super::RedisBacklog;
use super::scripts;
use crate::store::Unavailable;
use crate::store::queued::Counts;
use crate::store::redis::connection::Failed;
use crate::store::redis::scripts::millis;
use crate::supervisor::Supervisor;
use crate::supervisor::Task;
use crate::time::Moment;

/// Pauses after attempts could not be recorded.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long a gateway is silent before its name is forgotten.
const QUIET: Duration = Duration::from_secs(60 * 60);

impl RedisBacklog {
    /// Tends the queues from now on, on the runtime that this is called on. Each process does it once.
    pub fn tend(&self, supervisor: &Supervisor) {
        for queue in 0..self.queues.queues.len() {
            let backlog = self.clone();
            supervisor.task(Task::RedisRecorder, move || {
                let backlog = backlog.clone();
                async move {
                    backlog.record(queue).await;
                    Ok(())
                }
            });
        }
        let backlog = self.clone();
        supervisor.task(Task::RedisWatcher, move || {
            let backlog = backlog.clone();
            async move {
                backlog.watch().await;
                Ok(())
            }
        });
    }

    /// Records attempts for ever, in their order.
    async fn record(&self, queue: usize) {
        let Ok(local) = self.local(queue) else { return };
        let mut pause = MIN_PAUSE;
        loop {
            let batch = local.unrecorded(self.queues.limits.max_batch);
            if batch.is_empty() {
                local.tried.notified().await;
                continue;
            }
            let call = scripts::call(&scripts::SETTLE, &local.space).argument(self.queues.consumer.as_str());
            let now = self.queues.clock.instant();
            let call = batch.iter().flat_map(|attempt| attempt.arguments(now)).fold(call, |call, it| call.argument(it));
            match self.redis.call::<i64>(&local.space, &call).await {
                Ok(recorded) => {
                    if pause > MIN_PAUSE {
                        tracing::info!(source = local.source, "what came of deliveries can be recorded again");
                    }
                    tracing::trace!(source = local.source, recorded, of = batch.len(), "recorded");
                    local.recorded(batch.len());
                    pause = MIN_PAUSE;
                }
                Err(Failed { error: Unavailable(error), .. }) => {
                    if pause == MIN_PAUSE {
                        tracing::error!(source = local.source, error, "what came of deliveries cannot be recorded yet");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    /// Looks at all queues that are in use, and at one idle one after the other.
    async fn watch(&self) {
        let queues = &self.queues.queues;
        let mut trimmed = vec![None; queues.len()];
        let mut turn = 0;
        loop {
            let active: Vec<_> = queues.iter().map(Local::was_active).collect();
            let mut idle = (0..queues.len()).map(|step| (turn + step) % queues.len());
            let next = idle.find(|queue| active.get(*queue) == Some(&false));
            turn = next.map_or(turn, |next| next + 1);
            for ((queue, trimmed), active) in trimmed.iter_mut().enumerate().zip(active) {
                if !active && next != Some(queue) {
                    continue;
                }
                // Whoever takes or queues events says what is wrong.
                let _unavailable = self.look(queue, trimmed).await;
            }
            self.queues.clock.sleep(self.queues.limits.poll_every).await;
        }
    }

    async fn look(&self, queue: usize, trimmed: &mut Option<Instant>) -> Result<(), Failed> {
        let Ok(local) = self.local(queue) else { return Ok(()) };
        let call = scripts::call(&scripts::LOOK, &local.space)
            .argument(millis(self.queues.lease).to_string())
            .argument(millis(local.keep).to_string());
        let seen: Vec<i64> = self.redis.call(&local.space, &call).await?;
        let [queued, retrying, dead, oldest, work, old] = seen[..] else { return Ok(()) };
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        let oldest = (oldest >= 0).then(|| Moment::from_millis(oldest));
        let counts = Counts { queued: count(queued), retrying: count(retrying), dead: count(dead), oldest };
        local.looked(counts, work > 0);
        let (now, limits) = (self.queues.clock.instant(), &self.queues.limits);
        if old > 0 && trimmed.is_none_or(|last| now.saturating_duration_since(last) >= limits.trim_every) {
            *trimmed = Some(now);
            self.trim(local).await?;
        }
        Ok(())
    }

    async fn trim(&self, local: &Local) -> Result<(), Failed> {
        let part = self.queues.limits.trim_entries;
        let call = scripts::call(&scripts::TRIM, &local.space)
            .argument(self.queues.consumer.as_str())
            .argument(millis(local.keep).to_string())
            .argument(millis(QUIET).to_string())
            .argument(part.to_string());
        while self.redis.call::<i64>(&local.space, &call).await? == part {
            // Others want to be heard too.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}
