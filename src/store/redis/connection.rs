//! A connection to Redis, reopened by a background task when it breaks or leads to a replica.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::ErrorKind;
use redis::RedisError;
use redis::ServerErrorKind;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

use super::discovery::CONNECT_TIMEOUT;
use super::discovery::PrimaryResolver;
use super::pool::Pool;
use super::pool::PooledConnection;
use super::url::RedisUrl;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::store::AdminError;
use crate::store::Keyspace;
use crate::store::Unavailable;

/// Shortest pause between two attempts to connect.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// Longest pause between two attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Most commands that wait to be written.
const PIPELINE: usize = 1024;

/// A handle to a connection of one runtime.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    current: watch::Receiver<Option<PooledConnection>>,
    /// The number of the newest connection that is known to be broken.
    broken: Arc<watch::Sender<u64>>,
    timeout: Duration,
}

/// Why a command failed.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    /// For the log.
    pub(crate) error: Unavailable,
    /// Whether Redis may have executed the command all the same.
    pub(crate) perhaps_done: bool,
    /// Whether Redis answers, and refuses this command: a script failed because of its arguments or the data.
    pub(crate) refused: bool,
}

impl Failed {
    /// The command was not executed, because Redis is unavailable.
    pub(crate) fn unavailable(why: impl Into<String>) -> Self {
        Self { error: Unavailable(why.into()), perhaps_done: false, refused: false }
    }

    /// The command was not executed, because of the data in Redis.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self { refused: true, ..Self::unavailable(why) }
    }

    /// Redis may have executed the command.
    pub(crate) fn ambiguous(why: impl Into<String>) -> Self {
        Self { perhaps_done: true, ..Self::unavailable(why) }
    }
}

impl From<Failed> for Unavailable {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl From<Failed> for AdminError {
    fn from(failed: Failed) -> Self {
        Self::Unavailable(failed.error)
    }
}

impl Connection {
    /// Opens a connection on the current runtime, and keeps it open. In a cluster it leads to the node that has the
    /// keys of `space`; handles with the same pool share the connection to a node. `timeout` is that of a command.
    pub(super) fn open(
        url: &RedisUrl,
        (space, pool): (Option<&Keyspace>, &Pool),
        timeout: Duration,
        supervisor: &Supervisor,
    ) -> Self {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(timeout))
            .set_pipeline_buffer_size(PIPELINE);
        let resolver = PrimaryResolver::new(url.clone(), space.cloned(), pool.clone(), config);
        let (sender, current) = watch::channel(None);
        let (broken, news) = watch::channel(0);
        let (sender, numbers) = (Arc::new(sender), Arc::new(AtomicU64::new(0)));
        supervisor.task(Task::RedisConnection, move || {
            let cell =
                ConnectionCell { sender: Arc::clone(&sender), numbers: Arc::clone(&numbers), broken: news.clone() };
            let resolver = resolver.clone();
            async move {
                reconnect(resolver, cell).await;
                Ok(())
            }
        });
        Self { current, broken: Arc::new(broken), timeout }
    }

    /// Runs an idempotent command. When the connection turns out to be broken, waits for a new one and sends the
    /// command once more.
    pub(crate) async fn run<T, F>(&self, command: impl Fn(MultiplexedConnection) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (mut perhaps_done, mut refused) = (false, false);
        let mut last = None;
        for _attempt in 0..2 {
            let Some(PooledConnection { connection, number }) = self.connection().await else { break };
            match command(connection).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    perhaps_done |= error.is_io_error();
                    refused = is_refusal(&error);
                    let is_unusable = needs_reconnect(&error);
                    if is_unusable {
                        self.broken.send_if_modified(|newest| std::mem::replace(newest, number.max(*newest)) < number);
                    }
                    let again = is_unusable && !error.is_timeout();
                    last = Some(Unavailable(explained(&error)));
                    if !again {
                        break;
                    }
                    // Waits until the broken connection is replaced.
                    let mut current = self.current.clone();
                    let gone = current.wait_for(|alive| alive.as_ref().is_none_or(|alive| alive.number > number));
                    let _late = tokio::time::timeout(self.timeout, gone).await;
                }
            }
        }
        let error = last.unwrap_or_else(|| Unavailable("there is no connection to Redis".to_owned()));
        Err(Failed { error, perhaps_done, refused })
    }

    /// Whether there has ever been a connection.
    pub(crate) fn was_made(&self) -> bool {
        // This receiver never marks a value as seen.
        self.current.has_changed().unwrap_or(true)
    }

    async fn connection(&self) -> Option<PooledConnection> {
        if let Some(alive) = self.current.borrow().clone() {
            return Some(alive);
        }
        let mut current = self.current.clone();
        let found = current.wait_for(Option::is_some);
        let found = tokio::time::timeout(self.timeout, found).await.ok()?.ok()?;
        found.clone()
    }
}

/// The message of an error, with a hint.
fn explained(error: &RedisError) -> String {
    if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) {
        format!("{error} (the store.url of a cluster begins with redis-cluster://)")
    } else {
        error.to_string()
    }
}

/// Whether a script failed because of its arguments or the data: a general error, or a key of another type. Errors that
/// concern all commands, such as missing permissions, are not among them.
fn is_refusal(error: &RedisError) -> bool {
    let general = error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError);
    general || error.kind() == ErrorKind::Extension && error.code() == Some("WRONGTYPE")
}

/// Whether another connection is needed: this one is broken, or leads to a server that does not accept these writes.
pub(crate) fn needs_reconnect(error: &RedisError) -> bool {
    let takes_no_writes = matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::ReadOnly
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::Moved
        )
    );
    error.is_io_error() || error.is_unrecoverable_error() || takes_no_writes
}

/// The shared state through which the background task publishes connections.
struct ConnectionCell {
    sender: Arc<watch::Sender<Option<PooledConnection>>>,
    /// The number of the newest connection; it outlives a restart of the task.
    numbers: Arc<AtomicU64>,
    broken: watch::Receiver<u64>,
}

async fn reconnect(mut resolver: PrimaryResolver, cell: ConnectionCell) {
    let ConnectionCell { sender, numbers, mut broken } = cell;
    let address = resolver.address();
    let mut pause = MIN_PAUSE;
    let mut reported = false;
    while !sender.is_closed() {
        match resolver.connect().await {
            Ok(connection) => {
                if std::mem::take(&mut reported) {
                    tracing::info!(address, "Redis answers again");
                }
                let number = numbers.fetch_add(1, Ordering::Relaxed) + 1;
                sender.send_replace(Some(PooledConnection { connection, number }));
                pause = MIN_PAUSE;
                tokio::select! {
                    broken = broken.wait_for(|newest| *newest >= number) => if broken.is_err() { return },
                    () = resolver.replaced() => {}
                }
                sender.send_replace(None);
            }
            Err(error) => {
                if !std::mem::replace(&mut reported, true) {
                    tracing::error!(address, error, "Redis does not answer");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}
