//! Connections to the nodes of a cluster, each shared by all keyspaces that are on the node.

use std::collections::HashMap;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

/// Connections of one kind, at most one to each node.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<watch::Sender<Shared>>);

#[derive(Default)]
struct Shared {
    /// By address.
    nodes: HashMap<String, Pooled>,
    /// How many there have been.
    count: u64,
}

/// One of them.
#[derive(Clone)]
pub(super) struct Pooled {
    pub(super) connection: MultiplexedConnection,
    /// Grows with each connection.
    number: u64,
}

impl Pool {
    /// The connection to a node, which may be broken.
    pub(super) fn get(&self, address: &str) -> Option<Pooled> {
        self.0.borrow().nodes.get(address).cloned()
    }

    /// Puts a new connection to a node in the place of one that is broken. The answer is the one to be used: somebody else may have
    /// been faster.
    pub(super) fn put(&self, address: &str, broken: Option<&Pooled>, connection: MultiplexedConnection) -> Pooled {
        let mut used = None;
        self.0.send_if_modified(|Shared { nodes, count }| {
            let other = nodes.get(address).filter(|other| broken.is_none_or(|broken| broken.number < other.number));
            if let Some(other) = other {
                used = Some(other.clone());
                return false;
            }
            *count += 1;
            nodes.insert(address.to_owned(), Pooled { connection: connection.clone(), number: *count });
            true
        });
        used.or_else(|| self.get(address)).unwrap_or(Pooled { connection, number: 0 })
    }

    /// Waits until there is another one in its place.
    pub(super) async fn replaced(&self, pooled: &Pooled) {
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

impl std::fmt::Debug for Pooled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pooled({})", self.number)
    }
}
