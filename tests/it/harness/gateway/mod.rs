//! The gateway as a process of its own.

pub mod api;
pub mod in_process;
pub mod log;
pub mod one_source;
pub mod queue;
pub mod reload;
pub mod source;

use std::collections::HashMap;
use std::io::BufRead as _;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::http::Answer;
use crate::harness::http::exchange;
use crate::harness::wait_at_most;
use crate::harness::wait_for;

/// The command under test, without the environment of whoever runs the tests.
pub fn doorward() -> Command {
    without_settings(Command::new(binary()))
}

/// The binary under test: the one that was built with the tests, unless `DOORWARD_TESTS_BINARY` names another.
fn binary() -> String {
    std::env::var("DOORWARD_TESTS_BINARY").unwrap_or_else(|_unset| env!("CARGO_BIN_EXE_doorward").to_owned())
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DOORWARD__")) {
        command.env_remove(name);
    }
    command
}

/// A running gateway. It is killed when dropped.
pub struct Gateway {
    child: Child,
    folder: Option<TempDir>,
    log: Arc<Mutex<Vec<serde_json::Value>>>,
    /// Those with an address, by name.
    listeners: Vec<(String, SocketAddr)>,
    admin: SocketAddr,
}

/// How a gateway ended.
pub struct Exit {
    pub status: ExitStatus,
    pub folder: Option<TempDir>,
}

impl Gateway {
    /// Starts a gateway with these sections; addresses are free ones of this machine and the store is memory, unless
    /// the sections say otherwise.
    #[track_caller]
    pub fn start(sections: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), sections)
    }

    /// Starts it in a folder that an earlier one has left.
    #[track_caller]
    pub fn start_in(folder: TempDir, sections: &str) -> Self {
        let mut gateway = Self::spawn(folder.path(), sections, &[]);
        gateway.folder = Some(folder);
        gateway
    }

    /// Starts it in this folder with variables in its environment.
    #[track_caller]
    pub fn spawn(folder: &Path, sections: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = doorward();
        command.envs(environment.iter().copied());
        Self::run(command, folder, sections)
    }

    /// Starts another binary of it in this folder.
    #[track_caller]
    pub fn spawn_binary(binary: &Path, folder: &Path, sections: &str) -> Self {
        Self::run(without_settings(Command::new(binary)), folder, sections)
    }

    /// Starts it where it may open so many files at most.
    #[track_caller]
    pub fn start_with_files(files: usize, sections: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = without_settings(Command::new("sh"));
        command.args(["-c", "ulimit -n $0 && exec \"$@\"", &files.to_string(), &binary()]);
        let mut gateway = Self::run(command, folder.path(), sections);
        gateway.folder = Some(folder);
        gateway
    }

    /// Starts it in this folder if it can; otherwise what it says.
    #[track_caller]
    pub fn try_spawn(folder: &Path, sections: &str) -> Result<Self, String> {
        Self::begin(doorward(), folder, sections).until_ready()
    }

    /// Starts it in this folder and does not wait until it is ready.
    #[track_caller]
    pub fn spawn_early(folder: &Path, sections: &str) -> Self {
        Self::begin(doorward(), folder, sections)
    }

    #[track_caller]
    fn run(command: Command, folder: &Path, sections: &str) -> Self {
        Self::begin(command, folder, sections).until_ready().unwrap_or_else(|said| panic!("the gateway ended: {said}"))
    }

    #[track_caller]
    fn begin(mut command: Command, folder: &Path, sections: &str) -> Self {
        let config = folder.join("doorward.toml");
        std::fs::write(&config, complete(sections)).expect("a configuration");
        command.arg("serve").arg("--config").arg(&config).current_dir(folder);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the gateway starts");
        let log: Arc<Mutex<Vec<serde_json::Value>>> = Arc::default();
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let writing = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({ "message": line }));
                writing.lock().unwrap().push(event);
            }
        });
        // From here on it is killed whatever happens.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { child, folder: None, listeners: Vec::new(), admin: nowhere, log }
    }

    /// Waits until it is ready; what it says when it ends instead.
    #[track_caller]
    fn until_ready(mut self) -> Result<Self, String> {
        let ready = wait_for("the gateway to be ready", || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Err(status));
            }
            self.log().into_iter().find(|event| event["listen"].is_string()).map(Ok)
        });
        let ready = match ready {
            Ok(ready) => ready,
            Err(status) => return Err(format!("{status}: {:#?}", self.log())),
        };
        let text = |key: &str| ready[key].as_str().expect("a text");
        let listener = |text: &str| {
            let (name, address) = text.split_once('=').unwrap_or(("", text));
            Some((name.to_owned(), address.parse().ok()?))
        };
        self.listeners = text("listen").split(", ").filter_map(listener).collect();
        self.admin = text("admin").parse().expect("an address");
        Ok(self)
    }

    /// Starts it in a folder where it cannot start; what it says.
    #[track_caller]
    pub fn refused(folder: &Path, sections: &str) -> String {
        Self::refused_as(doorward(), folder, sections)
    }

    /// The same as a user whom permissions stop, who root is not.
    #[track_caller]
    pub fn refused_without_privilege(folder: &Path, sections: &str) -> String {
        let mut command = without_settings(Command::new("setpriv"));
        command.args(["--bounding-set=-dac_override,-dac_read_search", &binary()]);
        Self::refused_as(command, folder, sections)
    }

    #[track_caller]
    fn refused_as(mut command: Command, folder: &Path, sections: &str) -> String {
        let config = folder.join("doorward.toml");
        std::fs::write(&config, complete(sections)).expect("a configuration");
        command.arg("serve").arg("--config").arg(&config).current_dir(folder);
        let output = command.output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    }

    /// Its folder, when it was started in one of its own.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("a folder").path()
    }

    /// The address of its first listener that has one.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.listeners.first().expect("a listener with an address").1
    }

    /// The address of the listener of this name.
    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        self.listeners.iter().find(|(known, _)| known == name).expect("a listener of this name").1
    }

    pub fn admin(&self, path: &str) -> Answer {
        exchange(self.admin, format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").as_bytes())
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The value of a metric with these labels; 0 when it has none.
    pub fn metric(&self, name_and_labels: &str) -> f64 {
        let metrics = self.metrics();
        metrics.get(name_and_labels).copied().unwrap_or(0.0)
    }

    /// All metrics by name and labels.
    pub fn metrics(&self) -> HashMap<String, f64> {
        let text = self.admin("/metrics").text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').expect("a value"))
            .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
            .collect()
    }

    /// How many requests of a source ended so.
    pub fn outcomes(&self, source: &str, outcome: &str) -> f64 {
        self.metric(&format!("doorward_requests_total{{outcome=\"{outcome}\",source=\"{source}\"}}"))
    }

    /// How many requests of a source were refused for this.
    pub fn refusals(&self, source: &str, reason: &str) -> f64 {
        self.metric(&format!("doorward_refusals_total{{reason=\"{reason}\",source=\"{source}\"}}"))
    }

    /// What has been logged so far.
    pub fn log(&self) -> Vec<serde_json::Value> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a log event.
    #[track_caller]
    pub fn logged(&self, what: &str, condition: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        wait_for(what, || self.log().into_iter().find(&condition))
    }

    /// Nothing that has been logged so far is a panic.
    #[track_caller]
    pub fn assert_no_panic(&self, what: &str) {
        let log = self.log();
        assert!(!log.iter().any(|event| event.to_string().contains("panick")), "{what}: {log:#?}");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM` or `KILL`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for it to end.
    #[track_caller]
    pub fn wait(mut self) -> Exit {
        // It gives requests in flight some time, as the tests do.
        let status = wait_at_most(PATIENCE * 2, "the gateway to end", || self.child.try_wait().expect("a child"));
        Exit { status, folder: self.folder.take() }
    }

    /// Kills it without warning.
    pub fn kill(self) -> Exit {
        self.signal("KILL");
        self.wait()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The sections with free addresses and the memory store where they name none.
pub(super) fn complete(sections: &str) -> String {
    let mut tables: toml::Table = toml::from_str(sections).unwrap_or_else(|error| panic!("{error}"));
    let has_listeners = tables.get("server").is_some_and(|server| server.get("listeners").is_some());
    let mut usual = |section: &str, key: &str, value: &str| {
        let table = tables.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table.as_table_mut().expect("a table").entry(key).or_insert_with(|| toml::Value::from(value));
    };
    if !has_listeners {
        usual("server", "listen", "127.0.0.1:0");
    }
    usual("admin", "listen", "127.0.0.1:0");
    usual("store", "url", "memory:");
    toml::to_string(&tables).expect("TOML")
}
