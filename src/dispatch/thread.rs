//! The thread that runs all dispatchers. It is separate from the workers, so that deliveries do not delay requests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio::sync::watch;

use super::dispatcher::Dispatcher;
use super::dispatcher::Resources;
use super::dispatcher::Terms;
use super::metrics::QueueMetrics;
use super::take_loop;
use crate::base::supervisor::Heartbeat;
use crate::base::supervisor::Phase;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::base::supervisor::TaskError;
use crate::store::DestinationId;
use crate::store::Queue;
use crate::target;

/// A destination that is configured.
#[derive(Debug)]
pub struct Destination {
    /// Its queue.
    pub queue: Queue,
    /// Its terms: the same ones as long as they do not change.
    pub terms: Arc<Terms>,
    /// Its metrics.
    pub metrics: QueueMetrics,
}

/// The present terms of a destination, by which its dispatcher goes; without any it takes nothing.
type TermsSender = watch::Sender<Option<Arc<Terms>>>;

/// Starts the thread, which delivers until the gateway stops and holds `alive` until then. `prepare` makes what all
/// dispatchers share, and what tells the destinations of the present configuration; it is called on the thread's
/// runtime, and again after each restart of the thread. The destinations are asked for again at each change of
/// `generation`: each has one dispatcher as long as the thread runs, which gets new terms, or none.
///
/// # Errors
/// The system cannot start another thread.
pub fn start<D: FnMut() -> Vec<Destination>>(
    supervisor: &Supervisor,
    prepare: impl Fn() -> (Resources, D) + Send + 'static,
    generation: watch::Receiver<u64>,
    phase: watch::Receiver<Phase>,
    alive: mpsc::Sender<Infallible>,
) -> io::Result<JoinHandle<()>> {
    let owner = supervisor.clone();
    let run = move |beat: &Arc<Heartbeat>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| TaskError(error.to_string()))?;
        let _alive = &alive;
        runtime.block_on(deliver(&owner, &prepare, (generation.clone(), phase.clone()), beat));
        // Does not wait for a DNS lookup that still runs.
        runtime.shutdown_background();
        Ok(())
    };
    supervisor.thread(Task::DispatchThread, run)
}

async fn deliver<D: FnMut() -> Vec<Destination>>(
    supervisor: &Supervisor,
    prepare: impl Fn() -> (Resources, D),
    (mut generation, mut phase): (watch::Receiver<u64>, watch::Receiver<Phase>),
    beat: &Heartbeat,
) {
    let (resources, mut configured) = prepare();
    resources.store.maintain(supervisor);
    let (alive, mut running) = mpsc::channel::<Infallible>(1);
    let mut dispatchers = HashMap::new();
    let mut stopping = phase.clone();
    let terms = loop {
        drop(generation.borrow_and_update());
        let destinations = configured();
        let terms: Vec<_> = destinations.iter().map(|destination| Arc::clone(&destination.terms)).collect();
        for destination in hand_out(destinations, &mut dispatchers) {
            let (sender, receiver) = watch::channel(Some(destination.terms));
            dispatchers.insert(destination.queue.id().clone(), sender);
            let (resources, queue, metrics) = (resources.clone(), destination.queue, destination.metrics);
            let (phase, alive) = (phase.clone(), alive.clone());
            let dispatcher = Dispatcher { resources, queue, terms: receiver, metrics };
            take_loop::start(dispatcher, supervisor, move || {
                let (mut phase, _alive) = (phase.clone(), &alive);
                async move { drop(phase.wait_for(|phase| *phase > Phase::Running).await) }
            });
        }
        tokio::select! {
            Ok(()) = generation.changed() => {}
            _stop = stopping.wait_for(|phase| *phase > Phase::Running) => break terms,
            never = target::sweep(|now| terms.iter().for_each(|terms| terms.target.sweep(now))) => match never {},
            never = beat.beat_forever() => match never {},
        }
    };
    drop(alive);
    tokio::select! {
        _all_ended = running.recv() => {}
        _cut = phase.wait_for(|phase| *phase >= Phase::Cut) => {}
        never = target::sweep(|now| terms.iter().for_each(|terms| terms.target.sweep(now))) => match never {},
        never = beat.beat_forever() => match never {},
    }
}

/// Hands their terms to the dispatchers that run, and none to those whose destinations are not configured any more.
/// Returns the destinations without a dispatcher.
fn hand_out(destinations: Vec<Destination>, dispatchers: &mut HashMap<DestinationId, TermsSender>) -> Vec<Destination> {
    let mut terms: HashMap<_, _> =
        destinations.iter().map(|configured| (configured.queue.id().clone(), Arc::clone(&configured.terms))).collect();
    for (id, sender) in &*dispatchers {
        let next = terms.remove(id);
        sender.send_if_modified(|terms| {
            let is_other = terms.as_ref().map(Arc::as_ptr) != next.as_ref().map(Arc::as_ptr);
            *terms = next;
            is_other
        });
    }
    destinations.into_iter().filter(|configured| !dispatchers.contains_key(configured.queue.id())).collect()
}
