//! `doorward serve`: runs the gateway until SIGTERM or SIGINT; SIGHUP has it read its configuration again.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use super::ConfigFile;
use super::complain;
use super::runtime;
use crate::base::limits::Limits;
use crate::base::supervisor;
use crate::config::Listener;
use crate::config::Settings;
use crate::server::Server;
use crate::telemetry;

/// How long tasks that cannot be cancelled may go on at the end.
const SHUTDOWN: Duration = Duration::from_secs(5);

pub(super) fn run(file: &ConfigFile) -> ExitCode {
    let (settings, runtime) = match file.load().and_then(|settings| Ok((settings, runtime()?))) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let log = telemetry::start_log(&settings.log);
    supervisor::log_panics();
    for warning in settings.warnings.iter() {
        tracing::warn!(place = warning.place, key = warning.key, "{}", warning.message);
    }
    let served = runtime.block_on(serve(settings));
    // Closes the store, which may log. What reads a file of a file system that does not answer is not waited for.
    runtime.shutdown_timeout(SHUTDOWN);
    // Flushes the log before the command writes its own message.
    drop(log);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let mut hangups = signal(SignalKind::hangup()).map_err(|error| format!("cannot listen for signals: {error}"))?;
    let sources = settings.sources.len();
    let server = Server::start(settings, Limits::default()).await.map_err(|failure| failure.to_string())?;
    let listen: Vec<_> = server.listeners().iter().map(Listener::to_string).collect();
    tracing::info!(listen = listen.join(", "), admin = %server.admin(), sources, "ready");
    tokio::select! {
        () = signals.next() => {}
        never = reload_on(&mut hangups, &server) => match never {},
    }
    tracing::info!("stopping: requests in flight may finish");
    server.stop(signals.next()).await.map_err(|failure| failure.to_string())?;
    tracing::info!("stopped");
    Ok(())
}

/// Has the configuration read again at each SIGHUP.
async fn reload_on(hangups: &mut Signal, server: &Server) -> Infallible {
    loop {
        if hangups.recv().await.is_none() {
            return pending().await;
        }
        // The log tells what came of it.
        let _logged = server.reload().await;
    }
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _terminate = self.terminate.recv() => {}
            _interrupt = self.interrupt.recv() => {}
        }
    }
}
