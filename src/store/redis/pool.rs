//! Connections to the nodes of a cluster, each shared by all keyspaces that are on the node.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use redis::aio::MultiplexedConnection;

/// Connections of one kind, by the address of their node; at most one to each.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    nodes: HashMap<String, Pooled>,
    /// How many there have been.
    count: u64,
}

/// One of them. A later connection to its node has a greater number.
#[derive(Clone)]
pub(super) struct Pooled {
    pub(super) connection: MultiplexedConnection,
    number: u64,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a node, which may be broken.
    pub(super) fn get(&self, address: &str) -> Option<Pooled> {
        self.lock().nodes.get(address).cloned()
    }

    /// Takes a new connection to a node in the place of one that is broken. The answer is the one to be used: somebody else may have
    /// been faster.
    pub(super) fn put(
        &self,
        address: String,
        broken: Option<&Pooled>,
        connection: MultiplexedConnection,
    ) -> MultiplexedConnection {
        let mut shared = self.lock();
        if let Some(other) = shared.nodes.get(&address).filter(|other| broken.is_none_or(|it| it.number < other.number))
        {
            return other.connection.clone();
        }
        shared.count += 1;
        let number = shared.count;
        shared.nodes.insert(address, Pooled { connection: connection.clone(), number });
        connection
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.lock().nodes.len())
    }
}
