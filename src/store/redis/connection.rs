//! One connection to Redis for one worker, made again whenever it breaks or turns out to lead to a replica.

use std::sync::Arc;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::ErrorKind;
use redis::IntoConnectionInfo as _;
use redis::RedisError;
use redis::ServerErrorKind;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::store::Unavailable;

/// Longest pause between two attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Longest an attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Commands that may wait to be written.
const PIPELINE: usize = 1024;

/// The address of a Redis server: `redis://` or, with TLS, `rediss://`.
#[derive(Clone)]
pub struct RedisUrl(Box<redis::ConnectionInfo>);

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the whole of it: there may be a password inside.
        write!(f, "RedisUrl({})", self.0.addr())
    }
}

impl RedisUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it, because there may be a password inside.
    pub fn parse(text: &str) -> Result<Self, String> {
        let info = text
            .into_connection_info()
            .map_err(|_bad| "is not a Redis address such as \"redis://:PASSWORD@HOST:6379/0\"".to_owned())?;
        Ok(Self(Box::new(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))))
    }

    /// Host and port, for logs.
    pub fn address(&self) -> String {
        self.0.addr().to_string()
    }
}

/// The connection of one worker.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    current: watch::Receiver<Option<Alive>>,
    broken: Arc<Notify>,
    timeout: Duration,
}

#[derive(Clone)]
struct Alive(MultiplexedConnection);

impl std::fmt::Debug for Alive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Alive")
    }
}

/// Why a command has no answer.
#[derive(Debug)]
pub(super) struct Failed {
    /// For the log.
    pub(super) error: Unavailable,
    /// Whether Redis may have done what it was told.
    pub(super) perhaps_done: bool,
}

impl Connection {
    /// Keeps a connection on the runtime that this is called on. A command may take `timeout`.
    pub(super) fn keep(url: &RedisUrl, timeout: Duration) -> Result<Self, String> {
        let client = redis::Client::open(*url.0.clone()).map_err(|error| format!("cannot use the address: {error}"))?;
        let (sender, current) = watch::channel(None);
        let broken = Arc::new(Notify::new());
        let task = reconnect(client, url.address(), timeout, sender, Arc::clone(&broken));
        drop(tokio::spawn(task));
        Ok(Self { current, broken, timeout })
    }

    /// Runs a command that is the same whether it runs once or twice. When the connection turns out to be broken, a new
    /// one is waited for and the command sent once more.
    pub(super) async fn run<T, F>(&self, command: impl Fn(MultiplexedConnection) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let mut perhaps_done = false;
        let mut last = None;
        for _attempt in 0..2 {
            let Some(Alive(connection)) = self.connection().await else { break };
            match command(connection).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    perhaps_done |= error.is_io_error();
                    let leave = leads_nowhere(&error);
                    if leave {
                        self.broken.notify_one();
                    }
                    let again = leave && !error.is_timeout();
                    last = Some(Unavailable(error.to_string()));
                    if !again {
                        break;
                    }
                    // Not the connection that has just failed.
                    let mut current = self.current.clone();
                    let gone = current.wait_for(Option::is_none);
                    let _late = tokio::time::timeout(self.timeout, gone).await;
                }
            }
        }
        let error = last.unwrap_or_else(|| Unavailable("there is no connection to Redis".to_owned()));
        Err(Failed { error, perhaps_done })
    }

    /// Whether there has been a connection at any time.
    pub(super) fn was_made(&self) -> bool {
        // Nobody marks what this receiver has seen, so it is new for ever.
        self.current.has_changed().unwrap_or(true)
    }

    async fn connection(&self) -> Option<Alive> {
        if let Some(alive) = self.current.borrow().clone() {
            return Some(alive);
        }
        let mut current = self.current.clone();
        let found = current.wait_for(Option::is_some);
        let found = tokio::time::timeout(self.timeout, found).await.ok()?.ok()?;
        found.clone()
    }
}

/// Whether another connection may do better: this one is broken, or leads to a server that takes no writes.
fn leads_nowhere(error: &RedisError) -> bool {
    let takes_no_writes = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown)
    );
    error.is_io_error() || error.is_unrecoverable_error() || takes_no_writes
}

async fn reconnect(
    client: redis::Client,
    address: String,
    timeout: Duration,
    sender: watch::Sender<Option<Alive>>,
    broken: Arc<Notify>,
) {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(timeout))
        .set_pipeline_buffer_size(PIPELINE);
    let mut pause = Duration::from_millis(10);
    let mut told = false;
    while !sender.is_closed() {
        match connect(&client, &config).await {
            Ok(connection) => {
                if std::mem::take(&mut told) {
                    tracing::info!(address, "Redis answers again");
                }
                sender.send_replace(Some(Alive(connection)));
                pause = Duration::from_millis(10);
                broken.notified().await;
                sender.send_replace(None);
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(address, error, "Redis does not answer");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

/// Connects to a server that takes writes.
async fn connect(client: &redis::Client, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, String> {
    let mut connection =
        client.get_multiplexed_async_connection_with_config(config).await.map_err(|error| error.to_string())?;
    // Where ROLE is not permitted, the first write will tell.
    let role: Result<Vec<redis::Value>, RedisError> = redis::cmd("ROLE").query_async(&mut connection).await;
    match role {
        Ok(role) => match role.first() {
            Some(redis::Value::BulkString(name)) if name != b"master" => {
                Err("the server is a replica, which takes no writes".to_owned())
            }
            _ => Ok(connection),
        },
        Err(error) if error.is_io_error() => Err(error.to_string()),
        Err(_) => Ok(connection),
    }
}
