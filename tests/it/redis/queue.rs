//! Queues in Redis: several gateways that deliver the same events, and what becomes of them when one is gone. What one
//! gateway does is tested for all stores in `queue`.

use std::time::Duration;

use doorward::base::limits::Limits;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::in_process::InProcessGateway;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_events;
use crate::harness::gateway::queue::queued_in_redis;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

#[track_caller]
pub fn send(gateway: &Gateway, ids: impl IntoIterator<Item = u32>) {
    for id in ids {
        assert_eq!(Github::delivery(&id.to_string(), id.to_string()).send(gateway.address()).text(), QUEUED, "{id}");
    }
}

/// The ids that came, each once, in the order of their numbers.
pub fn sorted(upstream: &Upstream) -> Vec<u32> {
    let mut ids: Vec<_> = upstream.ids().iter().map(|id| id.parse().expect("a number")).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn two_gateways_deliver_many_events_each_once() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let gateways = [0, 1].map(|_| Gateway::start(&queued_in_redis(&upstream.url(), ", concurrency = 8", &redis.url())));
    send(&gateways[0], 0..100);
    send(&gateways[1], 100..200);
    upstream.wait_for(200);
    wait_until("the queue to be empty", || gateways.iter().all(|gateway| queued_events(gateway, "queued") == 0.0));
    assert_eq!(sorted(&upstream), (0..200).collect::<Vec<_>>());
}

#[test]
fn what_a_dead_gateway_had_in_hand_is_delivered_by_another_after_the_lease() {
    let redis = Redis::start();
    let upstream = Upstream::with(|number, _| if number < 8 { Reply::Hold } else { Reply::Status(200, "") });
    let sections = queued_in_redis(&upstream.url(), ", concurrency = 8", &redis.url());
    let dying = Gateway::start(&sections);
    send(&dying, 0..20);
    upstream.wait_for(8);
    dying.kill();
    let _other = Gateway::start(&sections);
    upstream.wait_for(28);
    let mut ids = sorted(&upstream);
    ids.dedup();
    assert_eq!(ids, (0..20).collect::<Vec<_>>());
}

#[test]
fn events_of_one_order_stay_in_order_across_gateways() {
    let redis = Redis::start();
    // The first event of order a fails twice before it is taken.
    let upstream = Upstream::with(|_, message| {
        let first_attempts = ["1", "2"].map(Some).contains(&message.header("doorward-attempt"));
        match message.header("doorward-event-id") {
            Some("a0") if first_attempts => Reply::Status(500, ""),
            _ => Reply::Status(200, ""),
        }
    });
    let more = r#", backoff = "50ms", order_by = { json = "/order" }"#;
    let gateways = [0, 1].map(|_| Gateway::start(&queued_in_redis(&upstream.url(), more, &redis.url())));
    let mut sent = Vec::new();
    for number in 0..20 {
        for order in ["a", "b"] {
            let id = format!("{order}{number}");
            let body = format!(r#"{{"order": "{order}", "id": "{id}"}}"#);
            assert_eq!(Github::delivery(&id, body).send(gateways[number % 2].address()).text(), QUEUED);
            sent.push(id);
        }
    }
    upstream.wait_for(42);
    let ids = upstream.ids();
    for order in ["a", "b"] {
        let mut came: Vec<_> = ids.iter().filter(|id| id.starts_with(order)).collect();
        came.dedup();
        assert_eq!(came, sent.iter().filter(|id| id.starts_with(order)).collect::<Vec<_>>());
    }
}

#[test]
fn delivered_events_are_deleted_when_their_time_is_over_and_dead_ones_are_not() {
    let redis = Redis::start();
    let upstream = Upstream::with(|_, message| match message.header("doorward-event-id") {
        Some("bad") => Reply::Status(422, ""),
        _ => Reply::Status(200, ""),
    });
    let mut limits = Limits::default();
    limits.redis.trim_every = Duration::from_millis(200);
    let gateway = InProcessGateway::start(&queued_in_redis(&upstream.url(), ", keep = \"1s\"", &redis.url()), limits);
    for id in ["bad", "good"] {
        assert_eq!(Github::delivery(id, id).send(gateway.address()).text(), QUEUED);
    }
    let stored = |key: &str, count: &str| redis.command::<usize>(&[count, &format!("doorward:{{github}}:{key}")]);
    wait_until("both to be finished", || stored("d:default:records", "HLEN") == 2);
    wait_until("one to be deleted", || stored("events", "XLEN") == 1);
    assert_eq!([stored("d:default:records", "HLEN"), stored("d:default:dead", "ZCARD")], [1, 1]);
    assert_eq!(Github::delivery("good", "good").send(gateway.address()).text(), DUPLICATE, "its id is still known");
}
