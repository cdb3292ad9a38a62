//! The heartbeat of a supervised thread, by which `/readyz` and `/livez` tell a thread that works or waits from one
//! that is stuck.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::Task;

/// The last sign of life of a thread that works.
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

    /// The thread moves. To be called at least once in
    /// [`limits::Supervision::late`](crate::base::limits::Supervision::late) while it works.
    pub fn beat(&self) {
        let millis = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        self.last.store(millis, Ordering::Relaxed);
        self.shared.panic_if_injected(self.task);
    }

    /// Beats as long as the thread gets to run this, one task among others.
    pub async fn keep(&self) -> Infallible {
        loop {
            self.beat();
            tokio::time::sleep(self.shared.limits.beat_every).await;
        }
    }

    /// The thread waits for work: no heartbeat is missed until the next one.
    pub fn idle(&self) {
        self.last.store(0, Ordering::Relaxed);
    }

    /// Says so when the thread works and the last heartbeat is at least this long ago.
    pub(super) fn missed_for(&self, limit: Duration) -> Option<String> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        let silence = self.elapsed().saturating_sub(Duration::from_millis(last));
        (silence >= limit).then(|| format!("{} has not moved for {} s", self.task.name(), silence.as_secs()))
    }

    fn elapsed(&self) -> Duration {
        self.shared.clock.instant().saturating_duration_since(self.shared.began)
    }
}
