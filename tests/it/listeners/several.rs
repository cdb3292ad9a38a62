//! Several listeners of one gateway.

use crate::harness::gateway::Gateway;
use crate::harness::http::connect;
use crate::harness::http::exchange_unix;
use crate::harness::http::receive;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const SEVERAL: &str = "[server.listeners.one]\nlisten = \"127.0.0.1:0\"\n\
                       [server.listeners.two]\nlisten = \"[::1]:0\"\n\
                       [server.listeners.file]\nlisten = \"unix:doorward.sock\"\n";

#[test]
fn every_listener_takes_events_whatever_the_number_of_workers() {
    for workers in [1, 2, 3] {
        let upstream = Upstream::start();
        let gateway =
            Gateway::start(&format!("[server]\nworkers = {workers}\n{SEVERAL}{}", Github::source(&upstream.url())));
        let mut expected = 0;
        for round in 0..4 {
            for name in ["one", "two"] {
                let answer = delivery(&format!("{name}-{round}")).send(gateway.listener(name));
                assert_eq!(answer.status, 200, "{name}, {workers} workers");
            }
            let sent = delivery(&format!("file-{round}")).with("Connection", "close");
            let answer = exchange_unix(&gateway.folder().join("doorward.sock"), &sent.bytes());
            assert_eq!(answer.status, 200, "the file, {workers} workers");
            expected += 3;
        }
        assert_eq!(upstream.received().len(), expected);
    }
}

#[test]
fn a_flood_at_one_listener_does_not_keep_out_the_others() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&format!("[server]\nworkers = 1\n{SEVERAL}{}", Github::source(&upstream.url())));
    let flooded = gateway.listener("one");
    let flood: Vec<_> = (0..600).map(|_| connect(flooded)).collect();
    for round in 0..10 {
        assert_eq!(delivery(&round.to_string()).send(gateway.listener("two")).status, 200);
    }
    drop(flood);
}

#[test]
fn the_limit_of_connections_is_that_of_all_listeners_together() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = Gateway::start(&format!(
        "[server]\nworkers = 1\nmax_connections = 2\n{SEVERAL}{}",
        Github::source(&upstream.url())
    ));
    let busy = ["one", "two"].map(|name| delivery(name).begin(gateway.listener(name)));
    upstream.wait_for(2);
    let waiting = ["one", "two", "one"].map(|name| delivery("later").with("x", name).begin(gateway.listener(name)));
    assert!(gateway.metric("doorward_open_connections") <= 3.0);
    upstream.release();
    for sender in busy.iter().chain(&waiting) {
        assert_eq!(receive(sender).status, 200);
    }
}

#[test]
fn a_shutdown_closes_all_of_them_and_answers_what_is_under_way() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = Gateway::start(&format!("{SEVERAL}{}", Github::source(&upstream.url())));
    let addresses = ["one", "two"].map(|name| gateway.listener(name));
    let busy = addresses.map(|address| delivery(&address.to_string()).begin(address));
    upstream.wait_for(2);
    gateway.signal("TERM");
    for address in addresses {
        wait_until("the listener to close", || std::net::TcpStream::connect(address).is_err());
    }
    upstream.release();
    for sender in &busy {
        assert_eq!(receive(sender).status, 200);
    }
    assert!(gateway.wait().status.success());
}

#[test]
fn the_system_says_which_listener_cannot_be_bound() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let folder = tempfile::tempdir().expect("a folder");
    let sections = format!("{SEVERAL}[server.listeners.taken]\nlisten = \"{address}\"\n");
    let said = Gateway::refused(folder.path(), &sections);
    assert!(said.contains(&address.to_string()), "{said}");
    assert!(!folder.path().join("doorward.sock").exists(), "what was bound before is given back");
}

fn delivery(id: &str) -> Delivery {
    Github::delivery(id, format!("{{\"id\":\"{id}\"}}"))
}
