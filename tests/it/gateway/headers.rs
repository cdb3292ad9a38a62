//! The headers that an upstream receives: the sender's, without what is for one hop only, and the gateway's own.

use std::time::SystemTime;

use crate::harness::gateway::Gateway;
use crate::harness::http::Message;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::provider::offergrid::offergrid;
use crate::harness::provider::offergrid::offergrid_source;
use crate::harness::upstream::Upstream;

#[test]
fn end_to_end_headers_arrive_as_they_were_sent() {
    let sent = [
        ("X-First", "1"),
        ("X-Many", "b"),
        ("X-Latin", "caf\u{e9} \u{80}\u{ff}"),
        ("X-Many", "a, a"),
        ("X-Tab", "a\tb  c"),
        ("X-Empty", ""),
        ("X-Many", "b"),
        ("Cookie", "a=1; b=2"),
        ("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("X-Digits-9", "1"),
    ];
    let received =
        delivered(&sent.iter().fold(Github::delivery("1", "{}"), |delivery, (name, value)| delivery.with(name, value)));
    let values = |wanted: &str| -> Vec<&str> {
        let all = received.headers.iter().filter(|(name, _)| name == wanted);
        all.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(values("x-many"), ["b", "a, a", "b"], "repeated ones in their order");
    for (name, value) in sent.iter().filter(|(name, _)| *name != "X-Many") {
        assert_eq!(values(&name.to_ascii_lowercase()), [*value], "{name}");
    }
    assert_eq!(values("content-type"), ["application/json"]);
    assert_eq!(values("x-github-event"), ["push"]);
    assert!(values("x-hub-signature-256")[0].starts_with("sha256="));
}

#[test]
fn headers_keep_their_order() {
    let received =
        delivered(&Github::delivery("1", "{}").with("X-C", "1").with("X-A", "2").with("X-B", "3").with("X-A", "4"));
    let order: Vec<_> = received.headers.iter().filter(|(name, _)| name.starts_with("x-") && name.len() == 3).collect();
    let names: Vec<_> = order.iter().map(|(name, value)| format!("{name}{value}")).collect();
    assert_eq!(names, ["x-c1", "x-a2", "x-a4", "x-b3"]);
}

#[test]
fn hop_by_hop_headers_are_not_forwarded() {
    let hops = [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authorization", "Basic c2VjcmV0"),
        ("TE", "trailers"),
        ("Trailer", "X-Late"),
        ("Upgrade", "websocket"),
    ];
    let delivery = hops.iter().fold(Github::delivery("1", "{}"), |delivery, (name, value)| delivery.with(name, value));
    let received = delivered(&delivery.with("Connection", "upgrade, te"));
    for (name, _) in hops.iter().chain(&[("Connection", ""), ("Transfer-Encoding", "")]) {
        assert_eq!(received.header(&name.to_ascii_lowercase()), None, "{name}");
    }
}

#[test]
fn headers_that_connection_names_are_not_forwarded() {
    let received = delivered(
        &Github::delivery("1", "{}").with("Connection", "X-Hop,  x-other").with("X-Hop", "1").with("X-Other", "2"),
    );
    assert_eq!((received.header("x-hop"), received.header("x-other")), (None, None));
}

#[test]
fn connection_cannot_strip_headers_of_the_gateway() {
    let named = "x-hub-signature-256, doorward-event-id, doorward-source, doorward-event-type, doorward-received-at, \
                 doorward-attempt, x-forwarded-for, x-forwarded-proto, x-forwarded-host, content-length, host";
    let received = delivered(&Github::delivery("77", "{\"n\":1}").with("Connection", named));
    assert_eq!(received.header("doorward-event-id"), Some("77"));
    assert_eq!(received.header("doorward-source"), Some("github"));
    assert_eq!(received.header("doorward-event-type"), Some("push"));
    assert_eq!(received.header("doorward-attempt"), Some("1"));
    assert!(received.header("doorward-received-at").is_some());
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
    assert_eq!(received.header("x-forwarded-host"), Some("hooks.example"));
    assert_eq!(received.header("content-length"), Some("7"));
    assert_eq!(received.body, b"{\"n\":1}");
}

#[test]
fn headers_of_the_gateway_cannot_be_spoofed() {
    let spoofed = [
        "doorward-source",
        "doorward-event-id",
        "DOORWARD-EVENT-TYPE",
        "Doorward_Event_Id",
        "doorward_event-id",
        "doorward-received-at",
        "doorward-attempt",
        "doorward-target",
        "doorward_target",
        "doorward-deduplicated",
        "doorward-anything",
        "doorward",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X_Forwarded_For",
        "Forwarded",
        "X-Real-IP",
    ];
    let delivery = spoofed.iter().fold(Github::delivery("1", "{}"), |delivery, name| delivery.with(name, "spoofed"));
    let received = delivered(&delivery);
    let left: Vec<_> = received.headers.iter().filter(|(_, value)| value.contains("spoofed")).collect();
    assert!(left.is_empty(), "{left:?}");
    let mut ours: Vec<_> = received.headers.iter().map(|(name, _)| name.as_str()).collect();
    ours.retain(|name| name.contains("doorward") || name.contains("forwarded"));
    ours.sort_unstable();
    let set = [
        "doorward-attempt",
        "doorward-event-id",
        "doorward-event-type",
        "doorward-received-at",
        "doorward-source",
        "doorward-target",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ];
    assert_eq!(ours, set, "each once");
}

#[test]
fn the_host_header_is_the_upstreams() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    let received = upstream.received().remove(0);
    let hosts: Vec<_> = received.headers.iter().filter(|(name, _)| name == "host").collect();
    assert_eq!(hosts, [&("host".to_owned(), upstream.address().to_string())]);
    assert_eq!(received.header("x-forwarded-host"), Some("hooks.example"));
}

#[test]
fn an_event_without_a_type_arrives_without_one() {
    let received =
        delivered(&Github::delivery("1", "{}").without("X-GitHub-Event").with("doorward-event-type", "push"));
    assert_eq!(received.header("doorward-event-type"), None);
}

#[test]
fn the_time_of_receipt_is_rfc3339_with_milliseconds() {
    let before = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let received = delivered(&Github::delivery("1", "{}"));
    let after = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let at = received.header("doorward-received-at").expect("a time").to_owned();
    assert!(at.len() == "2026-01-02T03:04:05.678Z".len() && at.ends_with('Z'), "{at}");
    // Times written alike are ordered like their texts.
    assert!(before <= at && at <= after, "{before} {at} {after}");
}

#[test]
fn an_id_in_the_body_beyond_ascii_arrives_as_utf8() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&offergrid_source(&upstream.url()));
    assert_eq!(offergrid("größe-1", SystemTime::now()).send(gateway.address()).status, 200);
    let id: Vec<u8> = upstream.ids()[0].chars().map(|character| u8::try_from(character).expect("a byte")).collect();
    assert_eq!(String::from_utf8(id).as_deref(), Ok("größe-1"));
    let received = upstream.received().remove(0);
    assert_eq!(received.header("doorward-source"), Some("offergrid"));
    assert_eq!(received.header("doorward-event-type"), Some("order.created"));
}

/// What an upstream receives of a delivery.
#[track_caller]
fn delivered(delivery: &Delivery) -> Message {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let answer = delivery.send(gateway.address());
    assert_eq!(answer.status, 200, "{}", answer.text());
    upstream.received().remove(0)
}
