//! Events on a Redis stream that are acknowledged only when they are on disk, or on replicas.

use std::net::SocketAddr;

use crate::harness::gateway::Gateway;
use crate::harness::http::connect;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::redis::stream_ids;
use crate::harness::wait_until;

const RECEIVED: &str = r#"{"received":true}"#;
const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;
const ONE_REPLICA: &str = "{ replicas = 1 }";

#[test]
fn an_event_that_no_replica_has_is_not_acknowledged_however_often_it_comes() {
    let redis = Redis::start();
    let replica = Redis::replica_of(&redis);
    let gateways = [0, 1].map(|_| Gateway::start(&sections(&redis, "500ms", ONE_REPLICA)));
    let addresses = gateways.each_ref().map(Gateway::address);
    Github::delivery("before", "0").send_until_taken(addresses[0]);
    replica.signal("STOP");
    let delivery = Github::delivery("one", "1");
    for (gateway, attempts) in [(&gateways[0], 1.0), (&gateways[0], 2.0), (&gateways[1], 1.0)] {
        // In between it is held, since it may be on the stream.
        wait_until("an attempt", || {
            let answer = delivery.send(gateway.address());
            assert!(answer.asks_to_come_again(), "{answer:?}");
            gateway.metric(r#"doorward_refusals_total{reason="store_unavailable",source="github"}"#) >= attempts
        });
        // Another connection, which has written nothing yet, must not believe that all is confirmed.
        redis.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    gateways[0].logged("the cause", |event| {
        event["cause"].as_str().is_some_and(|cause| cause.contains("0 of the 1 replicas"))
    });
    replica.signal("CONT");
    assert_eq!(delivery.send_until_taken(addresses[1]).text(), RECEIVED, "it was on the stream all along");
    assert_eq!(delivery.send_until_taken(addresses[0]).text(), DUPLICATE);
    assert_eq!(stream_ids(&replica, "events"), ["before", "one"]);
}

#[test]
fn without_the_replicas_that_are_asked_for_nothing_is_acknowledged() {
    let redis = Redis::start();
    let gateway = Gateway::start(&sections(&redis, "200ms", ONE_REPLICA));
    let answer = Github::delivery("one", "1").send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    let _replica = Redis::replica_of(&redis);
    Github::delivery("one", "1").send_until_taken(gateway.address());
    assert_eq!(stream_ids(&redis, "events"), ["one"]);
}

#[test]
fn durable_events_that_come_to_two_gateways_over_breaking_connections_are_each_published_once() {
    let redis = Redis::start();
    let _replica = Redis::replica_of(&redis);
    let gateways = [0, 1].map(|_| Gateway::start(&sections(&redis, "5s", ONE_REPLICA)));
    let senders: Vec<_> = gateways
        .iter()
        .flat_map(|gateway| [gateway.address(); 4])
        .map(|address| std::thread::spawn(move || send_all(100, address)))
        .collect();
    while !senders.iter().all(std::thread::JoinHandle::is_finished) {
        redis.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    senders.into_iter().for_each(|sender| sender.join().expect("all were acknowledged"));
    let mut ids = stream_ids(&redis, "events");
    ids.sort();
    let mut expected: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    expected.sort();
    assert_eq!(ids, expected);
}

#[test]
fn durable_writes_are_confirmed_in_groups() {
    let redis = Redis::start();
    let _replica = Redis::replica_of(&redis);
    let gateway = Gateway::start(&sections(&redis, "5s", ONE_REPLICA));
    let address = gateway.address();
    Github::delivery("first", "first").send_until_taken(address);
    let waits = || {
        let stats = redis.info("commandstats");
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_wait:calls=").map(str::to_owned));
        let calls = line.and_then(|line| line.split(',').next().map(str::to_owned)).expect("a count");
        calls.parse::<usize>().expect("a number")
    };
    let before = waits();
    redis.signal("STOP");
    let senders: Vec<_> = (0..20)
        .map(|number| {
            std::thread::spawn(move || Github::delivery(&number.to_string(), number.to_string()).send(address))
        })
        .collect();
    wait_until("all to be there", || gateway.metric("doorward_in_flight_requests") == 20.0);
    redis.signal("CONT");
    senders.into_iter().for_each(|sender| assert_eq!(sender.join().expect("an answer").status, 200));
    // Each worker has a connection and a group under way while the rest gathers.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(waits() - before <= 2 * workers, "{} confirmations for 20 events", waits() - before);
}

#[test]
fn an_event_is_acknowledged_when_it_is_on_the_disk_of_redis() {
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let gateway = Gateway::start(&sections(&redis, "1s", "\"aof\""));
    assert_eq!(Github::delivery("one", "1").send(gateway.address()).text(), RECEIVED);
    assert_eq!(Github::delivery("one", "1").send(gateway.address()).text(), DUPLICATE);
    redis.command::<()>(&["CONFIG", "SET", "appendfsync", "everysec"]);
    let lazy = Github::delivery("two", "2");
    if redis.knows("WAITAOF") {
        lazy.send_until_taken(gateway.address());
    } else {
        let answer = lazy.send(gateway.address());
        assert!(answer.asks_to_come_again(), "{answer:?}");
        gateway.logged("the cause", |event| {
            event["cause"].as_str().is_some_and(|cause| cause.contains("appendfsync always"))
        });
        redis.command::<()>(&["CONFIG", "SET", "appendfsync", "always"]);
        lazy.send_until_taken(gateway.address());
    }
    assert_eq!(stream_ids(&redis, "events"), ["one", "two"]);
}

#[test]
fn an_event_that_redis_does_not_write_to_disk_is_not_acknowledged() {
    let redis = Redis::start();
    let gateway = Gateway::start(&sections(&redis, "1s", "\"aof\""));
    let delivery = Github::delivery("one", "1");
    for _ in 0..2 {
        let answer = delivery.send(gateway.address());
        assert!(answer.asks_to_come_again(), "{answer:?}");
    }
    gateway.logged("the cause", |event| event["cause"].as_str().is_some_and(|cause| cause.contains("appendonly")));
    redis.command::<()>(&["CONFIG", "SET", "appendonly", "yes", "appendfsync", "always"]);
    assert_eq!(delivery.send_until_taken(gateway.address()).text(), RECEIVED);
    assert_eq!(stream_ids(&redis, "events"), ["one"]);
}

#[test]
fn a_user_who_may_not_see_the_settings_is_told_that_nothing_is_known_of_the_disk() {
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let rights = ["+@all", "-@dangerous", "-waitaof"];
    let rights = if redis.knows("WAITAOF") { &rights[..] } else { &rights[..2] };
    redis.command::<()>(&[&["ACL", "SETUSER", "gateway", "on", ">open", "~*"], rights].concat());
    let url = redis.url().replace("redis://", "redis://gateway:open@");
    let gateway = Gateway::start(&sections(&redis, "1s", "\"aof\"").replace(&redis.url(), &url));
    let answer = Github::delivery("one", "1").send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    gateway.logged("the cause", |event| event["cause"].as_str().is_some_and(|cause| cause.contains("permission")));
}

#[test]
fn a_durable_event_is_not_lost_while_redis_takes_no_writes() {
    let redis = Redis::start();
    let _replica = Redis::replica_of(&redis);
    let gateway = Gateway::start(&sections(&redis, "1s", ONE_REPLICA));
    let nowhere = crate::harness::upstream::Upstream::nowhere().port().to_string();
    for (id, bad, good) in [
        ("memory", ["CONFIG", "SET", "maxmemory", "1"].as_slice(), ["CONFIG", "SET", "maxmemory", "0"].as_slice()),
        ("demoted", &["REPLICAOF", "127.0.0.1", &nowhere], &["REPLICAOF", "NO", "ONE"]),
    ] {
        redis.command::<()>(bad);
        let delivery = Github::delivery(id, id);
        let answer = delivery.send(gateway.address());
        assert!(answer.asks_to_come_again(), "{id}: {answer:?}");
        redis.command::<()>(good);
        delivery.send_until_taken(gateway.address());
    }
    assert_eq!(stream_ids(&redis, "events"), ["memory", "demoted"]);
}

/// A GitHub source that publishes to `events`.
fn sections(redis: &Redis, timeout: &str, durability: &str) -> String {
    Github::delivering("redis-stream = { key = \"events\" }")
        + &format!("[store]\nurl = \"{}\"\ntimeout = \"{timeout}\"\ndurability = {durability}\n", redis.url())
}

/// Sends events on one connection, each until it is acknowledged.
fn send_all(count: usize, gateway: SocketAddr) {
    let connection = connect(gateway);
    for number in 0..count {
        let delivery = Github::delivery(&number.to_string(), number.to_string());
        wait_until("the event to be acknowledged", || delivery.send_on(&connection).status == 200);
    }
}
