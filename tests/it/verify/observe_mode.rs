//! `verify = "observe"`: what cannot be verified is delivered all the same, and marked; nothing else changes.

use std::collections::HashMap;
use std::time::Duration;
use std::time::SystemTime;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::http::Message;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::github::Github;
use crate::harness::provider::issuer::Issuer;
use crate::harness::provider::offergrid::offergrid;
use crate::harness::provider::offergrid::offergrid_signed;
use crate::harness::provider::offergrid::offergrid_source;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;

const DELIVERED: &str = r#"{"ok":true}"#;
const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;

#[test]
fn a_verified_event_is_delivered_and_deduplicated_as_usual() {
    let (gateway, upstream) = github("");
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).text(), DELIVERED);
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).text(), DUPLICATE);
    let received = upstream.received();
    assert_eq!((received.len(), received[0].header("doorward-event-id")), (1, Some("1")));
    assert_eq!(
        (received[0].header("doorward-event-type"), received[0].header("doorward-verified")),
        (Some("push"), None)
    );
    assert!(!gateway.metrics().keys().any(|name| name.starts_with("doorward_unverified_total{")));
}

#[test]
fn an_unverified_event_is_delivered_as_it_came_and_marked() {
    let (gateway, upstream) = github("");
    let forged = forged("1").with("X-Note", "n").with("Doorward-Verified", "true").with("Doorward-Event-Id", "1");
    let forged = forged.with("doorward_verified", "true").with("Doorward-Event-Type", "push");
    assert_eq!(forged.send(gateway.address()).text(), DELIVERED);
    let received = upstream.received().remove(0);
    assert_marked(&received);
    assert_eq!(received.body, b"forged");
    assert_eq!((received.header("x-note"), received.header("x-github-delivery")), (Some("n"), Some("1")));
    assert_eq!(received.header("doorward-source"), Some("github"));
}

#[test]
fn the_reason_is_counted_and_logged() {
    let (gateway, _upstream) = github("");
    forged("1").send(gateway.address());
    forged("1").without("X-Hub-Signature-256").send(gateway.address());
    forged("1").set("X-Hub-Signature-256", "sha256=abc").send(gateway.address());
    for reason in ["signature_mismatch", "signature_missing", "signature_malformed"] {
        assert_eq!(unverified(&gateway, "github", reason), 1.0, "{reason}");
        let event = gateway.logged("the delivery", |event| event["unverified"] == reason);
        assert_eq!((&event["outcome"], &event["status"]), (&"delivered".into(), &200.into()));
        assert_eq!(event["level"], "WARN");
        assert!(event["cause"].as_str().is_some_and(|cause| cause.contains("signature")), "{event}");
        assert_eq!((event.get("event_id"), event.get("reason"), event.get("secret")), (None, None, None));
    }
    assert_eq!((gateway.outcomes("github", "delivered"), gateway.outcomes("github", "refused")), (3.0, 0.0));
    assert_eq!(gateway.refusals("github", "signature_mismatch"), 0.0);
    assert_eq!(gateway.metric(r#"doorward_secret_matches_total{secret="plain#1",source="github"}"#), 0.0);
}

#[test]
fn an_event_out_of_time_is_delivered_and_marked() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&observing(&offergrid_source(&upstream.url())));
    offergrid("1", SystemTime::now() - Duration::from_secs(600)).send(gateway.address());
    offergrid("1", SystemTime::now() + Duration::from_secs(600)).send(gateway.address());
    offergrid("1", SystemTime::now()).without("X-Offergrid-Timestamp").send(gateway.address());
    for (at, reason) in ["timestamp_stale", "timestamp_future", "timestamp_missing"].into_iter().enumerate() {
        assert_eq!(unverified(&gateway, "offergrid", reason), 1.0, "{reason}");
        assert_marked(&upstream.received()[at]);
    }
    assert_eq!(offergrid("1", SystemTime::now()).send(gateway.address()).text(), DELIVERED, "the genuine one");
}

#[test]
fn an_event_without_a_usable_id_or_body_is_delivered_and_marked() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&observing(&offergrid_source(&upstream.url())));
    let bodies = [
        (r#"{"event":"order.created"}"#, "event_id_missing"),
        (r#"{"id":true,"event":"order.created"}"#, "event_id_invalid"),
        (r#"{"id":"1","#, "body_malformed"),
        (r#"{"id":"1","id":"2"}"#, "body_malformed"),
    ];
    for (body, reason) in bodies {
        let answer = offergrid_signed(body, SystemTime::now()).send(gateway.address());
        assert_eq!(answer.text(), DELIVERED, "{body}");
        assert!(unverified(&gateway, "offergrid", reason) >= 1.0, "{body}");
    }
    assert_eq!(upstream.received().len(), 4);
    upstream.received().iter().for_each(assert_marked);
}

#[test]
fn an_event_that_cannot_be_verified_for_want_of_keys_is_delivered_and_marked() {
    let upstream = Upstream::start();
    let issuer = format!("http://{}", Upstream::nowhere());
    let gateway = Gateway::start(&format!(
        "[sources.pitchpoint]\nprofile = \"pitchpoint\"\npath = \"/p\"\nverify = \"observe\"\n\
         params = {{ issuer = \"{issuer}\", audience = \"a\" }}\ndeliver.upstream = {{ url = \"{}\" }}\n",
        upstream.url()
    ));
    let token = Issuer::token("pitchpoint-a", "pps-2024-a", &serde_json::json!({ "iss": issuer, "aud": "a" }));
    let headers = [("Authorization", format!("Bearer {token}")), ("X-Pps-Webhook-Id", "1".to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(request("POST", "/p", &headers, "{}").send(gateway.address()).text(), DELIVERED);
    assert_eq!(unverified(&gateway, "pitchpoint", "keys_unavailable"), 1.0);
    assert_marked(&upstream.received()[0]);
}

#[test]
fn a_forged_event_takes_no_genuine_ones_place() {
    let (gateway, upstream) = github("");
    for _ in 0..2 {
        assert_eq!(forged("1").send(gateway.address()).text(), DELIVERED, "each is delivered");
    }
    assert_eq!(Github::delivery("1", "forged").send(gateway.address()).text(), DELIVERED);
    assert_eq!(upstream.ids(), ["1"]);
    assert_eq!(forged("1").send(gateway.address()).text(), DELIVERED, "and a genuine one is not in the way of it");
}

#[test]
fn a_forged_event_does_not_wait_for_a_genuine_one_in_flight() {
    let upstream = Upstream::with(|number, _| if number == 0 { Reply::Hold } else { Reply::Status(200, DELIVERED) });
    let gateway = Gateway::start(&observing(&Github::source(&upstream.url())));
    let held = Github::delivery("1", "forged").begin(gateway.address());
    upstream.wait_for(1);
    assert_eq!(forged("1").send(gateway.address()).text(), DELIVERED);
    upstream.release();
    assert_eq!(crate::harness::http::receive(&held).status, 200);
}

#[test]
fn a_failed_delivery_of_an_unverified_event_is_answered_like_any_other() {
    let upstream = Upstream::with(|_, _| Reply::Status(500, ""));
    let gateway = Gateway::start(&observing(&Github::source(&upstream.url())));
    assert_eq!(forged("1").send(gateway.address()).status, 500);
    assert_eq!(gateway.refusals("github", "upstream_refused"), 1.0);
}

#[test]
fn unverified_events_leave_nothing_in_a_store() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let store = format!("[store]\nurl = \"{}\"\n", redis.url());
    let gateway = Gateway::start(&(observing(&Github::source(&upstream.url())) + &store));
    assert_eq!(forged("1").send(gateway.address()).text(), DELIVERED);
    assert_eq!(redis.command::<u64>(&["DBSIZE"]), 0);
}

#[test]
fn unverified_events_are_marked_on_a_stream_and_leave_nothing_else_in_redis() {
    let redis = Redis::start();
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"1s\"\n", redis.url());
    let source = Github::delivering("redis-stream = { key = \"events\" }");
    let gateway = Gateway::start(&(observing(&source) + &store));
    for _ in 0..2 {
        assert_eq!(forged("1").send(gateway.address()).text(), r#"{"received":true}"#);
    }
    assert_eq!(redis.command::<Vec<String>>(&["KEYS", "*"]), ["events"]);
    assert_eq!(Github::delivery("1", "forged").send(gateway.address()).text(), r#"{"received":true}"#);
    let entries: Vec<(String, HashMap<String, String>)> = redis.command(&["XRANGE", "events", "-", "+"]);
    let marks: Vec<_> = entries.iter().map(|(_, entry)| [&entry["verified"], &entry["id"], &entry["type"]]).collect();
    assert_eq!(marks, [["false", "", ""], ["false", "", ""], ["true", "1", "push"]]);
    assert_eq!(entries[0].1["body"], "forged");
}

#[test]
fn events_of_unwanted_types_are_ignored_only_when_they_are_verified() {
    let (gateway, upstream) = github("events = [\"issues\"]\n");
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).text(), r#"{"received":true,"ignored":true}"#);
    assert_eq!(forged("2").send(gateway.address()).text(), DELIVERED);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn what_cannot_be_read_is_still_refused() {
    let (gateway, upstream) = github("allow = [\"127.0.0.1\"]\n");
    let large = Github::delivery("1", vec![b'x'; 2 << 20]).send(gateway.address());
    let twice = forged("1").with("X-Hub-Signature-256", "sha256=a").send(gateway.address());
    let encoded = forged("1").with("Content-Encoding", "br").send(gateway.address());
    let got = Delivery { method: "GET".to_owned(), ..forged("1") }.send(gateway.address());
    assert_eq!([large.status, twice.status, encoded.status, got.status], [413, 400, 415, 405]);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn an_allowlist_holds_all_the_same() {
    let (gateway, upstream) = github("allow = [\"192.0.2.1\"]\n");
    assert_eq!(forged("1").send(gateway.address()).status, 403);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn handshakes_are_answered_and_refused_as_usual() {
    let lines = format!("secrets = [\"plain:{SECRET}\"]\nparams = {{ verify_token = \"word\" }}\nverify = \"observe\"");
    let (gateway, upstream) = start_shipped("meta", &lines);
    let ask = |token: &str| {
        let query = format!("hub.mode=subscribe&hub.verify_token={token}&hub.challenge=4711");
        request("GET", &format!("/meta?{query}"), &[], "").send(gateway.address())
    };
    assert_eq!(ask("word").text(), "4711");
    assert_eq!(ask("sword").status, 401);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn an_unsigned_challenge_is_no_handshake() {
    let (gateway, upstream) = start_shipped("slack", &format!("secrets = [\"plain:{SECRET}\"]\nverify = \"observe\""));
    let body = r#"{"type":"url_verification","challenge":"c"}"#;
    let answer = request("POST", "/slack", &[], body).send(gateway.address());
    assert_eq!((answer.status, answer.text().as_str()), (200, DELIVERED));
    assert_marked(&upstream.received()[0]);
}

#[test]
fn check_and_serve_warn_of_it() {
    let source = observing(&Github::source("http://127.0.0.1:9/"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("doorward.toml");
    std::fs::write(&path, &source).expect("written");
    let output = doorward().arg("check").arg("--config").arg(&path).output().expect("it runs");
    let spec = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && spec.contains("what cannot be verified is delivered all the same"), "{spec}");
    let gateway = Gateway::start(&source);
    let warned = gateway.logged("the warning", |event| event["key"].as_str().is_some_and(|key| key.contains("verify")));
    assert_eq!(warned["level"], "WARN");
}

/// A gateway that observes GitHub.
fn github(lines: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&(observing(&Github::source(&upstream.url())) + lines));
    (gateway, upstream)
}

/// The same source; lines that follow still belong to it.
fn observing(source: &str) -> String {
    format!("{source}verify = \"observe\"\n")
}

/// A delivery with a signature for another body.
fn forged(id: &str) -> Delivery {
    Delivery { body: b"forged".to_vec(), ..Github::delivery(id, "{}") }
}

#[track_caller]
fn assert_marked(received: &Message) {
    let marks: Vec<_> =
        received.headers.iter().filter(|(name, _)| name.replace('_', "-") == "doorward-verified").collect();
    assert_eq!(marks, [&("doorward-verified".to_owned(), "false".to_owned())]);
    assert_eq!((received.header("doorward-event-id"), received.header("doorward-event-type")), (None, None));
    assert_eq!(received.header("doorward-deduplicated"), Some("false"));
}

fn unverified(gateway: &Gateway, source: &str, reason: &str) -> f64 {
    gateway.metric(&format!("doorward_unverified_total{{reason=\"{reason}\",source=\"{source}\"}}"))
}
