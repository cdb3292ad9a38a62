//! Gateways that end, one way or the other, and what the next one knows.

use std::net::SocketAddr;

use crate::harness::gateway::Gateway;
use crate::harness::http::connect;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;
const SQLITE: &str = "[store]\nurl = \"sqlite:store.db\"\n";

#[test]
fn a_finished_event_stays_finished_over_a_restart_with_sqlite() {
    let upstream = Upstream::start();
    let sections = Github::source(&upstream.url()) + SQLITE;
    let first = Gateway::start(&sections);
    let delivery = Github::delivery("one", "{}");
    assert_eq!(delivery.send(first.address()).status, 200);
    first.signal("TERM");
    let folder = first.wait().folder.expect("its folder");
    let second = Gateway::start_in(folder, &sections);
    assert_eq!(delivery.send(second.address()).text(), DUPLICATE);
    let by_content = r#"{"received":true,"duplicate":true,"replay_guard":"content"}"#;
    assert_eq!(Github::delivery("two", "{}").send(second.address()).text(), by_content, "the guard is kept too");
    assert_eq!(upstream.ids(), ["one"]);
}

#[test]
fn a_finished_event_is_finished_for_every_gateway_on_the_same_redis() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let sections = Github::source(&upstream.url()) + &store(&redis);
    let delivery = Github::delivery("one", "{}");
    let (first, second) = (Gateway::start(&sections), Gateway::start(&sections));
    assert_eq!(delivery.send(first.address()).status, 200);
    drop(first.kill());
    assert_eq!(delivery.send(second.address()).text(), DUPLICATE);
    let third = Gateway::start(&sections);
    assert_eq!(delivery.send(third.address()).text(), DUPLICATE);
    assert_eq!(upstream.ids(), ["one"]);
}

#[test]
fn a_killed_gateway_forgets_no_event_that_it_acknowledged() {
    let upstream = Upstream::start();
    let sections = Github::source(&upstream.url()) + SQLITE;
    let first = Gateway::start(&sections);
    let deliveries: Vec<_> = (0..200).map(|number| Github::delivery(&number.to_string(), number.to_string())).collect();
    let acknowledged: Vec<_> = statuses(&deliveries, first.address());
    assert!(acknowledged.iter().all(|status| *status == 200), "{acknowledged:?}");
    let folder = first.kill().folder.expect("its folder");
    let second = Gateway::start_in(folder, &sections);
    let connection = connect(second.address());
    for delivery in &deliveries {
        assert_eq!(delivery.send_on(&connection).text(), DUPLICATE);
    }
    assert_eq!(upstream.received().len(), 200);
}

#[test]
fn an_event_that_was_being_delivered_by_a_killed_gateway_gets_through_after_its_restart() {
    let upstream = Upstream::with(|number, _| if number == 0 { Reply::Hold } else { Reply::Status(200, "") });
    let sections = in_a_hurry(&upstream) + SQLITE + "lease = \"2s\"\n";
    let first = Gateway::start(&sections);
    let delivery = Github::delivery("one", "{}");
    let _sender = delivery.begin(first.address());
    upstream.wait_for(1);
    let folder = first.kill().folder.expect("its folder");
    let second = Gateway::start_in(folder, &sections);
    wait_until("the event to get through", || delivery.send(second.address()).status == 200);
    assert_eq!(upstream.ids(), ["one", "one"]);
    assert_eq!(delivery.send(second.address()).text(), DUPLICATE);
}

#[test]
fn an_event_that_was_being_delivered_by_a_killed_gateway_gets_through_at_another_one_after_the_lease() {
    let (upstream, redis) =
        (Upstream::with(|number, _| if number == 0 { Reply::Hold } else { Reply::Status(200, "") }), Redis::start());
    let sections = in_a_hurry(&upstream) + &store(&redis) + "lease = \"2s\"\n";
    let (first, second) = (Gateway::start(&sections), Gateway::start(&sections));
    let delivery = Github::delivery("one", "{}");
    let _sender = delivery.begin(first.address());
    upstream.wait_for(1);
    drop(first.kill());
    let soon = delivery.send(second.address());
    assert!(soon.asks_to_come_again(), "{soon:?}");
    wait_until("the lease to end", || delivery.send(second.address()).status == 200);
    assert_eq!(upstream.ids(), ["one", "one"]);
}

#[test]
fn an_event_in_flight_at_another_gateway_is_not_acknowledged() {
    let (upstream, redis) = (Upstream::with(|_, _| Reply::Hold), Redis::start());
    let sections = Github::source(&upstream.url()) + &store(&redis);
    let (first, second) = (Gateway::start(&sections), Gateway::start(&sections));
    let delivery = Github::delivery("one", "{}");
    let _sender = delivery.begin(first.address());
    upstream.wait_for(1);
    let elsewhere = delivery.send(second.address());
    assert!(elsewhere.asks_to_come_again(), "{elsewhere:?}");
    assert_eq!(second.metric(r#"doorward_refusals_total{reason="in_flight",source="github"}"#), 1.0);
    upstream.release();
    wait_until("the first gateway to finish", || delivery.send(second.address()).text() == DUPLICATE);
    assert_eq!(upstream.ids(), ["one"]);
}

#[test]
fn a_second_gateway_on_the_same_file_does_not_start() {
    let upstream = Upstream::start();
    let sections = Github::source(&upstream.url()) + SQLITE;
    let folder = tempfile::tempdir().expect("a folder");
    let first = Gateway::spawn(folder.path(), &sections, &[]);
    let config = folder.path().join("doorward.toml");
    let output = crate::harness::gateway::doorward()
        .arg("serve")
        .arg("--config")
        .arg(config)
        .current_dir(folder.path())
        .output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("in use by another process"), "{said}");
    assert_eq!(Github::delivery("one", "{}").send(first.address()).status, 200, "the first one is not disturbed");
}

/// Sends deliveries over some connections at the same time.
fn statuses(deliveries: &[Delivery], gateway: SocketAddr) -> Vec<u16> {
    std::thread::scope(|scope| {
        let senders: Vec<_> = deliveries
            .chunks(deliveries.len().div_ceil(8))
            .map(|share| {
                scope.spawn(move || {
                    let connection = connect(gateway);
                    share.iter().map(|delivery| delivery.send_on(&connection).status).collect::<Vec<_>>()
                })
            })
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("answers")).collect()
    })
}

/// A source whose deliveries are over before a short lease is.
fn in_a_hurry(upstream: &Upstream) -> String {
    Github::delivering(&format!("upstream = {{ url = \"{}\", timeout = \"1s\" }}", upstream.url()))
}

/// Patient enough for a machine that is busy.
fn store(redis: &Redis) -> String {
    format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url())
}
