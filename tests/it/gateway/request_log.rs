//! What the log says of requests, and what it must never say.

use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::provider::issuer::Issuer;
use crate::harness::provider::offergrid::offergrid;
use crate::harness::provider::offergrid::offergrid_signed;
use crate::harness::provider::offergrid::offergrid_source;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

#[test]
fn every_request_is_one_event_of_the_log() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let delivery = Github::delivery("1", "{}");
    let mut forged = Github::delivery("2", "{}");
    forged.body = b"[]".to_vec();
    for request in [&delivery, &delivery, &forged, &delivery.clone().to("/nowhere")] {
        request.send(gateway.address());
    }
    let events = requests(&gateway, 4);
    let outcomes: Vec<_> = events.iter().map(|event| event["outcome"].as_str().expect("an outcome")).collect();
    assert_eq!(outcomes, ["delivered", "duplicate", "refused", "refused"]);
    let levels: Vec<_> = events.iter().map(|event| event["level"].as_str().expect("a level")).collect();
    assert_eq!(levels, ["INFO", "INFO", "WARN", "WARN"]);
}

#[test]
fn a_delivered_event_is_logged_with_what_is_known_of_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&offergrid_source(&upstream.url()));
    offergrid("evt_1", SystemTime::now() - Duration::from_secs(60)).send(gateway.address());
    let event = requests(&gateway, 1).remove(0);
    assert_eq!(event["source"], "offergrid");
    assert_eq!((&event["outcome"], &event["status"]), (&json!("delivered"), &json!(200)));
    assert_eq!((&event["event_id"], &event["event_type"]), (&json!("evt_1"), &json!("order.created")));
    assert_eq!((&event["client"], &event["secret"]), (&json!("127.0.0.1"), &json!(1)));
    let skew = event["skew_s"].as_i64().expect("a skew");
    assert!((60..80).contains(&skew), "{skew}");
    let (upstream, took) = (event["upstream_ms"].as_f64(), event["took_ms"].as_f64());
    assert!(upstream.expect("a time") > 0.0 && took >= upstream, "{upstream:?} {took:?}");
    assert!(event["timestamp"].as_str().expect("a time").ends_with('Z'));
    assert_eq!((event.get("reason"), event.get("cause")), (None, None));
}

#[test]
fn a_refused_request_is_logged_with_its_reason_and_without_its_contents() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let mut forged = Github::delivery("spoken-id", "{}").set("X-GitHub-Event", "spoken-type");
    forged.body = b"{\"spoken\":\"body\"}".to_vec();
    forged.with("User-Agent", "spoken-agent").to("/webhooks/github?spoken=query").send(gateway.address());
    let event = requests(&gateway, 1).remove(0);
    assert_eq!((&event["outcome"], &event["reason"]), (&json!("refused"), &json!("signature_mismatch")));
    assert_eq!((&event["status"], &event["source"]), (&json!(401), &json!("github")));
    assert!(event["cause"].as_str().is_some_and(|cause| cause.contains("signature")), "{event}");
    assert_eq!((event.get("event_id"), event.get("upstream_ms")), (None, None));
    assert!(!whole_log(&gateway).contains("spoken"), "nothing that an unverified sender wrote");
}

#[test]
fn a_body_that_cannot_be_read_is_logged_with_what_is_wrong_and_where() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&offergrid_source(&upstream.url()));
    let bodies = [
        ("{\"id\": \"spoken\"\n \"spoken\": 1}", "at byte 18 (line 2, column 2): expected a comma or a closing brace"),
        (
            "{\"id\":\"spoken\"",
            "at byte 15 (line 1, column 15), where the body ends: expected a comma or a closing brace",
        ),
        ("{\"id\":\"spoken\",\"id\":0}", "at byte 16 (line 1, column 16): the name \"id\" is there twice"),
        ("spoken", "at byte 1 (line 1, column 1): expected a value"),
    ];
    for (body, _) in bodies {
        assert_eq!(offergrid_signed(body, SystemTime::now()).send(gateway.address()).status, 400, "{body}");
    }
    let events = requests(&gateway, bodies.len());
    for (event, (_, why)) in events.iter().zip(bodies) {
        assert_eq!(event["reason"], "body_malformed", "{event}");
        assert_eq!(event["cause"], format!("the body cannot be read: {why}"));
    }
    assert!(!whole_log(&gateway).contains("spoken"), "nothing of the body");
}

#[test]
fn a_failing_upstream_is_logged_as_an_error_that_blames_it() {
    let upstream = Upstream::with(|_, _| Reply::Status(503, "{\"said\":\"by the app\"}"));
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    Github::delivery("1", "{}").send(gateway.address());
    let event = requests(&gateway, 1).remove(0);
    assert_eq!((&event["level"], &event["reason"]), (&json!("ERROR"), &json!("upstream_refused")));
    assert_eq!((&event["status"], &event["event_id"]), (&json!(503), &json!("1")));
    assert!(event["cause"].as_str().is_some_and(|cause| cause.contains("503")), "{event}");
    assert!(!whole_log(&gateway).contains("by the app"));
}

#[test]
fn no_secret_signature_or_body_is_ever_logged() {
    let upstream = Upstream::start();
    let sections =
        format!("[log]\nlevel = \"debug\"\n{}{}", Github::source(&upstream.url()), offergrid_source(&upstream.url()));
    let gateway = Gateway::start(&sections);
    let body = "{\"id\":\"1\",\"card\":\"4242-4242\"}";
    let genuine = [Github::delivery("1", body), offergrid("1", SystemTime::now())];
    for delivery in &genuine {
        let mut forged = delivery.clone();
        forged.body.push(b' ');
        for request in [delivery, delivery, &forged, &delivery.clone().without("Content-Type")] {
            request.send(gateway.address());
        }
    }
    // Broken off in the middle of its body.
    let bytes = Github::delivery("2", body).bytes();
    drop(std::io::Write::write_all(&mut crate::harness::http::connect(gateway.address()), &bytes[..bytes.len() - 9]));
    requests(&gateway, 9);
    let log = whole_log(&gateway);
    let signatures =
        genuine.iter().flat_map(|delivery| &delivery.headers).filter(|(name, _)| name.contains("Signature"));
    let signatures: Vec<_> = signatures.map(|(_, value)| value.trim_start_matches("sha256=").to_owned()).collect();
    assert_eq!(signatures.len(), 2);
    // Of the bodies as they are, and as they would stand in a text of the log.
    for hidden in [SECRET, "4242-4242", r#"{"n":1}"#, r#"{\"n\":1}"#] {
        assert!(!log.contains(hidden), "{hidden}");
    }
    for signature in &signatures {
        assert!(!log.contains(&signature[..16]), "{signature}");
    }
}

#[test]
fn no_token_is_ever_logged() {
    let upstream = Upstream::start();
    let issuer = Issuer::publishing(&Issuer::fixture_keys());
    let gateway = Gateway::start(&format!(
        "[log]\nlevel = \"debug\"\n[sources.pitchpoint]\nprofile = \"pitchpoint\"\npath = \"/webhooks/pitchpoint\"\n\
         params = {{ issuer = \"{}\", audience = \"tenant\" }}\ndeliver.upstream = {{ url = \"{}\" }}\n",
        issuer.url(),
        upstream.url()
    ));
    let expires = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() + 600;
    let claims = json!({ "iss": issuer.url(), "aud": "tenant", "exp": expires, "sub": "hidden-subject" });
    let tokens = ["pitchpoint-a", "pitchpoint-forger"].map(|key| Issuer::token(key, "pps-2024-a", &claims));
    for (token, status) in tokens.iter().zip([200, 403]) {
        let delivery = Delivery {
            method: "POST".to_owned(),
            path: "/webhooks/pitchpoint".to_owned(),
            headers: vec![("X-Pps-Webhook-Id".to_owned(), "1".to_owned())],
            body: b"{}".to_vec(),
        };
        let answer = delivery.with("Authorization", &format!("Bearer {token}")).send(gateway.address());
        assert_eq!(answer.status, status);
    }
    requests(&gateway, 2);
    let log = whole_log(&gateway);
    for part in tokens.iter().flat_map(|token| token.split('.')).chain(["hidden-subject"]) {
        assert!(!log.contains(part), "{part}");
    }
}

/// The events of this many requests, once they have been written.
#[track_caller]
fn requests(gateway: &Gateway, count: usize) -> Vec<Value> {
    let events = wait_for("the requests in the log", || {
        let events: Vec<_> = gateway.log().into_iter().filter(|event| event.get("outcome").is_some()).collect();
        (events.len() >= count).then_some(events)
    });
    assert_eq!(events.len(), count, "{events:#?}");
    events
}

fn whole_log(gateway: &Gateway) -> String {
    gateway.log().iter().map(|event| format!("{event}\n")).collect()
}
