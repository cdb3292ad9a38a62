//! Requests that fail to authenticate: they touch nothing, and their senders learn nothing.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::SystemTime;

use base64::Engine as _;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::provider::offergrid::offergrid;
use crate::harness::provider::offergrid::offergrid_source;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::redis::Redis;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

#[test]
fn every_failure_to_authenticate_looks_the_same() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&offergrid_source(&upstream.url()));
    let mut answers = Vec::new();
    let mut reasons = BTreeMap::new();
    for (what, reason, delivery) in failures() {
        let answer = delivery.send(gateway.address());
        assert_eq!(answer.status, 401, "{what}");
        answers.push((what, seen(answer)));
        *reasons.entry(reason).or_insert(0) += 1;
        let label = format!("doorward_refusals_total{{reason=\"{reason}\",source=\"offergrid\"}}");
        assert_eq!(gateway.metric(&label), f64::from(reasons[reason]), "{what}");
    }
    let (_, first) = &answers[0];
    for (what, answer) in &answers {
        assert_eq!(answer, first, "{what}");
    }
    let refused = gateway.metric(r#"doorward_requests_total{outcome="refused",source="offergrid"}"#);
    assert_eq!(refused, f64::from(reasons.values().sum::<i32>()), "each is counted once");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn the_answer_to_a_forger_is_a_problem_without_details() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let answer = Github::delivery("1", "{}").without("X-Hub-Signature-256").send(gateway.address());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], 401);
    let keys: Vec<_> = problem.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, ["detail", "status", "title", "type"]);
    assert!(!answer.text().to_ascii_lowercase().contains("signature"), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), None, "trying again would change nothing");
}

#[test]
fn a_header_that_may_be_there_once_is_refused_twice() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&offergrid_source(&upstream.url()));
    let genuine = offergrid("1", SystemTime::now());
    for name in ["X-Offergrid-Signature", "X-Offergrid-Timestamp", "Content-Type"] {
        let value = genuine.headers.iter().find(|(given, _)| given == name).expect("a header").1.clone();
        let answer = genuine.clone().with(name, &value).send(gateway.address());
        assert_eq!(answer.status, 400, "{name}");
    }
    assert_eq!(genuine.clone().with("Host", "other.example").send(gateway.address()).status, 400);
    let label = r#"doorward_refusals_total{reason="header_repeated",source="offergrid"}"#;
    assert_eq!(gateway.metric(label), 4.0);
    assert_eq!(upstream.connections(), 0);
    assert_eq!(genuine.send(gateway.address()).status, 200);
}

#[test]
fn the_tolerance_is_five_minutes_to_the_second() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&offergrid_source(&upstream.url()));
    let mut attempts = 0_u32;
    let mut send = |ahead: bool, seconds: u64| {
        attempts += 1;
        let (now, distance) = (SystemTime::now(), Duration::from_secs(seconds));
        let sent = if ahead { now + distance } else { now - distance };
        offergrid(&attempts.to_string(), sent).send(gateway.address()).status
    };
    assert_eq!((send(false, 301), send(true, 299)), (401, 200));
    // A second may pass on the way, but not every time.
    wait_until("a request of 299 seconds ago to be taken", || send(false, 299) == 200);
    wait_until("a request of 300 seconds ago to be taken", || send(false, 300) == 200);
    wait_until("a request 301 seconds ahead to be refused", || send(true, 301) == 401);
}

#[test]
fn a_time_in_milliseconds_is_far_in_the_future() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&offergrid_source(&upstream.url()));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    let sent = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(now).expect("in range"));
    assert_eq!(offergrid("1", sent).send(gateway.address()).status, 401);
    let label = r#"doorward_refusals_total{reason="timestamp_future",source="offergrid"}"#;
    assert_eq!(gateway.metric(label), 1.0, "what its sender does wrong can be told from the metric");
}

#[test]
fn a_refused_request_takes_no_upstream_connection_and_no_store_command() {
    let upstream = Upstream::start();
    let redis = Redis::start();
    let sections = format!("[store]\nurl = \"{}\"\n{}", redis.url(), offergrid_source(&upstream.url()));
    let gateway = Gateway::start(&sections);
    wait_until("the gateway to know its store", || gateway.admin("/readyz").status == 200);
    let idle = commands(&redis);
    for (what, _, delivery) in failures() {
        assert_eq!(delivery.send(gateway.address()).status, 401, "{what}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(commands(&redis), idle);
    assert_eq!(redis.command::<usize>(&["DBSIZE"]), 0);
    // The measure does move when an event is let through.
    assert_eq!(offergrid("1", SystemTime::now()).send(gateway.address()).status, 200);
    assert_ne!(commands(&redis), idle);
    assert!(redis.command::<usize>(&["DBSIZE"]) > 0);
}

#[test]
fn a_forged_request_does_not_use_up_the_id_that_it_names() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let genuine = Github::delivery("1", "{}");
    let forged = genuine.clone().set("X-Hub-Signature-256", &format!("sha256={}", "0".repeat(64)));
    assert_eq!(forged.send(gateway.address()).status, 401);
    assert_eq!(genuine.send(gateway.address()).status, 200);
    assert_eq!(upstream.ids(), ["1"]);
}

#[test]
fn a_forger_cannot_tell_whether_an_event_was_seen() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let genuine = Github::delivery("1", "{}");
    let forged = genuine.clone().set("X-Hub-Signature-256", &format!("sha256={}", "0".repeat(64)));
    let before = seen(forged.send(gateway.address()));
    assert_eq!(genuine.send(gateway.address()).status, 200);
    assert_eq!(seen(forged.send(gateway.address())), before);
}

/// One request for each way to be wrong, with the reason that operators should see.
fn failures() -> Vec<(&'static str, &'static str, Delivery)> {
    const SIGNATURE: &str = "X-Offergrid-Signature";
    const TIMESTAMP: &str = "X-Offergrid-Timestamp";
    let now = SystemTime::now();
    let genuine = offergrid("1", now);
    let signature = genuine.headers.iter().find(|(name, _)| name == SIGNATURE).expect("a signature").1.clone();
    let bytes = const_hex::decode(&signature).expect("hexadecimal");
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    let time = genuine.headers.iter().find(|(name, _)| name == TIMESTAMP).expect("a time").1.clone();
    let signed = |value: &str| genuine.clone().set(SIGNATURE, value);
    // Signed over the time as it is written, so that only the way it is written is wrong.
    let at = |text: &str| {
        let signature = hmac_hex(SECRET, &[text.as_bytes(), b".", &genuine.body]);
        genuine.clone().set(TIMESTAMP, text).set(SIGNATURE, &signature)
    };
    let mut changed = genuine.clone();
    changed.body.push(b' ');
    let (stale, future, malformed) = (Duration::from_secs(301), Duration::from_secs(330), "signature_malformed");
    vec![
        ("no signature", "signature_missing", genuine.clone().without(SIGNATURE)),
        ("an empty signature", malformed, signed("")),
        ("a signature cut short", malformed, signed(&signature[..62])),
        ("a signature cut by a letter", malformed, signed(&signature[..63])),
        ("a signature that is too long", malformed, signed(&format!("{signature}00"))),
        ("a signature that is far too long", malformed, signed(&signature.repeat(100))),
        ("two signatures in one", malformed, signed(&format!("{signature},{signature}"))),
        ("a signature with a prefix", malformed, signed(&format!("sha256={signature}"))),
        ("a signature in quotes", malformed, signed(&format!("\"{signature}\""))),
        ("a signature beyond ASCII", malformed, signed(&format!("{}\u{e9}", &signature[..63]))),
        ("a signature in base64", malformed, signed(&base64)),
        ("a signature of the letter g", malformed, signed(&"g".repeat(64))),
        ("another key", "signature_mismatch", signed(&hmac_hex("other", &[time.as_bytes(), b".", &genuine.body]))),
        ("an empty key", "signature_mismatch", signed(&hmac_hex("", &[time.as_bytes(), b".", &genuine.body]))),
        ("a signature without the time", "signature_mismatch", signed(&hmac_hex(SECRET, &[&genuine.body]))),
        ("a signature of nothing", "signature_mismatch", signed(&"0".repeat(64))),
        ("a body changed on its way", "signature_mismatch", changed),
        ("a time changed on its way", "signature_mismatch", genuine.clone().set(TIMESTAMP, &later(&time))),
        ("a stale time", "timestamp_stale", offergrid("1", now - stale)),
        ("the year 1970", "timestamp_stale", offergrid("1", SystemTime::UNIX_EPOCH + stale)),
        ("a time in the future", "timestamp_future", offergrid("1", now + future)),
        ("no time", "timestamp_missing", genuine.clone().without(TIMESTAMP)),
        ("an empty time", "timestamp_malformed", at("")),
        ("a time with a plus", "timestamp_malformed", at(&format!("+{time}"))),
        ("a time with a minus", "timestamp_malformed", at(&format!("-{time}"))),
        ("a time with a space inside", "timestamp_malformed", at(&format!("{} {}", &time[..5], &time[5..]))),
        ("a time with a leading zero", "timestamp_malformed", at(&format!("0{time}"))),
        ("a time with a fraction", "timestamp_malformed", at(&format!("{time}.0"))),
        ("a time in hexadecimal", "timestamp_malformed", at("0x6553f100")),
        ("a time beyond all numbers", "timestamp_malformed", at(&"9".repeat(30))),
        ("a time in words", "timestamp_malformed", at("now")),
        ("a time beyond ASCII", "timestamp_malformed", genuine.clone().set(TIMESTAMP, "\u{b2}\u{b3}")),
    ]
}

/// A second later.
fn later(time: &str) -> String {
    (time.parse::<u64>().expect("a number") + 1).to_string()
}

/// All that a sender sees of an answer, but for the time of day.
fn seen(answer: Answer) -> (u16, Vec<(String, String)>, String) {
    let body = answer.text();
    (answer.status, answer.headers.into_iter().filter(|(name, _)| name != "date").collect(), body)
}

/// How often Redis was told what, without the words that every connection begins with.
fn commands(redis: &Redis) -> BTreeMap<String, String> {
    let all: String = redis.command(&["INFO", "commandstats"]);
    let stats = all.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(':'));
    let of_connections = ["ping", "info", "hello", "role", "client|setinfo", "client|setname", "auth", "select"];
    stats
        .filter(|(name, _)| !of_connections.contains(name))
        .map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap_or_default().to_owned()))
        .collect()
}
