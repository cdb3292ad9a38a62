//! The running gateway: opens the store, starts the workers, the dispatch thread and the admin port, and stops them.

mod access;
mod admin;
mod api;
mod connection;
mod drain;
mod service;
mod open_file_limit;
mod metrics;
mod worker;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::base::clock::Clock;
use crate::base::limits::Limits;
use crate::base::supervisor::Phase;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::config::Settings;
use crate::dedup::FirstSeenCache;
use crate::dedup::SingleFlight;
use crate::dispatch;
use crate::dispatch::Budget;
use crate::dispatch::CircuitBreaker;
use crate::dispatch::Dispatcher;
use crate::source::DeliveryTerms;
use crate::source::Source;
use crate::store::DestinationId;
use crate::store::Options;
use crate::store::Queue;
use crate::store::Store;
use crate::target::Http;
use crate::target::Target;
use crate::telemetry::Sampler;

use self::admin::Admin;
use self::drain::Drain;
use self::metrics::Metrics;
use self::worker::Worker;

/// Connections that the kernel holds for each worker until it accepts them.
const BACKLOG: i32 = 4096;

/// About how many bytes of memory a request takes besides its body, at most.
const MAX_HEAD: usize = 256 * 1024;

/// Most bytes that are read of an app's answer to a queued delivery. An answer must be read for its connection to be
/// reused.
const MAX_ANSWER: usize = 64 * 1024;

/// Circuit breakers by destination.
type Breakers = HashMap<DestinationId, Arc<CircuitBreaker>>;

/// What all threads of the gateway share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    metrics: Metrics,
    single_flight: Arc<SingleFlight>,
    first_seen: Arc<FirstSeenCache>,
    store: Store,
    /// The queues, by source.
    queues: HashMap<String, Queue>,
    /// The circuit breakers of the queues' endpoints.
    breakers: Arc<Breakers>,
    /// The memory budget of all dispatchers.
    budget: Budget,
    /// A monotonic clock.
    clock: Clock,
    supervisor: Supervisor,
    /// Rate limits of the log, by source; `""` for requests to no source.
    samplers: HashMap<String, Arc<Sampler>>,
    /// Not ready, so that load balancers send no more; requests are still taken.
    draining: AtomicBool,
    /// The state behind `draining`, which is changed only while this is locked.
    drain: Mutex<Drain>,
}

/// A gateway that has been started.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Workers and the dispatch thread. They are not joined: `workers` tells when they have ended, with a deadline.
    _threads: Vec<JoinHandle<()>>,
    listen: SocketAddr,
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
    Listen(SocketAddr, io::Error),
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
    async fn new(settings: Settings, limits: &Limits) -> Result<Self, Failure> {
        let system = |error: &dyn std::fmt::Display| Failure::System(error.to_string());
        let supervisor = Supervisor::new(limits.supervision.clone(), Clock::steady());
        let clock = Clock::steady();
        let store = open(&settings, limits, &clock, &supervisor).map_err(Failure::Store)?;
        let metrics = Metrics::new(&settings.sources, &supervisor, &store).map_err(|error| system(&error))?;
        let process = getrandom::u64().map_err(|error| system(&error))?;
        let queued = || queued(&settings).map(|(source, terms)| (source.name.as_str(), terms));
        let queue_terms: Vec<_> = queued().map(|(source, terms)| terms.queue(source)).collect();
        let queues = store.register(&queue_terms).await.map_err(|unavailable| Failure::Store(unavailable.0))?;
        let mut endpoints: HashMap<_, Arc<CircuitBreaker>> = HashMap::new();
        let mut breaker = |terms: &DeliveryTerms| {
            let breaker = || CircuitBreaker::new(limits.dispatch.clone(), clock.clone());
            Arc::clone(endpoints.entry(terms.address.socket().clone()).or_insert_with(breaker))
        };
        let breakers = queue_terms.iter().zip(queued()).map(|(queue, (_, terms))| (queue.id.clone(), breaker(terms)));
        Ok(Self {
            metrics,
            first_seen: Arc::default(),
            single_flight: Arc::new(SingleFlight::new(process, &limits.dedup, Clock::System)),
            breakers: Arc::new(breakers.collect()),
            queues: queued().map(|(source, _)| source.to_owned()).zip(queues).collect(),
            budget: Budget::new(settings.store.max_in_hand),
            store,
            clock,
            samplers: samplers(&settings),
            draining: AtomicBool::new(false),
            drain: Mutex::default(),
            supervisor,
            settings,
        })
    }

    /// The dispatchers of all queues and the store handle, for the current runtime.
    fn dispatchers(&self) -> (Store, Vec<Dispatcher>) {
        let store = self.store.local();
        let dispatcher = |(source, terms): (&Arc<Source>, &DeliveryTerms)| {
            let queue = self.queues.get(source.name.as_str())?.clone();
            let http = Http::new(terms.address.clone(), terms.timeout, MAX_ANSWER);
            Some(Dispatcher {
                store: store.clone(),
                target: Arc::new(Target::Http(Box::new(http))),
                policy: terms.policy.clone(),
                timeout: terms.timeout,
                concurrency: terms.concurrency,
                largest: source.limits.max_body.saturating_add(MAX_HEAD),
                breaker: Arc::clone(self.breakers.get(queue.id())?),
                budget: self.budget.clone(),
                clock: self.clock.clone(),
                wall: Clock::System,
                metrics: self.metrics.dispatch.for_destination(queue.id()),
                queue,
            })
        };
        let dispatchers = queued(&self.settings).filter_map(dispatcher).collect();
        (store, dispatchers)
    }
}

/// The sources whose events are queued.
fn queued(settings: &Settings) -> impl Iterator<Item = (&Arc<Source>, &DeliveryTerms)> {
    settings.sources.iter().filter_map(|source| Some((source, source.destination.queue()?)))
}

impl Server {
    /// Opens the store, listens, and starts the workers. Runs the admin port on the current runtime.
    ///
    /// # Errors
    /// [`Failure`] says what failed.
    pub async fn start(mut settings: Settings, limits: Limits) -> Result<Self, Failure> {
        fit_open_files(&mut settings);
        let listeners = listen(settings.server.listen, settings.server.workers)
            .map_err(|error| Failure::Listen(settings.server.listen, error))?;
        let admin_socket = bind(settings.admin.listen, false)
            .and_then(tokio::net::TcpListener::from_std)
            .map_err(|error| Failure::Listen(settings.admin.listen, error))?;
        let address = |socket: io::Result<SocketAddr>| socket.map_err(|error| Failure::System(error.to_string()));
        let admin = address(admin_socket.local_addr())?;
        let listen = address(listeners.first().map_or_else(|| Ok(settings.server.listen), TcpListener::local_addr))?;
        let shared = Arc::new(Shared::new(settings, &limits).await?);
        let (phase, watching) = watch::channel(Phase::Running);
        let (alive, workers) = mpsc::channel(1);
        let (mut views, mut threads) = (Vec::new(), Vec::new());
        for listener in listeners {
            let (phase, alive) = (watching.clone(), alive.clone());
            let worker = Worker { shared: Arc::clone(&shared), phase, _alive: alive };
            let (view, thread) = worker.start(listener)?;
            views.push(view);
            threads.push(thread);
        }
        if !shared.queues.is_empty() {
            let delivering = Arc::clone(&shared);
            let thread = dispatch::start(&shared.supervisor, move || delivering.dispatchers(), watching, alive);
            threads.push(thread.map_err(|error| Failure::System(error.to_string()))?);
        }
        for jwks in &shared.settings.jwks {
            let jwks = Arc::clone(jwks);
            shared.supervisor.task(Task::KeySet, move || {
                let jwks = Arc::clone(&jwks);
                async move { match jwks.run().await {} }
            });
        }
        Arc::new(Admin::new(Arc::clone(&shared), views)).start(admin_socket);
        Ok(Self { shared, _threads: threads, listen, admin, phase, workers })
    }

    /// The supervisor of its tasks and threads.
    pub fn supervisor(&self) -> &Supervisor {
        &self.shared.supervisor
    }

    /// The address for providers.
    pub fn listen(&self) -> SocketAddr {
        self.listen
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

/// The rate limits of the log, by source.
fn samplers(settings: &Settings) -> HashMap<String, Arc<Sampler>> {
    let names = settings.sources.iter().map(|source| source.name.as_str());
    let log = &settings.log;
    let sampler = || Arc::new(Sampler::new(log.unverified_burst, log.unverified_rate));
    names.chain([""]).map(|name| (name.to_owned(), sampler())).collect()
}

/// One listener for each worker; the kernel distributes connections among them (`SO_REUSEPORT`).
fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    if workers <= 1 {
        return Ok(vec![bind(address, false)?]);
    }
    // A port that another process shares would lose half of the events to it. A listener without `SO_REUSEPORT` fails
    // if another process has the port.
    let address = bind(address, false)?.local_addr()?;
    (0..workers).map(|_| bind(address, true)).collect()
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
