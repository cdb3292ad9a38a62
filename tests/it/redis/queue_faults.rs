//! Queues in Redis while Redis, or a gateway, is not there, sleeps or forgets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::harness::free_port;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::log::is_failed_attempt;
use crate::harness::gateway::log::is_unrecorded;
use crate::harness::gateway::queue::queued_events;
use crate::harness::gateway::queue::queued_in_redis;
use crate::harness::gateway::queue::queued_in_redis_with;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::redis::cluster::Cluster;
use crate::harness::redis::sentinel::SentinelGroup;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;
use crate::redis::queue::send;
use crate::redis::queue::sorted;

const AOF: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
/// Nobody takes over while a test waits.
const LONG_LEASE: &str = "lease = \"5m\"";

/// Deliveries that stand in this sorted set.
fn stored(redis: &Redis, set: &str) -> usize {
    redis.try_command(&["ZCARD", &format!("doorward:{{github}}:d:default:{set}")]).unwrap_or_default()
}

/// Deliveries that are made.
fn delivered(redis: &Redis) -> usize {
    let records = redis.try_command::<Vec<String>>(&["HVALS", "doorward:{github}:d:default:records"]);
    records.unwrap_or_default().iter().filter(|record| record.starts_with('V')).count()
}

#[test]
fn a_gateway_that_sleeps_longer_than_its_lease_neither_loses_nor_undoes_anything() {
    let redis = Redis::start();
    // What the sleeper has in hand is refused when it is awake again.
    let upstream = Upstream::with(|number, _| if number < 4 { Reply::HoldThen(500) } else { Reply::Status(200, "") });
    let sections = queued_in_redis(&upstream.url(), ", concurrency = 4", &redis.url());
    let sleeper = Gateway::start(&sections);
    send(&sleeper, 0..10);
    upstream.wait_for(4);
    sleeper.signal("STOP");
    let other = Gateway::start(&sections);
    wait_until("the other one to deliver all", || delivered(&redis) == 10);
    upstream.release();
    sleeper.signal("CONT");
    sleeper.logged("the attempts to end", is_failed_attempt);
    send(&sleeper, 10..12);
    wait_until("the rest to be delivered", || delivered(&redis) == 12);
    assert_eq!((stored(&redis, "due"), stored(&redis, "dead")), (0, 0), "nothing is tried again");
    let ids = sorted(&upstream);
    assert_eq!(ids.len(), 16, "only what was in hand was tried twice: {ids:?}");
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), (0..12).collect());
    wait_until("nothing to be left", || queued_events(&other, "queued") + queued_events(&other, "retrying") == 0.0);
}

#[test]
fn what_was_delivered_while_redis_was_down_is_recorded_when_it_is_back() {
    let mut redis = Redis::with(&AOF);
    let (upstream, gateway) = with_four_under_way(&redis);
    redis.kill();
    let answer = Github::delivery("10", "10").send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    assert_eq!(gateway.admin("/readyz").status, 200);
    upstream.release();
    gateway.logged("the trouble", is_unrecorded);
    redis.run(&[]);
    Github::delivery("10", "10").send_until_taken(gateway.address());
    wait_until("all to be delivered", || delivered(&redis) == 11);
    assert_eq!(sorted(&upstream), (0..11).collect::<Vec<_>>());
}

#[test]
fn what_was_acknowledged_with_aof_survives_the_death_of_redis() {
    let mut redis = Redis::with(&AOF);
    let is_up = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&is_up);
    let status = move || if answers.load(Ordering::Relaxed) { 200 } else { 500 };
    let upstream = Upstream::with(move |_, _| Reply::Status(status(), ""));
    // What was claimed by a take whose answer died with Redis comes back at the end of its lease.
    let durable = "durability = \"aof\"\ntimeout = \"1s\"\nlease = \"7s\"";
    // A machine that is busy takes a while to start Redis again: pauses do not grow with that.
    let often = ", timeout = \"1s\", backoff = \"100ms\", max_backoff = \"100ms\", max_attempts = 10000";
    let gateway = Gateway::start(&queued_in_redis_with(&upstream.url(), often, &redis.url(), durable));
    send(&gateway, 0..5);
    redis.kill();
    redis.run(&[]);
    is_up.store(true, Ordering::Relaxed);
    wait_until("all to be delivered", || delivered(&redis) == 5);
    assert_eq!(sorted(&upstream).into_iter().collect::<BTreeSet<_>>(), (0..5).collect());
}

#[test]
fn a_redis_that_is_back_without_its_data_is_used_again() {
    let (mut redis, upstream) = (Redis::start(), Upstream::start());
    let gateway = Gateway::start(&queued_in_redis(&upstream.url(), "", &redis.url()));
    send(&gateway, 0..3);
    upstream.wait_for(3);
    redis.kill();
    redis.run(&[]);
    Github::delivery("3", "3").send_until_taken(gateway.address());
    upstream.wait_for(4);
    wait_until("it to be recorded", || delivered(&redis) == 1);
    assert_eq!(sorted(&upstream), [0, 1, 2, 3]);
}

#[test]
fn what_a_sleeping_redis_hands_out_to_nobody_is_not_left_to_the_lease() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let gateways = [0, 1].map(|_| Gateway::start(&queued_in_redis_with(&upstream.url(), "", &redis.url(), LONG_LEASE)));
    send(&gateways[0], 0..5);
    upstream.wait_for(5);
    redis.signal("STOP");
    // Takes and settlements of these time out, and are all done when Redis is awake.
    for gateway in &gateways {
        let answer = Github::delivery("5", "5").send(gateway.address());
        assert!(answer.asks_to_come_again(), "{answer:?}");
    }
    redis.signal("CONT");
    for id in 5..25 {
        Github::delivery(&id.to_string(), id.to_string()).send_until_taken(gateways[id % 2].address());
    }
    wait_until("all to be delivered", || delivered(&redis) == 25);
    let ids = sorted(&upstream);
    assert_eq!(ids, (0..25).collect::<Vec<_>>());
}

/// A gateway with ten events, of which the upstream holds the first four.
fn with_four_under_way(redis: &Redis) -> (Upstream, Gateway) {
    let upstream = Upstream::with(|number, _| if number < 4 { Reply::Hold } else { Reply::Status(200, "") });
    let gateway = Gateway::start(&queued_in_redis_with(
        &upstream.url(),
        ", concurrency = 4, timeout = \"30s\"",
        &redis.url(),
        LONG_LEASE,
    ));
    send(&gateway, 0..10);
    upstream.wait_for(4);
    (upstream, gateway)
}

#[test]
fn a_redis_that_takes_no_writes_for_a_while_costs_nothing() {
    let redis = Redis::start();
    let (upstream, gateway) = with_four_under_way(&redis);
    redis.command::<()>(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    let answer = Github::delivery("10", "10").send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    upstream.release();
    gateway.logged("the trouble", is_unrecorded);
    redis.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    wait_until("all to be delivered", || delivered(&redis) == 10);
    assert_eq!(sorted(&upstream), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_redis_that_is_busy_with_a_script_for_a_while_costs_nothing() {
    let redis = Redis::start();
    let (upstream, gateway) = with_four_under_way(&redis);
    let busy = redis.block();
    let answer = Github::delivery("10", "10").send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    upstream.release();
    gateway.logged("the trouble", is_unrecorded);
    busy.end();
    Github::delivery("10", "10").send_until_taken(gateway.address());
    wait_until("all to be delivered", || delivered(&redis) == 11);
    assert_eq!(sorted(&upstream), (0..11).collect::<Vec<_>>());
}

#[test]
fn a_redis_that_is_out_of_memory_takes_no_events_and_still_lets_those_go_that_it_has() {
    let redis = Redis::start();
    let (upstream, gateway) = with_four_under_way(&redis);
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let answer = Github::delivery("10", "10").send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    upstream.release();
    wait_until("all to be delivered", || delivered(&redis) == 10);
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    Github::delivery("10", "10").send_until_taken(gateway.address());
    upstream.wait_for(11);
    assert_eq!(sorted(&upstream), (0..11).collect::<Vec<_>>());
}

#[test]
fn an_idle_gateway_asks_redis_less_than_once_a_second_for_each_queue() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let others = ["b", "c", "d"].map(|name| {
        let source = Github::delivering(&format!("queue = {{ url = \"{}\", timeout = \"1s\" }}", upstream.url()));
        source.replace("sources.github", &format!("sources.{name}")).replace("/github", &format!("/{name}"))
    });
    let sections = others.concat() + &queued_in_redis(&upstream.url(), "", &redis.url());
    let gateway = Gateway::start(&sections);
    send(&gateway, 0..3);
    upstream.wait_for(3);
    wait_until("it to be counted", || delivered(&redis) == 3);
    let calls = || {
        let stats = redis.info("commandstats");
        let scripts = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        let calls = scripts.and_then(|line| line.split(',').next()).expect("scripts were run");
        calls.parse::<u32>().expect("a number")
    };
    // Queues that were in use are all looked at once more.
    let in_use = calls();
    wait_until("those looks", || calls() >= in_use + 4);
    let (before, begun) = (calls(), Instant::now());
    wait_until("some looks", || begun.elapsed() > Duration::from_millis(6500));
    let made = calls() - before;
    assert!((4..=4 * 6).contains(&made), "{made} calls in 6.5 s for four queues");
}

/// Events that come in all the time, to several gateways.
struct Traffic {
    enough: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Vec<u32>>>,
}

impl Traffic {
    fn start(gateways: &[SocketAddr]) -> Self {
        let enough: Arc<AtomicBool> = Arc::default();
        let senders = gateways.iter().zip(1_u32..).map(|(&gateway, sender)| {
            let enough = Arc::clone(&enough);
            std::thread::spawn(move || {
                let ids = (sender * 1_000_000..).take_while(|_| !enough.load(Ordering::Relaxed));
                let taken = ids.inspect(|id| {
                    drop(Github::delivery(&id.to_string(), id.to_string()).send_until_taken(gateway));
                });
                taken.collect()
            })
        });
        Self { senders: senders.collect(), enough }
    }

    /// The ids of the events that were acknowledged.
    fn end(self) -> Vec<u32> {
        self.enough.store(true, Ordering::Relaxed);
        self.senders.into_iter().flat_map(|sender| sender.join().expect("all were taken")).collect()
    }
}

/// Every event that was acknowledged has come.
#[track_caller]
fn assert_all_come(upstream: &Upstream, acknowledged: &[u32]) {
    wait_until("all that was acknowledged", || {
        let came: BTreeSet<_> = sorted(upstream).into_iter().collect();
        acknowledged.iter().all(|id| came.contains(id))
    });
}

#[test]
fn a_gateway_that_is_killed_again_and_again_leaves_nothing_undone() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let sections = queued_in_redis(&upstream.url(), ", concurrency = 4", &redis.url());
    let lasting = Gateway::start(&sections);
    let traffic = Traffic::start(&[lasting.address(), lasting.address()]);
    for round in 0..8 {
        let mortal = Gateway::start(&sections);
        let before = upstream.received().len();
        upstream.wait_for(before + 1 + 13 * round % 30);
        drop(mortal.kill());
    }
    let acknowledged = traffic.end();
    assert_all_come(&upstream, &acknowledged);
    wait_until("nothing to be left", || queued_events(&lasting, "queued") + queued_events(&lasting, "retrying") == 0.0);
}

/// Two gateways that acknowledge what a replica has too.
fn two_gateways(upstream: &Upstream, redis: &str) -> [Gateway; 2] {
    let store = "lease = \"6s\"\ntimeout = \"1s\"\ndurability = { replicas = 1 }";
    [0, 1].map(|_| Gateway::start(&queued_in_redis_with(&upstream.url(), ", timeout = \"1s\"", redis, store)))
}

#[track_caller]
fn assert_goes_on_and_loses_nothing(traffic: Traffic, upstream: &Upstream, gateway: &Gateway) {
    let before = upstream.received().len();
    upstream.wait_for(before + 50);
    let acknowledged = traffic.end();
    assert_all_come(upstream, &acknowledged);
    wait_until("nothing to be left", || queued_events(gateway, "queued") + queued_events(gateway, "retrying") == 0.0);
}

#[test]
fn what_was_acknowledged_survives_a_failover_under_load() {
    let (mut watched, upstream) = (SentinelGroup::start(), Upstream::start());
    let gateways = two_gateways(&upstream, &watched.url());
    let first = watched.master();
    let traffic = Traffic::start(&gateways.each_ref().map(Gateway::address));
    upstream.wait_for(50);
    watched.servers[0].kill();
    wait_until("another master", || watched.master() != first);
    watched.servers[0].run(&[]);
    assert_goes_on_and_loses_nothing(traffic, &upstream, &gateways[0]);
}

#[test]
fn what_was_acknowledged_survives_the_death_of_a_master_in_a_cluster() {
    let (mut cluster, upstream) = (Cluster::start(), Upstream::start());
    let gateways = two_gateways(&upstream, &cluster.url());
    let traffic = Traffic::start(&gateways.each_ref().map(Gateway::address));
    upstream.wait_for(50);
    let dead = cluster.owner("doorward:{github}:events");
    cluster.nodes[dead].kill();
    assert_ne!(cluster.owner("doorward:{github}:events"), dead);
    cluster.nodes[dead].run(&[]);
    assert_goes_on_and_loses_nothing(traffic, &upstream, &gateways[0]);
}

#[test]
fn a_queue_that_moves_to_another_node_of_the_cluster_loses_nothing_and_repeats_nothing() {
    // A name whose keys are among the first of all, so that moving a few slots moves them.
    const KEY: &str = "doorward:{raw}:events";
    let (cluster, upstream) = (Cluster::start(), Upstream::start());
    let sections = queued_in_redis_with(&upstream.url(), ", timeout = \"1s\"", &cluster.url(), "lease = \"6s\"");
    let gateways = [0, 1].map(|_| Gateway::start(&sections.replace("sources.github", "sources.raw")));
    let traffic = Traffic::start(&gateways.each_ref().map(Gateway::address));
    let mut owner = cluster.owner(KEY);
    for _ in 0..2 {
        let before = upstream.received().len();
        upstream.wait_for(before + 50);
        let other = cluster.other(owner);
        cluster.reshard(owner, other, 16);
        wait_until("the keys to be there", || cluster.owner(KEY) == other);
        owner = other;
    }
    let before = upstream.received().len();
    upstream.wait_for(before + 50);
    let acknowledged = traffic.end();
    assert_all_come(&upstream, &acknowledged);
    let ids = sorted(&upstream);
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "none was delivered twice");
}
