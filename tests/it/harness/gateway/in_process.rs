//! The gateway in the process of the test, with limits that no configuration sets and panics that no sender can cause.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use doorward::base::limits::Limits;
use doorward::base::supervisor::Supervisor;
use doorward::base::supervisor::Task;
use doorward::config::Settings;
use doorward::server::Server;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::complete;
use crate::harness::http::Answer;
use crate::harness::http::exchange;
use crate::harness::wait_until;

/// A running gateway. It is stopped when dropped.
pub struct InProcessGateway {
    listen: SocketAddr,
    admin: SocketAddr,
    supervisor: Supervisor,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    folder: TempDir,
}

impl InProcessGateway {
    /// Starts a gateway with these sections, in which `FOLDER` is a folder of its own.
    pub fn start(sections: &str, limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("doorward.toml");
        let sections = sections.replace("FOLDER", folder.path().to_str().expect("a name"));
        std::fs::write(&config, complete(&sections)).expect("a configuration");
        let settings = Settings::load(&config).unwrap_or_else(|problems| panic!("{problems}"));
        let (told, started) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let server = Server::start(settings, limits).await.expect("it starts");
                let listen = server.listeners()[0].tcp().expect("an address");
                told.send((listen, server.admin(), server.supervisor().clone())).expect("somebody waits");
                let _dropped = stopped.await;
                server.stop(std::future::ready(())).await.ok();
            });
        });
        let (listen, admin, supervisor) = started.recv().expect("it starts");
        Self { listen, admin, supervisor, stop: Some(stop), thread: Some(thread), folder }
    }

    /// Its folder, in which `doorward.toml` is its configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    pub fn admin(&self, path: &str) -> Answer {
        exchange(self.admin, format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").as_bytes())
    }

    /// Asks the API with the token.
    pub fn api(&self, path: &str) -> Answer {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
        );
        exchange(self.admin, head.as_bytes())
    }

    /// The value of a metric with these labels; 0 when it has none.
    pub fn metric(&self, name_and_labels: &str) -> f64 {
        let text = self.admin("/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    pub fn restarts(&self, task: Task) -> f64 {
        self.metric(&format!("doorward_task_restarts_total{{task=\"{}\"}}", task.name()))
    }

    /// Has the next task of this kind panic that runs.
    pub fn inject_panic(&self, task: Task) {
        self.supervisor.inject_panic(task);
    }

    /// The same; waits until it has panicked and is started again.
    #[track_caller]
    pub fn restart_by_panic(&self, task: Task) {
        let before = self.supervisor.restarts(task);
        self.inject_panic(task);
        wait_until(&format!("{} to be started again", task.name()), || {
            // The admin port may be what is dying.
            !self.supervisor.is_injected(task) && self.supervisor.restarts(task) > before
        });
    }
}

impl Drop for InProcessGateway {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}
