//! The connections of one runtime, each made when it is first used.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;

use redis::FromRedisValue;
use tokio::runtime::Handle;

use crate::store::Durability;
use crate::store::Keyspace;
use crate::store::RedisUrl;
use crate::store::redis::connection::Connection;
use crate::store::redis::connection::Failed;
use crate::store::redis::durable::Durable;
use crate::store::redis::pool::Pool;
use crate::store::redis::script::Call;
use crate::store::redis::url::Topology;
use crate::supervisor::Supervisor;

/// How long a command may take that no request waits for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) url: RedisUrl,
    /// How long a command of a request may take.
    pub(super) timeout: Duration,
    pub(super) durability: Option<Durability>,
    pub(super) supervisor: Supervisor,
}

/// The connections of one runtime.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) address: Address,
    /// By keyspace in a cluster, where each is on one node.
    ways: Mutex<HashMap<Option<Keyspace>, Arc<Way>>>,
    /// What the keyspaces of a cluster share.
    requests: Pool,
    takes: Pool,
    upkeep: Pool,
}

/// The connections to one server. What takes long has one of its own, so that nothing waits behind it.
#[derive(Debug, Default)]
struct Way {
    requests: OnceLock<Connection>,
    durable: OnceLock<Durable>,
    takes: OnceLock<Connection>,
    upkeep: OnceLock<Connection>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    /// What a request waits for.
    Requests,
    /// Taking, whose answers are large.
    Takes,
    /// All else: outcomes, looks, what operators ask for.
    Upkeep,
}

impl Links {
    pub(super) fn new(address: Address) -> Self {
        let (requests, takes, upkeep) = Default::default();
        Self { address, ways: Mutex::default(), requests, takes, upkeep }
    }

    /// A connection to where these keys are.
    pub(super) fn connection(&self, space: &Keyspace, purpose: Use) -> Connection {
        let Address { url, timeout, supervisor, .. } = &self.address;
        let (way, place) = self.way(space);
        let (link, pool, timeout) = match purpose {
            Use::Requests => (&way.requests, &self.requests, *timeout),
            Use::Takes => (&way.takes, &self.takes, PATIENCE),
            Use::Upkeep => (&way.upkeep, &self.upkeep, PATIENCE),
        };
        link.get_or_init(|| Connection::keep(url, (place.as_ref(), pool), timeout, supervisor)).clone()
    }

    /// Runs a script that is the same whether it runs once or twice.
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        space: &Keyspace,
        purpose: Use,
        call: &Call,
    ) -> Result<T, Failed> {
        self.connection(space, purpose).run(|connection| call.run(connection)).await
    }

    /// The same for a request; what the script wrote is as safe as the settings want when there is an answer.
    pub(super) async fn durable(&self, space: &Keyspace, call: Call) -> Result<i64, Failed> {
        let Address { url, timeout, durability, supervisor } = &self.address;
        let Some(durability) = *durability else { return self.call(space, Use::Requests, &call).await };
        let (way, place) = self.way(space);
        let keep = || Durable::keep(url, place.as_ref(), (*timeout, durability), supervisor);
        way.durable.get_or_init(keep).run(call).await
    }

    /// Whether there has been a connection at any time; looks for Redis if nobody has done so.
    pub(super) fn was_made(&self, spaces: &[Keyspace]) -> bool {
        let made = |link: &OnceLock<Connection>| link.get().is_some_and(Connection::was_made);
        let any = |way: &Arc<Way>| made(&way.requests) || made(&way.takes) || made(&way.upkeep);
        if self.ways.lock().unwrap_or_else(PoisonError::into_inner).values().any(any) {
            return true;
        }
        let connection = spaces.first().filter(|_| Handle::try_current().is_ok());
        connection.is_some_and(|space| self.connection(space, Use::Requests).was_made())
    }

    fn way(&self, space: &Keyspace) -> (Arc<Way>, Option<Keyspace>) {
        let place = match self.address.url.topology {
            Topology::Server | Topology::Sentinel { .. } => None,
            Topology::Cluster => Some(space.clone()),
        };
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(ways.entry(place.clone()).or_default()), place)
    }
}
