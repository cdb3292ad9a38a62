//! A Redis master with its replica, and a sentinel that watches them.

use crate::harness::free_port;
use crate::harness::redis::Redis;
use crate::harness::wait_until;

/// A master, its replica, and a sentinel that lets the replica take over.
pub struct SentinelGroup {
    pub servers: [Redis; 2],
    sentinel: Redis,
}

impl SentinelGroup {
    pub fn start() -> Self {
        let master = Redis::start();
        let replica = Redis::replica_of(&master);
        let sentinel = Redis::sentinel();
        // Before Redis 7.0 it cannot be hurried.
        let hurry = ["INFO-PERIOD", "500", "PUBLISH-PERIOD", "200", "PING-PERIOD", "200", "ASK-PERIOD", "200"];
        let _patient = sentinel.try_command::<()>(&[&["SENTINEL", "DEBUG"], &hurry[..]].concat());
        let port = master.port().to_string();
        sentinel.command::<()>(&["SENTINEL", "MONITOR", "orders", "127.0.0.1", &port, "1"]);
        for (option, value) in [("down-after-milliseconds", "800"), ("failover-timeout", "3000")] {
            sentinel.command::<()>(&["SENTINEL", "SET", "orders", option, value]);
        }
        let watched = Self { servers: [master, replica], sentinel };
        wait_until("the sentinel to know the replica", || {
            let replicas: Vec<redis::Value> = watched.sentinel.command(&["SENTINEL", "REPLICAS", "orders"]);
            !replicas.is_empty()
        });
        watched
    }

    pub fn url(&self) -> String {
        // The first one is not there.
        format!("redis-sentinel://127.0.0.1:{},127.0.0.1:{}/orders", free_port(), self.sentinel.port())
    }

    /// The port of the master, as the sentinel sees it.
    pub fn master(&self) -> u16 {
        let place: (String, u16) = self.sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "orders"]);
        place.1
    }
}
