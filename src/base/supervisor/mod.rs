//! Supervises long-running tasks and threads. A task that panics or returns an error is logged, counted and restarted.
//! If it dies again within [`limits::Supervision::min_uptime`], it is not restarted any more, and `/livez` fails.
//!
//! A task that returns `Ok` is done and not restarted. State that must outlive a restart is captured by the closure
//! that starts the task: all that one run creates is dropped when it ends.

mod background;
mod heartbeat;
mod panic;
mod phase;
mod task;
#[cfg(test)]
mod tests;

use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use prometheus::IntCounterVec;
use prometheus::Opts;
use prometheus::core::Collector;
use tokio::sync::watch;

pub use self::background::Background;
pub use self::heartbeat::Heartbeat;
pub use self::panic::catch_panic;
pub use self::panic::log_panics;
use self::panic::panics;
pub use self::phase::Phase;
pub use self::task::Task;
use crate::base::clock::Clock;
use crate::base::limits;
use crate::base::metrics;

/// Why a task failed. It is restarted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TaskError(pub String);

/// Supervises the long-running tasks and threads of a gateway. Clones share their state.
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: limits::Supervision,
    clock: Clock,
    began: Instant,
    restarts: IntCounterVec,
    /// The tasks that are not restarted any more, each with the reason.
    dead: Mutex<Vec<String>>,
    heartbeats: Mutex<Vec<Weak<Heartbeat>>>,
    /// The set of tasks that shall panic, by [`Task::bit`].
    injected: watch::Sender<u32>,
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new(limits: limits::Supervision, clock: Clock) -> Self {
        let opts = Opts::new("doorward_task_restarts_total", "Tasks and threads that died and were started again.");
        #[expect(clippy::expect_used, reason = "the name and the label are constants")]
        let restarts = IntCounterVec::new(opts, &["task"]).expect("a valid metric");
        let restarted = Task::ALL.iter().filter(|task| !matches!(task, Task::Connection | Task::Attempt));
        restarted.for_each(|task| drop(restarts.with_label_values(&[task.name()])));
        Self(Arc::new(Shared {
            limits,
            began: clock.instant(),
            clock,
            restarts,
            dead: Mutex::default(),
            heartbeats: Mutex::default(),
            injected: watch::Sender::new(0),
        }))
    }

    /// How many times tasks or threads of this kind were restarted.
    pub fn restarts(&self, task: Task) -> u64 {
        self.0.restarts.with_label_values(&[task.name()]).get()
    }

    /// `doorward_task_restarts_total` and `doorward_panics_total`, to be registered.
    ///
    /// # Errors
    /// Only when a name is not valid, which is a bug.
    pub fn collectors(&self) -> prometheus::Result<[Box<dyn Collector>; 2]> {
        let help = "Faults of the gateway, each of which ended one task.";
        Ok([Box::new(self.0.restarts.clone()), metrics::total("panics_total", help, panics)?])
    }

    /// Runs a task on the current runtime, until it returns `Ok` or the runtime ends. `start` creates its future, for
    /// the first run and for each restart.
    pub fn task<F>(&self, task: Task, mut start: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let shared = Arc::clone(&self.0);
        #[expect(clippy::disallowed_methods, reason = "it is supervised, and ends with its runtime")]
        drop(tokio::spawn(async move {
            let mut restarts = Restarts::new(task, Arc::clone(&shared));
            loop {
                let why = match catch_panic(injectable(task, Arc::clone(&shared), start())).await {
                    Ok(Ok(())) => return,
                    Ok(Err(TaskError(why))) | Err(why) => why,
                };
                if !restarts.record_death(&why) {
                    return;
                }
            }
        }));
    }

    /// Runs a thread until `run`, which is called for the first run and for each restart, returns `Ok`. The caller must
    /// join the handle.
    ///
    /// # Errors
    /// The system cannot create another thread.
    pub fn thread(
        &self,
        task: Task,
        mut run: impl FnMut(&Arc<Heartbeat>) -> Result<(), TaskError> + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.0);
        let heartbeat = Arc::new(Heartbeat::new(task, Arc::clone(&shared)));
        {
            let mut heartbeats = self.0.heartbeats();
            heartbeats.retain(|heartbeat| heartbeat.strong_count() > 0);
            heartbeats.push(Arc::downgrade(&heartbeat));
        }
        let run_loop = move || {
            let mut restarts = Restarts::new(task, shared);
            loop {
                // Unwind safe: what it shares with others is behind locks that ignore poison; the rest is dropped.
                let ended = catch_unwind(AssertUnwindSafe(|| {
                    heartbeat.beat();
                    run(&heartbeat)
                }));
                heartbeat.idle();
                let why = match ended {
                    Ok(Ok(())) => return,
                    Ok(Err(TaskError(why))) => why,
                    Err(panic) => panic::text(&*panic),
                };
                if !restarts.record_death(&why) {
                    return;
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "this is where threads are owned")]
        std::thread::Builder::new().name(format!("dw-{}", task.name())).spawn(run_loop)
    }

    /// The check behind `/livez`, which fails when only a restart of the process can help.
    ///
    /// # Errors
    /// Which tasks are not restarted any more, and which threads have missed their heartbeat for
    /// [`limits::Supervision::stuck`].
    pub fn live(&self) -> Result<(), String> {
        self.check(self.0.limits.stuck)
    }

    /// The check behind `/readyz`, which fails earlier: a thread that is late may recover.
    ///
    /// # Errors
    /// Which tasks are not restarted any more, and which threads have missed their heartbeat for
    /// [`limits::Supervision::late`].
    pub fn ready(&self) -> Result<(), String> {
        self.check(self.0.limits.late)
    }

    /// Fails when tasks are not restarted any more, or threads have missed their heartbeat for `limit`.
    fn check(&self, limit: Duration) -> Result<(), String> {
        let mut wrong = self.0.dead().clone();
        let heartbeats = self.0.heartbeats();
        wrong.extend(heartbeats.iter().filter_map(Weak::upgrade).filter_map(|heartbeat| heartbeat.missed_for(limit)));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Makes one running task of this kind panic, or the next one that runs. For tests.
    pub fn inject_panic(&self, task: Task) {
        self.0.injected.send_modify(|injected| *injected |= task.bit());
    }

    /// Panics if a test has injected a panic for this kind of task. For work that the supervisor does not run itself.
    pub fn panic_if_injected(&self, task: Task) {
        self.0.panic_if_injected(task);
    }

    /// Whether an injected panic has not happened yet.
    pub fn is_injected(&self, task: Task) -> bool {
        *self.0.injected.borrow() & task.bit() != 0
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new(limits::Supervision::default(), Clock::System)
    }
}

impl Shared {
    fn dead(&self) -> MutexGuard<'_, Vec<String>> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heartbeats(&self) -> MutexGuard<'_, Vec<Weak<Heartbeat>>> {
        self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn panic_if_injected(&self, task: Task) {
        let bit = task.bit();
        let clear_bit = |injected: &mut u32| std::mem::replace(injected, *injected & !bit) & bit != 0;
        if *self.injected.borrow() & bit != 0 && self.injected.send_if_modified(clear_bit) {
            #[expect(clippy::panic, reason = "a test asked for it")]
            {
                panic!("a test asked {} to panic", task.name());
            }
        }
    }
}

/// The restarts of one task.
struct Restarts {
    task: Task,
    shared: Arc<Shared>,
    last_restart: Option<Instant>,
}

impl Restarts {
    fn new(task: Task, shared: Arc<Shared>) -> Self {
        Self { task, shared, last_restart: None }
    }

    /// Logs a death. Returns whether the task is to be restarted, and counts that.
    fn record_death(&mut self, why: &str) -> bool {
        let (task, min_uptime) = (self.task.name(), self.shared.limits.min_uptime);
        let now = self.shared.clock.instant();
        if self.last_restart.is_some_and(|last| now.saturating_duration_since(last) < min_uptime) {
            tracing::error!(
                task,
                why,
                "a task died again soon after it was restarted, and is given up: restart the gateway"
            );
            self.shared.dead().push(format!("{task} died twice within {} s: {why}", min_uptime.as_secs()));
            return false;
        }
        tracing::error!(task, why, "a task died and is restarted");
        self.last_restart = Some(now);
        self.shared.restarts.with_label_values(&[task]).inc();
        true
    }
}

/// Runs a future, and panics when a test injects a panic.
async fn injectable<F: Future>(task: Task, shared: Arc<Shared>, future: F) -> F::Output {
    let mut injected = shared.injected.subscribe();
    let mut future = std::pin::pin!(future);
    loop {
        shared.panic_if_injected(task);
        tokio::select! {
            ended = &mut future => return ended,
            _changed = injected.changed() => {}
        }
    }
}
