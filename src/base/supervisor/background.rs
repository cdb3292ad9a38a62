//! Short-lived tasks that end by themselves or are aborted when their owner is dropped. They are not restarted.

use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::panic::catch_panic;

/// Tasks that end by themselves, such as connections. Dropping it aborts them.
#[derive(Debug, Default)]
pub struct Background(Mutex<JoinSet<()>>);

impl Background {
    /// Spawns a task on the current runtime. A panic ends only this task, and is logged.
    pub fn spawn(&self, what: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(what, &Handle::current(), future);
    }

    /// Spawns a task on another runtime, which drops it if it has shut down.
    pub fn spawn_on(&self, what: &'static str, runtime: &Handle, future: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        let task = async move {
            if let Err(why) = catch_panic(future).await {
                tracing::error!(what, why, "a task died");
            }
        };
        let _abort = tasks.spawn_on(task, runtime);
    }
}
