//! How a gateway stops, and how it is taken out of service before.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;

use crate::harness::gateway::Exit;
use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::connect;
use crate::harness::http::receive;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

#[test]
fn a_request_in_flight_is_finished_after_sigterm() {
    finishes_after("TERM");
}

#[test]
fn a_request_in_flight_is_finished_after_sigint() {
    finishes_after("INT");
}

/// Not ready and closed to new connections at once; the request in flight is answered, and the process ends well.
#[track_caller]
fn finishes_after(signal: &str) {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let sender = send("one", gateway.address());
    upstream.wait_for(1);
    assert_eq!(gateway.admin("/readyz").status, 200);
    gateway.signal(signal);
    wait_until("the listener to be closed", || TcpStream::connect(gateway.address()).is_err());
    assert_eq!(gateway.admin("/readyz").status, 503);
    assert_eq!(gateway.admin("/livez").status, 200);
    upstream.release();
    let answer = receive(&sender);
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"ok":true}"#));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(gateway.wait().status.code(), Some(0));
}

#[test]
fn a_delivery_whose_sender_hung_up_is_finished_and_remembered_before_the_end() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let sections = Github::source(&upstream.url()) + "[store]\nurl = \"sqlite:store.db\"\n";
    let gateway = Gateway::start(&sections);
    let sender = send("one", gateway.address());
    upstream.wait_for(1);
    drop(sender);
    gateway.signal("TERM");
    wait_until("the listener to be closed", || TcpStream::connect(gateway.address()).is_err());
    assert_eq!(gateway.metric("doorward_in_flight_requests"), 1.0);
    upstream.release();
    let Exit { status, folder } = gateway.wait();
    assert_eq!(status.code(), Some(0));
    let next = Gateway::start_in(folder.expect("its folder"), &sections);
    let again = Github::delivery("one", "one").send(next.address());
    assert_eq!(again.text(), r#"{"received":true,"duplicate":true}"#);
    assert_eq!(upstream.ids(), ["one"]);
}

#[test]
fn requests_that_do_not_finish_in_time_are_cut_and_counted() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + "[server]\ndrain_timeout = \"300ms\"\n"));
    let _senders = ["one", "two"].map(|id| send(id, gateway.address()));
    upstream.wait_for(2);
    gateway.signal("TERM");
    gateway.logged("how many were cut", |event| said(event, "2 requests were still in flight"));
    assert!(matches!(gateway.wait().status.code(), Some(code) if code != 0));
}

#[test]
fn a_second_signal_ends_the_gateway_at_once() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    // Longer than the harness waits.
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + "[server]\ndrain_timeout = \"10m\"\n"));
    let _sender = send("one", gateway.address());
    upstream.wait_for(1);
    gateway.signal("TERM");
    gateway.logged("the first signal", |event| said(event, "stopping"));
    gateway.signal("TERM");
    gateway.logged("how many were cut", |event| said(event, "1 requests were still in flight"));
    assert!(matches!(gateway.wait().status.code(), Some(code) if code != 0));
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + "[server]\ndrain_timeout = \"10m\"\n"));
    let mut used = connect(gateway.address());
    assert_eq!(Github::delivery("one", "{}").send_on(&used).status, 200);
    let mut unused = connect(gateway.address());
    wait_until("both to be accepted", || gateway.metric("doorward_open_connections") == 2.0);
    gateway.signal("TERM");
    assert_eq!(used.read(&mut [0]).expect("its end"), 0);
    assert_eq!(unused.read(&mut [0]).expect("its end"), 0);
    assert_eq!(gateway.wait().status.code(), Some(0));
}

#[test]
fn a_sender_that_never_finishes_its_request_does_not_hold_up_the_end_for_longer_than_its_time() {
    let upstream = Upstream::start();
    let server = "[server]\nheader_timeout = \"300ms\"\nbody_timeout = \"300ms\"\ndrain_timeout = \"10m\"\n";
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + server));
    let bytes = Github::delivery("one", "{}").bytes();
    let [head, body] = [20, bytes.len() - 1].map(|sent| {
        let mut sender = connect(gateway.address());
        sender.write_all(&bytes[..sent]).expect("sent");
        sender
    });
    wait_until("both to be accepted", || gateway.metric("doorward_open_connections") == 2.0);
    gateway.signal("TERM");
    assert_eq!(gateway.wait().status.code(), Some(0));
    drop((head, body));
}

#[test]
fn connections_that_the_kernel_has_taken_are_served_although_the_gateway_was_told_to_stop() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    // It sleeps while the connections and the signal come, and finds all of it when it wakes up.
    gateway.signal("STOP");
    let senders: Vec<_> = (0..50).map(|number| send(&number.to_string(), gateway.address())).collect();
    gateway.signal("TERM");
    gateway.signal("CONT");
    for sender in &senders {
        assert_eq!(receive(sender).status, 200);
    }
    assert_eq!(upstream.received().len(), 50);
    assert_eq!(gateway.wait().status.code(), Some(0));
}

#[test]
fn connections_that_wait_for_a_free_place_are_served_although_the_gateway_was_told_to_stop() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + "[server]\nworkers = 1\nmax_connections = 1\n"));
    let first = send("one", gateway.address());
    upstream.wait_for(1);
    let waiting = ["two", "three"].map(|id| send(id, gateway.address()));
    gateway.signal("TERM");
    wait_until("the listener to be closed", || TcpStream::connect(gateway.address()).is_err());
    upstream.release();
    assert_eq!(receive(&first).status, 200);
    for sender in &waiting {
        assert_eq!(receive(sender).status, 200);
    }
    assert_eq!(gateway.wait().status.code(), Some(0));
}

#[test]
fn a_drained_gateway_is_not_ready_and_sends_senders_elsewhere_while_it_serves() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let before = connect(gateway.address());
    let kept = Github::delivery("before", "0").send_on(&before);
    assert_eq!((kept.status, kept.header("connection")), (200, None));
    assert_eq!(drain(&gateway, "").status, 200);
    assert_eq!(gateway.admin("/readyz").status, 503);
    assert_eq!(gateway.admin("/livez").status, 200);
    let last = Github::delivery("after", "1").send_on(&before);
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!((&before).read(&mut [0]).expect("its end"), 0);
    let fresh = connect(gateway.address());
    let refused = Github::delivery("new", "2").without("X-Hub-Signature-256").send_on(&fresh);
    assert_eq!((refused.status, refused.header("connection")), (401, Some("close")));
    assert_eq!(drain(&gateway, "").status, 200, "twice is as good as once");
    gateway.signal("TERM");
    assert_eq!(gateway.wait().status.code(), Some(0));
    assert_eq!(upstream.ids(), ["before", "after"]);
}

#[test]
fn a_drain_without_a_stop_ends_and_can_be_asked_for_again() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + "[admin]\nmax_drain = \"50ms\"\n"));
    for times in 1..=2 {
        assert_eq!(drain(&gateway, "").status, 200);
        wait_until("the drain to be over", || {
            gateway.log().iter().filter(|event| said(event, "nobody stopped the gateway")).count() == times
        });
        assert_eq!(gateway.admin("/readyz").status, 200);
        let taken = Github::delivery(&times.to_string(), times.to_string()).send_on(&connect(gateway.address()));
        assert_eq!((taken.status, taken.header("connection")), (200, None));
    }
}

#[test]
fn the_end_of_a_drain_does_not_make_a_stopping_gateway_ready() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + "[admin]\nmax_drain = \"1ms\"\n"));
    let sender = send("one", gateway.address());
    upstream.wait_for(1);
    assert_eq!(drain(&gateway, "").status, 200);
    gateway.signal("TERM");
    gateway.logged("the signal", |event| said(event, "stopping"));
    assert_eq!(drain(&gateway, "").status, 200, "asked again, it is still not ready");
    assert_eq!(gateway.admin("/readyz").status, 503);
    assert!(gateway.log().iter().all(|event| !said(event, "nobody stopped the gateway")));
    upstream.release();
    assert_eq!(receive(&sender).status, 200);
    assert_eq!(gateway.wait().status.code(), Some(0));
}

/// Sends an event and does not wait for the answer.
#[track_caller]
fn send(id: &str, gateway: SocketAddr) -> TcpStream {
    Github::delivery(id, id).begin(gateway)
}

/// Asks to drain, with these lines of headers.
#[track_caller]
fn drain(gateway: &Gateway, headers: &str) -> Answer {
    gateway.api_with("POST", "/drain", headers, "")
}

fn said(event: &serde_json::Value, words: &str) -> bool {
    event["message"].as_str().is_some_and(|message| message.contains(words))
}
