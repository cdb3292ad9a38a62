//! Queued events in Redis, listed, shown, replayed and purged through any gateway that shares it.

use doorward::base::limits::Limits;
use serde_json::Value;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::queue_with_api;
use crate::harness::gateway::in_process::InProcessGateway;
use crate::harness::gateway::queue::queued_events;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

/// What a file has, in this Redis instead.
fn sections(upstream: &str, redis: &Redis) -> String {
    queue_with_api(upstream).replace("sqlite:store.db", &redis.url())
}

fn list(gateway: &Gateway, query: &str) -> Value {
    let answer = gateway.api("GET", &format!("/api/v1/events?{query}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn ids(page: &Value) -> Vec<&str> {
    page["events"].as_array().expect("events").iter().map(|event| event["id"].as_str().expect("an id")).collect()
}

#[test]
fn what_one_gateway_took_is_listed_by_another_page_by_page() {
    let (redis, upstream) = (Redis::start(), Upstream::deciding_by_id());
    let [taking, listing] = [0, 1].map(|_| Gateway::start(&sections(&upstream.url(), &redis)));
    let all: Vec<_> =
        (0..12).map(|number| format!("{}-{number}", if number % 3 == 0 { "dead" } else { "fine" })).collect();
    for id in &all {
        taking.take(&[id]);
    }
    listing.wait_for_events("dead", 4);
    listing.wait_for_events("delivered", 8);
    let newest_first: Vec<_> = all.iter().rev().map(String::as_str).collect();
    assert_eq!(ids(&list(&listing, "limit=100")), newest_first);
    for (query, wanted) in [("", ""), ("state=dead&", "dead"), ("state=delivered&", "fine")] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = list(&listing, &format!("{query}limit=3{cursor}"));
            found.extend(ids(&page).into_iter().map(str::to_owned));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let wanted: Vec<_> = newest_first.iter().filter(|id| id.starts_with(wanted)).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{query}");
    }
    assert_eq!(ids(&list(&listing, "id=dead-3")), ["dead-3"]);
    assert_eq!(ids(&list(&listing, "type=pull_request")), Vec::<&str>::new());
    assert_eq!(ids(&list(&listing, "until=2026-01-01T00:00:00Z")), Vec::<&str>::new());
}

#[test]
fn a_list_that_has_scanned_as_many_entries_as_the_limit_says_answers_with_a_cursor() {
    let (redis, upstream) = (Redis::start(), Upstream::deciding_by_id());
    let gateway = |max_scanned| {
        let mut limits = Limits::default();
        (limits.redis.list_page, limits.redis.max_scanned) = (1, max_scanned);
        InProcessGateway::start(&sections(&upstream.url(), &redis), limits)
    };
    let nothing = |gateway: &InProcessGateway| gateway.api("/api/v1/events?type=nothing").json();
    let few = gateway(2);
    for id in ["dead-1", "dead-2", "dead-3"] {
        assert_eq!(Github::delivery(id, id).send(few.address()).status, 200);
    }
    let part = nothing(&few);
    assert!(ids(&part).is_empty() && part["next"].is_string(), "{part}");
    let whole = nothing(&gateway(4));
    assert!(ids(&whole).is_empty() && whole["next"].is_null(), "{whole}");
}

#[test]
fn a_dead_letter_is_shown_replayed_and_purged() {
    let (redis, upstream) = (Redis::start(), Upstream::deciding_by_id());
    let gateway = Gateway::start(&sections(&upstream.url(), &redis));
    gateway.take(&["dead-1", "dead-2", "fine-3"]);
    gateway.wait_for_events("dead", 2);
    gateway.wait_for_events("delivered", 1);
    let one = &list(&gateway, "id=dead-1")["events"][0];
    let place = format!("/api/v1/events/github/{}", one["number"].as_str().expect("a number"));
    let shown = gateway.api("GET", &place, "").json();
    assert_eq!(
        (&shown["deliveries"][0]["state"], &shown["deliveries"][0]["attempts"]),
        (&json!("dead"), &json!(1)),
        "{shown}"
    );
    assert_eq!(gateway.api("POST", &format!("{place}/replay"), "").status, 200);
    upstream.wait_for(4);
    let attempts: Vec<_> =
        upstream.received().iter().filter_map(|it| it.header("doorward-attempt").map(str::to_owned)).collect();
    assert_eq!(attempts, ["1", "1", "1", "2"]);
    gateway.wait_for_events("dead", 2);
    let done = gateway.api("POST", "/api/v1/events/replay", r#"{"all": true}"#).json();
    assert_eq!(done["events"], json!(2), "{done}");
    upstream.wait_for(6);
    gateway.wait_for_events("dead", 2);
    let done = gateway.api("POST", "/api/v1/events/purge", r#"{"state": "dead"}"#).json();
    assert_eq!(done["events"], json!(2), "{done}");
    assert_eq!(gateway.api("GET", &place, "").status, 404);
    assert_eq!(ids(&list(&gateway, "limit=10")), ["fine-3"]);
    wait_until("the dead letters to be counted off", || queued_events(&gateway, "dead") == 0.0);
    assert_eq!(redis.command::<usize>(&["XLEN", "doorward:{github}:events"]), 1);
    assert_eq!(redis.command::<usize>(&["HLEN", "doorward:{github}:d:default:records"]), 1);
    assert_eq!(gateway.api("GET", "/api/v1/events?source=nobody", "").status, 400);
}
