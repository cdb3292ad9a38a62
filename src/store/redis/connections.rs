//! The connections of one runtime to Redis, one for each purpose, each made when it is first used.

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

/// How long a command may take that no request waits for.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) url: RedisUrl,
    /// How long a command of a request may take.
    pub(super) timeout: Duration,
    pub(super) durability: Option<Durability>,
    pub(super) supervisor: Supervisor,
}

/// The connections of one runtime. What takes long has one of its own, so that nothing waits behind it.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) address: Address,
    /// The one on which this was made, whoever asks first for a connection; that of who asks, if it was made on none.
    runtime: Option<Handle>,
    /// By keyspace in a cluster, where each is on one node.
    connections: Mutex<HashMap<(Option<Keyspace>, Purpose), Connection>>,
    durable: Mutex<HashMap<Option<Keyspace>, Durable>>,
    /// What the keyspaces of a cluster share.
    pools: Mutex<HashMap<Purpose, Pool>>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// What a request waits for.
    Requests,
    /// Taking, whose answers are large.
    Takes,
    /// All else: outcomes, looks, what operators ask for.
    Maintenance,
}

impl Connections {
    pub(super) fn new(address: Address) -> Self {
        let (connections, durable, pools) = Default::default();
        Self { address, runtime: Handle::try_current().ok(), connections, durable, pools }
    }

    /// A connection to where these keys are.
    pub(super) fn connection(&self, space: &Keyspace, purpose: Purpose) -> Connection {
        let Address { url, timeout, supervisor, .. } = &self.address;
        let place = self.place(space);
        let keep = || {
            let pool = lock(&self.pools).entry(purpose).or_default().clone();
            let timeout = if purpose == Purpose::Requests { *timeout } else { MAX_WAIT };
            let _on_it = self.runtime.as_ref().map(Handle::enter);
            Connection::open(url, (place.as_ref(), &pool), timeout, supervisor)
        };
        lock(&self.connections).entry((place.clone(), purpose)).or_insert_with(keep).clone()
    }

    /// Runs a script that is the same whether it runs once or twice.
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        space: &Keyspace,
        purpose: Purpose,
        call: &Call,
    ) -> Result<T, Failed> {
        self.connection(space, purpose).run(|connection| call.run(connection)).await
    }

    /// The same for a request; what the script wrote is as safe as the settings want when there is an answer.
    pub(super) async fn durable(&self, space: &Keyspace, call: Call) -> Result<i64, Failed> {
        let Address { url, timeout, durability, supervisor } = &self.address;
        let Some(durability) = *durability else { return self.call(space, Purpose::Requests, &call).await };
        let place = self.place(space);
        let keep = || {
            let _on_it = self.runtime.as_ref().map(Handle::enter);
            Durable::open(url, place.as_ref(), (*timeout, durability), supervisor)
        };
        let durable = lock(&self.durable).entry(place.clone()).or_insert_with(keep).clone();
        durable.run(call).await
    }

    /// Whether there has been a connection at any time; looks for Redis if nobody has done so.
    pub(super) fn was_made(&self, spaces: &[Keyspace]) -> bool {
        if lock(&self.connections).values().any(Connection::was_made) {
            return true;
        }
        let connection = spaces.first().filter(|_| self.runtime.is_some() || Handle::try_current().is_ok());
        connection.is_some_and(|space| self.connection(space, Purpose::Requests).was_made())
    }

    fn place(&self, space: &Keyspace) -> Option<Keyspace> {
        match self.address.url.topology {
            Topology::Server | Topology::Sentinel { .. } => None,
            Topology::Cluster => Some(space.clone()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
