//! One connection to Redis for one worker, made again when it breaks or turns out to lead to a replica.

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
/// Commands that may wait to be written.
const PIPELINE: usize = 1024;

/// The connection of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    current: watch::Receiver<Option<PooledConnection>>,
    /// The number of the newest connection that is known to be broken.
    broken: Arc<watch::Sender<u64>>,
    timeout: Duration,
}

/// Why a command has no answer.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    /// For the log.
    pub(crate) error: Unavailable,
    /// Whether Redis may have done what it was told.
    pub(crate) perhaps_done: bool,
    /// Whether Redis is there and refuses just this: a script failed on what it was told or found.
    pub(crate) refused: bool,
}

impl Failed {
    /// Nothing was done, and not because of what was told.
    pub(crate) fn unheard(why: impl Into<String>) -> Self {
        Self { error: Unavailable(why.into()), perhaps_done: false, refused: false }
    }

    /// Nothing was done, because of what Redis has.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self { refused: true, ..Self::unheard(why) }
    }

    /// Redis may have done what it was told.
    pub(crate) fn in_doubt(why: impl Into<String>) -> Self {
        Self { perhaps_done: true, ..Self::unheard(why) }
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
    /// Opens a connection, and reopens it, on the runtime that this is called on; in a cluster, to the node where the
    /// keys of `space` are, which others share that have the same pool. A command may take `timeout`.
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
        let seeker = PrimaryResolver::new(url.clone(), space.cloned(), pool.clone(), config);
        let (sender, current) = watch::channel(None);
        let (broken, news) = watch::channel(0);
        let (sender, numbers) = (Arc::new(sender), Arc::new(AtomicU64::new(0)));
        supervisor.task(Task::RedisConnection, move || {
            let link =
                ConnectionCell { sender: Arc::clone(&sender), numbers: Arc::clone(&numbers), broken: news.clone() };
            let seeker = seeker.clone();
            async move {
                reconnect(seeker, link).await;
                Ok(())
            }
        });
        Self { current, broken: Arc::new(broken), timeout }
    }

    /// Runs a command that is the same whether it runs once or twice. When the connection turns out to be broken, a new
    /// one is waited for and the command sent once more.
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
                    let leave = leads_nowhere(&error);
                    if leave {
                        self.broken.send_if_modified(|newest| std::mem::replace(newest, number.max(*newest)) < number);
                    }
                    let again = leave && !error.is_timeout();
                    last = Some(Unavailable(explained(&error)));
                    if !again {
                        break;
                    }
                    // Not the connection that has just failed.
                    let mut current = self.current.clone();
                    let gone = current.wait_for(|alive| alive.as_ref().is_none_or(|alive| alive.number > number));
                    let _late = tokio::time::timeout(self.timeout, gone).await;
                }
            }
        }
        let error = last.unwrap_or_else(|| Unavailable("there is no connection to Redis".to_owned()));
        Err(Failed { error, perhaps_done, refused })
    }

    /// Whether there has been a connection at any time.
    pub(crate) fn was_made(&self) -> bool {
        // Nobody marks what this receiver has seen, so it is new for ever.
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

/// What an error says, and what would be right.
fn explained(error: &RedisError) -> String {
    if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) {
        format!("{error} (the store.url of a cluster begins with redis-cluster://)")
    } else {
        error.to_string()
    }
}

/// Whether a script failed on what it was told or found: a general error, or one that says that a key is of another
/// type. What says that no command of this user or at this time would do better is none.
fn is_refusal(error: &RedisError) -> bool {
    let general = error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError);
    general || error.kind() == ErrorKind::Extension && error.code() == Some("WRONGTYPE")
}

/// Whether another connection may do better: this one is broken, or leads to a server that does not take these writes.
pub(crate) fn leads_nowhere(error: &RedisError) -> bool {
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

/// Where the task that connects publishes new connections.
struct ConnectionCell {
    sender: Arc<watch::Sender<Option<PooledConnection>>>,
    /// The number of the newest connection; it outlives the task that makes them.
    numbers: Arc<AtomicU64>,
    broken: watch::Receiver<u64>,
}

async fn reconnect(mut seeker: PrimaryResolver, link: ConnectionCell) {
    let ConnectionCell { sender, numbers, mut broken } = link;
    let address = seeker.address();
    let mut pause = MIN_PAUSE;
    let mut reported = false;
    while !sender.is_closed() {
        match seeker.connect().await {
            Ok(connection) => {
                if std::mem::take(&mut reported) {
                    tracing::info!(address, "Redis answers again");
                }
                let number = numbers.fetch_add(1, Ordering::Relaxed) + 1;
                sender.send_replace(Some(PooledConnection { connection, number }));
                pause = MIN_PAUSE;
                tokio::select! {
                    broken = broken.wait_for(|newest| *newest >= number) => if broken.is_err() { return },
                    () = seeker.replaced() => {}
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
