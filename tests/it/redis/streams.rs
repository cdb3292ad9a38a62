//! Events on a Redis stream: each is there exactly once, and acknowledged when it is.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::harness::gateway::Gateway;
use crate::harness::http::connect;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::wait_until;

const RECEIVED: &str = r#"{"received":true}"#;
const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;

#[test]
fn an_event_is_on_the_stream_with_all_of_it() {
    let redis = Redis::start();
    let gateway = Gateway::start(&sections(&redis, ""));
    let body: Vec<u8> = (0..=255).collect();
    let delivery = Github::delivery("72d3162e", body.clone())
        .to("/webhooks/github?a=%2f&;b")
        .with("X-Note", "caf\u{e9}")
        .with("X-Note", "twice")
        .with("Connection", "X-Hop")
        .with("X-Hop", "1")
        .with("Doorward-Event-Id", "forged");
    let answer = delivery.send(gateway.address());
    assert_eq!((answer.status, answer.text().as_str()), (200, RECEIVED));
    let entries = entries(&redis);
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    let text = |field: &str| String::from_utf8(entry[field].clone()).expect("text");
    let mut fields: Vec<_> = entry.keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["body", "headers", "id", "method", "received_at", "source", "target", "type", "verified"]);
    assert_eq!(entry["body"], body);
    assert_eq!(text("verified"), "true");
    assert_eq!(text("target"), "/webhooks/github?a=%2f&;b");
    assert_eq!([text("source"), text("id"), text("type"), text("method")], ["github", "72d3162e", "push", "POST"]);
    let received_at = text("received_at");
    assert!(received_at.len() == "2026-01-01T00:00:00.000Z".len() && received_at.ends_with('Z'), "{received_at}");
    let mut headers: Vec<(String, String)> = serde_json::from_str(&text("headers")).expect("pairs");
    headers.sort();
    let mut sent: Vec<_> = delivery.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
    sent.retain(|(name, _)| !["connection", "x-hop", "doorward-event-id"].contains(&name.as_str()));
    sent.sort();
    assert_eq!(headers, sent);
}

#[test]
fn a_duplicate_is_acknowledged_and_not_published_again() {
    let redis = Redis::start();
    let gateway = Gateway::start(&sections(&redis, ""));
    assert_eq!(Github::delivery("one", "{}").send(gateway.address()).text(), RECEIVED);
    assert_eq!(Github::delivery("one", "{}").send(gateway.address()).text(), DUPLICATE);
    let by_content = r#"{"received":true,"duplicate":true,"replay_guard":"content"}"#;
    assert_eq!(Github::delivery("two", "{}").send(gateway.address()).text(), by_content, "by its signed body");
    assert_eq!(ids(&redis), ["one"]);
    assert_eq!(gateway.metric(r#"doorward_requests_total{outcome="queued",source="github"}"#), 1.0);
    assert_eq!(gateway.metric(r#"doorward_requests_total{outcome="duplicate",source="github"}"#), 2.0);
    drop(gateway);
    let next = Gateway::start(&sections(&redis, ""));
    assert_eq!(Github::delivery("one", "{}").send(next.address()).text(), DUPLICATE, "after a restart too");
}

#[test]
fn a_published_event_is_answered_with_the_status_that_the_profile_accepts_with() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("profiles")).expect("a folder");
    let github = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers/github.toml"));
    let profile = github.expect("a profile") + "[answers]\naccepted = 202\n";
    std::fs::write(folder.path().join("profiles/github.toml"), profile).expect("written");
    let gateway = Gateway::start_in(folder, &("profiles = \"profiles\"\n".to_owned() + &sections(&redis, "")));
    let first = Github::delivery("one", "{}").send(gateway.address());
    assert_eq!((first.status, first.text().as_str()), (202, RECEIVED));
    let again = Github::delivery("one", "{}").send(gateway.address());
    assert_eq!((again.status, again.text().as_str()), (202, DUPLICATE));
}

#[test]
fn a_stream_keeps_about_as_many_events_as_it_may() {
    let redis = Redis::start();
    let gateway = Gateway::start(&sections(&redis, ", maxlen = 100"));
    let connection = connect(gateway.address());
    for number in 0..500 {
        let answer = Github::delivery(&number.to_string(), number.to_string()).send_on(&connection);
        assert_eq!(answer.status, 200);
    }
    let kept = ids(&redis);
    // Redis trims by whole nodes of its tree, which have 100 entries.
    assert!((100..=250).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().map(String::as_str), Some("499"), "the newest are kept");
}

#[test]
fn an_event_is_refused_while_redis_is_gone_and_published_once_afterwards() {
    let mut redis = Redis::start();
    // Accepting without deduplication is for upstreams: an event that is not on the stream is nowhere.
    let gateway = Gateway::start(&(sections(&redis, "") + "on_outage = \"accept\"\n"));
    redis.kill();
    let delivery = Github::delivery("one", "{}");
    let answer = delivery.send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    redis.run(&[]);
    wait_until("the event to be published", || delivery.send(gateway.address()).text() == RECEIVED);
    assert_eq!(delivery.send(gateway.address()).text(), DUPLICATE);
    assert_eq!(ids(&redis), ["one"]);
}

#[test]
fn events_that_come_to_two_gateways_at_once_are_each_published_once() {
    let redis = Redis::start();
    let gateways = [Gateway::start(&sections(&redis, "")), Gateway::start(&sections(&redis, ""))];
    let senders = gateways.each_ref().map(|gateway| {
        let address = gateway.address();
        std::thread::spawn(move || send_all(1000, address))
    });
    senders.into_iter().for_each(|sender| sender.join().expect("all were acknowledged"));
    assert_all_once(1000, &redis);
}

#[test]
fn an_event_whose_confirmation_was_cut_off_is_published_once() {
    let redis = Redis::start();
    let gateway = Gateway::start(&sections(&redis, ""));
    let address = gateway.address();
    let sender = std::thread::spawn(move || send_all(300, address));
    // The moment at which an event has been appended is the one at which its confirmation is on the way.
    let mut seen = 0;
    while !sender.is_finished() {
        let length: usize = redis.command(&["XLEN", "events"]);
        if length > seen {
            seen = length;
            redis.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
    }
    sender.join().expect("all were acknowledged");
    assert_all_once(300, &redis);
}

#[test]
fn an_event_is_not_lost_when_something_else_stands_at_the_key_of_the_stream() {
    let redis = Redis::start();
    let gateway = Gateway::start(&sections(&redis, ""));
    redis.command::<()>(&["SET", "events", "something else"]);
    let delivery = Github::delivery("one", "{}");
    for _ in 0..2 {
        let answer = delivery.send(gateway.address());
        assert!(answer.asks_to_come_again(), "{answer:?}");
    }
    gateway.logged("the cause", |event| {
        event["reason"] == "store_unavailable"
            && event["cause"].as_str().is_some_and(|cause| cause.contains("WRONGTYPE"))
    });
    assert_eq!(redis.command::<String>(&["GET", "events"]), "something else");
    redis.command::<()>(&["DEL", "events"]);
    assert_eq!(delivery.send(gateway.address()).text(), RECEIVED);
    assert_eq!(ids(&redis), ["one"]);
}

#[test]
fn an_event_is_not_lost_when_redis_has_no_memory_left() {
    let redis = Redis::start();
    let gateway = Gateway::start(&sections(&redis, ""));
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let delivery = Github::delivery("one", "{}");
    let answer = delivery.send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(delivery.send(gateway.address()).text(), RECEIVED);
    assert_eq!(ids(&redis), ["one"]);
}

/// A GitHub source that publishes to `events`, over a store that may be slow for as long as a busy machine needs.
fn sections(redis: &Redis, more: &str) -> String {
    Github::delivering(&format!("redis-stream = {{ key = \"events\"{more} }}"))
        + &format!("[store]\nurl = \"{}\"\ntimeout = \"1s\"\n", redis.url())
}

fn entries(redis: &Redis) -> Vec<HashMap<String, Vec<u8>>> {
    let entries: Vec<(String, HashMap<String, Vec<u8>>)> = redis.command(&["XRANGE", "events", "-", "+"]);
    entries.into_iter().map(|(_, fields)| fields).collect()
}

fn ids(redis: &Redis) -> Vec<String> {
    entries(redis)
        .into_iter()
        .map(|mut entry| String::from_utf8(entry.remove("id").expect("an id")).expect("text"))
        .collect()
}

#[track_caller]
fn assert_all_once(count: usize, redis: &Redis) {
    let mut published = ids(redis);
    published.sort();
    let mut expected: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    expected.sort();
    assert_eq!(published, expected);
}

/// Sends events on one connection, each until it is acknowledged.
fn send_all(count: usize, gateway: SocketAddr) {
    let connection = connect(gateway);
    for number in 0..count {
        let delivery: Delivery = Github::delivery(&number.to_string(), number.to_string());
        wait_until("the event to be acknowledged", || delivery.send_on(&connection).status == 200);
    }
}
