//! The running gateway: opens the store, starts the workers, the dispatch thread and the admin port, and stops them.

mod access;
mod admin;
mod api;
mod connection;
mod drain;
mod endpoints;
mod generation;
mod http2;
mod listener;
mod service;
mod session;
mod socket_file;
mod stream;
mod open_file_limit;
mod metrics;
mod reload;
mod reload_metrics;
mod withheld;
mod worker;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::base::clock::Clock;
use crate::base::limits::Limits;
use crate::base::problem::Problems;
use crate::base::supervisor::Phase;
use crate::base::supervisor::Supervisor;
use crate::config::Listener;
use crate::config::Settings;
use crate::dedup::FirstSeenCache;
use crate::dedup::SingleFlight;
use crate::dispatch;
use crate::dispatch::Budget;
use crate::http::tls::Tls;
use crate::store::Options;
use crate::store::Store;
use crate::telemetry::Sampler;

use self::admin::Admin;
use self::drain::Drain;
use self::generation::Generation;
use self::generation::key_sets;
use self::metrics::Metrics;
pub use self::reload::Reloaded;
use self::reload::Reloader;
use self::socket_file::SocketFile;
use self::worker::Worker;

/// What all threads of the gateway share as long as the process lives.
#[derive(Debug)]
struct Shared {
    /// The settings of the start, of which what is not in a generation stays in force.
    settings: Arc<Settings>,
    limits: Limits,
    /// The TLS of listeners.
    tls: Vec<Arc<Tls>>,
    /// What is built from the present configuration.
    current: ArcSwap<Generation>,
    /// Held while a generation takes the place of another one.
    publishing: Mutex<()>,
    /// The number of the present generation.
    generation: watch::Sender<u64>,
    metrics: Metrics,
    single_flight: Arc<SingleFlight>,
    first_seen: Arc<FirstSeenCache>,
    store: Store,
    /// The memory budget of all dispatchers.
    budget: Budget,
    /// A monotonic clock.
    clock: Clock,
    supervisor: Supervisor,
    /// Rate limits of the log, by source; `""` for requests to no source.
    samplers: Mutex<HashMap<String, Arc<Sampler>>>,
    /// Not ready, so that load balancers send no more; requests are still taken.
    draining: AtomicBool,
    /// The state behind `draining`, which is changed only while this is locked.
    drain: Mutex<Drain>,
}

/// A gateway that has been started.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    reloader: Arc<Reloader>,
    /// Workers and the dispatch thread. They are not joined: `workers` tells when they have ended, with a deadline.
    _threads: Vec<JoinHandle<()>>,
    listeners: Vec<Listener>,
    /// The files of Unix sockets; removed when the gateway stops.
    files: Vec<SocketFile>,
    admin: SocketAddr,
    phase: watch::Sender<Phase>,
    /// Closed when all workers and the dispatch thread have ended.
    workers: mpsc::Receiver<Infallible>,
}

/// Why the gateway did not start, or did not stop as it should.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An address cannot be used.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    /// The store cannot be used.
    #[error("cannot use the store: {0}")]
    Store(String),
    /// The system refused a resource, such as a thread.
    #[error("cannot start: {0}")]
    System(String),
    /// Requests were cut when the drain timeout was over.
    #[error("{0} requests were still in flight when the drain's time was up")]
    Cut(i64),
}

impl Shared {
    /// Opens the store, and registers the queues.
    async fn new(settings: Settings, limits: Limits, tls: Vec<Arc<Tls>>) -> Result<Self, Failure> {
        let system = |error: &dyn std::fmt::Display| Failure::System(error.to_string());
        let settings = Arc::new(settings);
        let supervisor = Supervisor::new(limits.supervision.clone(), Clock::steady());
        let clock = Clock::steady();
        let store = open(&settings, &limits, &clock, &supervisor).map_err(Failure::Store)?;
        let metrics = Metrics::new(&supervisor, &store, tls.clone()).map_err(|error| system(&error))?;
        let process = getrandom::u64().map_err(|error| system(&error))?;
        let first = Generation::build(Arc::clone(&settings), None, &store, (&limits.dispatch, &clock));
        let first = first.await.map_err(|unavailable| Failure::Store(unavailable.0))?;
        metrics.key_sets.set(key_sets(&settings));
        metrics.skipped.set(i64::try_from(settings.skipped.len()).unwrap_or(i64::MAX));
        Ok(Self {
            metrics,
            first_seen: Arc::default(),
            single_flight: Arc::new(SingleFlight::new(process, &limits.dedup, Clock::System)),
            generation: watch::Sender::new(first.number),
            current: ArcSwap::from_pointee(first),
            publishing: Mutex::default(),
            budget: Budget::new(settings.store.max_in_hand),
            store,
            clock,
            samplers: Mutex::default(),
            draining: AtomicBool::new(false),
            drain: Mutex::default(),
            supervisor,
            settings,
            limits,
            tls,
        })
    }

    /// The rate limit of the log for a source, which all its generations share.
    fn sampler(&self, source: &str) -> Arc<Sampler> {
        let log = &self.settings.log;
        let mut samplers = self.samplers.lock().unwrap_or_else(PoisonError::into_inner);
        let sampler = || Arc::new(Sampler::new(log.unverified_burst, log.unverified_rate));
        Arc::clone(samplers.entry(source.to_owned()).or_insert_with(sampler))
    }
}

impl Server {
    /// Opens the store, listens, and starts the workers. Runs the admin port on the current runtime.
    ///
    /// # Errors
    /// [`Failure`] says what failed.
    pub async fn start(mut settings: Settings, limits: Limits) -> Result<Self, Failure> {
        fit_open_files(&mut settings);
        let bound = listener::bind_all(&settings.server.listeners, settings.server.workers)?;
        let admin_socket = listener::bind_one(settings.admin.listen, false)
            .and_then(tokio::net::TcpListener::from_std)
            .map_err(|error| Failure::Listen(settings.admin.listen.to_string(), error))?;
        let admin = admin_socket.local_addr().map_err(|error| Failure::System(error.to_string()))?;
        let shared = Arc::new(Shared::new(settings, limits, bound.tls).await?);
        let (phase, watching) = watch::channel(Phase::Running);
        let (alive, workers) = mpsc::channel(1);
        let (mut views, mut threads) = (Vec::new(), Vec::new());
        for listeners in bound.by_worker {
            let (phase, alive) = (watching.clone(), alive.clone());
            let worker = Worker { shared: Arc::clone(&shared), phase, _alive: alive };
            let (view, thread) = worker.start(listeners)?;
            views.push(view);
            threads.push(thread);
        }
        // There may be queues later.
        if shared.store.has_queues() {
            let (delivering, generation) = (Arc::clone(&shared), shared.generation.subscribe());
            let prepare = move || Arc::clone(&delivering).dispatchers();
            let thread = dispatch::start(&shared.supervisor, prepare, generation, watching, alive);
            threads.push(thread.map_err(|error| Failure::System(error.to_string()))?);
        }
        let reloader = Arc::new(Reloader::new(Arc::clone(&shared), views.clone()));
        reloader.start();
        Arc::new(Admin::new(Arc::clone(&shared), Arc::clone(&reloader), views)).start(admin_socket);
        let (listeners, files) = (bound.addresses, bound.files);
        Ok(Self { shared, reloader, _threads: threads, listeners, files, admin, phase, workers })
    }

    /// Reads the configuration again, as it is now.
    ///
    /// # Errors
    /// All problems that it has. The gateway goes on with what it had.
    pub async fn reload(&self) -> Result<Reloaded, Problems> {
        self.reloader.reload().await
    }

    /// The supervisor of its tasks and threads.
    pub fn supervisor(&self) -> &Supervisor {
        &self.shared.supervisor
    }

    /// The listeners for providers, with the ports that the system chose.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The address of the admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Stops: readiness becomes false, listeners close, requests in flight finish. The wait for them ends with the
    /// drain timeout, or when `hurry` completes.
    ///
    /// # Errors
    /// [`Failure::Cut`] when some could not finish.
    pub async fn stop(mut self, hurry: impl Future<Output = ()>) -> Result<(), Failure> {
        self.shared.begin_shutdown();
        self.files.clear();
        self.phase.send_replace(Phase::Finishing);
        let drain_timeout = self.shared.settings.server.drain_timeout;
        let finished = tokio::select! {
            _all_gone = self.workers.recv() => true,
            () = tokio::time::sleep(drain_timeout) => false,
            () = hurry => false,
        };
        let cut = if finished { 0 } else { self.shared.metrics.gateway.in_flight.get() };
        if !finished {
            self.phase.send_replace(Phase::Cut);
            // A worker that does not end now is blocked.
            let _ended = tokio::time::timeout(Duration::from_secs(1), self.workers.recv()).await;
        }
        // Handles may remain, such as that of a read in progress.
        self.shared.store.close();
        if cut > 0 { Err(Failure::Cut(cut)) } else { Ok(()) }
    }
}

/// Lowers the limit on connections where the system allows too few open files.
fn fit_open_files(settings: &mut Settings) {
    let files = open_file_limit::raise_limit();
    let max_connections =
        open_file_limit::max_connections(files, settings.server.workers, settings.admin.max_connections);
    if max_connections < settings.server.max_connections {
        tracing::warn!(
            files,
            max_connections,
            "the system lets this process open too few files for server.max_connections: fewer are taken; raise the limit \
             (ulimit -n, LimitNOFILE of systemd), or lower server.max_connections"
        );
        settings.server.max_connections = max_connections;
    }
}

fn open(settings: &Settings, limits: &Limits, clock: &Clock, supervisor: &Supervisor) -> Result<Store, String> {
    let spaces: Vec<_> = settings.sources.iter().map(|source| source.keyspace.clone()).collect();
    let store = &settings.store;
    Store::open(&Options {
        kind: &store.kind,
        spaces: &spaces,
        max_events: store.max_events,
        min_free: store.min_free,
        fsync: store.fsync,
        timeout: store.timeout,
        durability: store.durability,
        lease: store.terms.lease,
        limits,
        clocks: (Clock::System, clock.clone()),
        supervisor,
    })
}
