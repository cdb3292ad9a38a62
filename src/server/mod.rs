//! The running gateway: workers behind one address, the admin port beside them, and the way they stop.

mod access;
mod admin;
mod api;
mod connection;
mod dispatch;
mod drain;
mod edge;
mod files;
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

use crate::clock::Clock;
use crate::dedup::Firsts;
use crate::dedup::Flights;
use crate::limits;
use crate::limits::Limits;
use crate::settings::Settings;
use crate::settings::StoreKind;
use crate::source::Destination;
use crate::source::QueueTerms;
use crate::source::Source;
use crate::store::Backlog;
use crate::store::DedupeRecords;
use crate::store::Ledger;
use crate::store::Options;
use crate::store::Queues;
use crate::store::Redis;
use crate::store::RedisBacklog;
use crate::store::Sqlite;
use crate::store::Store;
use crate::store::Token;
use crate::store::queued::Queue;
use crate::supervisor::Phase;
use crate::supervisor::Supervisor;
use crate::supervisor::Task;
use crate::telemetry::Metrics;
use crate::telemetry::Sampler;

use self::admin::Admin;
use self::drain::Drain;
use self::worker::Worker;

/// Connections that the kernel holds for each worker until it accepts them.
const BACKLOG: i32 = 4096;

/// What all threads of the gateway share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    metrics: Arc<Metrics>,
    flights: Arc<Flights>,
    firsts: Arc<Firsts>,
    /// The store of all workers; each has its own when it is Redis.
    local_store: Option<Store>,
    /// What all threads know of the queues in Redis.
    redis_queues: Arc<Queues>,
    limits: Limits,
    supervisor: Supervisor,
    /// By source; of what is no source's under `""`.
    samplers: HashMap<String, Arc<Sampler>>,
    /// Asks load balancers to send no more, while everything that comes is still taken.
    draining: AtomicBool,
    /// Until when; whoever changes `draining` has it locked.
    drain: Mutex<Drain>,
}

/// A gateway that has been started.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Workers and the dispatch thread: they are waited for by what they hold, with a deadline.
    _threads: Vec<JoinHandle<()>>,
    listen: SocketAddr,
    admin: SocketAddr,
    phase: watch::Sender<Phase>,
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
    /// The system refuses something that it never should.
    #[error("cannot start: {0}")]
    System(String),
    /// Requests were cut when the drain's time was up.
    #[error("{0} requests were still in flight when the drain's time was up")]
    Cut(i64),
}

impl Shared {
    /// Opens the store.
    fn new(settings: Settings, limits: Limits) -> Result<Self, Failure> {
        let system = |error: &dyn std::fmt::Display| Failure::System(error.to_string());
        let supervisor = Supervisor::new(limits.supervision.clone(), Clock::steady());
        let local_store = open(&settings, &limits, &supervisor).map_err(Failure::Store)?;
        let metrics = Metrics::new(&settings.sources, &supervisor, local_store.as_ref());
        let metrics = metrics.map_err(|error| system(&error))?;
        let process = getrandom::u64().map_err(|error| system(&error))?;
        Ok(Self {
            metrics: Arc::new(metrics),
            firsts: Arc::default(),
            flights: Arc::new(Flights::new(process, &limits.dedup, Clock::System)),
            local_store,
            redis_queues: Arc::new(redis_queues(&settings, &limits.redis).map_err(|error| system(&error))?),
            samplers: samplers(&settings),
            draining: AtomicBool::new(false),
            drain: Mutex::default(),
            limits,
            supervisor,
            settings,
        })
    }

    /// The sources whose events are queued, in the order of their queues.
    fn queues(&self) -> impl Iterator<Item = (&Arc<Source>, &QueueTerms)> {
        queues(&self.settings)
    }

    /// The store of the thread that this is called on, when that is Redis.
    fn redis(&self) -> Option<Redis> {
        let store = &self.settings.store;
        let StoreKind::Redis(url) = &store.kind else { return None };
        let spaces = self.settings.sources.iter().map(|source| source.keyspace.clone());
        Some(Redis::connect(url, store.timeout, store.durability, spaces, &self.supervisor))
    }

    /// The queues as the thread sees them that has this connection, where there is one; nothing when no source has a queue.
    fn backlog(&self, redis: Option<&Redis>) -> Option<Backlog> {
        self.queues().next()?;
        match (&self.local_store, redis) {
            (Some(Store::Sqlite(sqlite)), _) => Some(Backlog::Sqlite(Arc::clone(sqlite))),
            (None, Some(redis)) => {
                Some(Backlog::Redis(RedisBacklog::new(redis.clone(), Arc::clone(&self.redis_queues))))
            }
            (Some(Store::Memory(_) | Store::Redis(_)) | None, _) => None,
        }
    }

    /// Where queued events can be looked at, in a file also those of sources that queue no more.
    fn ledger(&self) -> Option<Ledger> {
        if let Some(Store::Sqlite(sqlite)) = &self.local_store {
            return Some(Ledger::Sqlite(Arc::clone(sqlite)));
        }
        match self.backlog(self.redis().as_ref())? {
            Backlog::Sqlite(sqlite) => Some(Ledger::Sqlite(sqlite)),
            Backlog::Redis(redis) => Some(Ledger::Redis(redis)),
        }
    }
}

fn queues(settings: &Settings) -> impl Iterator<Item = (&Arc<Source>, &QueueTerms)> {
    settings.sources.iter().filter_map(|source| match &source.destination {
        Destination::Queue(terms) => Some((source, terms)),
        Destination::Upstream(..) | Destination::RedisStream(_) => None,
    })
}

impl Server {
    /// Opens the store, listens, and starts the workers. Runs the admin port on the runtime that this is called on.
    ///
    /// # Errors
    /// [`Failure`] says what is in the way.
    pub fn start(mut settings: Settings, limits: Limits) -> Result<Self, Failure> {
        fit_files(&mut settings);
        let listeners = listen(settings.server.listen, settings.server.workers)
            .map_err(|error| Failure::Listen(settings.server.listen, error))?;
        let admin_socket = bind(settings.admin.listen, false)
            .and_then(tokio::net::TcpListener::from_std)
            .map_err(|error| Failure::Listen(settings.admin.listen, error))?;
        let address = |socket: io::Result<SocketAddr>| socket.map_err(|error| Failure::System(error.to_string()));
        let admin = address(admin_socket.local_addr())?;
        let listen = address(listeners.first().map_or_else(|| Ok(settings.server.listen), TcpListener::local_addr))?;
        let shared = Arc::new(Shared::new(settings, limits)?);
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
        if shared.queues().next().is_some() {
            threads.push(dispatch::start(&shared, watching, alive)?);
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

    /// Its tasks and threads.
    pub fn supervisor(&self) -> &Supervisor {
        &self.shared.supervisor
    }

    /// Where providers reach it.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where operators reach it.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Stops: readiness goes false, listeners close, requests in flight finish. The drain's time or `hurry` ends the
    /// wait for them.
    ///
    /// # Errors
    /// [`Failure::Cut`] when some could not finish.
    pub async fn stop(mut self, hurry: impl Future<Output = ()>) -> Result<(), Failure> {
        self.shared.stop_taking();
        self.phase.send_replace(Phase::Finishing);
        let drain_timeout = self.shared.settings.server.drain_timeout;
        tokio::select! {
            _all_gone = self.workers.recv() => return Ok(()),
            () = tokio::time::sleep(drain_timeout) => {}
            () = hurry => {}
        }
        let cut = self.shared.metrics.in_flight.get();
        self.phase.send_replace(Phase::Cut);
        // A worker that does not even end now is not waited for.
        let _ended = tokio::time::timeout(Duration::from_secs(1), self.workers.recv()).await;
        if cut > 0 { Err(Failure::Cut(cut)) } else { Ok(()) }
    }
}

/// Takes fewer connections where the system lets this process open too few files.
fn fit_files(settings: &mut Settings) {
    let files = files::raise_limit();
    let max_connections = files::suffice_for(files, settings.server.workers, settings.admin.max_connections);
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

/// The store, unless each worker has its own.
fn open(settings: &Settings, limits: &Limits, supervisor: &Supervisor) -> Result<Option<Store>, String> {
    let max = settings.store.max_events;
    let sources: Vec<_> = settings.sources.iter().map(|source| source.keyspace.clone()).collect();
    match &settings.store.kind {
        StoreKind::Memory => Ok(Some(Store::Memory(Arc::new(DedupeRecords::new(max, sources, Clock::System))))),
        StoreKind::Sqlite(path) => {
            let queues = queue_terms(settings);
            let min_free = settings.store.min_free;
            let (path, sources, queues) = (path.clone(), &sources, &queues);
            let (fsync, limits, clock) = (settings.store.fsync, limits.clone(), Clock::System);
            let options =
                Options { path, max_events: max, sources, min_free, queues, fsync, limits, clock, supervisor };
            Sqlite::open(&options).map(|sqlite| Some(Store::Sqlite(Arc::new(sqlite))))
        }
        StoreKind::Redis(_) => Ok(None),
    }
}

/// What keeps the lines of each source within limits.
fn samplers(settings: &Settings) -> HashMap<String, Arc<Sampler>> {
    let names = settings.sources.iter().map(|source| source.name.as_str());
    let log = &settings.log;
    let sampler = || Arc::new(Sampler::new(log.unverified_burst, log.unverified_rate));
    names.chain([""]).map(|name| (name.to_owned(), sampler())).collect()
}

fn queue_terms(settings: &Settings) -> Vec<Queue> {
    queues(settings).map(|(source, terms)| terms.queue(source.name.as_str())).collect()
}

/// What there is to know of queues in Redis, under a name that no other process has.
fn redis_queues(settings: &Settings, limits: &limits::Redis) -> Result<Queues, getrandom::Error> {
    let name = Token(u128::from(getrandom::u64()?) << 64 | u128::from(getrandom::u64()?));
    Ok(Queues::new(&queue_terms(settings), settings.store.terms.lease, name, limits, &Clock::System))
}

/// One listener for each worker, between which the kernel spreads connections.
fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    if workers <= 1 {
        return Ok(vec![bind(address, false)?]);
    }
    // A shared port would be shared with another process too, and half of the events would go there: first see that
    // nobody else has it.
    let address = bind(address, false)?.local_addr()?;
    (0..workers).map(|_| bind(address, true)).collect()
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
