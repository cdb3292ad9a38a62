//! Supervises long-running tasks and threads: one that panics or returns an error is logged, counted and restarted; one
//! that dies again within [`limits::Supervision::forgiveness`] is given up, and `/livez` fails.
//!
//! A task that returns `Ok` is done and not restarted. State that has to outlive a restart belongs to whoever starts
//! the task: everything that its future or closure has made is dropped when it dies.

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

/// Why a task cannot go on: it is restarted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TaskError(pub String);

/// Supervises the long-running tasks and threads of a gateway. Clones share them.
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: limits::Supervision,
    clock: Clock,
    began: Instant,
    restarts: IntCounterVec,
    /// The tasks that were given up, with the reason.
    dead: Mutex<Vec<String>>,
    heartbeats: Mutex<Vec<Weak<Heartbeat>>>,
    /// Tasks whose next run panics, by their bits.
    injected: watch::Sender<u32>,
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new(limits: limits::Supervision, clock: Clock) -> Self {
        let opts = Opts::new("doorward_task_restarts_total", "Tasks and threads that died and were started again.");
        // The name and the label are constants, which a test holds to be valid.
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

    /// How many times a task or thread was started again.
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

    /// Runs a task on the runtime that this is called on, until it returns `Ok` or the runtime ends. `start` makes its
    /// future, now and at each restart.
    pub fn task<F>(&self, task: Task, mut start: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let shared = Arc::clone(&self.0);
        #[expect(clippy::disallowed_methods, reason = "it is supervised, and ends with its runtime")]
        drop(tokio::spawn(async move {
            let mut deaths = Restarts::new(task, Arc::clone(&shared));
            loop {
                let why = match catch_panic(injectable(task, Arc::clone(&shared), start())).await {
                    Ok(Ok(())) => return,
                    Ok(Err(TaskError(why))) | Err(why) => why,
                };
                if !deaths.forgives(&why) {
                    return;
                }
            }
        }));
    }

    /// Runs a thread until `run`, which is called at each restart, returns `Ok`. Whoever gets the handle has to join
    /// it.
    ///
    /// # Errors
    /// The system has no room for another thread.
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
        let life = move || {
            let mut deaths = Restarts::new(task, shared);
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
                if !deaths.forgives(&why) {
                    return;
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "this is where threads are owned")]
        std::thread::Builder::new().name(format!("dw-{}", task.name())).spawn(life)
    }

    /// What `/livez` answers: fails when only a restart of the process can help.
    ///
    /// # Errors
    /// Which tasks were given up, and which threads have missed their heartbeat for [`limits::Supervision::stuck`].
    pub fn live(&self) -> Result<(), String> {
        self.moves_within(self.0.limits.stuck)
    }

    /// What `/readyz` answers: fails also when a thread may still go on.
    ///
    /// # Errors
    /// Which tasks were given up, and which threads have missed their heartbeat for [`limits::Supervision::late`].
    pub fn ready(&self) -> Result<(), String> {
        self.moves_within(self.0.limits.late)
    }

    fn moves_within(&self, limit: Duration) -> Result<(), String> {
        let mut wrong = self.0.dead().clone();
        let heartbeats = self.0.heartbeats();
        wrong.extend(heartbeats.iter().filter_map(Weak::upgrade).filter_map(|heartbeat| heartbeat.missed_for(limit)));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Makes the next run of this kind of task panic, as a fault in it would: for tests.
    pub fn inject_panic(&self, task: Task) {
        self.0.injected.send_modify(|injected| *injected |= task.bit());
    }

    /// Panics if a test has injected that; for work that is no task of its own.
    pub fn panic_if_injected(&self, task: Task) {
        self.0.panic_if_injected(task);
    }

    /// Whether an injected panic is still to come.
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
        let takes = |injected: &mut u32| std::mem::replace(injected, *injected & !bit) & bit != 0;
        if *self.injected.borrow() & bit != 0 && self.injected.send_if_modified(takes) {
            #[expect(clippy::panic, reason = "a test asked for it")]
            {
                panic!("a test asked {} to panic", task.name());
            }
        }
    }
}

/// The deaths of one task.
struct Restarts {
    task: Task,
    shared: Arc<Shared>,
    last_restart: Option<Instant>,
}

impl Restarts {
    fn new(task: Task, shared: Arc<Shared>) -> Self {
        Self { task, shared, last_restart: None }
    }

    /// Notes a death; whether the task is restarted.
    fn forgives(&mut self, why: &str) -> bool {
        let (task, forgiveness) = (self.task.name(), self.shared.limits.forgiveness);
        let now = self.shared.clock.instant();
        if self.last_restart.is_some_and(|last| now.saturating_duration_since(last) < forgiveness) {
            tracing::error!(
                task,
                why,
                "a task died again soon after it was restarted, and is given up: restart the gateway"
            );
            self.shared.dead().push(format!("{task} died twice within {} s: {why}", forgiveness.as_secs()));
            return false;
        }
        tracing::error!(task, why, "a task died and is restarted");
        self.last_restart = Some(now);
        self.shared.restarts.with_label_values(&[task]).inc();
        true
    }
}

/// Runs a future that panics when a test injects that.
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
