//! A Redis server of its own for each test.

use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use super::free_port;
use super::wait_for;

/// A server that is killed when dropped.
pub struct Redis {
    port: u16,
    child: Option<Child>,
    folder: TempDir,
}

impl Redis {
    pub fn start() -> Self {
        let mut server = Self { port: free_port(), child: None, folder: tempfile::tempdir().expect("a folder") };
        server.run(&[]);
        server
    }

    /// Starts the server again on the same port, with more arguments.
    pub fn run(&mut self, arguments: &[&str]) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.folder.path())
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed; tests/run does that");
        self.child = Some(child);
        wait_for("Redis to answer", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            assert_eq!(ended, None, "Redis cannot run on port {}", self.port);
            self.try_connection()
        });
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

    /// Runs a command.
    #[track_caller]
    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.try_connection().expect("a connection");
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection).expect("an answer")
    }

    fn try_connection(&self) -> Option<redis::Connection> {
        let client = redis::Client::open(self.url()).expect("an address");
        let mut connection = client.get_connection().ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok()?;
        Some(connection)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
