//! Which requests are for a source at all: exactly its path, and POST.

use std::io::Read as _;
use std::io::Write as _;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::connect;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::provider::github::assert_serves;
use crate::harness::upstream::Upstream;

#[test]
fn unknown_paths_are_answered_404() {
    let (gateway, upstream) = started();
    let answer = Github::delivery("1", "{}").to("/webhooks/gitlab").send(gateway.address());
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.json()["status"], 404);
    assert_eq!(upstream.connections(), 0);
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="not_found",source=""}"#), 1.0);
}

#[test]
fn no_other_spelling_of_a_path_reaches_an_upstream() {
    let (gateway, upstream) = started();
    let spellings = [
        "/",
        "/webhooks",
        "/webhooks/",
        "/webhooks/%67ithub",
        "/webhooks%2Fgithub",
        "/%77ebhooks/github",
        "//webhooks/github",
        "/webhooks//github",
        "/webhooks/./github",
        "/./webhooks/github",
        "/webhooks/x/../github",
        "/webhooks/x/%2e%2e/github",
        "/../webhooks/github",
        "/webhooks/github/",
        "/webhooks/github/.",
        "/webhooks/github;x",
        "/webhooks;x/github",
        "/webhooks/github%00",
        "/webhooks/github%20",
        "/webhooks/github%3F",
        "/webhooks/github%23",
        "/webhooks/github.json",
        "/webhooks/GitHub",
        "/WEBHOOKS/GITHUB",
        "/webhooks\\github",
        "\\webhooks\\github",
        "webhooks/github",
        "*",
        "?/webhooks/github",
        "/?/webhooks/github",
        "http://hooks.example",
        "http://hooks.example/",
        "http://hooks.example//webhooks/github",
        "http://hooks.example/webhooks/%67ithub",
        "http:///webhooks/github",
        "http://hooks.example:80:80/webhooks/github",
        "/webhooks/g\u{ef}thub",
        "/webhooks/github\t",
    ];
    for spelling in spellings {
        let answer = Latin(Github::delivery("1", "{}").to(spelling)).send(&gateway);
        assert!([400, 404].contains(&answer), "{spelling:?}: {answer}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn a_target_in_absolute_form_is_routed_by_its_path() {
    let (gateway, upstream) = started();
    let answer = Github::delivery("1", "{}").to("http://anything.example/webhooks/github").send(gateway.address());
    assert_eq!((answer.status, upstream.ids()), (200, vec!["1".to_owned()]));
    assert_eq!(upstream.received()[0].start, "POST /app HTTP/1.1", "and says nothing about where it goes");
    assert_eq!(upstream.received()[0].header("host"), Some(upstream.address().to_string().as_str()));
}

#[test]
fn other_methods_are_answered_405_with_what_is_allowed() {
    let (gateway, upstream) = started();
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post", "POSTS", "PROPFIND"] {
        let mut delivery = Github::delivery("1", "{}");
        method.clone_into(&mut delivery.method);
        let answer = delivery.send(gateway.address());
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
        assert_eq!(answer.json()["status"], 405, "{method}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="method_not_allowed",source="github"}"#), 9.0);
}

#[test]
fn head_is_answered_without_a_body() {
    let (gateway, _upstream) = started();
    let mut stream = connect(gateway.address());
    stream.write_all(b"HEAD /webhooks/github HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nallow: post\r\n"), "{answer}");
}

#[test]
fn the_method_cannot_be_overridden() {
    let (gateway, upstream) = started();
    let mut delivery = Github::delivery("1", "{}").with("X-HTTP-Method-Override", "POST").with("X-Method", "POST");
    "GET".clone_into(&mut delivery.method);
    assert_eq!(delivery.to("/webhooks/github?_method=POST").send(gateway.address()).status, 405);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn connect_opens_no_tunnel() {
    let (gateway, upstream) = started();
    let target = upstream.address();
    let answer = crate::harness::http::exchange(
        gateway.address(),
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    assert!([400, 404, 405].contains(&answer.status), "{}", answer.status);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn rewrite_headers_do_not_change_the_path() {
    let (gateway, upstream) = started();
    let delivery = Github::delivery("1", "{}")
        .to("/elsewhere")
        .with("X-Original-URL", "/webhooks/github")
        .with("X-Rewrite-URL", "/webhooks/github")
        .with("X-Forwarded-Prefix", "/webhooks/github")
        .with("X-Forwarded-Path", "/webhooks/github");
    assert_eq!(delivery.send(gateway.address()).status, 404);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn the_admin_paths_are_not_on_the_public_address() {
    let (gateway, _upstream) = started();
    for path in ["/metrics", "/livez", "/readyz", "/drain"] {
        let answer: Answer = crate::harness::http::exchange(
            gateway.address(),
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        assert_eq!(answer.status, 404, "{path}");
    }
    assert_eq!(gateway.admin("/readyz").status, 200, "it is not draining");
}

fn started() -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&Github::source(&upstream.url())), upstream)
}

/// A delivery whose request line has bytes that no client library would send.
struct Latin(Delivery);

impl Latin {
    #[track_caller]
    fn send(self, gateway: &Gateway) -> u16 {
        let path = self.0.path.clone();
        let bytes = self.0.to("PATH").with("Connection", "close").bytes();
        let path: Vec<u8> = path.chars().map(|character| u8::try_from(character).expect("ISO 8859-1")).collect();
        let request = [b"POST ".as_slice(), &path, &bytes[b"POST PATH".len()..]].concat();
        crate::harness::http::exchange(gateway.address(), &request).status
    }
}
