//! Reads the configuration again while the gateway runs: when it is told to, and when a file has changed. A
//! configuration without problems becomes the next generation; one with a problem changes nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Instant;

use tokio::sync::watch;

use super::Shared;
use super::endpoints::View;
use super::generation::Generation;
use crate::base::problem::Problems;
use crate::base::supervisor::Task;
use crate::base::supervisor::TaskError;
use crate::base::time::Moment;
use crate::config::Difference;
use crate::config::Inputs;
use crate::config::Settings;
use crate::verify::Jwks;

/// Why a configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// Somebody asks for it: what is there now is taken.
    Command,
    /// A file has changed, and holds what it held at these looks.
    Files,
}

/// What became of a configuration that was read again.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// The number of the generation that is in use since then.
    pub generation: u64,
    /// How its sources differ from those of the one before.
    pub difference: Difference,
    /// What should be looked at.
    pub warnings: Problems,
    /// The keys that take effect at the next start only.
    pub restart_needed: Vec<String>,
}

/// What operators are told of the configuration.
#[derive(Debug, Clone)]
pub(super) struct Status {
    /// When the present generation was made.
    pub(super) since: Moment,
    pub(super) restart_needed: Vec<String>,
    /// When a configuration was last read again, and its problems if it had any.
    pub(super) last: Option<(Moment, Option<Problems>)>,
}

/// Reads the configuration again.
#[derive(Debug)]
pub(super) struct Reloader {
    shared: Arc<Shared>,
    workers: Vec<View>,
    /// Held while a configuration is read and put in place.
    state: tokio::sync::Mutex<State>,
    /// Held while files are read.
    reading: Arc<tokio::sync::Mutex<()>>,
    status: Mutex<Status>,
}

/// What was read, and what came of it.
type Read = (Inputs, Result<Settings, Problems>);

#[derive(Debug)]
struct State {
    /// What was read last, whatever came of it.
    inputs: Inputs,
    /// Whether it could not be read to its end.
    is_unread: bool,
    fetching: Vec<Fetching>,
}

/// A key set that is kept fresh until this is dropped.
#[derive(Debug)]
struct Fetching {
    jwks: Arc<Jwks>,
    _until_dropped: watch::Sender<()>,
}

impl Reloader {
    /// Begins to fetch the key sets of the first generation.
    pub(super) fn new(shared: Arc<Shared>, workers: Vec<View>) -> Self {
        let mut state = State { inputs: shared.settings.inputs().clone(), is_unread: false, fetching: Vec::new() };
        state.fetch(&shared.settings.jwks, &shared);
        let since = Moment::now();
        shared.metrics.reload.succeeded_at(since);
        let status = Mutex::new(Status { since, restart_needed: Vec::new(), last: None });
        Self { shared, workers, state: tokio::sync::Mutex::new(state), reading: Arc::default(), status }
    }

    /// Watches the files on the current runtime.
    pub(super) fn start(self: &Arc<Self>) {
        let reloader = Arc::clone(self);
        self.shared.supervisor.task(Task::Reload, move || {
            let reloader = Arc::clone(&reloader);
            async move { match reloader.watch().await? {} }
        });
    }

    /// Reads what is there now.
    ///
    /// # Errors
    /// All problems that it has; then nothing has changed.
    pub(super) async fn reload(&self) -> Result<Reloaded, Problems> {
        let mut state = self.state.lock().await;
        let read = self.load(&mut state).await;
        self.apply(&mut state, Trigger::Command, read).await
    }

    pub(super) fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Reads the configuration again when a file has changed and held the same twice: not while it is written, unless
    /// that has no end.
    async fn watch(&self) -> Result<Infallible, TaskError> {
        let limits = &self.shared.limits.reload;
        let (mut seen, mut changed): (Option<Inputs>, Option<Instant>) = (None, None);
        loop {
            tokio::time::sleep(limits.look_every).await;
            let (known, is_unread) = self.state.lock().await.known();
            let looked = self.reading(move || (known.read_again(), known)).await;
            let (now, known) = match looked {
                Ok(looked) => looked,
                Err(TaskError(why)) => {
                    self.state.lock().await.is_unread = true;
                    let before = self.shared.current.load_full();
                    let _logged = self.failed(unreadable(&why), Trigger::Files, &before);
                    continue;
                }
            };
            if now.agrees_with(&known) && !is_unread {
                (seen, changed) = (None, None);
                continue;
            }
            let is_late = changed.get_or_insert_with(Instant::now).elapsed() >= limits.settle_within;
            let changing = seen.take().map(|seen| seen.differing(&now).collect::<Vec<_>>().join(", "));
            match changing {
                Some(files) if files.is_empty() => {}
                Some(files) if is_late => {
                    tracing::warn!(files, "these files change all the time: what they hold now is judged");
                }
                _ => {
                    seen = Some(now);
                    continue;
                }
            }
            let mut state = self.state.lock().await;
            let read = self.load(&mut state).await;
            if is_late || read.0.agrees_with(&now) {
                changed = None;
                // Operators find the problems in the log.
                let _logged = self.apply(&mut state, Trigger::Files, read).await;
            }
        }
    }

    /// Reads the configuration; where that does not end, or dies of a fault, what was known before counts as read.
    async fn load(&self, state: &mut State) -> Read {
        let (started, current) = (Arc::clone(&self.shared.settings), self.shared.current.load_full());
        let read = self.reading(move || started.load_again(&current.settings)).await;
        state.is_unread = read.is_err();
        read.unwrap_or_else(|TaskError(why)| (state.inputs.clone(), Err(unreadable(&why))))
    }

    /// Runs what reads files beside the runtime: one at a time, since it may not come back from a file system that does
    /// not answer.
    async fn reading<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, TaskError> {
        let (reading, limit) = (Arc::clone(&self.reading), self.shared.limits.reload.read_within);
        let done = tokio::time::timeout(limit, async {
            let alone = reading.lock_owned().await;
            let work = move || {
                let done = work();
                drop(alone);
                done
            };
            tokio::task::spawn_blocking(work).await
        });
        match done.await {
            Ok(done) => done.map_err(|error| TaskError(error.to_string())),
            Err(_elapsed) => Err(TaskError(format!("its files were not read within {limit:?}"))),
        }
    }

    /// Makes settings that were read the next generation.
    async fn apply(&self, state: &mut State, trigger: Trigger, (inputs, loaded): Read) -> Result<Reloaded, Problems> {
        let shared = &self.shared;
        let before = shared.current.load_full();
        let settings = match loaded {
            Ok(settings) => Arc::new(settings),
            Err(problems) => {
                state.inputs = inputs;
                return Err(self.failed(problems, trigger, &before));
            }
        };
        let built = Generation::build(
            Arc::clone(&settings),
            Some(&before),
            &shared.store,
            (&shared.limits.dispatch, &shared.clock),
        );
        // Where the store cannot be asked, the files are read again.
        let next = built.await.map_err(|unavailable| {
            self.failed(problem(format!("the store cannot take its queues: {}", unavailable.0)), trigger, &before)
        })?;
        state.inputs = inputs;
        state.fetch(&settings.jwks, shared);
        let generation = next.number;
        shared.publish(&Arc::new(next), &self.workers);
        let reloaded = Reloaded {
            generation,
            difference: before.settings.difference(&settings),
            warnings: settings.warnings.clone(),
            restart_needed: shared.settings.restart_needed(&settings),
        };
        self.succeeded(&reloaded, trigger);
        Ok(reloaded)
    }

    fn succeeded(&self, reloaded: &Reloaded, trigger: Trigger) {
        let now = Moment::now();
        let metrics = &self.shared.metrics.reload;
        metrics.success.inc();
        metrics.successful.set(1);
        metrics.succeeded_at(now);
        metrics.restart_needed.set(i64::from(!reloaded.restart_needed.is_empty()));
        let restart_needed = reloaded.restart_needed.clone();
        *self.lock() = Status { since: now, restart_needed, last: Some((now, None)) };
        for warning in reloaded.warnings.iter() {
            tracing::warn!(place = warning.place, key = warning.key, "{}", warning.message);
        }
        let Difference { added, changed, removed } = &reloaded.difference;
        let (added, changed, removed) = (added.join(", "), changed.join(", "), removed.join(", "));
        tracing::info!(
            generation = reloaded.generation,
            ?trigger,
            added,
            changed,
            removed,
            "the configuration is in use"
        );
        if !reloaded.restart_needed.is_empty() {
            let keys = reloaded.restart_needed.join(", ");
            tracing::warn!(keys, "some of the configuration takes effect at the next start only");
        }
    }

    fn failed(&self, problems: Problems, trigger: Trigger, before: &Generation) -> Problems {
        let metrics = &self.shared.metrics.reload;
        metrics.failure.inc();
        metrics.successful.set(0);
        self.lock().last = Some((Moment::now(), Some(problems.clone())));
        for problem in problems.iter() {
            let (place, key) = (&problem.place, &problem.key);
            tracing::error!(place, key, "{}", problem.message);
        }
        let (generation, problems_found) = (before.number, problems.errors());
        tracing::error!(
            generation,
            ?trigger,
            problems = problems_found,
            "the configuration has problems and is not used: the gateway goes on with the one before"
        );
        problems
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What was read last, and whether it could not be read to its end.
    fn known(&self) -> (Inputs, bool) {
        (self.inputs.clone(), self.is_unread)
    }

    /// Fetches these key sets, and no others any more.
    fn fetch(&mut self, key_sets: &[Arc<Jwks>], shared: &Shared) {
        self.fetching.retain(|fetching| key_sets.iter().any(|jwks| Arc::ptr_eq(jwks, &fetching.jwks)));
        for jwks in key_sets {
            if self.fetching.iter().any(|fetching| Arc::ptr_eq(jwks, &fetching.jwks)) {
                continue;
            }
            let (until_dropped, dropped) = watch::channel(());
            let fetched = Arc::clone(jwks);
            shared.supervisor.task(Task::KeySet, move || {
                let (jwks, mut dropped) = (Arc::clone(&fetched), dropped.clone());
                async move {
                    tokio::select! {
                        never = jwks.run() => match never {},
                        _no_longer_used = dropped.changed() => Ok(()),
                    }
                }
            });
            self.fetching.push(Fetching { jwks: Arc::clone(jwks), _until_dropped: until_dropped });
        }
    }
}

fn unreadable(why: &str) -> Problems {
    problem(format!("the configuration could not be read: {why}"))
}

fn problem(message: String) -> Problems {
    let mut problems = Problems::default();
    problems.error("the gateway", "", message);
    problems
}
