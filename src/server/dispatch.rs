//! The thread on which queued events are delivered, apart from the workers: taking events goes before delivering them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Failure;
use super::Phase;
use super::Shared;
use crate::deliver::Upstream;
use crate::queue::Breaker;
use crate::queue::Courier;
use crate::queue::Gate;
use crate::store::Backlog;
use crate::telemetry::QueueMetrics;
use crate::time::Steady;

/// Most bytes of an upstream's answer that are read, so that the connection can be used again.
const MAX_ANSWER: usize = 64 * 1024;
/// How often the metrics of queues are brought up to date.
const SHOW: Duration = Duration::from_secs(1);

/// Starts the thread, which delivers until the gateway stops.
pub(super) fn start(
    shared: &Arc<Shared>,
    phase: watch::Receiver<Phase>,
    alive: mpsc::Sender<Infallible>,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::System(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let shared = Arc::clone(shared);
    let run = move || {
        deliver(&runtime, &shared, phase);
        drop(alive);
    };
    // It is waited for by what it holds, with a deadline.
    drop(std::thread::Builder::new().name("doorward-queue".to_owned()).spawn(run).map_err(failed)?);
    Ok(())
}

fn deliver(runtime: &Runtime, shared: &Shared, mut phase: watch::Receiver<Phase>) {
    let clock = Steady::start();
    runtime.block_on(async {
        let Some(backlog) = shared.backlog(shared.redis().as_ref()) else { return };
        backlog.tend();
        let mut gates: HashMap<_, Arc<Gate>> = HashMap::new();
        let mut couriers = JoinSet::new();
        for (queue, (source, terms)) in shared.queues().enumerate() {
            let name = source.name.as_str();
            let metrics = shared.metrics.of_queue(name);
            let target = terms.target.clone();
            let gate = gates.entry(terms.target.endpoint()).or_insert_with(|| Gate::new(Breaker::default()));
            let courier = Courier {
                source: name.to_owned(),
                backlog: backlog.clone(),
                queue,
                gate: Arc::clone(gate),
                upstream: Upstream::new(target, terms.timeout, MAX_ANSWER),
                policy: terms.policy.clone(),
                timeout: terms.timeout,
                concurrency: terms.concurrency,
                clock,
                metrics: metrics.attempts.clone(),
            };
            let mut phase = phase.clone();
            let end = async move { drop(phase.wait_for(|phase| *phase > Phase::Running).await) };
            drop(couriers.spawn(courier.run(end)));
            drop(tokio::spawn(show(backlog.clone(), queue, metrics, clock)));
        }
        let all = async { while couriers.join_next().await.is_some() {} };
        let cut = phase.wait_for(|phase| *phase >= Phase::Cut);
        tokio::select! {
            () = all => {}
            _cut = cut => {}
        }
    });
}

/// Keeps the metrics of a queue up to date.
async fn show(backlog: Backlog, queue: usize, metrics: QueueMetrics, clock: Steady) {
    loop {
        // A store that does not answer has said so elsewhere.
        if let Ok(counts) = backlog.counts(queue).await {
            metrics.show(counts, clock.now());
        }
        tokio::time::sleep(SHOW).await;
    }
}
