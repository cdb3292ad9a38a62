//! The thread that runs all dispatchers. It is separate from the workers, so that deliveries do not delay requests.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio::sync::watch;

use super::dispatcher::Dispatcher;
use super::take_loop;
use crate::base::supervisor::Heartbeat;
use crate::base::supervisor::Phase;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::base::supervisor::TaskError;
use crate::store::Store;
use crate::target;

/// Starts the thread, which delivers until the gateway stops and holds `alive` until then. `prepare` makes the store
/// handle and all dispatchers; it is called on the thread's runtime, and again after each restart of the thread.
///
/// # Errors
/// The system cannot start another thread.
pub fn start(
    supervisor: &Supervisor,
    prepare: impl Fn() -> (Store, Vec<Dispatcher>) + Send + 'static,
    phase: watch::Receiver<Phase>,
    alive: mpsc::Sender<Infallible>,
) -> io::Result<JoinHandle<()>> {
    let owner = supervisor.clone();
    let run = move |beat: &Arc<Heartbeat>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| TaskError(error.to_string()))?;
        let _alive = &alive;
        runtime.block_on(deliver(&owner, &prepare, phase.clone(), beat));
        // Does not wait for a DNS lookup that still runs.
        runtime.shutdown_background();
        Ok(())
    };
    supervisor.thread(Task::DispatchThread, run)
}

async fn deliver(
    supervisor: &Supervisor,
    prepare: impl Fn() -> (Store, Vec<Dispatcher>),
    mut phase: watch::Receiver<Phase>,
    beat: &Heartbeat,
) {
    let (store, dispatchers) = prepare();
    store.maintain(supervisor);
    let targets: Vec<_> = dispatchers.iter().map(|dispatcher| Arc::clone(&dispatcher.target)).collect();
    let (alive, mut running) = mpsc::channel::<Infallible>(1);
    for dispatcher in dispatchers {
        let (phase, alive) = (phase.clone(), alive.clone());
        take_loop::start(dispatcher, supervisor, move || {
            let (mut phase, _alive) = (phase.clone(), &alive);
            async move { drop(phase.wait_for(|phase| *phase > Phase::Running).await) }
        });
    }
    drop(alive);
    tokio::select! {
        _all_ended = running.recv() => {}
        _cut = phase.wait_for(|phase| *phase >= Phase::Cut) => {}
        never = target::sweep(|| targets.iter().map(|target| &**target)) => match never {},
        never = beat.beat_forever() => match never {},
    }
}
