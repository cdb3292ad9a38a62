//! Finds the Redis server that accepts writes: the configured one, the master that sentinels name, or the node of a
//! cluster that has the keys.

use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::Client;
use redis::ConnectionAddr;
use redis::ConnectionInfo;
use redis::ErrorKind;
use redis::RedisError;
use redis::ServerErrorKind;
use redis::Value;
use redis::aio::MultiplexedConnection;

use super::pool::Pool;
use super::pool::PooledConnection;
use super::url::RedisUrl;
use super::url::Topology;
use crate::store::Keyspace;

/// The timeout of an attempt to connect.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Most redirections in a cluster before the attempt fails.
const MAX_REDIRECTS: usize = 8;
/// Most nodes of a cluster that are remembered.
const MAX_NODES: usize = 256;

/// Connects to the primary, and remembers what it has learnt about the topology.
#[derive(Debug, Clone)]
pub(super) struct PrimaryResolver {
    url: RedisUrl,
    /// In a cluster: the keyspace whose node is needed.
    space: Option<Keyspace>,
    /// In a cluster: the nodes at the last success.
    nodes: Vec<(String, u16)>,
    /// In a cluster: the connections that are shared with other keyspaces.
    pool: Pool,
    /// In a cluster: the connection of the last success.
    found: Option<PooledConnection>,
    config: AsyncConnectionConfig,
}

impl PrimaryResolver {
    /// `space` is required in a cluster.
    pub(super) fn new(url: RedisUrl, space: Option<Keyspace>, pool: Pool, config: AsyncConnectionConfig) -> Self {
        Self { url, space, nodes: Vec::new(), pool, found: None, config }
    }

    /// The configured address, for logs.
    pub(super) fn address(&self) -> String {
        self.url.address()
    }

    /// Connects to the server that accepts writes now.
    pub(super) async fn connect(&mut self) -> Result<MultiplexedConnection, String> {
        match &self.url.topology {
            Topology::Server => first_of(&self.url.nodes, |node| self.primary(node)).await,
            Topology::Sentinel { .. } => first_of(&self.url.nodes, |sentinel| self.ask(sentinel)).await,
            Topology::Cluster => self.in_cluster().await,
        }
    }

    async fn open(&self, info: ConnectionInfo) -> Result<MultiplexedConnection, String> {
        let client = Client::open(info).map_err(|error| error.to_string())?;
        client.get_multiplexed_async_connection_with_config(&self.config).await.map_err(|error| error.to_string())
    }

    /// Connects to a server if it accepts writes.
    async fn primary(&self, info: ConnectionInfo) -> Result<MultiplexedConnection, String> {
        let mut connection = self.open(info).await?;
        // Where ROLE is not permitted, the first write shows whether the server is the primary.
        let role: Result<Vec<Value>, RedisError> = redis::cmd("ROLE").query_async(&mut connection).await;
        match role {
            Ok(role) => match role.first() {
                Some(Value::BulkString(name)) if name != b"master" => {
                    Err("the server is a replica, which takes no writes".to_owned())
                }
                _ => Ok(connection),
            },
            Err(error) if error.is_io_error() => Err(error.to_string()),
            Err(_) => Ok(connection),
        }
    }

    /// Asks a sentinel for the address of the master, and connects to it.
    async fn ask(&self, sentinel: ConnectionInfo) -> Result<MultiplexedConnection, String> {
        let Topology::Sentinel { master, credentials } = &self.url.topology else {
            return Err("no sentinel is named".to_owned());
        };
        let mut connection = self.open(sentinel.set_redis_settings((**credentials).clone())).await?;
        let place: Option<(String, u16)> = redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(master)
            .query_async(&mut connection)
            .await
            .map_err(|error| error.to_string())?;
        let (host, port) = place.ok_or_else(|| format!("the sentinel knows no master named {master:?}"))?;
        let master = self.url.node(&host, port).ok_or_else(|| "no sentinel is named".to_owned())?;
        self.primary(master).await
    }

    /// Asks one node after the other: those of the last success, then the configured ones.
    async fn in_cluster(&mut self) -> Result<MultiplexedConnection, String> {
        let space = self.space.clone().ok_or_else(|| "the keys of a cluster have no place".to_owned())?;
        let known = self.nodes.iter().filter_map(|(host, port)| self.url.node(host, *port));
        let candidates: Vec<_> = known.chain(self.url.nodes.iter().cloned()).collect();
        let found = first_of(&candidates, |node| self.follow(node, &space)).await?;
        let mut connection = found.connection.clone();
        self.found = Some(found);
        let slots = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await;
        // If this fails, the configured nodes remain.
        self.nodes = slots.map(|slots: Vec<Value>| nodes(&slots)).unwrap_or_default();
        Ok(connection)
    }

    /// Follows redirections (`MOVED`) to the node of these keys.
    async fn follow(&self, mut node: ConnectionInfo, space: &Keyspace) -> Result<PooledConnection, String> {
        for _hop in 0..MAX_REDIRECTS {
            let (found, there) = self.probe(&node, space).await?;
            let Err(error) = there else { return Ok(found) };
            if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) {
                node = self.redirected(&node, &error).ok_or_else(|| error.to_string())?;
                continue;
            }
            // While keys migrate to another node, clients ask the old owner first.
            let owner = matches!(
                error.kind(),
                ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain | ServerErrorKind::NoPerm)
            );
            return if owner { Ok(found) } else { Err(error.to_string()) };
        }
        Err("the nodes of the cluster do not agree where the keys are".to_owned())
    }

    /// A connection to a node, and its answer to a command on the keys: an error if it does not own them.
    async fn probe(
        &self,
        node: &ConnectionInfo,
        space: &Keyspace,
    ) -> Result<(PooledConnection, Result<i64, RedisError>), String> {
        // No such key exists, but it has the same hash slot as all others.
        let mut exists = redis::cmd("EXISTS");
        exists.arg(space.prefix());
        let address = node.addr().to_string();
        let shared = self.pool.get(&address);
        if let Some(shared) = &shared {
            let mut connection = shared.connection.clone();
            let there = tokio::time::timeout(CONNECT_TIMEOUT, exists.query_async(&mut connection)).await;
            let is_broken = |error: &RedisError| error.is_io_error() || error.is_unrecoverable_error();
            if let Some(there) = there.ok().filter(|there| !there.as_ref().is_err_and(is_broken)) {
                return Ok((shared.clone(), there));
            }
        }
        let found = self.pool.put(&address, shared.as_ref(), self.open(node.clone()).await?);
        let there = exists.query_async(&mut found.connection.clone()).await;
        Ok((found, there))
    }

    /// Waits until another user of the pool has replaced the connection of the last success.
    pub(super) async fn replaced(&self) {
        match &self.found {
            Some(found) => self.pool.replaced(found).await,
            None => std::future::pending().await,
        }
    }

    fn redirected(&self, from: &ConnectionInfo, error: &RedisError) -> Option<ConnectionInfo> {
        let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
        let port = port.parse().ok()?;
        if !host.is_empty() {
            return self.url.node(host, port);
        }
        // A node that does not know its own address leaves the host out.
        if let ConnectionAddr::Tcp(own, _) | ConnectionAddr::TcpTls { host: own, .. } = from.addr() {
            return self.url.node(own, port);
        }
        None
    }
}

/// The result of the first node for which `connect` succeeds.
async fn first_of<T, F>(nodes: &[ConnectionInfo], connect: impl Fn(ConnectionInfo) -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let mut last = "no server is named".to_owned();
    for node in nodes {
        match connect(node.clone()).await {
            Err(error) => last = error,
            found => return found,
        }
    }
    Err(last)
}

/// The nodes in the answer to `CLUSTER SLOTS`: ranges of slots, each with its nodes, masters first.
fn nodes(slots: &[Value]) -> Vec<(String, u16)> {
    let mut nodes = Vec::new();
    for range in slots {
        let Value::Array(range) = range else { continue };
        for node in range.iter().skip(2) {
            let Value::Array(node) = node else { continue };
            let [Value::BulkString(host), Value::Int(port), ..] = node.as_slice() else { continue };
            let (Ok(host), Ok(port)) = (str::from_utf8(host), u16::try_from(*port)) else { continue };
            let node = (host.to_owned(), port);
            if !host.is_empty() && !nodes.contains(&node) && nodes.len() < MAX_NODES {
                nodes.push(node);
            }
        }
    }
    nodes
}
