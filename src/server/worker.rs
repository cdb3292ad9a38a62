//! A worker: a thread with its own listener, connections, upstream connections and store handle.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use prometheus::IntGauge;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::watch;

use super::Failure;
use super::Shared;
use super::connection;
use super::service::Handler;
use crate::base::supervisor::Background;
use crate::base::supervisor::Heartbeat;
use crate::base::supervisor::Phase;
use crate::base::supervisor::Task;
use crate::base::supervisor::TaskError;
use crate::dedup::Dedup;
use crate::gateway::Caller;
use crate::gateway::DeliveryMode;
use crate::gateway::Endpoint;
use crate::gateway::Gateway;
use crate::http::admission::ConnectionLimits;
use crate::http::admission::ConnectionSlot;
use crate::http::admission::Connections;
use crate::http::origin::Peer;
use crate::source::Destination;
use crate::source::Source;
use crate::store::Store;
use crate::target;
use crate::target::Http;
use crate::target::RedisStream;
use crate::target::Target;
use crate::telemetry::Sampler;

/// Pause after the system refused to accept a connection, because it is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one worker is started with.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) phase: watch::Receiver<Phase>,
    /// Dropped when the worker has ended.
    pub(super) _alive: mpsc::Sender<Infallible>,
}

/// The store as a worker sees it, for those who ask how it is.
pub(super) type View = Arc<ArcSwapOption<Store>>;

/// What a worker is served with in one of its lives.
struct Prepared {
    gateway: Arc<Gateway>,
    listener: TcpListener,
    store: Store,
}

impl Worker {
    /// Starts the thread, and waits until it is ready to accept. When it dies, requests under way are cut and it begins
    /// anew with the same listener, which takes connections meanwhile.
    pub(super) fn start(mut self, listener: std::net::TcpListener) -> Result<(View, JoinHandle<()>), Failure> {
        let (sender, ready) = std::sync::mpsc::channel();
        let (mut sender, mut kept) = (Some(sender), Some(listener));
        let view = View::default();
        let shown = Arc::clone(&view);
        let supervisor = self.shared.supervisor.clone();
        let run = move |beat: &Arc<Heartbeat>| {
            let lost = |error: std::io::Error| TaskError(error.to_string());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(lost)?;
            // Without one, it was told to stop.
            let Some(listener) = &kept else { return Ok(()) };
            let listener = listener.try_clone().map_err(lost)?;
            let lived = runtime.block_on(async {
                match (self.prepare(listener), sender.take()) {
                    (Ok(prepared), waiting) => {
                        shown.store(Some(Arc::new(prepared.store.clone())));
                        drop(waiting.map(|waiting| waiting.send(Ok(()))));
                        self.run(prepared, beat, &mut kept).await;
                        Ok(())
                    }
                    (Err(failure), Some(waiting)) => {
                        // Whoever waits will not start at all.
                        drop(waiting.send(Err(failure)));
                        Ok(())
                    }
                    (Err(failure), None) => Err(TaskError(failure.to_string())),
                }
            });
            // A lookup that still runs is not waited for.
            runtime.shutdown_background();
            lived
        };
        let failed = |error: &dyn std::error::Error| Failure::System(error.to_string());
        let thread = supervisor.thread(Task::Worker, run).map_err(|error| failed(&error))?;
        ready.recv().map_err(|error| failed(&error))??;
        Ok((view, thread))
    }

    fn prepare(&self, listener: std::net::TcpListener) -> Result<Prepared, Failure> {
        let listener = TcpListener::from_std(listener).map_err(|error| Failure::System(error.to_string()))?;
        let shared = &self.shared;
        let store = shared.store.local();
        let endpoints = shared.settings.sources.iter().filter_map(|source| {
            let mode = mode(source, &store, shared)?;
            let metrics = shared.metrics.gateway.of(source.name.as_str(), &source.secret_labels);
            let sampler = self.sampler(source.name.as_str());
            let source = (Arc::clone(source), mode);
            Some((source.0.path.clone(), Arc::new(Endpoint { source: Some(source), metrics, sampler })))
        });
        let gateway = Gateway {
            routes: endpoints.collect(),
            proxies: shared.settings.server.trusted_proxies.clone(),
            dedup: Dedup::new(
                Arc::clone(&shared.single_flight),
                Arc::clone(&shared.first_seen),
                store.clone(),
                shared.settings.store.terms,
            ),
            metrics: Arc::clone(&shared.metrics.gateway),
            unmatched: Arc::new(Endpoint {
                source: None,
                metrics: shared.metrics.gateway.of("", &[]),
                sampler: self.sampler(""),
            }),
        };
        Ok(Prepared { gateway: Arc::new(gateway), listener, store })
    }

    fn sampler(&self, source: &str) -> Arc<Sampler> {
        self.shared.samplers.get(source).cloned().unwrap_or_else(|| Arc::new(Sampler::new(0, 0)))
    }

    /// `kept` is the listener for another life, which there is not when it has stopped accepting.
    async fn run(&mut self, prepared: Prepared, beat: &Heartbeat, kept: &mut Option<std::net::TcpListener>) {
        let Prepared { gateway, listener, .. } = prepared;
        let connections = Connections::new(self.limits());
        let serving = async {
            let mut cut = self.phase.clone();
            let tasks = Tasks::default();
            self.accept(&gateway, listener, (&connections, &tasks)).await;
            *kept = None;
            tokio::select! {
                () = self.finish(&connections) => {}
                _cut = cut.wait_for(|phase| *phase >= Phase::Cut) => {}
            }
        };
        tokio::select! {
            () = serving => {}
            never = connections.sweep_forever() => match never {},
            never = target::sweep(|| gateway.targets()) => match never {},
            never = beat.beat_forever() => match never {},
        }
    }

    /// Waits until nothing is in flight any more.
    async fn finish(&self, connections: &Connections) {
        connections.finish();
        connections.wait_until_empty().await;
        // Deliveries whose sender is gone belong to no connection.
        while self.shared.metrics.gateway.in_flight.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What this worker's share of the connections may take.
    fn limits(&self) -> ConnectionLimits {
        let server = &self.shared.settings.server;
        let workers = server.workers.max(1);
        ConnectionLimits {
            max: server.max_connections.div_ceil(workers),
            max_per_address: server.max_connections_per_address.div_ceil(workers),
            trusted_proxies: server.trusted_proxies.clone(),
            header_timeout: server.header_timeout,
            idle_timeout: server.idle_timeout,
        }
    }

    async fn accept(
        &self,
        gateway: &Arc<Gateway>,
        listener: TcpListener,
        (connections, tasks): (&Arc<Connections>, &Tasks),
    ) {
        let mut phase = self.phase.clone();
        let (complaints, begun) = (Sampler::new(1, 1), Instant::now());
        loop {
            // While all are busy, new ones wait in the kernel's queue.
            let next = async {
                connections.wait_for_capacity().await;
                listener.accept().await
            };
            let accepted = tokio::select! {
                next = next => next,
                _stop = phase.wait_for(|phase| *phase > Phase::Running) => break,
            };
            match accepted {
                Ok((stream, address)) => match connections.enter(address.ip()) {
                    Ok(place) => self.serve(gateway, tasks, (stream, address, place)),
                    Err(busy) => {
                        connection::turn_away(&stream);
                        gateway.unserved(address.ip().to_canonical(), busy.into(), &[]);
                    }
                },
                Err(error) => {
                    if complaints.admit(begun.elapsed()).is_some() {
                        tracing::error!(%error, "connections cannot be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Those that the kernel has taken already would be cut off by closing the listener.
        while let Ok(Ok((stream, address))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
            self.serve(gateway, tasks, (stream, address, connections.enter_last(address.ip())));
        }
    }

    fn serve(
        &self,
        gateway: &Arc<Gateway>,
        tasks: &Tasks,
        (stream, address, place): (TcpStream, SocketAddr, ConnectionSlot),
    ) {
        // An answer is written at once, so waiting for more to send would only delay it.
        let _unset = stream.set_nodelay(true);
        // A sender that does not take its answer must not keep its place for ever.
        #[cfg(target_os = "linux")]
        let _unset = SockRef::from(&stream).set_tcp_user_timeout(Some(self.shared.settings.server.idle_timeout));
        let caller = Arc::new(Caller { peer: Peer::new(address), connection: Arc::clone(place.connection()) });
        let client = caller.peer.address();
        let gateway = Arc::clone(gateway);
        let handler = Handler {
            gateway: Arc::clone(&gateway),
            caller,
            orphans: Arc::clone(&tasks.orphans),
            shared: Arc::clone(&self.shared),
        };
        let open = Open::new(self.shared.metrics.open_connections.clone());
        let displaced = self.shared.metrics.displaced_connections.clone();
        let supervisor = self.shared.supervisor.clone();
        tasks.connections.spawn("connection", async move {
            // However it ends.
            let _open = open;
            supervisor.panic_if_injected(Task::Connection);
            let end = connection::serve(stream, place, handler).await;
            if end.displaced {
                displaced.inc();
            }
            if let Some((why, start)) = end.unserved {
                gateway.unserved(client, why, &start);
            }
        });
    }
}

/// What a worker has under way; it ends with its life.
#[derive(Debug, Default)]
struct Tasks {
    connections: Background,
    orphans: Arc<Background>,
}

/// A connection as it is counted.
struct Open(IntGauge);

impl Open {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The way of a source's messages, for one worker. A stream without Redis is refused by the settings, and so is a queue
/// without a store that has any.
fn mode(source: &Source, store: &Store, shared: &Shared) -> Option<DeliveryMode> {
    match &source.destination {
        Destination::Upstream(address, timeout) => {
            let http = Http::new(address.clone(), *timeout, source.limits.max_body);
            Some(DeliveryMode::Sync(Target::Http(Box::new(http))))
        }
        Destination::Queue(_) => shared.queues.get(source.name.as_str()).cloned().map(DeliveryMode::Queue),
        Destination::RedisStream(stream) => {
            let (redis, ttl) = (store.redis()?.clone(), shared.settings.store.terms.ttl);
            Some(DeliveryMode::Sync(Target::RedisStream(RedisStream::new(redis, stream.clone(), ttl))))
        }
    }
}
