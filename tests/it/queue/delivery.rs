//! Events that are acknowledged when the store has them, and delivered afterwards.

use std::time::Duration;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::log::is_dead_letter;
use crate::harness::gateway::log::is_failed_attempt;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_events;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

/// Where the events are.
enum Location {
    File,
    Redis(Redis),
}

impl Location {
    /// A GitHub source with a queue, whose table has these keys besides `url`.
    fn queued(&self, upstream: &str, more: &str) -> String {
        match self {
            Self::File => queued_in_sqlite(upstream, more),
            Self::Redis(redis) => crate::harness::gateway::queue::queued_in_redis(upstream, more, &redis.url()),
        }
    }
}

/// What every store with queues promises.
macro_rules! on_every_store {
    ($($name:ident)*) => {
        mod in_a_file {
            $(#[test]
            fn $name() {
                super::$name(&super::Location::File);
            })*
        }
        mod in_redis {
            $(#[test]
            fn $name() {
                super::$name(&super::Location::Redis(crate::harness::redis::Redis::start()));
            })*
        }
    };
}

on_every_store! {
    an_event_is_acknowledged_while_the_upstream_is_down_and_delivered_when_it_is_up
    many_events_are_each_delivered_once
    what_was_acknowledged_survives_a_kill
    an_event_that_the_upstream_refuses_for_good_is_given_up_and_others_go_on
    an_event_is_given_up_after_its_attempts
    events_of_one_order_stay_in_order_and_do_not_block_others
    a_stop_lets_attempts_end_and_keeps_the_rest
}

fn an_event_is_acknowledged_while_the_upstream_is_down_and_delivered_when_it_is_up(place: &Location) {
    let nowhere = Upstream::nowhere();
    let gateway = Gateway::start(&place.queued(&format!("http://{nowhere}/app"), ""));
    let delivery = Github::delivery("one", r#"{"a": 1}"#);
    assert_eq!(delivery.send(gateway.address()).text(), QUEUED);
    assert_eq!(delivery.send(gateway.address()).text(), DUPLICATE);
    gateway.logged("a failed attempt", is_failed_attempt);
    let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
    upstream.wait_for(1);
    let received = upstream.received();
    assert_eq!(received[0].body, br#"{"a": 1}"#);
    assert_eq!(received[0].header("doorward-event-id"), Some("one"));
    assert_eq!(received[0].header("doorward-event-type"), Some("push"));
    assert_ne!(received[0].header("doorward-attempt"), Some("1"));
    wait_until("the delivery to be counted", || {
        gateway.metric(r#"doorward_deliveries_total{destination="default",outcome="delivered",source="github"}"#) >= 1.0
    });
    assert_eq!(gateway.metric(r#"doorward_requests_total{outcome="queued",source="github"}"#), 1.0);
    wait_until("the queue to be empty", || queued_events(&gateway, "retrying") == 0.0);
    assert_eq!(delivery.send(gateway.address()).text(), DUPLICATE);
    assert_eq!(upstream.ids(), ["one"]);
}

fn many_events_are_each_delivered_once(place: &Location) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&place.queued(&upstream.url(), ", concurrency = 8"));
    for number in 0..200 {
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).text(), QUEUED);
    }
    upstream.wait_for(200);
    wait_until("the queue to be empty", || queued_events(&gateway, "queued") == 0.0);
    let mut ids = upstream.ids();
    ids.sort_by_key(|id| id.parse::<u32>().expect("a number"));
    assert_eq!(ids, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
}

fn what_was_acknowledged_survives_a_kill(place: &Location) {
    let nowhere = Upstream::nowhere();
    let sections = place.queued(&format!("http://{nowhere}/app"), "");
    let gateway = Gateway::start(&sections);
    for number in 0..20 {
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).text(), QUEUED);
    }
    let folder = gateway.kill().folder.expect("its folder");
    let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
    let gateway = Gateway::start_in(folder, &sections);
    assert_eq!(Github::delivery("7", "7").send(gateway.address()).text(), DUPLICATE);
    upstream.wait_for(20);
    let mut ids = upstream.ids();
    ids.sort_by_key(|id| id.parse::<u32>().expect("a number"));
    assert_eq!(ids, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

fn an_event_that_the_upstream_refuses_for_good_is_given_up_and_others_go_on(place: &Location) {
    let upstream = Upstream::with(|_, message| match message.header("doorward-event-id") {
        Some("bad") => Reply::Status(422, "no such order"),
        // Whoever sends long queries and headers along does not have the upstream taken for one that fails.
        Some("long-query") => Reply::Status(414, ""),
        Some("long-headers") => Reply::Status(431, ""),
        _ => Reply::Status(200, ""),
    });
    let gateway = Gateway::start(&place.queued(&upstream.url(), ""));
    for id in ["bad", "good", "long-query", "long-headers"] {
        assert_eq!(Github::delivery(id, id).send(gateway.address()).text(), QUEUED);
    }
    upstream.wait_for(4);
    for (id, status) in [("bad", 422), ("long-query", 414), ("long-headers", 431)] {
        let given_up = gateway.logged("the dead letter", |event| is_dead_letter(event) && event["event_id"] == id);
        assert_eq!(given_up["status"], status);
    }
    wait_until("the dead letters to be counted", || queued_events(&gateway, "dead") == 3.0);
}

fn an_event_is_given_up_after_its_attempts(place: &Location) {
    let upstream = Upstream::with(|_, _| Reply::Status(500, ""));
    let gateway = Gateway::start(&place.queued(&upstream.url(), r#", max_attempts = 3, backoff = "1ms""#));
    assert_eq!(Github::delivery("one", "1").send(gateway.address()).text(), QUEUED);
    gateway.logged("the dead letter", is_dead_letter);
    let attempts: Vec<_> =
        upstream.received().iter().map(|it| it.header("doorward-attempt").map(str::to_owned)).collect();
    assert_eq!(attempts, ["1", "2", "3"].map(|attempt| Some(attempt.to_owned())));
    let times: Vec<_> =
        upstream.received().iter().map(|it| it.header("doorward-received-at").map(str::to_owned)).collect();
    assert!(times.iter().all(|time| *time == times[0] && time.is_some()), "{times:?}");
}

fn events_of_one_order_stay_in_order_and_do_not_block_others(place: &Location) {
    // The first event of order 1 fails twice before it is taken.
    let upstream = Upstream::with(|_, message| {
        let first_attempts = ["1", "2"].map(Some).contains(&message.header("doorward-attempt"));
        match message.header("doorward-event-id") {
            Some("a1") if first_attempts => Reply::Status(500, ""),
            _ => Reply::Status(200, ""),
        }
    });
    let order = r#", backoff = "50ms", order_by = { json = "/order" }"#;
    let gateway = Gateway::start(&place.queued(&upstream.url(), order));
    for (id, order) in [("a1", 1), ("a2", 1), ("b1", 2), ("a3", 1), ("b2", 2)] {
        let body = format!(r#"{{"order": "{order}", "id": "{id}"}}"#);
        assert_eq!(Github::delivery(id, body).send(gateway.address()).text(), QUEUED);
    }
    upstream.wait_for(7);
    let ids = upstream.ids();
    let of = |letter: &str| ids.iter().filter(|id| id.starts_with(letter)).cloned().collect::<Vec<_>>();
    assert_eq!(of("a"), ["a1", "a1", "a1", "a2", "a3"]);
    assert_eq!(of("b"), ["b1", "b2"]);
}

fn a_stop_lets_attempts_end_and_keeps_the_rest(place: &Location) {
    let upstream = Upstream::with(|_, _| Reply::After(Duration::from_millis(300), 200));
    let sections = place.queued(&upstream.url(), ", concurrency = 1");
    let gateway = Gateway::start(&sections);
    for number in 0..4 {
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).text(), QUEUED);
    }
    upstream.wait_for(1);
    gateway.signal("TERM");
    let exit = gateway.wait();
    assert_eq!(exit.status.code(), Some(0));
    let before = upstream.ids().len();
    assert!(before < 4, "{before}");
    if let Location::Redis(redis) = place {
        let claims: usize = redis.command(&["ZCARD", "doorward:{github}:d:default:due"]);
        assert_eq!(claims, 0, "nothing is in hand any more");
    }
    let _gateway = Gateway::start_in(exit.folder.expect("its folder"), &sections);
    upstream.wait_for(4);
    let mut ids = upstream.ids();
    ids.sort();
    assert_eq!(ids, ["0", "1", "2", "3"]);
}
