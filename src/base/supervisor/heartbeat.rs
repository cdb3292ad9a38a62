//! The heartbeat of a supervised thread: `/readyz` and `/livez` fail when a thread that has work stops beating.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::Task;

/// The time of the last heartbeat of a thread, unless it waits for work.
#[derive(Debug)]
pub struct Heartbeat {
    task: Task,
    shared: Arc<Shared>,
    /// Milliseconds since the supervisor began, plus one; zero while the thread waits for work.
    last: AtomicU64,
}

impl Heartbeat {
    /// The heartbeat of a thread that has no work yet.
    pub(super) fn new(task: Task, shared: Arc<Shared>) -> Self {
        Self { task, shared, last: AtomicU64::new(0) }
    }

    /// Records a heartbeat. A thread that has work must call it more often than every
    /// [`limits::Supervision::late`](crate::base::limits::Supervision::late).
    pub fn beat(&self) {
        let millis = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        self.last.store(millis, Ordering::Relaxed);
        self.shared.panic_if_injected(self.task);
    }

    /// Beats forever, as one task of a single-threaded runtime: a task that blocks the thread stops the heartbeat.
    pub async fn beat_forever(&self) -> Infallible {
        loop {
            self.beat();
            tokio::time::sleep(self.shared.limits.beat_every).await;
        }
    }

    /// Marks the thread as waiting for work: no heartbeat is expected until the next [`Self::beat`].
    pub fn idle(&self) {
        self.last.store(0, Ordering::Relaxed);
    }

    /// A message if the thread has work and its last heartbeat is at least `limit` ago.
    pub(super) fn missed_for(&self, limit: Duration) -> Option<String> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        let silence = self.elapsed().saturating_sub(Duration::from_millis(last));
        (silence >= limit).then(|| format!("{} has not moved for {} s", self.task.name(), silence.as_secs()))
    }

    fn elapsed(&self) -> Duration {
        self.shared.clock.instant().saturating_duration_since(self.shared.began)
    }
}
