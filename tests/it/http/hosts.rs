//! Sources that are told apart by the host of a request.

use crate::harness::authority::Authority;
use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::exchange;
use crate::harness::http2::Http2;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;

const LISTENERS: &str = "[server.listeners.plain]\nlisten = \"127.0.0.1:0\"\n\
                         [server.listeners.tls]\nlisten = \"127.0.0.1:0\"\n\
                         tls.certificates = [{ certificate = \"server.pem\", key = \"server.key\" }]\n";

#[test]
fn one_path_leads_to_several_sources_by_host() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, &upstream, true);
    for (number, (host, source)) in (0..).zip([
        ("one.example", "one"),
        ("ONE.example:8443", "one"),
        ("uno.example", "one"),
        ("two.example", "two"),
        ("three.example", "any"),
        ("127.0.0.1:1", "any"),
    ]) {
        assert_eq!(send(&gateway, &format!("h1-{number}"), host).status, 200, "{host}");
        assert_eq!(last_source(&upstream), source, "{host}");
        let mut client = Http2::connect(gateway.listener("tls"), &authority);
        let delivery = Github::delivery(&format!("h2-{number}"), format!("{{\"h2\":{number}}}"));
        assert_eq!(client.begin_as(host, &delivery, true).answer().status, 200, "{host}");
        assert_eq!(last_source(&upstream), source, "{host} over HTTP/2");
    }
}

#[test]
fn a_host_of_no_source_is_not_found_and_two_hosts_are_refused() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, &upstream, false);
    for host in ["three.example", "one.example.evil.example", "one.example.", ""] {
        assert_eq!(send(&gateway, "1", host).status, 404, "{host}");
    }
    assert_eq!(gateway.refusals("", "not_found"), 4.0);
    for (first, second) in [("one.example", "two.example"), ("two.example", "one.example")] {
        let mut client = Http2::connect(gateway.listener("tls"), &authority);
        let delivery = Github::delivery("1", "{}").with("Host", second);
        assert_eq!(client.begin_as(first, &delivery, true).answer().status, 400, "{first}, {second}");
        let sent = format!("{first}\r\nHost: {second}");
        assert_eq!(send(&gateway, "1", &sent).status, 400, "{first}, {second}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn the_host_of_an_absolute_target_is_that_of_the_request() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, &upstream, true);
    for (number, (target, host, source)) in (0..).zip([
        ("one.example", "one.example", Some("one")),
        ("two.example:80", "two.example", Some("two")),
        ("one.example:80", "two.example", Some("one")),
        ("user@one.example", "one.example", None),
    ]) {
        let delivery = Github::delivery(&number.to_string(), number.to_string()).with("Connection", "close");
        let bytes = String::from_utf8(delivery.bytes()).expect("text");
        let bytes = bytes.replace("Host: hooks.example", &format!("Host: {host}"));
        let bytes = bytes.replacen(" /", &format!(" http://{target}/"), 1);
        let answer = exchange(gateway.listener("plain"), bytes.as_bytes());
        assert_eq!(answer.status, if source.is_some() { 200 } else { 400 }, "{target}, {host}");
        if let Some(source) = source {
            let received = upstream.received().pop().expect("one");
            assert_eq!(
                (received.header("doorward-source"), received.header("x-forwarded-host")),
                (Some(source), Some(target))
            );
        }
    }
}

#[track_caller]
fn started(authority: &Authority, upstream: &Upstream, any: bool) -> Gateway {
    let source = Github::source(&upstream.url());
    let named = |name: &str, hosts: &str| {
        let key = name.repeat(12);
        let source = source.replace("[sources.github]", &format!("[sources.{name}]"));
        let secret = format!("plain:{}", crate::harness::provider::SECRET);
        format!("{}{hosts}\n", source.replace(&format!("[\"{secret}\"]"), &format!("[\"{secret}\", \"plain:{key}\"]")))
    };
    let mut sections = format!(
        "{LISTENERS}{}{}",
        named("one", "host = [\"one.example\", \"Uno.example\"]"),
        named("two", "host = \"two.example\"")
    );
    if any {
        sections.push_str(&named("any", ""));
    }
    authority.gateway(&sections)
}

/// Sends with this value of `Host`.
fn send(gateway: &Gateway, id: &str, host: &str) -> Answer {
    let delivery = Github::delivery(id, format!("{{\"id\":\"{id}\"}}")).with("Connection", "close");
    let bytes =
        String::from_utf8(delivery.bytes()).expect("text").replace("Host: hooks.example", &format!("Host: {host}"));
    exchange(gateway.listener("plain"), bytes.as_bytes())
}

fn last_source(upstream: &Upstream) -> String {
    upstream.received().last().and_then(|received| received.header("doorward-source").map(str::to_owned)).expect("one")
}
