//! Redis servers whose clocks and answers are in the hand of a test: one, or a cluster of three.

use doorward::base::time::Moment;

use crate::harness::fault::proxy::Proxy;
use crate::harness::fault::system_calls::Faults;
use crate::harness::free_port;
use crate::harness::redis::Redis;
use crate::harness::redis::cluster::join_cluster;

pub struct Server {
    pub nodes: Vec<Redis>,
    pub faults: Faults,
    proxies: Vec<Proxy>,
    scheme: &'static str,
}

impl Server {
    pub fn start() -> Self {
        let faults = Faults::new();
        faults.stop_clock(Moment::now().millis());
        let redis = Redis::under(&faults, &[]);
        let proxy = Proxy::before(redis.port());
        Self { nodes: vec![redis], faults, proxies: vec![proxy], scheme: "redis" }
    }

    /// A cluster whose nodes name the proxies before them as their addresses.
    pub fn cluster() -> Self {
        let faults = Faults::new();
        // Its nodes must not take a clock that stands still or jumps for the silence of another one.
        let node = |_| {
            let bus = free_port().to_string();
            let patience = ["--cluster-node-timeout", "864000000"];
            Redis::under(&faults, &[&["--cluster-enabled", "yes", "--cluster-port", &bus], &patience[..]].concat())
        };
        let nodes: Vec<_> = (0..3).map(node).collect();
        join_cluster(&nodes);
        let proxies: Vec<_> = nodes.iter().map(|node| Proxy::before(node.port())).collect();
        for (node, proxy) in nodes.iter().zip(&proxies) {
            node.command::<()>(&["CONFIG", "SET", "cluster-announce-port", &proxy.port().to_string()]);
        }
        Self { nodes, faults, proxies, scheme: "redis-cluster" }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect();
        format!("{}://{}", self.scheme, hosts.join(","))
    }

    /// As new, at this time.
    pub fn reset(&self, now: Moment) {
        self.set_away(false);
        self.nodes.iter().for_each(|node| node.command::<()>(&["FLUSHALL"]));
        self.faults.stop_clock(now.millis());
    }

    /// After so many more answers of a node, the next one is lost, and the connection with it. What was asked for is
    /// done.
    pub fn lose_answer(&self, after: u8) {
        self.proxies.iter().for_each(|proxy| proxy.lose_answer(after));
    }

    /// Whether nothing comes through, from now on; what was under way is lost.
    pub fn set_away(&self, away: bool) {
        self.proxies.iter().for_each(|proxy| proxy.set_away(away));
    }
}
