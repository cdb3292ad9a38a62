//! Slow clients: none of them keeps a place for ever.

use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::harness::gateway::Gateway;
use crate::harness::http::connect;
use crate::harness::http::receive;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;

/// There is one place, and it is lost to a slow sender after half a second.
const HURRIED: &str = "[server]\nworkers = 1\nmax_connections = 1\nheader_timeout = \"500ms\"\nidle_timeout = \"500ms\"\n\
     body_timeout = \"500ms\"\n";

#[test]
fn a_sender_that_says_nothing_loses_its_place() {
    assert_loses_its_place(connect);
}

#[test]
fn a_sender_that_stops_in_the_headers_loses_its_place() {
    assert_loses_its_place(|gateway| part(gateway, 40));
}

#[test]
fn a_sender_that_stops_in_the_body_loses_its_place() {
    assert_loses_its_place(|gateway| part(gateway, Github::delivery("slow", "{}").bytes().len() - 1));
}

#[test]
fn a_sender_that_keeps_its_connection_and_says_nothing_more_loses_its_place() {
    assert_loses_its_place(|gateway| {
        let stream = connect(gateway);
        assert_eq!(Github::delivery("earlier", "earlier").send_on(&stream).status, 200);
        stream
    });
}

#[test]
fn a_sender_that_trickles_its_headers_loses_its_place() {
    assert_loses_its_place(|gateway| trickle(gateway, 0));
}

#[test]
fn a_sender_that_trickles_its_body_loses_its_place() {
    assert_loses_its_place(|gateway| {
        let bytes = Github::delivery("slow", " ".repeat(10_000)).bytes();
        trickle(gateway, bytes.len() - 10_000)
    });
}

#[test]
fn a_sender_that_never_reads_its_answers_loses_its_place() {
    assert_loses_its_place(|gateway| {
        let mut stream = with_small_window(gateway);
        stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let requests = b"POST /nowhere HTTP/1.1\r\nhost: hooks.example\r\ncontent-length: 0\r\n\r\n".repeat(100);
        // Until nobody takes any more: the gateway's answers fill everything on the way back.
        while stream.write_all(&requests).is_ok() {}
        stream
    });
}

#[test]
fn a_body_that_does_not_arrive_in_time_is_answered_so() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + HURRIED));
    let sender = part(gateway.address(), Github::delivery("slow", "{}").bytes().len() - 1);
    assert_eq!(receive(&sender).status, 408);
    assert!(upstream.received().is_empty());
}

/// The only place of a gateway is taken by a slow sender; the next one gets it all the same.
#[track_caller]
fn assert_loses_its_place(slow: impl FnOnce(SocketAddr) -> TcpStream) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + HURRIED));
    let place = slow(gateway.address());
    let next = Github::delivery("next", "next").begin(gateway.address());
    assert_eq!(receive(&next).status, 200);
    drop(place);
}

fn part(gateway: SocketAddr, length: usize) -> TcpStream {
    let mut stream = connect(gateway);
    stream.write_all(&Github::delivery("slow", "{}").bytes()[..length]).expect("sent");
    stream
}

/// Sends this many bytes of a request at once, and then one at a time for as long as somebody takes them.
fn trickle(gateway: SocketAddr, at_once: usize) -> TcpStream {
    let bytes = Github::delivery("slow", " ".repeat(10_000)).bytes();
    let mut stream = connect(gateway);
    stream.write_all(&bytes[..at_once]).expect("sent");
    let mut rest = stream.try_clone().expect("a handle");
    std::thread::spawn(move || {
        for byte in &bytes[at_once..] {
            if rest.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    stream
}

/// A connection that holds next to nothing of what its reader does not read.
fn with_small_window(gateway: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(2048).expect("a size");
    socket.connect(&gateway.into()).expect("a connection");
    socket.into()
}
