//! Reads the configuration again while the gateway runs: when it is told to, and when a file has changed. A
//! configuration without problems becomes the next generation; one with a problem changes nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use prometheus::IntCounter;
use prometheus::IntGauge;
use tokio::sync::watch;

use super::Shared;
use super::endpoints::View;
use super::generation::Generation;
use crate::base::metrics::Registry;
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
    status: Mutex<Status>,
}

/// What was read, and what came of it.
type Read = (Inputs, Result<Settings, Problems>);

#[derive(Debug)]
struct State {
    /// What was read last, whatever came of it.
    inputs: Inputs,
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
        let mut state = State { inputs: shared.settings.inputs().clone(), fetching: Vec::new() };
        state.fetch(&shared.settings.jwks, &shared);
        let since = Moment::now();
        shared.metrics.reload.succeeded_at(since);
        let status = Mutex::new(Status { since, restart_needed: Vec::new(), last: None });
        Self { shared, workers, state: tokio::sync::Mutex::new(state), status }
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
        let read = self.load(state.inputs.clone()).await;
        self.apply(&mut state, Trigger::Command, read).await
    }

    pub(super) fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Reads the configuration again when a file has changed and held the same twice: not while it is written.
    async fn watch(&self) -> Result<Infallible, TaskError> {
        let mut seen: Option<Inputs> = None;
        loop {
            tokio::time::sleep(self.shared.limits.reload.look_every).await;
            let known = self.state.lock().await.inputs.clone();
            let (known, now) = blocking(move || {
                let now = known.read_again();
                (known, now)
            })
            .await?;
            if now.agrees_with(&known) {
                seen = None;
                continue;
            }
            if !seen.take().is_some_and(|seen| seen.agrees_with(&now)) {
                seen = Some(now);
                continue;
            }
            let mut state = self.state.lock().await;
            let read = self.load(now.clone()).await;
            if read.0.agrees_with(&now) {
                // Operators find the problems in the log.
                let _logged = self.apply(&mut state, Trigger::Files, read).await;
            }
        }
    }

    /// Reads the configuration; where that dies of a fault, what was read counts as `known`.
    async fn load(&self, known: Inputs) -> Read {
        let (started, current) = (Arc::clone(&self.shared.settings), self.shared.current.load_full());
        let read = blocking(move || started.load_again(&current.settings)).await;
        read.unwrap_or_else(|TaskError(why)| (known, Err(problem(format!("it could not be read: {why}")))))
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

/// The metrics of reloads.
#[derive(Debug)]
pub(super) struct ReloadMetrics {
    success: IntCounter,
    failure: IntCounter,
    successful: IntGauge,
    last_success: IntGauge,
    restart_needed: IntGauge,
}

impl ReloadMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// Only when a name is taken, which is a bug.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Configurations that were read again.";
        let reloads = registry.counters("config_reloads_total", help, &["outcome"])?;
        let successful = "Whether the configuration that was read last is in use.";
        let last_success = "When a configuration was last taken into use.";
        let restart = "Whether some of the configuration takes effect at the next start only.";
        let metrics = Self {
            success: reloads.with_label_values(&["success"]),
            failure: reloads.with_label_values(&["failure"]),
            successful: registry.gauge("config_last_reload_successful", successful)?,
            last_success: registry.gauge("config_last_reload_success_timestamp_seconds", last_success)?,
            restart_needed: registry.gauge("config_restart_needed", restart)?,
        };
        metrics.successful.set(1);
        Ok(metrics)
    }

    fn succeeded_at(&self, moment: Moment) {
        self.last_success.set(moment.unix());
    }
}

/// Runs what reads files, which may take long, beside the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TaskError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| TaskError(error.to_string()))
}

fn problem(message: String) -> Problems {
    let mut problems = Problems::default();
    problems.error("the gateway", "", message);
    problems
}
