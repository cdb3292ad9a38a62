//! Keeps long-running tasks and threads alive: one that panics or fails is logged, counted and started anew; one that dies again
//! soon afterwards is given up, and `/livez` says so.
//!
//! A task that returns `Ok` has done its work and is not started again. What a task needs beyond its own life has to stand
//! outside of what it is started with: everything inside is dropped when it dies.

use std::any::Any;
use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use prometheus::IntCounterVec;
use prometheus::Opts;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::limits;

/// What is supervised. Each kind is a value of the label `task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A thread that serves requests.
    Worker,
    /// The admin port.
    Admin,
    /// Watches over the end of a drain.
    Drain,
    /// Fetches the keys of an issuer.
    KeySet,
    /// The thread on which queued events are delivered.
    DispatchThread,
    /// Delivers the queued events of one source.
    Dispatcher,
    /// Keeps the metrics of a queue up to date.
    QueueMetrics,
    /// The thread that writes the SQLite file.
    SqliteWriter,
    /// The thread that keeps the SQLite file's log short.
    SqliteCheckpointer,
    /// The thread that looks for damage when a SQLite file is opened.
    SqliteCheck,
    /// The thread that syncs the dedupe log and replaces it by snapshots.
    DedupeLog,
    /// Keeps a connection to Redis.
    RedisConnection,
    /// Writes to Redis what has to be durable.
    RedisWriter,
    /// Records in Redis what came of attempts.
    RedisRecorder,
    /// Asks Redis what others have left.
    RedisWatcher,
    /// Serves one connection; it is not started again.
    Connection,
    /// One attempt to deliver a queued event; one that panics is one that failed.
    Attempt,
}

impl Task {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::Worker,
        Self::Admin,
        Self::Drain,
        Self::KeySet,
        Self::DispatchThread,
        Self::Dispatcher,
        Self::QueueMetrics,
        Self::SqliteWriter,
        Self::SqliteCheckpointer,
        Self::SqliteCheck,
        Self::DedupeLog,
        Self::RedisConnection,
        Self::RedisWriter,
        Self::RedisRecorder,
        Self::RedisWatcher,
        Self::Connection,
        Self::Attempt,
    ];

    /// Its name in metrics and in the log; that of a thread as the system shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Admin => "admin",
            Self::Drain => "drain",
            Self::KeySet => "key-set",
            Self::DispatchThread => "dispatch",
            Self::Dispatcher => "dispatcher",
            Self::QueueMetrics => "queue-metrics",
            Self::SqliteWriter => "sqlite-writer",
            Self::SqliteCheckpointer => "sqlite-ckpt",
            Self::SqliteCheck => "sqlite-check",
            Self::DedupeLog => "dedupe-log",
            Self::RedisConnection => "redis-conn",
            Self::RedisWriter => "redis-writer",
            Self::RedisRecorder => "redis-recorder",
            Self::RedisWatcher => "redis-watcher",
            Self::Connection => "connection",
            Self::Attempt => "attempt",
        }
    }

    fn bit(self) -> u32 {
        Self::ALL
            .iter()
            .position(|task| *task == self)
            .and_then(|at| 1_u32.checked_shl(u32::try_from(at).ok()?))
            .unwrap_or(0)
    }
}

/// Why a task cannot go on as it is: it is started anew.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// Owns the long-running tasks and threads of a gateway. Clones share them.
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
    beats: Mutex<Vec<Weak<Beat>>>,
    tasks: Mutex<Vec<AbortHandle>>,
    /// Kinds of which the next one to run panics, by their bits.
    injected: watch::Sender<u32>,
}

/// How a thread shows that it is alive.
#[derive(Debug)]
pub struct Beat {
    task: Task,
    shared: Arc<Shared>,
    /// Milliseconds since the supervisor began, plus one; zero while the thread waits for work.
    last: AtomicU64,
}

impl Supervisor {
    /// A supervisor of nothing yet.
    pub fn new(limits: limits::Supervision, clock: Clock) -> Self {
        let opts = Opts::new("doorward_task_restarts_total", "Tasks and threads that died and were started again.");
        // The name and the label are constants, which a test holds to be valid.
        #[expect(clippy::expect_used, reason = "the name and the label are constants")]
        let restarts = IntCounterVec::new(opts, &["task"]).expect("a valid metric");
        Task::ALL.iter().for_each(|task| drop(restarts.with_label_values(&[task.name()])));
        Self(Arc::new(Shared {
            limits,
            began: clock.instant(),
            clock,
            restarts,
            dead: Mutex::default(),
            beats: Mutex::default(),
            tasks: Mutex::default(),
            injected: watch::Sender::new(0),
        }))
    }

    /// `doorward_task_restarts_total`, to be registered.
    pub fn restarts(&self) -> &IntCounterVec {
        &self.0.restarts
    }

    /// Keeps a task alive on the runtime that this is called on, until it returns `Ok` or [`Self::stop`] is called. `start`
    /// makes it, now and after each death.
    pub fn task<F>(&self, task: Task, mut start: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), Lost>> + Send + 'static,
    {
        let shared = Arc::clone(&self.0);
        #[expect(clippy::disallowed_methods, reason = "this is where tasks are owned")]
        let owned = tokio::spawn(async move {
            let mut lives = Lives::new(task, Arc::clone(&shared));
            loop {
                let why = match caught(injectable(task, Arc::clone(&shared), start())).await {
                    Ok(Ok(())) => return,
                    Ok(Err(Lost(why))) | Err(why) => why,
                };
                if !lives.next(&why) {
                    return;
                }
            }
        });
        let mut tasks = self.0.tasks();
        tasks.retain(|task| !task.is_finished());
        tasks.push(owned.abort_handle());
    }

    /// Keeps a thread alive until it returns `Ok`. Whoever gets the handle has to wait for its end.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn thread(
        &self,
        task: Task,
        mut run: impl FnMut(&Arc<Beat>) -> Result<(), Lost> + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.0);
        let beat = Arc::new(Beat { task, shared: Arc::clone(&shared), last: AtomicU64::new(0) });
        {
            let mut beats = self.0.beats();
            beats.retain(|beat| beat.strong_count() > 0);
            beats.push(Arc::downgrade(&beat));
        }
        let life = move || {
            let mut lives = Lives::new(task, shared);
            loop {
                // What it leaves half done stands behind locks that do not mind, or is dropped with it.
                let ended = catch_unwind(AssertUnwindSafe(|| {
                    beat.show();
                    run(&beat)
                }));
                beat.rest();
                let why = match ended {
                    Ok(Ok(())) => return,
                    Ok(Err(Lost(why))) => why,
                    Err(panic) => text(&*panic),
                };
                if !lives.next(&why) {
                    return;
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "this is where threads are owned")]
        std::thread::Builder::new().name(format!("dw-{}", task.name())).spawn(life)
    }

    /// Whether a restart of the process would not help.
    ///
    /// # Errors
    /// Which tasks are dead, and which threads have not moved for [`limits::Supervision::stuck`].
    pub fn alive(&self) -> Result<(), String> {
        let mut wrong = self.0.dead().clone();
        wrong.extend(self.silent(self.0.limits.stuck));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Whether every thread moves.
    ///
    /// # Errors
    /// Which tasks are dead, and which threads have not moved for [`limits::Supervision::late`].
    pub fn prompt(&self) -> Result<(), String> {
        let mut wrong = self.0.dead().clone();
        wrong.extend(self.silent(self.0.limits.late));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    fn silent(&self, patience: Duration) -> Vec<String> {
        let beats = self.0.beats();
        let silent = beats.iter().filter_map(Weak::upgrade).filter_map(|beat| {
            let silence = beat.silence()?;
            let words = || format!("{} has not moved for {} s", beat.task.name(), silence.as_secs());
            (silence >= patience).then(words)
        });
        silent.collect()
    }

    /// Has the next task of this kind that runs panic, as a fault in it would: how tests see what follows.
    pub fn inject_panic(&self, task: Task) {
        self.0.injected.send_modify(|injected| *injected |= task.bit());
    }

    /// Panics if a test asked for that: called by what is no task of its own.
    pub fn panic_if_injected(&self, task: Task) {
        self.0.panic_if_injected(task);
    }

    /// Whether a panic that was injected is still to come.
    pub fn is_injected(&self, task: Task) -> bool {
        *self.0.injected.borrow() & task.bit() != 0
    }

    /// Ends all tasks. Threads end when those who have something for them are gone.
    pub fn stop(&self) {
        self.0.tasks().drain(..).for_each(|task| task.abort());
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

    fn beats(&self) -> MutexGuard<'_, Vec<Weak<Beat>>> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Beat {
    /// The thread is alive. To be called at least once in [`limits::Supervision::late`] while it works.
    pub fn show(&self) {
        let now = self.shared.clock.instant().saturating_duration_since(self.shared.began);
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        self.last.store(millis, Ordering::Relaxed);
        self.shared.panic_if_injected(self.task);
    }

    /// The thread waits for work, for as long as there is none.
    pub fn rest(&self) {
        self.last.store(0, Ordering::Relaxed);
    }

    fn silence(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        let now = self.shared.clock.instant().saturating_duration_since(self.shared.began);
        Some(now.saturating_sub(Duration::from_millis(last)))
    }
}

/// The deaths of one task.
struct Lives {
    task: Task,
    shared: Arc<Shared>,
    restarted: Option<Instant>,
}

impl Lives {
    fn new(task: Task, shared: Arc<Shared>) -> Self {
        Self { task, shared, restarted: None }
    }

    /// It died; whether it lives again.
    fn next(&mut self, why: &str) -> bool {
        let (task, forgiveness) = (self.task.name(), self.shared.limits.forgiveness);
        let now = self.shared.clock.instant();
        if self.restarted.is_some_and(|last| now.saturating_duration_since(last) < forgiveness) {
            tracing::error!(
                task,
                why,
                "a task died again soon after it was restarted, and is given up: restart the gateway"
            );
            self.shared.dead().push(format!("{task} died twice within {} s: {why}", forgiveness.as_secs()));
            return false;
        }
        tracing::error!(task, why, "a task died and is restarted");
        self.restarted = Some(now);
        self.shared.restarts.with_label_values(&[task]).inc();
        true
    }
}

/// A task as it runs; panics when a test asks for that.
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

/// What a future comes to, or what it panicked with.
///
/// # Errors
/// The words of the panic.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        // It is not polled again, so nobody sees what it leaves half done, but for what stands behind locks that do not mind.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(text(&*panic))),
        }
    })
    .await
}

/// Tasks that end by themselves, such as connections: owned, so that they end with their owner.
#[derive(Debug, Default)]
pub struct Background(Mutex<JoinSet<()>>);

impl Background {
    /// Runs a task on the runtime that this is called on. A panic ends it alone, and is logged and counted.
    pub fn spawn(&self, what: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(what, &Handle::current(), future);
    }

    /// The same on another runtime. One that has ended drops the task.
    pub fn spawn_on(&self, what: &'static str, runtime: &Handle, future: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        let task = async move {
            if let Err(why) = caught(future).await {
                tracing::error!(what, why, "a task died");
            }
        };
        let _abort = tasks.spawn_on(task, runtime);
    }
}

/// How many panics there were in this process.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many panics there were in this process since [`log_panics`] was called.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Has all panics of this process logged and counted.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(place, thread = thread.name(), why = text(panic.payload()), "a fault of the gateway: a panic");
    }));
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::clock::Manual;
    use crate::time::Moment;

    fn supervisor() -> (Supervisor, Arc<Manual>) {
        let (clock, hand) = Clock::manual(Moment::from_unix(1_000_000));
        (Supervisor::new(limits::Supervision::default(), clock), hand)
    }

    fn count(supervisor: &Supervisor, task: Task) -> u64 {
        supervisor.restarts().with_label_values(&[task.name()]).get()
    }

    /// Dies as often as it is told to, and tells of each life.
    fn mortal(supervisor: &Supervisor) -> (mpsc::Sender<Option<&'static str>>, mpsc::Receiver<()>, JoinHandle<()>) {
        let (deaths, orders) = mpsc::channel::<Option<&'static str>>();
        let (lives, born) = mpsc::channel();
        let run = move |_beat: &Arc<Beat>| {
            lives.send(()).expect("somebody listens");
            match orders.recv() {
                Ok(Some("panic")) => panic!("as told"),
                Ok(Some(why)) => Err(Lost(why.to_owned())),
                Ok(None) | Err(_) => Ok(()),
            }
        };
        let thread = supervisor.thread(Task::SqliteWriter, run).expect("a thread");
        (deaths, born, thread)
    }

    #[test]
    fn each_kind_of_task_has_a_name_and_a_bit_of_its_own() {
        let bits = Task::ALL.iter().fold(0, |bits, task| {
            assert_eq!(bits & task.bit(), 0, "{task:?}");
            // The system shows fifteen characters of a thread's name.
            assert!(task.name().len() + 3 <= 17, "{task:?}");
            bits | task.bit()
        });
        assert_eq!(usize::try_from(bits.count_ones()).expect("small"), Task::ALL.len());
    }

    #[test]
    fn a_thread_that_panics_or_fails_is_started_again_and_counted() {
        let (supervisor, hand) = supervisor();
        let (deaths, born, thread) = mortal(&supervisor);
        born.recv().expect("its first life");
        deaths.send(Some("panic")).expect("it listens");
        born.recv().expect("its second life");
        assert_eq!((count(&supervisor, Task::SqliteWriter), supervisor.alive()), (1, Ok(())));
        hand.advance(Duration::from_secs(60));
        deaths.send(Some("no disk")).expect("it listens");
        born.recv().expect("its third life");
        assert_eq!((count(&supervisor, Task::SqliteWriter), supervisor.alive()), (2, Ok(())));
        deaths.send(None).expect("it listens");
        thread.join().expect("it ends");
        assert_eq!((count(&supervisor, Task::SqliteWriter), supervisor.alive()), (2, Ok(())));
    }

    #[test]
    fn a_second_death_within_a_minute_is_final_and_says_which_task_and_why() {
        let (supervisor, hand) = supervisor();
        let (deaths, born, thread) = mortal(&supervisor);
        born.recv().expect("its first life");
        deaths.send(Some("no disk")).expect("it listens");
        born.recv().expect("its second life");
        hand.advance(Duration::from_millis(59_999));
        deaths.send(Some("still no disk")).expect("it listens");
        thread.join().expect("it ends");
        let dead = "sqlite-writer died twice within 60 s: still no disk";
        assert_eq!(supervisor.alive(), Err(dead.to_owned()));
        assert_eq!(supervisor.prompt(), Err(dead.to_owned()));
        assert_eq!(count(&supervisor, Task::SqliteWriter), 1);
    }

    #[test]
    fn a_thread_that_does_not_move_is_late_and_only_after_a_minute_stuck_and_one_that_rests_is_neither() {
        let (supervisor, hand) = supervisor();
        let (deaths, born, thread) = mortal(&supervisor);
        born.recv().expect("its first life");
        hand.advance(Duration::from_millis(9_999));
        assert_eq!(supervisor.prompt(), Ok(()));
        hand.advance(Duration::from_millis(1));
        assert_eq!(supervisor.prompt(), Err("sqlite-writer has not moved for 10 s".to_owned()));
        assert_eq!(supervisor.alive(), Ok(()));
        hand.advance(Duration::from_secs(49));
        assert_eq!(supervisor.alive(), Ok(()));
        hand.advance(Duration::from_secs(1));
        assert_eq!(supervisor.alive(), Err("sqlite-writer has not moved for 60 s".to_owned()));
        deaths.send(None).expect("it listens");
        thread.join().expect("it ends");
        assert_eq!(supervisor.prompt(), Ok(()), "it is gone");
    }

    #[tokio::test]
    async fn a_task_dies_and_lives_again_and_what_it_held_is_dropped() {
        let (supervisor, _hand) = supervisor();
        let (lives, mut born) = tokio::sync::mpsc::unbounded_channel();
        let held = Arc::new(());
        supervisor.task(Task::Dispatcher, {
            let held = Arc::clone(&held);
            move || {
                let (lives, held) = (lives.clone(), Arc::clone(&held));
                async move {
                    lives.send(()).expect("somebody listens");
                    std::future::pending::<()>().await;
                    drop(held);
                    Ok(())
                }
            }
        });
        born.recv().await.expect("its first life");
        assert_eq!(Arc::strong_count(&held), 3);
        supervisor.inject_panic(Task::Dispatcher);
        born.recv().await.expect("its second life");
        assert_eq!(Arc::strong_count(&held), 3);
        assert!(!supervisor.is_injected(Task::Dispatcher));
        supervisor.stop();
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_that_a_test_injects_is_one_death_of_the_next_task_of_its_kind() {
        let (supervisor, _hand) = supervisor();
        let (lives, mut born) = tokio::sync::mpsc::unbounded_channel();
        supervisor.inject_panic(Task::KeySet);
        supervisor.task(Task::KeySet, move || {
            let lives = lives.clone();
            async move {
                lives.send(()).expect("somebody listens");
                std::future::pending().await
            }
        });
        born.recv().await.expect("its second life, for the first ended before it began");
        assert_eq!((count(&supervisor, Task::KeySet), supervisor.alive()), (1, Ok(())));
        supervisor.stop();
    }
}
