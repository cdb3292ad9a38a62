//! A worker: a thread with its own sockets of the listeners, connections, upstream connections and store handle.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::sync::watch;

use super::Failure;
use super::Shared;
use super::endpoints::Serving;
use super::endpoints::View;
use super::listener::Accepted;
use super::listener::Bound;
use super::listener::Listeners;
use super::service::FuturePool;
use super::session;
use super::session::OpenConnection;
use super::session::Session;
use crate::base::supervisor::Background;
use crate::base::supervisor::Heartbeat;
use crate::base::supervisor::Phase;
use crate::base::supervisor::Task;
use crate::base::supervisor::TaskError;
use crate::http::admission::ConnectionLimits;
use crate::http::admission::ConnectionSlot;
use crate::http::admission::Connections;
use crate::target;
use crate::telemetry::Sampler;

/// The pause after the system refused to accept a connection, because it is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A worker, as it is started and restarted.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) phase: watch::Receiver<Phase>,
    /// Dropped when the worker has ended.
    pub(super) _alive: mpsc::Sender<Infallible>,
}

/// What a worker builds anew at each start and restart.
struct Prepared {
    serving: Arc<Serving>,
    listeners: Listeners,
}

impl Worker {
    /// Starts the thread, and waits until it is ready to accept. When it dies, its requests are cut, and it restarts
    /// with the same listeners, where the kernel queues connections meanwhile.
    pub(super) fn start(mut self, listeners: Bound) -> Result<(View, JoinHandle<()>), Failure> {
        let (sender, ready) = std::sync::mpsc::channel();
        let (mut sender, mut next_listeners) = (Some(sender), Some(listeners));
        let view = View::default();
        let own_view = Arc::clone(&view);
        let supervisor = self.shared.supervisor.clone();
        let run = move |beat: &Arc<Heartbeat>| {
            let lost = |error: std::io::Error| TaskError(error.to_string());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(lost)?;
            let lived = runtime.block_on(async {
                // They were taken when the worker was told to stop.
                let Some(listeners) = &next_listeners else { return Ok(()) };
                match (self.prepare(listeners, &own_view), sender.take()) {
                    (Ok(prepared), waiting) => {
                        drop(waiting.map(|waiting| waiting.send(Ok(()))));
                        self.run(prepared, beat, &mut next_listeners).await;
                        Ok(())
                    }
                    (Err(failure), Some(waiting)) => {
                        // The first start failed: the gateway does not start.
                        drop(waiting.send(Err(failure)));
                        Ok(())
                    }
                    (Err(failure), None) => Err(TaskError(failure.to_string())),
                }
            });
            // Does not wait for a DNS lookup that still runs.
            runtime.shutdown_background();
            lived
        };
        let failed = |error: &dyn std::error::Error| Failure::System(error.to_string());
        let thread = supervisor.thread(Task::Worker, run).map_err(|error| failed(&error))?;
        ready.recv().map_err(|error| failed(&error))??;
        Ok((view, thread))
    }

    fn prepare(&self, listeners: &Bound, view: &View) -> Result<Prepared, Failure> {
        let listeners = Listeners::new(listeners).map_err(|error| Failure::System(error.to_string()))?;
        let shared = &self.shared;
        let store = shared.store.local();
        // A generation that is published meanwhile must not be missed.
        let _one_at_a_time = shared.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = Arc::new(Serving::new(shared, &shared.current.load(), store));
        view.store(Some(Arc::clone(&serving)));
        Ok(Prepared { serving, listeners })
    }

    /// Serves until the gateway stops. `next_listeners` are for a restart; they are dropped when accepting ends.
    async fn run(&mut self, prepared: Prepared, beat: &Heartbeat, next_listeners: &mut Option<Bound>) {
        let Prepared { serving, listeners } = prepared;
        let connections = Connections::new(self.limits());
        let accepting = async {
            let mut cut = self.phase.clone();
            let tasks = Tasks::default();
            self.accept(&serving, listeners, (&connections, &tasks)).await;
            *next_listeners = None;
            tokio::select! {
                () = self.finish(&connections) => {}
                _cut = cut.wait_for(|phase| *phase >= Phase::Cut) => {}
            }
        };
        tokio::select! {
            () = accepting => {}
            never = connections.sweep_forever() => match never {},
            never = target::sweep(|now| serving.gateway().targets().for_each(|target| target.sweep(now))) => match never {},
            never = beat.beat_forever() => match never {},
        }
    }

    /// Waits until no request is in flight.
    async fn finish(&self, connections: &Connections) {
        connections.finish();
        connections.wait_until_empty().await;
        // Requests whose connection was closed may still be delivered.
        while self.shared.metrics.gateway.in_flight.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The limits for this worker's share of the connections.
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
        serving: &Arc<Serving>,
        mut listeners: Listeners,
        (connections, tasks): (&Arc<Connections>, &Tasks),
    ) {
        let mut phase = self.phase.clone();
        let (error_sampler, begun) = (Sampler::new(1, 1), Instant::now());
        loop {
            // While all slots are busy, new connections wait in the kernel's backlog.
            let next = async {
                connections.wait_for_capacity().await;
                listeners.accept().await
            };
            let accepted = tokio::select! {
                next = next => next,
                _stop = phase.wait_for(|phase| *phase > Phase::Running) => break,
            };
            match accepted {
                Ok(accepted) => {
                    let entered = accepted.limited_address().and_then(|address| Ok(connections.enter(address)?));
                    match entered {
                        Ok(slot) => self.serve(serving, tasks, (accepted, slot)),
                        Err(why) => session::turn_away(&serving.gateway(), accepted, why),
                    }
                }
                Err(error) => {
                    if error_sampler.admit(begun.elapsed()).is_some() {
                        tracing::error!(%error, "connections cannot be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Closing the listeners would reset connections in the kernel's backlog.
        while let Ok(Ok(accepted)) = tokio::time::timeout(Duration::ZERO, listeners.accept()).await {
            match accepted.limited_address() {
                Ok(address) => self.serve(serving, tasks, (accepted, connections.enter_last(address))),
                Err(why) => session::turn_away(&serving.gateway(), accepted, why),
            }
        }
    }

    fn serve(&self, serving: &Arc<Serving>, tasks: &Tasks, (accepted, slot): (Accepted, ConnectionSlot)) {
        accepted.stream.set_options(self.shared.settings.server.idle_timeout);
        let session = Session {
            serving: Arc::clone(serving),
            orphans: Arc::clone(&tasks.orphans),
            shared: Arc::clone(&self.shared),
            futures: Arc::clone(&tasks.futures),
            _open: OpenConnection::new(self.shared.metrics.open_connections.clone()),
        };
        tasks.connections.spawn("connection", session.run(accepted, slot));
    }
}

/// The tasks of a worker, which end when it dies, and the memory that they share.
#[derive(Debug, Default)]
struct Tasks {
    connections: Background,
    orphans: Arc<Background>,
    futures: Arc<FuturePool>,
}
