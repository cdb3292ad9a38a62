//! A Redis server of its own for each test.

pub mod cluster;
pub mod sentinel;

use std::collections::HashMap;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::harness::fault::system_calls::Faults;
use crate::harness::free_port;
use crate::harness::wait_for;
use crate::harness::wait_until;

/// A server that is killed when dropped.
pub struct Redis {
    port: u16,
    child: Option<Child>,
    folder: TempDir,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Redis {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with more arguments, which it keeps when it is started again.
    pub fn with(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Self { port: free_port(), child: None, folder, arguments, environment: Vec::new() };
        server.run(&[]);
        server
    }

    /// Starts a server that has these faults.
    pub fn under(faults: &Faults, arguments: &[&str]) -> Self {
        let (folder, environment) = (tempfile::tempdir().expect("a folder"), faults.environment().into());
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Self { port: free_port(), child: None, folder, arguments, environment };
        server.run(&[]);
        server
    }

    /// Starts a replica of another server.
    pub fn replica_of(primary: &Self) -> Self {
        let replica = Self::with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
        wait_until("the replica to follow", || replica.follows());
        replica
    }

    /// Starts the server again on the same port, with more arguments.
    pub fn run(&mut self, arguments: &[&str]) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.arguments)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed; tests/run does that");
        self.begin(child);
    }

    fn begin(&mut self, child: Child) {
        self.child = Some(child);
        wait_for("Redis to answer", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            assert_eq!(ended, None, "Redis cannot run on port {}", self.port);
            self.try_connection()
        });
    }

    /// Starts a sentinel, which watches nothing yet.
    pub fn sentinel() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // A sentinel writes what it learns into its configuration.
        let config = folder.path().join("sentinel.conf");
        std::fs::write(&config, "").expect("a configuration");
        let mut server =
            Self { port: free_port(), child: None, folder, arguments: Vec::new(), environment: Vec::new() };
        let command = Command::new("redis-server")
            .arg(config)
            .args(["--sentinel", "--port", &server.port.to_string(), "--bind", "127.0.0.1"])
            .stdout(Stdio::null())
            .spawn();
        server.begin(command.expect("redis-server is installed; tests/run does that"));
        server
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("gone");
        }
    }

    /// Sends a signal, such as `STOP` and `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").arg(format!("-{name}")).arg(pid).status().expect("kill runs").success());
    }

    /// Keeps it busy with a script until [`Busy::end`].
    pub fn block(&self) -> Busy {
        self.command::<()>(&["CONFIG", "SET", "lua-time-limit", "50"]);
        let port = self.port;
        let script = std::thread::spawn(move || drop(cli(port, &["EVAL", "while true do end", "0"])));
        wait_until("Redis to be busy", || cli(port, &["PING"]).contains("BUSY"));
        Busy { port, script }
    }

    /// Runs a command.
    #[track_caller]
    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).expect("an answer")
    }

    /// Runs a command that may fail.
    pub fn try_command<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection)
    }

    /// Whether it is a replica that has all that its primary had.
    pub fn follows(&self) -> bool {
        let replication: redis::RedisResult<String> = self.try_command(&["INFO", "replication"]);
        replication.is_ok_and(|replication| replication.contains("master_link_status:up"))
    }

    /// A section of what it says about itself.
    pub fn info(&self, section: &str) -> String {
        self.command(&["INFO", section])
    }

    /// Whether it has a command.
    pub fn knows(&self, command: &str) -> bool {
        let described: Vec<redis::Value> = self.command(&["COMMAND", "INFO", command]);
        described != [redis::Value::Nil]
    }

    fn try_connection(&self) -> Option<redis::Connection> {
        let client = redis::Client::open(self.url()).expect("an address");
        let mut connection = client.get_connection().ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok()?;
        Some(connection)
    }
}

/// A script that does not end.
pub struct Busy {
    port: u16,
    script: JoinHandle<()>,
}

impl Busy {
    pub fn end(self) {
        wait_until("the script to end", || cli(self.port, &["SCRIPT", "KILL"]).contains("OK"));
        self.script.join().expect("an end");
    }
}

fn cli(port: u16, words: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(words).output();
    String::from_utf8(output.expect("redis-cli is there").stdout).expect("text")
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The ids of the events on a stream.
pub fn stream_ids(redis: &Redis, stream: &str) -> Vec<String> {
    type Entry = (String, HashMap<String, Vec<u8>>);
    let entries: Vec<Entry> = redis.command(&["XRANGE", stream, "-", "+"]);
    entries
        .into_iter()
        .map(|(_, mut fields)| String::from_utf8(fields.remove("id").expect("an id")).expect("text"))
        .collect()
}
