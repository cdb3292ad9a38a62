//! Certificates of listeners that are exchanged while the gateway runs.

use std::io::Write as _;

use crate::harness::authority::Authority;
use crate::harness::gateway::Gateway;
use crate::harness::provider::github::Github;
use crate::harness::tls::client_config;
use crate::harness::tls::connect_as;
use crate::harness::tls::connect_tls;
use crate::harness::tls::exchange_on;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const FAILURES: &str = "doorward_config_reloads_total{outcome=\"failure\"}";

#[test]
fn new_handshakes_see_the_new_certificate_and_connections_go_on() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = authority.gateway(&format!(
        "[server.listeners.public]\nlisten = \"127.0.0.1:0\"\n\
         tls.certificates = [{{ certificate = \"server.pem\", key = \"server.key\" }}]\n{}",
        Github::source(&upstream.url())
    ));
    let mut open = connect_tls(gateway.address(), &authority);
    assert_eq!(exchange_on(&mut open, &Github::delivery("1", "1").bytes()).status, 200);
    // A key without its certificate changes nothing.
    authority.issue("next", &["new.example"]);
    let exchange = |kind: &str| {
        std::fs::rename(authority.path(&format!("next.{kind}")), authority.path(&format!("server.{kind}")))
            .expect("moved");
    };
    exchange("key");
    gateway.signal("HUP");
    wait_until("the reload to fail", || gateway.metric(FAILURES) >= 1.0);
    assert!(is_valid_for(&gateway, &authority, "127.0.0.1"));
    exchange("pem");
    gateway.signal("HUP");
    wait_until("the new one", || is_valid_for(&gateway, &authority, "new.example"));
    assert!(!is_valid_for(&gateway, &authority, "127.0.0.1"));
    assert_eq!(exchange_on(&mut open, &Github::delivery("2", "2").bytes()).status, 200);
    assert_eq!(gateway.metric("doorward_config_restart_needed"), 0.0);
    // Without being told, too.
    authority.issue("server", &["third.example"]);
    wait_until("the third one", || is_valid_for(&gateway, &authority, "third.example"));
}

fn is_valid_for(gateway: &Gateway, authority: &Authority, name: &str) -> bool {
    connect_as(gateway.address(), name, client_config(authority, &[], None)).write_all(b"GET / HTTP/1.1\r\n").is_ok()
}
