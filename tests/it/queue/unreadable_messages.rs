//! Queued messages that cannot be read: each is a dead letter, and those behind it are delivered.

use crate::harness::gateway::Gateway;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_events;
use crate::harness::gateway::queue::queued_in_redis;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

/// More headers than a map of them can hold.
fn headers() -> String {
    format!("[{}]", vec![r#"["x-a","1"]"#; 33_000].join(","))
}

#[track_caller]
fn assert_goes_on(gateway: &Gateway, upstream: &Upstream, dead: f64) {
    wait_until("what cannot be read to be given up", || queued_events(gateway, "dead") == dead);
    let before = upstream.ids().len();
    assert_eq!(Github::delivery("last", "last").send(gateway.address()).text(), QUEUED);
    upstream.wait_for(before + 1);
    assert_eq!(upstream.ids().last().map(String::as_str), Some("last"));
}

#[test]
fn rows_that_cannot_be_read_are_dead_letters_and_the_others_are_delivered() {
    let wrong: [(&str, &dyn rusqlite::ToSql); 8] = [
        ("headers", &headers()),
        ("headers", &"[[\"a\"]]"),
        ("target", &b"\xff".to_vec()),
        ("trace", &7),
        ("verified", &"no"),
        ("method", &"P T"),
        ("source", &"a\nb"),
        ("event_id", &"\u{20ac}"),
    ];
    let gateway = Gateway::start(&crate::harness::gateway::queue::queued_in_sqlite("http://127.0.0.1:1/app", ""));
    for number in 0..=wrong.len() {
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).text(), QUEUED);
    }
    let folder = gateway.kill().folder.expect("its folder");
    let file = rusqlite::Connection::open(folder.path().join("store.db")).expect("a file");
    for (at, (column, value)) in wrong.iter().enumerate() {
        let change = format!("UPDATE messages SET {column} = ?2 WHERE event_id = ?1");
        let changed = file.execute(&change, rusqlite::params![at.to_string(), value]).expect("changed");
        assert_eq!(changed, 1, "{column}");
    }
    drop(file);
    let upstream = Upstream::start();
    let gateway = Gateway::start_in(folder, &crate::harness::gateway::queue::queued_in_sqlite(&upstream.url(), ""));
    assert_goes_on(&gateway, &upstream, 8.0);
    assert_eq!(upstream.ids(), ["8", "last"]);
}

#[test]
fn entries_that_cannot_be_read_are_dead_letters_and_the_others_are_delivered() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let gateway = Gateway::start(&queued_in_redis(&upstream.url(), "", &redis.url()));
    assert_eq!(Github::delivery("first", "first").send(gateway.address()).text(), QUEUED);
    upstream.wait_for(1);
    let request = r#"{"method":"POST","target":"/","trace":null,"verified":true,"headers":[]}"#;
    let right = [
        ("to", "default"),
        ("weight", "300"),
        ("id", "1"),
        ("received_at", "1767323045678"),
        ("request", request),
        ("body", "{}"),
    ];
    let of_request =
        [("POST", "P T"), ("true", "no"), ("true", "1"), ("null", r#""\n""#), ("[]", &headers()), ("[]", "[[\"a\"]]")];
    let of_request = of_request.map(|(part, changed)| request.replace(part, changed));
    let wrong = [("id", "\n"), ("received_at", "soon")].into_iter();
    let wrong: Vec<_> = wrong.chain(of_request.iter().map(|changed| ("request", changed.as_str()))).collect();
    let add = |changed: Option<(&str, &str)>| {
        let fields = right.iter().flat_map(|(name, value)| {
            let value = changed.filter(|(changed, _)| changed == name).map_or(*value, |(_, value)| value);
            [*name, value]
        });
        let words: Vec<_> = ["XADD", "doorward:{github}:events", "*"].into_iter().chain(fields).collect();
        let id: String = redis.command(&words);
        let millis = id.split('-').next().expect("a millisecond");
        redis.command::<()>(&["ZADD", "doorward:{github}:d:default:open", millis, &id]);
        redis.command::<()>(&["RPUSH", "doorward:{github}:d:default:ready", &id]);
    };
    wrong.iter().for_each(|wrong| add(Some(*wrong)));
    add(None);
    assert_goes_on(&gateway, &upstream, 8.0);
    assert_eq!(upstream.ids(), ["first", "1", "last"]);
}
