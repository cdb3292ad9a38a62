//! The keys of an issuer: fetched when needed, not more often than that, and kept when no better ones can be had.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use base64::Engine as _;
use serde_json::Value;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::log::is_failed_fetch;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::issuer::Issuer;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const SUCCEEDED: &str = r#"doorward_jwks_refreshes_total{outcome="success",source="pitchpoint"}"#;
const FAILED: &str = r#"doorward_jwks_refreshes_total{outcome="failure",source="pitchpoint"}"#;
const AGE: &str = r#"doorward_jwks_age_seconds{source="pitchpoint"}"#;

#[test]
fn keys_are_fetched_once_for_many_requests() {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&set(&["a"])));
    let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
    for number in 0..100 {
        assert_eq!(event(number, "a", &issuer.url()).send(gateway.address()).status, 200);
    }
    assert_eq!(issuer.fetches(), 1);
    assert_eq!((gateway.metric(SUCCEEDED), gateway.metric(FAILED)), (1.0, 0.0));
    let age = gateway.metrics()[AGE];
    assert!((0.0..60.0).contains(&age), "{age}");
}

#[test]
fn sources_of_one_issuer_share_its_keys() {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&set(&["a"])));
    let sources = ["pitchpoint", "second"].map(|name| source(name, &issuer.url(), &upstream));
    let gateway = Gateway::start(&sources.concat());
    assert_eq!(event(1, "a", &issuer.url()).send(gateway.address()).status, 200);
    assert_eq!(event(1, "a", &issuer.url()).to("/second").send(gateway.address()).status, 200);
    assert_eq!(issuer.fetches(), 1);
}

#[test]
fn tokens_with_unknown_keys_make_the_keys_be_fetched_once_and_not_for_each() {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&set(&["a"])));
    let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
    for number in 0..50 {
        let mut claims = claims(number, &issuer.url());
        claims["iat"] = json!(now() - 60);
        let token = Issuer::token("pitchpoint-forger", &format!("unknown-{number}"), &claims);
        let answer = delivery(number, &token).send(gateway.address());
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="token_unknown_key",source="pitchpoint"}"#), 50.0);
    assert_eq!(event(1, "a", &issuer.url()).send(gateway.address()).status, 200);
}

#[test]
fn a_key_that_may_be_newer_than_the_keys_at_hand_is_not_the_senders_fault() {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&set(&["a"])));
    let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
    let unknown = |issued: Value| {
        let mut claims = claims(0, &issuer.url());
        claims["iat"] = issued;
        let token = Issuer::token("pitchpoint-forger", "unknown", &claims);
        delivery(0, &token).send(gateway.address())
    };
    // The keys are fetched for the first of them, so it is certain.
    assert_eq!(unknown(json!(now())).status, 403);
    for issued in [json!(now()), json!(now() + 3600), json!(i64::MAX), Value::Null, json!("today")] {
        let answer = unknown(issued.clone());
        assert!(answer.asks_to_come_again(), "{issued}: {answer:?}");
    }
    // Those were issued before the keys were fetched, whatever the clocks are apart.
    for issued in [json!(now() - 60), json!(0), json!(-1), json!(i64::MIN)] {
        assert_eq!(unknown(issued.clone()).status, 403, "{issued}");
    }
    assert_eq!(gateway.refusals("pitchpoint", "keys_cooling_down"), 5.0);
    assert_eq!((issuer.fetches(), upstream.connections()), (2, 0));
}

#[test]
fn of_keys_with_one_name_all_that_fit_are_tried() {
    let other = |key: &str, member: &str, value: &str| {
        let mut key = named(key, "same");
        key[member] = json!(value);
        key
    };
    let ec = other_kinds()["keys"][0].clone();
    for (what, keys) in [
        ("another algorithm first", vec![other("b", "alg", "PS256"), named("b", "same")]),
        ("another algorithm last", vec![named("b", "same"), other("b", "alg", "PS256")]),
        ("for encryption first", vec![other("a", "use", "enc"), named("b", "same")]),
        ("for encryption last", vec![named("b", "same"), other("a", "use", "enc")]),
        ("another kind", vec![renamed(ec.clone(), "same"), named("b", "same"), renamed(ec, "same")]),
        ("another key first", vec![named("a", "same"), named("b", "same")]),
        ("another key last", vec![named("b", "same"), named("a", "same")]),
    ] {
        let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&json!({ "keys": keys })));
        let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
        let token = |key: &str| Issuer::token(&format!("pitchpoint-{key}"), "same", &claims(1, &issuer.url()));
        assert_eq!(delivery(1, &token("b")).send(gateway.address()).status, 200, "{what}");
        assert_eq!(delivery(2, &token("forger")).send(gateway.address()).status, 403, "{what}");
        assert_eq!(gateway.refusals("pitchpoint", "token_signature"), 1.0, "{what}");
    }
}

#[test]
fn four_keys_with_one_name_are_tried_and_no_more() {
    for (alike, status) in [(3, 200), (4, 403)] {
        let keys: Vec<_> = (0..alike).map(|_| named("a", "same")).chain([named("b", "same")]).collect();
        let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&json!({ "keys": keys })));
        let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
        let token = Issuer::token("pitchpoint-b", "same", &claims(1, &issuer.url()));
        assert_eq!(delivery(1, &token).send(gateway.address()).status, status, "{alike}");
        wait_until("the log", || left_out(&gateway, "same").len() == usize::from(status == 403));
    }
}

#[test]
fn sixty_four_keys_are_taken_and_no_more() {
    for (others, status) in [(63, 200), (64, 403)] {
        // What is of no use does not count.
        let useless = other_kinds()["keys"].as_array().expect("keys").clone();
        let others = (0..others).map(|number| named("a", &format!("other-{number}")));
        let keys: Vec<_> = useless.into_iter().chain(others).chain([named("b", "pps-2024-b")]).collect();
        let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&json!({ "keys": keys })));
        let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
        assert_eq!(event(1, "b", &issuer.url()).send(gateway.address()).status, status);
        assert_eq!(gateway.refusals("pitchpoint", "token_key_unusable"), if status == 403 { 1.0 } else { 0.0 });
    }
}

#[test]
fn a_key_that_is_left_out_is_logged_at_each_fetch_and_its_tokens_are_refused_for_that() {
    let modulus = |length: usize| {
        let mut key = named("b", &format!("rsa-{length}"));
        key["n"] = json!(base64url(&vec![0xc5; length]));
        key
    };
    let written = |kid: &str, change: fn(&str) -> String| {
        let mut key = named("b", kid);
        key["n"] = json!(change(key["n"].as_str().expect("a modulus")));
        key
    };
    let keys = json!({ "keys": [
        named("a", "pps-2024-a"),
        modulus(255), modulus(256), modulus(1024), modulus(1025),
        written("padded", |n| format!("{n}==")),
        written("spaced", |n| format!(" {n}")),
        { "kid": "unreadable", "kty": "RSA", "n": 5 },
        { "kty": "RSA", "n": named("b", "")["n"], "e": "AQAB" },
    ] });
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&keys));
    let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
    let refused = |kid: &str| {
        let token = Issuer::token("pitchpoint-b", kid, &claims(1, &issuer.url()));
        let answer = delivery(1, &token).send(gateway.address());
        assert_eq!(answer.status, 403, "{kid}");
        answer.text()
    };
    let outside = refused("rsa-256");
    for kid in ["rsa-255", "rsa-1025", "padded", "spaced", "unreadable"] {
        assert_eq!(refused(kid), outside, "{kid}: outside all are alike");
    }
    assert_eq!(refused("rsa-1024"), outside);
    let request = gateway.logged("the cause", |event| event["reason"] == "token_key_unusable");
    assert!(request.to_string().contains("too short: RSA has 2048 bits"), "{request}");
    assert_eq!(gateway.refusals("pitchpoint", "token_key_unusable"), 5.0);
    for (kid, reason) in [
        ("rsa-255", "too short"),
        ("rsa-1025", "too long"),
        ("padded", "base64url"),
        ("spaced", "base64url"),
        ("unreadable", "no JWK"),
        ("", "without a kid"),
    ] {
        wait_until(kid, || !left_out(&gateway, kid).is_empty());
        let lines = left_out(&gateway, kid);
        assert!(lines.len() == 1 && lines[0].contains(reason), "{kid}: {lines:?}");
    }
    // A key that is not there at all makes the keys be fetched again.
    assert_eq!(refused("nobody's"), outside);
    assert_eq!(issuer.fetches(), 2);
    wait_until("it to be logged again", || left_out(&gateway, "rsa-255").len() == 2);
}

#[test]
fn keys_are_requested_uncompressed_and_read_when_they_come_compressed() {
    use std::io::Write as _;
    let body = set(&["a"]).to_string();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(body.as_bytes()).expect("memory");
    let packed = packed.finish().expect("memory");
    let coded = |coding: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n", body.len());
        Reply::Raw([head.as_bytes(), body].concat())
    };
    for (reply, status) in [
        (coded("gzip", &packed), 200),
        (coded("GZIP", &packed), 200),
        (coded("identity", body.as_bytes()), 200),
        (coded("br", body.as_bytes()), 503),
        (coded("gzip", body.as_bytes()), 503),
        (coded("gzip", &packed[..packed.len() - 9]), 503),
    ] {
        let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&set(&[])));
        issuer.reply(reply.clone());
        let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
        assert_eq!(event(1, "a", &issuer.url()).send(gateway.address()).status, status, "{reply:?}");
        assert_eq!(issuer.asked()[0].header("accept-encoding"), Some("identity"));
    }
}

#[test]
fn a_new_key_is_accepted_at_once_and_a_withdrawn_one_no_more() {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&set(&["a"])));
    let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
    let mut before = claims(0, &issuer.url());
    before["iat"] = json!(now() - 60);
    let old = Issuer::token("pitchpoint-a", "pps-2024-a", &before);
    assert_eq!(delivery(1, &old).send(gateway.address()).status, 200);
    issuer.publish(&set(&["b"]));
    assert_eq!(event(2, "b", &issuer.url()).send(gateway.address()).status, 200);
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(delivery(3, &old).send(gateway.address()).status, 403, "that the token was accepted once is forgotten");
    assert_eq!(upstream.ids(), ["event-1", "event-2"]);
}

#[test]
fn while_an_issuer_has_never_answered_senders_are_told_to_come_again() {
    let upstream = Upstream::start();
    let address = Upstream::nowhere();
    let url = format!("http://{address}");
    let gateway = Gateway::start(&source("pitchpoint", &url, &upstream));
    let delivery = event(1, "a", &url);
    let answer = delivery.send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="keys_unavailable",source="pitchpoint"}"#), 1.0);
    // No key would make a token of this.
    let garbage = self::delivery(2, "garbage");
    assert_eq!(garbage.send(gateway.address()).status, 403);
    assert!(gateway.metric(FAILED) >= 1.0);
    assert!(!gateway.metrics().contains_key(AGE), "there are no keys that could have an age");
    gateway.logged("the failure", is_failed_fetch);
    let issuer = Upstream::at(address, |_, _| published(&set(&["a"])));
    wait_until("the keys to be fetched", || delivery.send(gateway.address()).status == 200);
    assert_eq!(issuer.received()[0].start, "GET /.well-known/jwks.json HTTP/1.1");
    assert_eq!(upstream.ids(), ["event-1"]);
}

#[test]
fn a_request_waits_for_the_first_keys() {
    let upstream = Upstream::start();
    let answering = Arc::new(AtomicBool::new(false));
    let waiting = Arc::clone(&answering);
    let issuer = Upstream::with(move |_, _| {
        wait_until("the test to let it answer", || waiting.load(Ordering::SeqCst));
        published(&set(&["a"]))
    });
    let url = format!("http://{}", issuer.address());
    let gateway = Gateway::start(&source("pitchpoint", &url, &upstream));
    let sender = event(1, "a", &url).begin(gateway.address());
    wait_until("the request to be there", || gateway.metric("doorward_in_flight_requests") == 1.0);
    answering.store(true, Ordering::SeqCst);
    assert_eq!(crate::harness::http::receive(&sender).status, 200);
}

#[test]
fn keys_outlive_their_issuer() {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&set(&["a"])));
    let url = issuer.url();
    let gateway = Gateway::start(&source("pitchpoint", &url, &upstream));
    assert_eq!(event(1, "a", &url).send(gateway.address()).status, 200);
    drop(issuer);
    assert_ne!(event(2, "b", &url).send(gateway.address()).status, 200);
    assert_eq!(gateway.metric(FAILED), 1.0, "a fetch was tried");
    assert_eq!(event(3, "a", &url).send(gateway.address()).status, 200);
}

#[test]
fn a_new_key_that_cannot_be_fetched_is_not_the_senders_fault() {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&set(&["a"])));
    let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
    assert_eq!(event(1, "a", &issuer.url()).send(gateway.address()).status, 200);
    issuer.reply(Reply::Status(500, ""));
    // The token is genuine for all anybody knows, and this provider never sends again after a 4xx.
    let answer = event(2, "b", &issuer.url()).send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
}

#[test]
fn a_new_key_whose_fetch_takes_too_long_is_not_the_senders_fault() {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&set(&["a"])));
    let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
    assert_eq!(event(1, "a", &issuer.url()).send(gateway.address()).status, 200);
    issuer.reply(Reply::Hold);
    let answer = event(2, "b", &issuer.url()).send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
}

macro_rules! answers_that_change_nothing {
    ($($name:ident: $reply:expr)*) => {
        mod keys_stay_when_the_issuer_answers_with {
            use super::*;
            $(#[test] fn $name() { assert_keys_stay($reply); })*
        }
    };
}

answers_that_change_nothing! {
    garbage: raw("200 OK", "", "<html>")
    nothing: raw("200 OK", "", "")
    an_empty_object: raw("200 OK", "", "{}")
    an_empty_set: published(&json!({ "keys": [] }))
    keys_of_another_kind: published(&other_kinds())
    half_a_set: half(&set(&["b"]))
    a_server_error: raw("500 Internal Server Error", "", &set(&["b"]).to_string())
    no_content: raw("204 No Content", "", "")
    a_set_that_is_too_large: published(&json!({ "keys": set(&["b"])["keys"], "padding": "x".repeat(300_000) }))
    a_body_that_hangs: Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"keys\":".to_vec())
    a_closed_connection: Reply::Close
}

#[test]
fn an_issuer_that_redirects_is_not_followed() {
    let elsewhere = Issuer::publishing(&set(&["b"]));
    assert_keys_stay(raw("302 Found", &format!("location: {}\r\n", elsewhere.url()), ""));
    assert_eq!(elsewhere.fetches(), 0);
}

/// A token that names a new key makes the gateway ask again. Whatever this answer is, it brings no key and takes none.
#[track_caller]
fn assert_keys_stay(reply: Reply) {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(&set(&["a"])));
    let gateway = Gateway::start(&source("pitchpoint", &issuer.url(), &upstream));
    assert_eq!(event(1, "a", &issuer.url()).send(gateway.address()).status, 200);
    issuer.reply(reply);
    let new = event(2, "b", &issuer.url()).send(gateway.address());
    assert!(matches!(new.status, 403 | 503), "{new:?}");
    wait_until("the fetch to fail", || gateway.metric(FAILED) == 1.0);
    assert_eq!((issuer.fetches(), gateway.metric(SUCCEEDED)), (2, 1.0));
    assert_eq!(event(3, "a", &issuer.url()).send(gateway.address()).status, 200);
    assert_eq!(upstream.ids(), ["event-1", "event-3"]);
}

fn source(name: &str, issuer: &str, upstream: &Upstream) -> String {
    format!(
        "[sources.{name}]\nprofile = \"pitchpoint\"\npath = \"/{name}\"\n\
         params = {{ issuer = \"{issuer}\", audience = \"test-tenant\" }}\n\
         deliver.upstream = {{ url = \"{}\" }}\n",
        upstream.url()
    )
}

/// An event with a token of its own, signed with one of the issuer's keys.
fn event(number: usize, key: &str, issuer: &str) -> Delivery {
    let token = Issuer::token(&format!("pitchpoint-{key}"), &format!("pps-2024-{key}"), &claims(number, issuer));
    delivery(number, &token)
}

fn delivery(number: usize, token: &str) -> Delivery {
    let headers = [
        ("Content-Type", "application/json".to_owned()),
        ("Authorization", format!("Bearer {token}")),
        ("X-Pps-Topic", "orders/placed".to_owned()),
        ("X-Pps-Webhook-Id", format!("event-{number}")),
        ("X-Pps-Triggered-At", "2026-01-01T10:00:00Z".to_owned()),
    ];
    Delivery {
        method: "POST".to_owned(),
        path: "/pitchpoint".to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        body: format!("{{\"orderId\":{number}}}").into_bytes(),
    }
}

fn claims(number: usize, issuer: &str) -> Value {
    json!({ "iss": issuer, "aud": "test-tenant", "exp": now() + 3600, "jti": number })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    since.as_secs().try_into().expect("before the end")
}

/// A key that a recorded delivery was verified with, under another name.
fn named(key: &str, kid: &str) -> Value {
    renamed(set(&[key])["keys"][0].clone(), kid)
}

fn renamed(mut key: Value, kid: &str) -> Value {
    key["kid"] = json!(kid);
    key
}

fn base64url(bytes: &[u8]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// What was logged of the keys with this name that are not taken.
fn left_out(gateway: &Gateway, kid: &str) -> Vec<String> {
    let lines = gateway.log().into_iter().filter(|event| event["url"].is_string());
    lines.filter(|event| event["kid"] == kid).map(|event| event["reason"].to_string()).collect()
}

/// A JWK set with some of the keys that a recorded delivery was verified with.
fn set(keys: &[&str]) -> Value {
    let recorded = Issuer::fixture_keys();
    let all = recorded["keys"].as_array().expect("keys");
    let named = |key: &&Value| keys.iter().any(|name| key["kid"] == format!("pps-2024-{name}"));
    json!({ "keys": all.iter().filter(named).collect::<Vec<_>>() })
}

/// Keys with the right name that no RS256 token can be verified with.
fn other_kinds() -> Value {
    let ec = json!({
        "kty": "EC", "crv": "P-256", "kid": "pps-2024-b",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    json!({ "keys": [ec, { "kty": "oct", "kid": "pps-2024-b", "k": "c2VjcmV0" }] })
}

fn published(set: &Value) -> Reply {
    raw("200 OK", "content-type: application/json\r\n", &set.to_string())
}

fn half(set: &Value) -> Reply {
    let text = set.to_string();
    raw("200 OK", "", text.split_at(text.len() / 2).0)
}

fn raw(status: &str, headers: &str, body: &str) -> Reply {
    Reply::Raw(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}
