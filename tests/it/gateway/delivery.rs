//! Deliveries: which bytes the upstream receives, and how often.

use std::io::BufReader;
use std::io::Write as _;
use std::time::SystemTime;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::Message;
use crate::harness::http::connect;
use crate::harness::provider::github::Github;
use crate::harness::provider::offergrid::offergrid;
use crate::harness::provider::offergrid::offergrid_source;
use crate::harness::upstream::Upstream;

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

#[test]
fn the_upstream_receives_a_post_to_its_own_url() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&format!("{}/hooks?from=doorward", upstream.url())));
    let answer = Github::delivery("1", "{}").to("/webhooks/github?from=elsewhere").send(gateway.address());
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.received()[0].start, "POST /app/hooks?from=doorward HTTP/1.1");
}

#[test]
fn every_body_arrives_byte_for_byte() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let bodies = awkward_bodies();
    for (number, body) in bodies.iter().enumerate() {
        assert_eq!(Github::delivery(&number.to_string(), body.as_slice()).send(gateway.address()).status, 200);
    }
    let received: Vec<_> = upstream.received().into_iter().map(|message| message.body).collect();
    assert_eq!(received, bodies);
}

#[test]
fn a_chunked_body_arrives_whole_with_one_length() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let bodies = awkward_bodies();
    for (number, body) in bodies.iter().enumerate() {
        let delivery = Github::delivery(&number.to_string(), body.as_slice()).chunked(1000);
        assert_eq!(delivery.send(gateway.address()).status, 200);
    }
    for (message, body) in upstream.received().iter().zip(&bodies) {
        let lengths: Vec<_> = message.headers.iter().filter(|(name, _)| name == "content-length").collect();
        assert_eq!(lengths, [&("content-length".to_owned(), body.len().to_string())]);
        assert_eq!(message.header("transfer-encoding"), None);
        assert_eq!(&message.body, body);
    }
    assert_eq!(upstream.received().len(), bodies.len());
}

#[test]
fn trailers_of_a_chunked_body_are_not_forwarded() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let mut delivery = Github::delivery("1", "{}").chunked(1).with("Trailer", "X-Late");
    delivery.body.truncate(delivery.body.len() - 2);
    delivery.body.extend(b"X-Late: 1\r\nDoorward-Event-Id: other\r\n\r\n");
    assert_eq!(delivery.send(gateway.address()).status, 200);
    let received = upstream.received();
    assert_eq!((received[0].body.as_slice(), received[0].header("x-late")), (&b"{}"[..], None));
    assert_eq!(upstream.ids(), ["1"]);
}

#[test]
fn a_request_that_trickles_in_is_put_together() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let mut stream = connect(gateway.address());
    for byte in Github::delivery("1", "{\"slow\": true}\n").bytes() {
        stream.write_all(&[byte]).expect("sent");
    }
    let answer: Answer = Message::read(&mut BufReader::new(stream)).expect("an answer").expect("an answer").into();
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.received()[0].body, b"{\"slow\": true}\n");
}

#[test]
fn one_connection_carries_many_events() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let stream = connect(gateway.address());
    for number in 0..20 {
        let delivery = Github::delivery(&number.to_string(), format!("{number}"));
        assert_eq!(delivery.send_on(&stream).status, 200);
    }
    assert_eq!(upstream.ids().len(), 20);
}

#[test]
fn types_that_are_not_wanted_are_acknowledged_and_not_delivered() {
    let upstream = Upstream::start();
    let wanted = format!("{}events = [\"issues\", \"pull_request*\"]\n", Github::source(&upstream.url()));
    let gateway = Gateway::start(&wanted);
    let kinds = ["push", "issues", "issues_other", "pull_request", "pull_request_review", "Issues"];
    for kind in kinds {
        let answer = Github::delivery(kind, kind).set("X-GitHub-Event", kind).send(gateway.address());
        let taken = if upstream.ids().last().is_some_and(|id| id == kind) {
            r#"{"ok":true}"#
        } else {
            r#"{"received":true,"ignored":true}"#
        };
        assert_eq!((answer.status, answer.text().as_str()), (200, taken), "{kind}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(upstream.ids(), ["issues", "pull_request", "pull_request_review"]);
    assert_eq!(gateway.metric(r#"doorward_requests_total{outcome="ignored",source="github"}"#), 3.0);
}

#[test]
fn types_in_the_body_are_selected_by_too() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&format!("{}events = [\"shop.*\"]\n", offergrid_source(&upstream.url())));
    let answer = offergrid("1", SystemTime::now()).send(gateway.address());
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"received":true,"ignored":true}"#));
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_forged_event_of_an_unwanted_type_is_still_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&format!("{}events = [\"issues\"]\n", Github::source(&upstream.url())));
    let mut forged = Github::delivery("1", "{}");
    forged.body = b"[]".to_vec();
    assert_eq!(forged.send(gateway.address()).status, 401);
}

/// Bodies that a gateway which decodes, trims or re-serialises would change.
fn awkward_bodies() -> Vec<Vec<u8>> {
    vec![
        b"".to_vec(),
        b"\n".to_vec(),
        b"{\"a\": 1.0, \"a\":  2e0 }\r\n\r\n".to_vec(),
        b"\xef\xbb\xbf{}\0".to_vec(),
        b"\xff\xfe\xc3\x28\xed\xa0\x80".to_vec(),
        (0..=255).collect(),
        (0..200_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
    ]
}
