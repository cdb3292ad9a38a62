//! The thread on which queued events are delivered, apart from the workers: taking events goes before delivering them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;

use super::Failure;
use super::Shared;
use crate::clock::Clock;
use crate::queue::Breaker;
use crate::queue::Courier;
use crate::queue::Gate;
use crate::store::Backlog;
use crate::supervisor::Heartbeat;
use crate::supervisor::Lost;
use crate::supervisor::Phase;
use crate::supervisor::Task;
use crate::target::Http;
use crate::target::Target;
use crate::telemetry::QueueMetrics;

/// Starts the thread, which delivers until the gateway stops.
pub(super) fn start(
    shared: &Arc<Shared>,
    phase: watch::Receiver<Phase>,
    alive: mpsc::Sender<Infallible>,
) -> Result<JoinHandle<()>, Failure> {
    let (supervisor, shared) = (shared.supervisor.clone(), Arc::clone(shared));
    let run = move |beat: &Arc<Heartbeat>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Lost(error.to_string()))?;
        // The thread holds it until it has ended.
        let _alive = &alive;
        runtime.block_on(deliver(&shared, phase.clone(), beat));
        // A DNS lookup that still runs is not waited for.
        runtime.shutdown_background();
        Ok(())
    };
    supervisor.thread(Task::DispatchThread, run).map_err(|error| Failure::System(error.to_string()))
}

async fn deliver(shared: &Shared, mut phase: watch::Receiver<Phase>, beat: &Heartbeat) {
    let (clock, limits, supervisor) = (Clock::steady(), &shared.limits.dispatch, &shared.supervisor);
    let Some(backlog) = shared.backlog(shared.redis().as_ref()) else { return };
    backlog.tend(supervisor);
    let mut gates: HashMap<_, Arc<Gate>> = HashMap::new();
    let (alive, mut couriers) = mpsc::channel::<Infallible>(1);
    for (queue, (source, terms)) in shared.queues().enumerate() {
        let name = source.name.as_str();
        let metrics = shared.metrics.of_queue(name);
        let address = terms.address.clone();
        let gate = gates.entry(terms.address.endpoint()).or_insert_with(|| Gate::new(Breaker::new(limits.clone())));
        let courier = Courier {
            source: name.to_owned(),
            backlog: backlog.clone(),
            queue,
            gate: Arc::clone(gate),
            upstream: Target::Http(Box::new(Http::new(address, terms.timeout, limits.max_answer))),
            policy: terms.policy.clone(),
            timeout: terms.timeout,
            concurrency: terms.concurrency,
            clock: clock.clone(),
            limits: limits.clone(),
            metrics: metrics.attempts.clone(),
        };
        let (phase, alive) = (phase.clone(), alive.clone());
        courier.start(supervisor, move || {
            let (mut phase, _alive) = (phase.clone(), &alive);
            async move { drop(phase.wait_for(|phase| *phase > Phase::Running).await) }
        });
        let (backlog, clock, every) = (backlog.clone(), clock.clone(), limits.metrics_every);
        supervisor
            .task(Task::QueueMetrics, move || show(backlog.clone(), queue, (metrics.clone(), every), clock.clone()));
    }
    drop(alive);
    tokio::select! {
        _all_ended = couriers.recv() => {}
        _cut = phase.wait_for(|phase| *phase >= Phase::Cut) => {}
        never = beat.keep() => match never {},
    }
}

/// Updates the metrics of a queue.
async fn show(
    backlog: Backlog,
    queue: usize,
    (metrics, every): (QueueMetrics, Duration),
    clock: Clock,
) -> Result<(), Lost> {
    loop {
        // A store that does not answer has said so elsewhere.
        if let Ok(counts) = backlog.counts(queue).await {
            metrics.show(counts, clock.now());
        }
        tokio::time::sleep(every).await;
    }
}
