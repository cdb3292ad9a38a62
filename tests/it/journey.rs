//! A webhook on its way: what the upstream receives and what the sender is told.

use crate::harness::Gateway;
use crate::harness::Github;
use crate::harness::Upstream;

#[test]
fn a_genuine_event_is_delivered_once_and_the_upstream_answers() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let delivery = Github::delivery("72d3162e", "{\"zen\": \"Keep it logically awesome.\"}\n");
    let first = delivery.send(gateway.address());
    assert_eq!((first.status, first.text().as_str()), (200, r#"{"ok":true}"#));
    assert_eq!(first.header("content-type"), Some("application/json"));
    let again = delivery.send(gateway.address());
    assert_eq!((again.status, again.text().as_str()), (200, r#"{"received":true,"duplicate":true}"#));
    assert_eq!(upstream.ids(), ["72d3162e"]);
    assert_eq!(gateway.metric(r#"doorward_requests_total{outcome="delivered",source="github"}"#), 1.0);
    assert_eq!(gateway.metric(r#"doorward_requests_total{outcome="duplicate",source="github"}"#), 1.0);
}
