//! Where a request comes from: allowlists, trusted proxies, and what the upstream is told of the way.

use std::io::BufReader;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::Message;
use crate::harness::http::connect;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;

const TRUSTED: &str = "[server]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n";

#[test]
fn an_address_on_the_allowlist_is_let_in() {
    for allow in ["127.0.0.1", "127.0.0.0/8", "0.0.0.0/0", "::ffff:127.0.0.0/104", "::ffff:127.0.0.1", "::/0"] {
        let (gateway, upstream) = started("", &format!("allow = [\"203.0.113.7\", \"{allow}\"]"));
        assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200, "{allow}");
        assert_eq!(upstream.ids(), ["1"], "{allow}");
    }
}

#[test]
fn an_address_that_is_not_on_the_allowlist_is_refused_before_its_body_comes() {
    let (gateway, upstream) = started("", "allow = [\"203.0.113.0/24\", \"127.0.0.2\", \"2001:db8::/32\", \"::1\"]");
    let mut delivery = Github::delivery("1", "").with("Content-Length", "1000");
    delivery.body.clear();
    let stream = connect(gateway.address());
    (&stream).write_all(&delivery.bytes()).expect("sent");
    let answer: Answer = Message::read(&mut BufReader::new(stream)).expect("an answer").expect("an answer").into();
    assert_eq!((answer.status, answer.header("content-type")), (403, Some("application/problem+json")));
    assert_eq!(refusals(&gateway, "address_not_allowed"), 1.0);
    assert_eq!(upstream.connections(), 0);
    assert!(!answer.text().contains("203.0.113"), "{}", answer.text());
}

#[test]
fn a_genuine_signature_does_not_open_the_allowlist() {
    let (gateway, upstream) = started("", "allow = [\"203.0.113.0/24\"]");
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 403);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn ipv6_addresses_are_matched() {
    let (gateway, upstream) = started("[server]\nlisten = \"[::1]:0\"\n", "allow = [\"::1\"]");
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    assert_eq!(upstream.received()[0].header("x-forwarded-for"), Some("::1"));
    let (gateway, _upstream) =
        started("[server]\nlisten = \"[::1]:0\"\n", "allow = [\"2001:db8::/32\", \"0.0.0.0/0\"]");
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 403);
}

#[test]
fn an_ipv4_peer_of_an_ipv6_listener_counts_as_ipv4() {
    let (gateway, upstream) = started("[server]\nlisten = \"[::]:0\"\n", "allow = [\"127.0.0.0/8\"]");
    let port = gateway.address().port();
    assert_eq!(Github::delivery("1", "{}").send(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).status, 200);
    assert_eq!(upstream.received()[0].header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(Github::delivery("2", "[]").send(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).status, 403);
}

#[test]
fn an_ipv4_peer_of_an_ipv6_listener_can_be_a_trusted_proxy() {
    let server = "[server]\nlisten = \"[::]:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let (gateway, upstream) = started(server, "allow = [\"203.0.113.0/24\"]");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, gateway.address().port()));
    assert_eq!(forwarded("1", "203.0.113.9").send(address).status, 200);
    assert_eq!(upstream.received()[0].header("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
}

#[test]
fn what_an_untrusted_peer_says_of_its_address_is_ignored() {
    let (gateway, upstream) = started("", "allow = [\"203.0.113.0/24\"]");
    let spoofed = [("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.9"), ("X-Real-IP", "203.0.113.9")];
    for (name, value) in spoofed {
        assert_eq!(Github::delivery("1", "{}").with(name, value).send(gateway.address()).status, 403, "{name}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn the_first_untrusted_address_from_the_right_is_the_client() {
    let (gateway, upstream) = started(TRUSTED, "allow = [\"203.0.113.0/24\", \"2001:db8::/32\"]");
    let good = [
        ("203.0.113.9", "203.0.113.9, 127.0.0.1"),
        ("203.0.113.9, 10.0.0.2", "203.0.113.9, 10.0.0.2, 127.0.0.1"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9, 127.0.0.1"),
        ("garbage, 203.0.113.9,10.0.0.2 ,  10.0.0.3", "203.0.113.9, 10.0.0.2, 10.0.0.3, 127.0.0.1"),
        ("203.0.113.9:443", "203.0.113.9, 127.0.0.1"),
        ("[2001:db8::1]:443", "2001:db8::1, 127.0.0.1"),
        ("2001:db8::1", "2001:db8::1, 127.0.0.1"),
        ("::ffff:203.0.113.9", "203.0.113.9, 127.0.0.1"),
    ];
    for (sent, chain) in good {
        let answer = forwarded(sent, sent).send(gateway.address());
        assert_eq!(answer.status, 200, "{sent}");
        let received = upstream.received().pop().expect("a delivery");
        let chains: Vec<_> = received.headers.iter().filter(|(name, _)| name == "x-forwarded-for").collect();
        assert_eq!(chains, [&("x-forwarded-for".to_owned(), chain.to_owned())], "{sent}");
    }
    for bad in ["203.0.113.9, 198.51.100.1", "203.0.113.9, 198.51.100.1, 10.0.0.2", "10.0.0.2", "203.0.114.1"] {
        assert_eq!(forwarded(bad, bad).send(gateway.address()).status, 403, "{bad}");
    }
    assert_eq!(refusals(&gateway, "address_not_allowed"), 4.0);
    assert_eq!(upstream.ids().len(), good.len());
}

#[test]
fn several_headers_are_one_chain() {
    let (gateway, upstream) = started(TRUSTED, "allow = [\"203.0.113.0/24\"]");
    let good =
        forwarded("1", "198.51.100.1").with("X-Forwarded-For", "203.0.113.9").with("X-Forwarded-For", "10.0.0.2");
    assert_eq!(good.send(gateway.address()).status, 200);
    let chain = upstream.received()[0].header("x-forwarded-for").map(str::to_owned);
    assert_eq!(chain.as_deref(), Some("203.0.113.9, 10.0.0.2, 127.0.0.1"));
    let bad = forwarded("2", "203.0.113.9").with("X-Forwarded-For", "198.51.100.1");
    assert_eq!(bad.send(gateway.address()).status, 403, "what stands further left was written by the sender");
}

#[test]
fn a_chain_that_cannot_be_read_is_refused_where_addresses_matter() {
    let (gateway, upstream) = started(TRUSTED, "allow = [\"0.0.0.0/0\", \"::/0\"]");
    let garbage =
        ["", "unknown", "_hidden", "203.0.113.9, ", ",", "203.0.113", "203.0.113.9, \u{e9}", "1.2.3.4/8", "\"::1\""];
    for value in garbage {
        let answer = forwarded("1", value).send(gateway.address());
        assert_eq!(answer.status, 403, "{value:?}");
    }
    assert_eq!(refusals(&gateway, "address_unknown"), garbage.len() as f64);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_trusted_proxy_that_names_nobody_is_the_client_itself() {
    let (gateway, upstream) = started(TRUSTED, "allow = [\"127.0.0.1\"]");
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    assert_eq!(upstream.received()[0].header("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn what_a_trusted_proxy_says_of_scheme_and_host_is_kept() {
    let (gateway, upstream) = started(TRUSTED, "");
    let delivery = forwarded("1", "203.0.113.9")
        .with("X-Forwarded-Proto", "https")
        .with("X-Forwarded-Host", "hooks.public.example");
    assert_eq!(delivery.send(gateway.address()).status, 200);
    let received = upstream.received().remove(0);
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    assert_eq!(received.header("x-forwarded-host"), Some("hooks.public.example"));
    assert_eq!(received.header("host"), Some(upstream.address().to_string().as_str()));
}

#[test]
fn what_others_say_of_scheme_and_host_is_overwritten() {
    let (gateway, upstream) = started("", "");
    let delivery = forwarded("1", "203.0.113.9")
        .with("X-Forwarded-Proto", "https")
        .with("X-Forwarded-Host", "spoofed.example")
        .with("X-Forwarded-Port", "443")
        .with("Forwarded", "for=203.0.113.9;proto=https");
    assert_eq!(delivery.send(gateway.address()).status, 200);
    let received = upstream.received().remove(0);
    let forwarded: Vec<_> = received.headers.iter().filter(|(name, _)| name.contains("forwarded")).cloned().collect();
    let expected =
        [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "hooks.example")];
    assert_eq!(forwarded, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_log_names_the_client_behind_the_proxy() {
    let (gateway, _upstream) = started(TRUSTED, "");
    assert_eq!(forwarded("1", "198.51.100.1, 203.0.113.9").send(gateway.address()).status, 200);
    let event = gateway.logged("the request", |event| event["outcome"] == "delivered");
    assert_eq!(event["client"], "203.0.113.9");
}

#[test]
fn a_chain_of_thousands_does_no_harm() {
    let (gateway, upstream) = started(TRUSTED, "allow = [\"203.0.113.0/24\"]");
    let proxies = "10.0.0.2, ".repeat(3000);
    let answer = forwarded("1", &format!("203.0.113.9, {proxies}10.0.0.2")).send(gateway.address());
    assert_eq!(answer.status, 200);
    assert!(upstream.received()[0].header("x-forwarded-for").is_some_and(|chain| chain.starts_with("203.0.113.9, ")));
}

fn started(server: &str, source: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&format!("{server}{}{source}\n", Github::source(&upstream.url()))), upstream)
}

/// A delivery with an id and body of its own that came by this chain.
fn forwarded(id: &str, chain: &str) -> Delivery {
    let id: String = id.chars().filter(char::is_ascii).collect();
    Github::delivery(&format!("id {id}"), format!("{{\"id\":\"{id}\"}}")).with("X-Forwarded-For", chain)
}

fn refusals(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("doorward_refusals_total{{reason=\"{reason}\",source=\"github\"}}"))
}
