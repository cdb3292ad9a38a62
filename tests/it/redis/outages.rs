//! A Redis store that goes away, hangs, takes no writes, or comes back.

use crate::harness::gateway::Gateway;
use crate::harness::gateway::log::is_redis_found;
use crate::harness::gateway::log::is_redis_lost;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;
const DELIVERED: &str = r#"{"ok":true}"#;

#[test]
fn while_redis_is_gone_senders_are_told_to_come_again_and_nothing_is_delivered() {
    let (upstream, mut redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    redis.kill();
    for number in 0..2 {
        let answer = Github::delivery(&number.to_string(), number.to_string()).send(gateway.address());
        assert!(answer.asks_to_come_again(), "{answer:?}");
    }
    assert!(upstream.received().is_empty());
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="store_unavailable",source="github"}"#), 2.0);
}

#[test]
fn a_redis_that_comes_back_is_used_without_a_restart() {
    let (upstream, mut redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    redis.kill();
    let delivery = Github::delivery("one", "{}");
    assert!(delivery.send(gateway.address()).asks_to_come_again());
    redis.run(&[]);
    wait_until("Redis to be used again", || delivery.send(gateway.address()).text() == DELIVERED);
    assert_eq!(delivery.send(gateway.address()).text(), DUPLICATE);
    assert_eq!(upstream.ids(), ["one"]);
    gateway.logged("the outage", is_redis_lost);
    gateway.logged("the end of the outage", is_redis_found);
}

#[test]
fn while_redis_is_gone_events_may_be_delivered_without_deduplication_and_marked() {
    let (upstream, mut redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&(on(&upstream, &redis.url()) + "on_outage = \"accept\"\n"));
    assert_eq!(Github::delivery("before", "0").send(gateway.address()).text(), DELIVERED);
    redis.kill();
    assert_eq!(Github::delivery("during", "1").send(gateway.address()).text(), DELIVERED);
    redis.run(&[]);
    let after = Github::delivery("after", "2");
    wait_until("deduplication to come back", || after.send(gateway.address()).text() == DUPLICATE);
    let marks: Vec<_> = upstream.received().iter().map(|it| it.header("doorward-deduplicated").is_some()).collect();
    assert_eq!(upstream.received()[1].header("doorward-deduplicated"), Some("false"));
    assert!(!marks[0], "what is deduplicated is not marked");
}

#[test]
fn events_that_are_delivered_without_deduplication_are_counted() {
    let (upstream, mut redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&(on(&upstream, &redis.url()) + "on_outage = \"accept\"\n"));
    assert_eq!(Github::delivery("before", "0").send(gateway.address()).text(), DELIVERED);
    redis.kill();
    assert_eq!(Github::delivery("during", "1").send(gateway.address()).text(), DELIVERED);
    assert_eq!(gateway.metric(r#"doorward_requests_total{outcome="delivered",source="github"}"#), 2.0);
    assert_eq!(gateway.metric(r#"doorward_undeduplicated_total{source="github"}"#), 1.0);
}

#[test]
fn a_redis_that_hangs_delays_nobody_for_long() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    let delivery = Github::delivery("one", "{}");
    redis.signal("STOP");
    for _ in 0..2 {
        // The harness gives up long before a hanging store would answer.
        let answer = delivery.send(gateway.address());
        assert!(answer.asks_to_come_again(), "{answer:?}");
    }
    assert!(upstream.received().is_empty());
    redis.signal("CONT");
    // Redis now executes the claims that it was sent while it hung; they must not block the event for their lease.
    wait_until("the event to get through", || delivery.send(gateway.address()).status == 200);
    assert_eq!(upstream.ids(), ["one"]);
}

#[test]
fn a_delivered_event_is_acknowledged_even_if_redis_died_meanwhile() {
    let (upstream, mut redis) = (Upstream::with(|_, _| Reply::Hold), Redis::start());
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    let address = gateway.address();
    let sender = std::thread::spawn(move || Github::delivery("one", "{}").send(address));
    upstream.wait_for(1);
    redis.kill();
    upstream.release();
    let answer = sender.join().expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, DELIVERED));
    gateway.logged("the lost mark", |event| {
        event["message"].as_str().is_some_and(|message| message.contains("could not be remembered"))
    });
}

#[test]
fn a_demoted_primary_is_not_used_until_it_is_promoted_again() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    assert_eq!(Github::delivery("before", "0").send(gateway.address()).status, 200);
    let nowhere = Upstream::nowhere().port().to_string();
    redis.command::<()>(&["REPLICAOF", "127.0.0.1", &nowhere]);
    let during = Github::delivery("during", "1");
    for _ in 0..2 {
        let answer = during.send(gateway.address());
        assert!(answer.asks_to_come_again(), "{answer:?}");
    }
    assert_eq!(upstream.ids(), ["before"]);
    redis.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    wait_until("the primary to be used again", || during.send(gateway.address()).status == 200);
    assert_eq!(upstream.ids(), ["before", "during"]);
    gateway.logged("the replica", |event| event["error"].as_str().is_some_and(|error| error.contains("replica")));
}

#[test]
fn a_redis_that_takes_no_writes_makes_senders_come_again_until_it_does() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    for (number, (setting, bad, good)) in
        [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")].into_iter().enumerate()
    {
        redis.command::<()>(&["CONFIG", "SET", setting, bad]);
        let delivery = Github::delivery(&number.to_string(), number.to_string());
        let answer = delivery.send(gateway.address());
        assert!(answer.asks_to_come_again(), "{setting}: {answer:?}");
        redis.command::<()>(&["CONFIG", "SET", setting, good]);
        wait_until("writes to be taken again", || delivery.send(gateway.address()).status == 200);
    }
    assert_eq!(upstream.ids(), ["0", "1"]);
}

#[test]
fn while_a_script_of_somebody_else_blocks_redis_senders_are_told_to_come_again() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    let busy = redis.block();
    let delivery = Github::delivery("one", "{}");
    for _ in 0..2 {
        let answer = delivery.send(gateway.address());
        assert!(answer.asks_to_come_again(), "{answer:?}");
    }
    assert!(upstream.received().is_empty());
    busy.end();
    delivery.send_until_taken(gateway.address());
    assert_eq!(upstream.ids(), ["one"]);
}

#[test]
fn scripts_that_redis_has_forgotten_are_loaded_again() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    for number in 0..10 {
        redis.command::<()>(&["SCRIPT", "FLUSH"]);
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).status, 200);
    }
    assert_eq!(upstream.received().len(), 10);
}

#[test]
fn connections_that_redis_cuts_are_made_again_and_lose_no_event() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    let address = gateway.address();
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            std::thread::spawn(move || {
                for number in 0..25 {
                    Github::delivery(&format!("{sender}-{number}"), format!("{sender} {number}"))
                        .send_until_taken(address);
                }
            })
        })
        .collect();
    for _ in 0..40 {
        redis.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    senders.into_iter().for_each(|sender| sender.join().expect("all were taken"));
    let mut ids = upstream.ids();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100, "every event was delivered");
    assert_eq!(upstream.received().len(), 100, "and none of them twice");
}

#[test]
fn a_redis_with_a_password_or_a_user_is_used_with_them() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    redis.command::<()>(&["ACL", "SETUSER", "gateway", "on", ">open sesame", "~doorward:*", "+@all", "-@dangerous"]);
    let with_user = redis.url().replace("redis://", "redis://gateway:open%20sesame@");
    let gateway = Gateway::start(&on(&upstream, &with_user));
    assert_eq!(Github::delivery("one", "1").send(gateway.address()).text(), DELIVERED);
    assert_eq!(Github::delivery("one", "1").send(gateway.address()).text(), DUPLICATE);
    redis.command::<()>(&["CONFIG", "SET", "requirepass", "sesame"]);
    let with_password = redis.url().replace("redis://", "redis://:sesame@");
    let gateway = Gateway::start(&on(&upstream, &with_password));
    assert_eq!(Github::delivery("one", "1").send(gateway.address()).text(), DUPLICATE);
}

#[test]
fn a_wrong_password_is_said_in_the_log_and_never_shown() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    redis.command::<()>(&["ACL", "SETUSER", "gateway", "on", ">right", "~*", "+@all"]);
    let gateway = Gateway::start(&on(&upstream, &redis.url().replace("redis://", "redis://gateway:hunter2@")));
    let answer = Github::delivery("one", "{}").send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    let outage = gateway.logged("the outage", is_redis_lost);
    let error = outage["error"].as_str().expect("a cause").to_lowercase();
    assert!(error.contains("auth") || error.contains("password") || error.contains("wrongpass"), "{error}");
    assert_eq!(gateway.admin("/readyz").status, 503);
    assert!(!format!("{:?}", gateway.log()).contains("hunter2"));
    assert!(!gateway.admin("/readyz").text().contains("hunter2"));
}

#[test]
fn a_gateway_is_ready_once_redis_has_answered_and_stays_so() {
    let (upstream, mut redis) = (Upstream::start(), Redis::start());
    redis.kill();
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    assert_eq!(gateway.admin("/readyz").status, 503);
    assert_eq!(gateway.admin("/livez").status, 200, "another start would not help");
    redis.run(&[]);
    wait_until("the gateway to be ready", || gateway.admin("/readyz").status == 200);
    redis.kill();
    assert!(Github::delivery("one", "{}").send(gateway.address()).asks_to_come_again());
    assert_eq!(gateway.admin("/readyz").status, 200, "one blip must not take every replica away");
}

#[test]
fn a_sender_that_hangs_up_while_redis_hangs_leaves_nothing_behind() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let gateway = Gateway::start(&on(&upstream, &redis.url()));
    redis.signal("STOP");
    let senders: Vec<_> = (0..10)
        .map(|number| Github::delivery(&number.to_string(), number.to_string()).begin(gateway.address()))
        .collect();
    let refused = || gateway.metric(r#"doorward_refusals_total{reason="store_unavailable",source="github"}"#);
    let in_flight = || gateway.metric("doorward_in_flight_requests");
    wait_until("all to be there", || refused() + in_flight() == 10.0);
    drop(senders);
    wait_until("the requests to be over", || refused() == 10.0 && in_flight() == 0.0);
    redis.signal("CONT");
    for number in 0..10 {
        Github::delivery(&number.to_string(), number.to_string()).send_until_taken(gateway.address());
    }
    assert_eq!(upstream.received().len(), 10);
}

/// A GitHub source over this store, which may be slow for as long as a busy machine needs.
fn on(upstream: &Upstream, store: &str) -> String {
    Github::source(&upstream.url()) + &format!("[store]\nurl = \"{store}\"\ntimeout = \"1s\"\n")
}
