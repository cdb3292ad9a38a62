//! The connections of one runtime to Redis, one for each purpose (and keyspace, in a cluster), opened when first used.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use redis::FromRedisValue;
use tokio::runtime::Handle;

use crate::base::supervisor::Supervisor;
use crate::store::Durability;
use crate::store::Keyspace;
use crate::store::RedisUrl;
use crate::store::redis::connection::Connection;
use crate::store::redis::connection::Failed;
use crate::store::redis::durable::Durable;
use crate::store::redis::pool::Pool;
use crate::store::redis::script::Call;
use crate::store::redis::url::Topology;

/// The timeout of commands that no request waits for.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) url: RedisUrl,
    /// The timeout of commands that a request waits for.
    pub(super) timeout: Duration,
    pub(super) durability: Option<Durability>,
    pub(super) supervisor: Supervisor,
}

/// The connections of one runtime. Each purpose has its own, so that quick commands do not wait behind slow ones.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) address: Address,
    /// The runtime on which connections are opened: the one that this was created on, or the caller's if there was
    /// none.
    runtime: Option<Handle>,
    /// By keyspace in a cluster, because each keyspace is on one node.
    connections: Mutex<HashMap<(Option<Keyspace>, Purpose), Connection>>,
    durable: Mutex<HashMap<Option<Keyspace>, Durable>>,
    /// The connections to nodes that the keyspaces of a cluster share.
    pools: Mutex<HashMap<Purpose, Pool>>,
}

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Commands that a request waits for.
    Requests,
    /// Takes, whose answers are large.
    Takes,
    /// Everything else: outcomes, statistics, administrative requests.
    Maintenance,
}

impl Connections {
    pub(super) fn new(address: Address) -> Self {
        let (connections, durable, pools) = Default::default();
        Self { address, runtime: Handle::try_current().ok(), connections, durable, pools }
    }

    /// The connection to the node of these keys.
    pub(super) fn connection(&self, space: &Keyspace, purpose: Purpose) -> Connection {
        let Address { url, timeout, supervisor, .. } = &self.address;
        let node_key = self.node_key(space);
        let open = || {
            let pool = lock(&self.pools).entry(purpose).or_default().clone();
            let timeout = if purpose == Purpose::Requests { *timeout } else { BACKGROUND_TIMEOUT };
            let _entered = self.runtime.as_ref().map(Handle::enter);
            Connection::open(url, (node_key.as_ref(), &pool), timeout, supervisor)
        };
        lock(&self.connections).entry((node_key.clone(), purpose)).or_insert_with(open).clone()
    }

    /// Runs an idempotent script.
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        space: &Keyspace,
        purpose: Purpose,
        call: &Call,
    ) -> Result<T, Failed> {
        self.connection(space, purpose).run(|connection| call.run(connection)).await
    }

    /// Runs an idempotent script for a request. When it returns, the writes are as durable as `store.durability` says.
    pub(super) async fn durable(&self, space: &Keyspace, call: Call) -> Result<i64, Failed> {
        let Address { url, timeout, durability, supervisor } = &self.address;
        let Some(durability) = *durability else { return self.call(space, Purpose::Requests, &call).await };
        let node_key = self.node_key(space);
        let open = || {
            let _entered = self.runtime.as_ref().map(Handle::enter);
            Durable::open(url, node_key.as_ref(), (*timeout, durability), supervisor)
        };
        let durable = lock(&self.durable).entry(node_key.clone()).or_insert_with(open).clone();
        durable.run(call).await
    }

    /// Whether there has ever been a connection; begins to connect if nothing else has.
    pub(super) fn was_made(&self, spaces: &[Keyspace]) -> bool {
        if lock(&self.connections).values().any(Connection::was_made) {
            return true;
        }
        // Sources may come later.
        let space = spaces.first().cloned().unwrap_or_else(|| Keyspace::of_source(""));
        let can_connect = self.runtime.is_some() || Handle::try_current().is_ok();
        can_connect && self.connection(&space, Purpose::Requests).was_made()
    }

    /// What identifies the node: the keyspace in a cluster, nothing elsewhere.
    fn node_key(&self, space: &Keyspace) -> Option<Keyspace> {
        match self.address.url.topology {
            Topology::Server | Topology::Sentinel { .. } => None,
            Topology::Cluster => Some(space.clone()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
