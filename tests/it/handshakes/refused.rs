//! What is no handshake, or not a good one: refused, and without a trace of what was asked.

use std::io::Read as _;
use std::io::Write as _;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::http::connect;
use crate::harness::http::receive;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::redis::Redis;
use crate::harness::upstream::Upstream;

const META: &str = "params = { verify_token = \"word\" }";
/// An own profile whose handshake writes into a header.
const HOOK: &str = r#"
[auth.hmac]
signature = { header = "X-Sig", encoding = "hex" }
signed = "{body}"
[event]
id = { digest = "body" }
[[handshake]]
method = "GET"
when = [{ query = "hook", present = true }]
reply = { headers = { "X-Hook" = "{query:hook}" } }
"#;

#[test]
fn metas_challenge_is_not_echoed_without_the_verify_token() {
    let (gateway, upstream) = start_shipped("meta", &with_secret(META));
    let wrong = [
        "hub.mode=subscribe&hub.challenge=C&hub.verify_token=sword",
        "hub.mode=subscribe&hub.challenge=C&hub.verify_token=wor",
        "hub.mode=subscribe&hub.challenge=C&hub.verify_token=Word",
        "hub.mode=subscribe&hub.challenge=C&hub.verify_token=word%20",
        "hub.mode=subscribe&hub.challenge=C&hub.verify_token=",
        "hub.mode=subscribe&hub.challenge=C&hub.Verify_token=word",
        "hub.mode=subscribe&hub.challenge=C",
        "hub.mode=subscribe&hub.challenge=C&hub.verify_token=word&hub.verify_token=word",
        "hub.mode=subscribe&hub.challenge=C&hub.challenge=C&hub.verify_token=word",
    ];
    let mut first = None;
    for query in wrong {
        let answer = get(&format!("/meta?{query}")).send(gateway.address());
        assert_eq!((answer.status, answer.header("content-type")), (401, Some("application/problem+json")), "{query}");
        assert_eq!(&answer.text(), first.get_or_insert_with(|| answer.text()), "{query}");
    }
    assert_eq!(gateway.refusals("meta", "handshake_refused"), 9.0);
    assert_eq!((gateway.outcomes("meta", "refused"), gateway.outcomes("meta", "handshake")), (9.0, 0.0));
    let event = gateway.logged("a refusal", |event| event["reason"] == "handshake_refused");
    assert_eq!((&event["level"], &event["status"]), (&"WARN".into(), &401.into()));
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn nothing_of_a_handshake_is_logged() {
    let (gateway, _upstream) = start_shipped("meta", &with_secret(META));
    for token in ["word", "spoken-token"] {
        let query = format!("hub.mode=subscribe&hub.challenge=spoken-challenge&hub.verify_token={token}");
        get(&format!("/meta?{query}")).send(gateway.address());
    }
    gateway.logged("the refusal", |event| event["reason"] == "handshake_refused");
    let log = format!("{:?}", gateway.log());
    assert!(!log.contains("spoken") && !log.contains("hub."), "{log}");
}

#[test]
fn signed_challenges_are_not_answered_without_a_signature() {
    let bodies = [
        ("slack", r#"{"type":"url_verification","challenge":"c"}"#, ""),
        ("zoom", r#"{"event":"endpoint.url_validation","payload":{"plainToken":"t"}}"#, ""),
        ("twitch", r#"{"challenge":"c"}"#, ""),
        ("xero", r#"{"events":[]}"#, ""),
        ("azure-event-grid", r#"[{"eventType":"Microsoft.EventGrid.SubscriptionValidationEvent"}]"#, ""),
    ];
    for (name, body, lines) in bodies {
        let (gateway, upstream) = start_shipped(name, &with_secret(lines));
        let answer = request("POST", &format!("/{name}"), &[], body)
            .with("Twitch-Eventsub-Message-Type", "webhook_callback_verification")
            .with("aeg-event-type", "SubscriptionValidation")
            .send(gateway.address());
        let content_type = Some("application/problem+json").filter(|_| name != "xero");
        assert_eq!((answer.status, answer.header("content-type")), (401, content_type), "{name}");
        assert_eq!((gateway.outcomes(name, "handshake"), upstream.connections()), (0.0, 0), "{name}");
    }
}

#[test]
fn another_origin_of_cloudevents_is_not_granted() {
    let (gateway, upstream) =
        start_shipped("cloudevents", &with_secret("params = { origin = \"eventgrid.azure.net\" }"));
    for origin in ["evil.example", "eventgrid.azure.net.evil.example", "EVENTGRID.azure.net", "*", ""] {
        let answer = request("OPTIONS", "/cloudevents", &[("WebHook-Request-Origin", origin)], "");
        let answer = answer.send(gateway.address());
        assert_eq!((answer.status, answer.header("webhook-allowed-origin")), (401, None), "{origin}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn other_methods_are_answered_405_with_those_that_are_taken() {
    let with_get = start_shipped("meta", &with_secret(META));
    let with_head = start_shipped("trello", &with_secret("params = { url = \"https://hooks.example/\" }"));
    let with_options = start_shipped("cloudevents", &with_secret("params = { origin = \"o\" }"));
    let with_none = start_shipped("github", &with_secret(""));
    for ((gateway, upstream), name, allowed) in [
        (with_get, "meta", "POST, GET"),
        (with_head, "trello", "POST, HEAD"),
        (with_options, "cloudevents", "POST, OPTIONS"),
        (with_none, "github", "POST"),
    ] {
        let others = ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "post"];
        for method in others.into_iter().filter(|method| !allowed.contains(method)) {
            let text = request(method, &format!("/{name}"), &[], "").send_for_bytes(gateway.address());
            assert!(text.starts_with("HTTP/1.1 405 "), "{method} {name}: {text}");
            assert!(text.contains(&format!("\r\nallow: {allowed}\r\n")), "{method} {name}: {text}");
            assert_eq!(text.ends_with("\r\n\r\n"), method == "HEAD", "{method} {name}: {text}");
        }
        assert_eq!(upstream.connections(), 0);
    }
}

#[test]
fn a_get_that_is_no_handshake_is_answered_405() {
    let (gateway, _upstream) = start_shipped("meta", &with_secret(META));
    for query in ["", "?", "?hub.mode=unsubscribe&hub.verify_token=word&hub.challenge=C", "?hub.mode", "?%", "?%ff"] {
        let answer = get(&format!("/meta{query}")).send(gateway.address());
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, GET")), "{query}");
    }
}

#[test]
fn a_method_that_nobody_takes_is_refused_before_anything_else_is_looked_at() {
    let (gateway, _upstream) = start_shipped("github", &format!("{}\nallow = [\"192.0.2.1\"]", with_secret("")));
    let head = get("/github").with("X-Hub-Signature-256", "a").with("X-Hub-Signature-256", "b");
    let head = head.with("Content-Encoding", "gzip").with("Content-Length", "100000000");
    let mut stream = connect(gateway.address());
    // The body never comes.
    stream.write_all(&head.bytes()).expect("sent");
    assert_eq!(receive(&stream).status, 405);
}

#[test]
fn an_allowlist_holds_for_handshakes_too() {
    let (gateway, _upstream) = start_shipped("meta", &format!("{}\nallow = [\"192.0.2.1\"]", with_secret(META)));
    let answer = right().send(gateway.address());
    assert_eq!((answer.status, answer.text().contains("4711")), (403, false));
    assert_eq!(gateway.refusals("meta", "address_not_allowed"), 1.0);
}

#[test]
fn a_challenge_is_given_back_up_to_8_kib() {
    let (gateway, _upstream) = start_shipped("meta", &with_secret(META));
    let ask = |length: usize| {
        let query = format!("hub.mode=subscribe&hub.verify_token=word&hub.challenge={}", "c".repeat(length));
        get(&format!("/meta?{query}")).send(gateway.address())
    };
    assert_eq!(ask(8192).text().len(), 8192);
    assert_eq!(ask(8193).status, 401);
    assert_eq!(gateway.refusals("meta", "handshake_refused"), 1.0);
}

#[test]
fn a_handshake_with_a_body_is_read_like_any_other_request() {
    let (gateway, _upstream) = start_shipped("meta", &with_secret(META));
    let with = |body: &str| Delivery { body: body.as_bytes().to_vec(), ..right() };
    assert_eq!(with("{\"hub.mode\":").send(gateway.address()).text(), "4711");
    assert_eq!(with("x").chunked(1).send(gateway.address()).text(), "4711");
    assert_eq!(with(&"x".repeat(2 << 20)).send(gateway.address()).status, 413);
    assert_eq!(right().with("Content-Encoding", "br").send(gateway.address()).status, 415);
    let twice = right().with("X-Hub-Signature-256", "a").with("X-Hub-Signature-256", "b");
    assert_eq!(twice.send(gateway.address()).status, 400);
}

#[test]
fn the_connection_is_good_for_the_next_request_after_a_handshake() {
    let (gateway, _upstream) = start_shipped("meta", &with_secret(META));
    let stream = connect(gateway.address());
    for _ in 0..3 {
        assert_eq!(right().send_on(&stream).text(), "4711");
    }
    assert_eq!(gateway.outcomes("meta", "handshake"), 3.0);
}

#[test]
fn a_body_after_a_head_request_is_not_taken_for_a_request() {
    let (gateway, _upstream) = start_shipped("intercom", &with_secret(""));
    let mut stream = connect(gateway.address());
    // Bodies that nobody reads must not be taken for requests either.
    let bodies = ["", "GET /own HTTP/1.1\r\n\r\n"].map(|body| request("HEAD", "/intercom", &[], body).bytes());
    stream.write_all(&bodies.concat()).expect("sent");
    stream.write_all(&request("PUT", "/intercom", &[("Connection", "close")], "").bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answers");
    let statuses: Vec<_> = text.lines().filter(|line| line.contains("HTTP/1.1")).collect();
    assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 405 Method Not Allowed"], "{text}");
}

#[test]
fn a_challenge_cannot_inject_headers_into_the_answer() {
    let (gateway, _upstream) = start_with_profile(HOOK, &with_secret(""));
    let ask = |value: &str| get(&format!("/own?hook={value}")).send(gateway.address());
    assert_eq!(ask("a%20b").header("x-hook"), Some("a b"));
    for value in ["a%0d%0aSet-Cookie:%20b=c", "a%0aSet-Cookie:%20b=c", "a%0d", "%00", "%7f"] {
        let answer = ask(value);
        assert_eq!((answer.status, answer.header("set-cookie"), answer.header("x-hook")), (401, None, None), "{value}");
    }
}

#[test]
fn handshakes_leave_nothing_in_a_store() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let sections = format!(
        "[store]\nurl = \"{}\"\n[sources.meta]\nprofile = \"meta\"\npath = \"/meta\"\n{}\n\
         deliver.upstream = {{ url = \"{}\" }}\n",
        redis.url(),
        with_secret(META),
        upstream.url()
    );
    let gateway = Gateway::start(&sections);
    for _ in 0..2 {
        assert_eq!(right().send(gateway.address()).text(), "4711");
    }
    assert_eq!(redis.command::<u64>(&["DBSIZE"]), 0);
    assert_eq!(upstream.connections(), 0);
}

fn right() -> Delivery {
    get("/meta?hub.mode=subscribe&hub.verify_token=word&hub.challenge=4711")
}

fn with_secret(lines: &str) -> String {
    format!("secrets = [\"plain:{SECRET}\"]\n{lines}")
}

fn get(target: &str) -> Delivery {
    request("GET", target, &[], "")
}
