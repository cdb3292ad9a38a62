//! A Redis cluster that loses a master, and one that moves its keys, while events come in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crate::harness::gateway::Gateway;
use crate::harness::provider::SECRET;
use crate::harness::provider::github::Github;
use crate::harness::redis::cluster::Cluster;
use crate::harness::redis::stream_ids;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;
/// A key that is among the first of all, so that moving a few slots moves it.
const STREAM: &str = "{e13}:events";

#[test]
fn events_survive_the_death_of_a_master_and_are_let_through_once() {
    let (upstream, mut cluster) = (Upstream::start(), Cluster::start());
    let gateway = Gateway::start(&sections(&upstream, &cluster, "durability = { replicas = 1 }"));
    let traffic = Traffic::start(gateway.address());
    wait_until("some events", || upstream.received().len() > 20);
    let dead = cluster.owner(STREAM);
    cluster.nodes[dead].kill();
    let heir = cluster.owner(STREAM);
    assert_ne!(heir, dead);
    let before = upstream.received().len();
    cluster.nodes[dead].run(&[]);
    wait_until("events again", || upstream.received().len() > before + 20);
    let (delivered, published) = traffic.end();
    wait_until("the dead one to follow", || cluster.nodes[dead].follows());
    assert_published_once(&published, &stream_ids(&cluster.nodes[heir], STREAM));
    let twice = times(&upstream.ids()).into_values().filter(|times| *times > 1).count();
    // What Redis has not told its replica, it forgets with the master: at most what was in flight.
    assert!(twice <= 1, "{twice} events were delivered twice");
    let repeated = |(path, id): (&str, &String)| delivery(path, id).send_until_taken(gateway.address()).text();
    let forgotten = delivered.iter().filter(|id| repeated(("app", id)) != DUPLICATE).count();
    assert!(forgotten <= 1, "{forgotten} of {} events were forgotten", delivered.len());
    assert!(published.iter().all(|id| repeated(("stream", id)) == DUPLICATE), "what was confirmed is remembered");
}

#[test]
fn events_survive_the_resharding_of_their_keys_and_are_let_through_once() {
    let (upstream, cluster) = (Upstream::start(), Cluster::start());
    let gateway = Gateway::start(&sections(&upstream, &cluster, ""));
    let traffic = Traffic::start(gateway.address());
    let mut owner = cluster.owner(STREAM);
    for _ in 0..2 {
        let before = upstream.received().len();
        wait_until("some events", || upstream.received().len() > before + 50);
        let other = cluster.other(owner);
        cluster.reshard(owner, other, 16);
        wait_until("the keys to be there", || cluster.owner(STREAM) == other);
        owner = other;
    }
    let before = upstream.received().len();
    wait_until("events again", || upstream.received().len() > before + 20);
    let (delivered, published) = traffic.end();
    assert_published_once(&published, &stream_ids(&cluster.nodes[owner], STREAM));
    let taken = times(&upstream.ids());
    assert_eq!(taken.values().filter(|times| **times > 1).count(), 0, "none was delivered twice");
    for (path, ids) in [("app", delivered), ("stream", published)] {
        for id in ids {
            assert_eq!(delivery(path, &id).send_until_taken(gateway.address()).text(), DUPLICATE, "{path} {id}");
        }
    }
}

#[test]
fn a_gateway_starts_before_its_cluster_and_waits_for_it() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start();
    cluster.nodes.iter_mut().for_each(crate::harness::redis::Redis::kill);
    let gateway = Gateway::start(&sections(&upstream, &cluster, ""));
    assert_eq!(gateway.admin("/readyz").status, 503);
    assert!(delivery("app", "one").send(gateway.address()).asks_to_come_again());
    cluster.nodes.iter_mut().for_each(|node| node.run(&[]));
    delivery("app", "one").send_until_taken(gateway.address());
    // It has a connection of its own.
    wait_until("it to be ready", || gateway.admin("/readyz").status == 200);
    assert_eq!(upstream.ids(), ["one"]);
}

/// One source that delivers to the app and one that publishes.
fn sections(upstream: &Upstream, cluster: &Cluster, more: &str) -> String {
    let source = |name: &str, deliver: &str| {
        format!(
            "[sources.{name}]\nprofile = \"github\"\npath = \"/webhooks/{name}\"\nsecrets = [\"plain:{SECRET}\"]\n\
             deliver.{deliver}\n"
        )
    };
    let app = source("e13", &format!("upstream = {{ url = \"{}\" }}", upstream.url()));
    let stream = source("stream", &format!("redis-stream = {{ key = \"{STREAM}\" }}"));
    format!("{app}{stream}[store]\nurl = \"{}\"\ntimeout = \"1s\"\n{more}\n", cluster.url())
}

fn delivery(path: &str, id: &str) -> crate::harness::provider::delivery::Delivery {
    let path = if path == "app" { "/webhooks/e13" } else { "/webhooks/stream" };
    Github::delivery(id, format!("{path} {id}")).to(path)
}

/// Events that come in all the time, to both sources.
struct Traffic {
    enough: Arc<AtomicBool>,
    senders: [JoinHandle<Vec<String>>; 2],
}

impl Traffic {
    fn start(gateway: SocketAddr) -> Self {
        let enough: Arc<AtomicBool> = Arc::default();
        let senders = ["app", "stream"].map(|path| {
            let enough = Arc::clone(&enough);
            std::thread::spawn(move || {
                let ids =
                    (0..).map(|number| format!("{path}-{number}")).take_while(|_| !enough.load(Ordering::Relaxed));
                ids.inspect(|id| drop(delivery(path, id).send_until_taken(gateway))).collect()
            })
        });
        Self { enough, senders }
    }

    /// The ids of the events that were acknowledged.
    #[track_caller]
    fn end(self) -> (Vec<String>, Vec<String>) {
        self.enough.store(true, Ordering::Relaxed);
        let [app, stream] = self.senders.map(|sender| sender.join().expect("all were taken"));
        (app, stream)
    }
}

#[track_caller]
fn assert_published_once(acknowledged: &[String], published: &[String]) {
    let mut published = published.to_vec();
    published.sort();
    let mut acknowledged = acknowledged.to_vec();
    acknowledged.sort();
    assert_eq!(published, acknowledged);
}

fn times(ids: &[String]) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    ids.iter().for_each(|id| *times.entry(id.clone()).or_default() += 1);
    times
}
