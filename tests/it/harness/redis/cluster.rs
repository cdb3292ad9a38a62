//! A Redis cluster.

use std::process::Command;

use crate::harness::free_port;
use crate::harness::redis::Redis;
use crate::harness::wait_for;
use crate::harness::wait_until;

/// How long a node may be silent until the others take its place, in milliseconds.
const NODE_TIMEOUT: &str = "1000";

/// Three masters with a replica each.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    pub fn start() -> Self {
        let node = |_| {
            let bus = free_port().to_string();
            Redis::with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                NODE_TIMEOUT,
                "--cluster-replica-validity-factor",
                "0",
            ])
        };
        let cluster = Self { nodes: (0..6).map(node).collect() };
        let addresses: Vec<_> = cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        redis_cli(&[&["--cluster", "create"], &*addresses, &["--cluster-replicas", "1", "--cluster-yes"]].concat());
        wait_until("the cluster to be whole", || {
            cluster.nodes.iter().all(|node| {
                let replication = node.info("replication");
                let paired =
                    replication.contains("master_link_status:up") || replication.contains("connected_slaves:1");
                paired && node.command::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            })
        });
        cluster
    }

    /// Names two of the nodes.
    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[0].port(), self.nodes[5].port())
    }

    /// The number of the master where a key is.
    pub fn owner(&self, key: &str) -> usize {
        wait_for("an owner of the key", || {
            (0..self.nodes.len()).find(|&number| {
                let node = &self.nodes[number];
                node.is_running() && node.try_command::<i64>(&["EXISTS", key]).is_ok()
            })
        })
    }

    /// The number of another master.
    pub fn other(&self, owner: usize) -> usize {
        let is_master = |node: &Redis| node.info("replication").contains("role:master");
        let mut others = (0..self.nodes.len()).filter(|&number| number != owner && is_master(&self.nodes[number]));
        others.next().expect("three masters")
    }

    /// Moves the first slots of a master to another one.
    pub fn reshard(&self, from: usize, to: usize, slots: u32) {
        let id = |number: usize| self.nodes[number].command::<String>(&["CLUSTER", "MYID"]);
        redis_cli(&[
            "--cluster",
            "reshard",
            &format!("127.0.0.1:{}", self.nodes[from].port()),
            "--cluster-from",
            &id(from),
            "--cluster-to",
            &id(to),
            "--cluster-slots",
            &slots.to_string(),
            "--cluster-yes",
        ]);
    }
}

/// Makes a cluster of these nodes, all of them masters.
pub fn join_cluster(nodes: &[Redis]) {
    let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    redis_cli(&[&["--cluster", "create"], &*addresses, &["--cluster-replicas", "0", "--cluster-yes"]].concat());
    wait_until("the cluster to be whole", || {
        nodes.iter().all(|node| node.command::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    });
}

fn redis_cli(arguments: &[&str]) {
    // A node may not have heard yet of what another one just learnt.
    wait_until("redis-cli to do it", || {
        let done = Command::new("redis-cli").args(arguments).output().expect("redis-cli is there with the server");
        done.status.success()
    });
}
