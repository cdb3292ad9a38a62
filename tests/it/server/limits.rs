//! What a gateway takes at one time, and that it always gets back what it gave.

use crate::harness::gateway::Gateway;
use crate::harness::gateway::log::is_out_of_files;
use crate::harness::http::connect;
use crate::harness::http::receive;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const OVERLOADED: &str = r#"doorward_refusals_total{reason="overloaded",source="github"}"#;

#[test]
fn more_requests_than_may_be_in_flight_are_told_to_come_again() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = gateway(&upstream, "max_in_flight = 1");
    let first = delivery("one").begin(gateway.address());
    upstream.wait_for(1);
    let second = delivery("two").send(gateway.address());
    assert!(second.asks_to_come_again(), "{second:?}");
    assert_eq!(gateway.metric(OVERLOADED), 1.0);
    upstream.release();
    assert_eq!(receive(&first).status, 200);
    wait_until("the second to be taken", || delivery("two").send(gateway.address()).status == 200);
    assert_eq!(upstream.ids(), ["one", "two"]);
}

#[test]
fn requests_that_are_refused_unread_are_refused_alike_under_overload() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = gateway(&upstream, "max_in_flight = 1");
    let first = delivery("one").begin(gateway.address());
    upstream.wait_for(1);
    assert_eq!(delivery("two").to("/nowhere").send(gateway.address()).status, 404);
    let mut put = delivery("two");
    put.method = "PUT".to_owned();
    assert_eq!(put.send(gateway.address()).status, 405);
    assert!(delivery("two").send(gateway.address()).asks_to_come_again());
    upstream.release();
    assert_eq!(receive(&first).status, 200);
}

#[test]
fn connections_beyond_the_limit_wait_while_all_are_busy() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = gateway(&upstream, "workers = 1\nmax_connections = 2");
    let busy = ["one", "two"].map(|id| delivery(id).begin(gateway.address()));
    upstream.wait_for(2);
    // One may have been let in while another one could have been closed for it.
    let waiting = ["three", "four", "five"].map(|id| delivery(id).begin(gateway.address()));
    assert!(gateway.metric("doorward_open_connections") <= 3.0);
    upstream.release();
    for sender in busy.iter().chain(&waiting) {
        assert_eq!(receive(sender).status, 200);
    }
    assert_eq!(upstream.received().len(), 5);
}

#[test]
fn more_bytes_than_may_be_held_are_told_to_come_again() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = gateway(&upstream, "max_body = \"64KiB\"\nmax_buffered = \"96KiB\"");
    let large = |id: &str| Github::delivery(id, id.repeat(60_000));
    let first = large("1").begin(gateway.address());
    upstream.wait_for(1);
    let second = large("2").send(gateway.address());
    assert!(second.asks_to_come_again(), "{second:?}");
    assert_eq!(gateway.metric(OVERLOADED), 1.0);
    let small = delivery("small").begin(gateway.address());
    upstream.wait_for(2);
    upstream.release();
    assert_eq!((receive(&first).status, receive(&small).status), (200, 200));
    wait_until("the second to be taken", || large("2").send(gateway.address()).status == 200);
}

#[test]
fn bytes_of_a_body_without_a_length_count_as_they_come() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = gateway(&upstream, "max_body = \"64KiB\"\nmax_buffered = \"96KiB\"");
    let first = Github::delivery("1", "1".repeat(60_000)).begin(gateway.address());
    upstream.wait_for(1);
    let mut chunked = Github::delivery("2", "2".repeat(60_000)).with("Transfer-Encoding", "chunked");
    chunked.body = [format!("{:x}\r\n", 60_000).as_bytes(), &chunked.body, b"\r\n0\r\n\r\n"].concat();
    let second = chunked.send(gateway.address());
    assert!(second.asks_to_come_again(), "{second:?}");
    upstream.release();
    assert_eq!(receive(&first).status, 200);
    wait_until("the second to be taken", || chunked.send(gateway.address()).status == 200);
}

#[test]
fn more_copies_of_one_event_than_may_wait_are_told_to_come_again() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = gateway(&upstream, "");
    let copies: Vec<_> = (0..100).map(|_| delivery("one").begin(gateway.address())).collect();
    let busy = r#"doorward_refusals_total{reason="in_flight",source="github"}"#;
    wait_until("all to wait or to be refused", || {
        let refused = gateway.metric(busy);
        refused > 0.0 && refused + gateway.metric("doorward_in_flight_requests") == 100.0
    });
    upstream.release();
    let (taken, refused): (Vec<_>, Vec<_>) = copies.iter().map(receive).partition(|answer| answer.status == 200);
    assert!(taken.len() > 50, "{}", taken.len());
    assert!(refused.iter().all(crate::harness::http::Answer::asks_to_come_again), "{refused:?}");
    assert_eq!(upstream.ids(), ["one"]);
}

#[test]
fn a_thousand_idle_connections_do_not_disturb_the_gateway() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "max_connections_per_address = 4000");
    // This process holds the other ends.
    let count = 1000.min(most_open_files() / 2);
    let idle: Vec<_> = (0..count).map(|_| connect(gateway.address())).collect();
    wait_until("all to be accepted", || gateway.metric("doorward_open_connections") == f64::from(count));
    assert_eq!(delivery("one").send(gateway.address()).status, 200);
    drop(idle);
    wait_until("all to be gone", || gateway.metric("doorward_open_connections") == 0.0);
}

#[test]
fn a_gateway_that_ran_out_of_files_serves_again_when_it_has_some() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "");
    let limit = std::process::Command::new("prlimit")
        .args(["--pid", &gateway.pid().to_string(), "--nofile=64:64"])
        .status()
        .expect("prlimit, of util-linux, is there");
    assert!(limit.success());
    let idle: Vec<_> = (0..100).map(|_| connect(gateway.address())).collect();
    gateway.logged("the shortage", is_out_of_files);
    drop(idle);
    wait_until("an event to be taken", || delivery("one").send(gateway.address()).status == 200);
    assert_eq!(upstream.ids(), ["one"]);
}

#[test]
fn senders_that_hang_up_in_the_middle_leave_nothing_behind() {
    let upstream = Upstream::start();
    // Each of the bodies takes almost all that may be held.
    let gateway = gateway(&upstream, "max_body = \"64KiB\"\nmax_buffered = \"64KiB\"");
    let bytes = Github::delivery("one", "1".repeat(60_000)).bytes();
    for round in 0..500 {
        let stream = connect(gateway.address());
        drop(std::io::Write::write_all(&mut &stream, &bytes[..bytes.len() * (round % 10) / 10]));
    }
    wait_until("nothing to be left", || {
        gateway.metric("doorward_open_connections") == 0.0 && gateway.metric("doorward_in_flight_requests") == 0.0
    });
    assert!(upstream.received().is_empty());
    assert_eq!(Github::delivery("one", "1".repeat(60_000)).send(gateway.address()).status, 200, "there is room");
}

#[test]
fn events_whose_senders_hang_up_at_once_are_all_delivered() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "");
    (0..500).for_each(|number| drop(delivery(&number.to_string()).begin(gateway.address())));
    upstream.wait_for(500);
    wait_until("nothing to be left", || {
        gateway.metric("doorward_open_connections") == 0.0 && gateway.metric("doorward_in_flight_requests") == 0.0
    });
    let connection = connect(gateway.address());
    let answers: Vec<_> = (0..500).map(|number| delivery(&number.to_string()).send_on(&connection).text()).collect();
    assert!(answers.iter().all(|answer| answer.contains("duplicate")), "they are remembered");
    assert_eq!(upstream.received().len(), 500);
}

#[track_caller]
fn gateway(upstream: &Upstream, server: &str) -> Gateway {
    Gateway::start(&format!("{}[server]\n{server}\n", Github::source(&upstream.url())))
}

fn delivery(id: &str) -> Delivery {
    Github::delivery(id, id)
}

/// How many files this process, and those that it starts, may have open.
fn most_open_files() -> u32 {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit of files");
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(u32::MAX)
}
