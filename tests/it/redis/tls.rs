//! Redis behind TLS: only one whose certificate somebody vouches for is used.

use crate::harness::authority::Authority;
use crate::harness::free_port;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_redis;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Upstream;

#[test]
fn events_are_queued_and_let_through_once_over_tls() {
    let (authority, upstream, port) = (Authority::new(), Upstream::start(), free_port());
    let arguments = arguments(&authority, port);
    let _redis = Redis::with(&arguments.each_ref().map(String::as_str));
    let gateway = authority.gateway(&queued_in_redis(&upstream.url(), "", &format!("rediss://127.0.0.1:{port}")));
    let delivery = Github::delivery("one", "{}");
    assert_eq!(delivery.send_until_taken(gateway.address()).text(), QUEUED);
    assert_eq!(delivery.send(gateway.address()).text(), DUPLICATE);
    upstream.wait_for(1);
    assert_eq!(upstream.ids(), ["one"]);
}

#[test]
fn a_redis_with_the_certificate_of_a_stranger_is_not_used() {
    let (authority, stranger, upstream) = (Authority::new(), Authority::new(), Upstream::start());
    let port = free_port();
    let arguments = arguments(&stranger, port);
    let redis = Redis::with(&arguments.each_ref().map(String::as_str));
    let gateway = authority.gateway(&queued_in_redis(&upstream.url(), "", &format!("rediss://127.0.0.1:{port}")));
    gateway.logged("why", |event| {
        event["error"].as_str().is_some_and(|error| error.starts_with("invalid peer certificate"))
    });
    assert!(Github::delivery("one", "{}").send(gateway.address()).asks_to_come_again());
    assert_eq!(gateway.admin("/readyz").status, 503);
    assert!(upstream.received().is_empty());
    assert_eq!(redis.command::<u32>(&["DBSIZE"]), 0);
}

/// What makes a Redis server take TLS on this port.
fn arguments(authority: &Authority, port: u16) -> [String; 10] {
    let path = |name: &str| authority.path(name).to_str().expect("a path").to_owned();
    [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", path("server.pem")),
        ("--tls-key-file", path("server.key")),
        ("--tls-ca-cert-file", path("ca.pem")),
        ("--tls-auth-clients", "no".to_owned()),
    ]
    .map(|(name, value)| [name.to_owned(), value])
    .concat()
    .try_into()
    .expect("ten words")
}
