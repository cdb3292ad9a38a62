//! Connections to the nodes of a cluster. All keyspaces on a node share one connection.

use std::collections::HashMap;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

/// The connections for one purpose, at most one to each node.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<watch::Sender<Shared>>);

#[derive(Default)]
struct Shared {
    /// The newest connection to each node, by address.
    nodes: HashMap<String, PooledConnection>,
    /// The number of connections made so far.
    count: u64,
}

/// A connection with its number in the sequence of connections.
#[derive(Clone)]
pub(super) struct PooledConnection {
    pub(super) connection: MultiplexedConnection,
    /// Grows with each new connection.
    pub(super) number: u64,
}

impl Pool {
    /// The connection to a node, which may be broken.
    pub(super) fn get(&self, address: &str) -> Option<PooledConnection> {
        self.0.borrow().nodes.get(address).cloned()
    }

    /// Replaces a broken connection to a node by a new one. Returns the one to use, which is another one if another
    /// keyspace has replaced it first.
    pub(super) fn put(
        &self,
        address: &str,
        broken: Option<&PooledConnection>,
        connection: MultiplexedConnection,
    ) -> PooledConnection {
        let mut used = None;
        self.0.send_if_modified(|Shared { nodes, count }| {
            let other = nodes.get(address).filter(|other| broken.is_none_or(|broken| broken.number < other.number));
            if let Some(other) = other {
                used = Some(other.clone());
                return false;
            }
            *count += 1;
            nodes.insert(address.to_owned(), PooledConnection { connection: connection.clone(), number: *count });
            true
        });
        used.or_else(|| self.get(address)).unwrap_or(PooledConnection { connection, number: 0 })
    }

    /// Waits until the connection was replaced.
    pub(super) async fn replaced(&self, pooled: &PooledConnection) {
        let is_there = |shared: &Shared| shared.nodes.values().any(|other| other.number == pooled.number);
        let mut nodes = self.0.subscribe();
        let _never_closed = nodes.wait_for(|shared| !is_there(shared)).await;
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.0.borrow().nodes.len())
    }
}

impl std::fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Numbered({})", self.number)
    }
}
