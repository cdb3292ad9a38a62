//! Sentinels that make a replica the master while events come in.

use crate::harness::gateway::Gateway;
use crate::harness::provider::github::Github;
use crate::harness::redis::sentinel::SentinelGroup;
use crate::harness::redis::stream_ids;
use crate::harness::wait_until;

const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;

#[test]
fn the_gateway_follows_the_sentinels_to_the_new_master_and_back() {
    let mut watched = SentinelGroup::start();
    let gateway = Gateway::start(&sections(&watched, "{ replicas = 1 }"));
    let first = watched.servers[0].port();
    Github::delivery("before", "0").send_until_taken(gateway.address());
    watched.servers[0].kill();
    wait_until("another master", || watched.master() != first);
    let during = Github::delivery("during", "1").send(gateway.address());
    assert!(during.asks_to_come_again(), "there is no replica: {during:?}");
    watched.servers[0].run(&[]);
    Github::delivery("during", "1").send_until_taken(gateway.address());
    wait_until("the old one to follow", || watched.servers[0].follows());
    assert_eq!(stream_ids(&watched.servers[0], "events"), ["before", "during"]);
    for (id, body) in [("before", "0"), ("during", "1")] {
        assert_eq!(Github::delivery(id, body).send_until_taken(gateway.address()).text(), DUPLICATE, "{id}");
    }
}

#[test]
fn a_master_that_slept_through_its_replacement_is_not_used_any_more() {
    let watched = SentinelGroup::start();
    let gateway = Gateway::start(&sections(&watched, "\"none\""));
    let [old, new] = &watched.servers;
    Github::delivery("before", "0").send_until_taken(gateway.address());
    wait_until("the replica to have it", || stream_ids(new, "events") == ["before"]);
    old.signal("STOP");
    Github::delivery("during", "1").send_until_taken(gateway.address());
    assert_eq!(watched.master(), new.port());
    old.signal("CONT");
    wait_until("the old one to follow", || old.follows());
    Github::delivery("after", "2").send_until_taken(gateway.address());
    assert_eq!(stream_ids(new, "events"), ["before", "during", "after"]);
}

fn sections(watched: &SentinelGroup, durability: &str) -> String {
    Github::delivering("redis-stream = { key = \"events\" }")
        + &format!("[store]\nurl = \"{}\"\ntimeout = \"1s\"\ndurability = {durability}\n", watched.url())
}
