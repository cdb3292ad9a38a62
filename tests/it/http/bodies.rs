//! Bodies that are too long, too slow, encoded or incomplete.

use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::Message;
use crate::harness::http::connect;
use crate::harness::provider::github::Github;
use crate::harness::provider::github::assert_serves;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const LIMIT: usize = 64 << 10;

#[test]
fn a_body_announced_as_too_long_is_refused_before_it_comes() {
    let (gateway, upstream) = started("");
    for length in [(LIMIT + 1).to_string(), i64::MAX.to_string()] {
        let mut delivery = Github::delivery("1", "").with("Content-Length", &length);
        delivery.body.clear();
        let stream = sent(&gateway, &delivery.bytes());
        assert_refused(&stream, 413);
    }
    assert_eq!(refusals(&gateway, "body_too_large"), 2.0);
    assert_eq!(upstream.connections(), 0);
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn a_body_without_length_is_refused_once_it_is_too_long() {
    let (gateway, upstream) = started("");
    let mut delivery = Github::delivery("1", vec![b'x'; LIMIT + 1]).chunked(1 << 10);
    // Without its last chunk: whoever waits for the end waits for ever.
    delivery.body.truncate(delivery.body.len() - b"0\r\n\r\n".len());
    let stream = sent(&gateway, &delivery.bytes());
    assert_refused(&stream, 413);
    assert_eq!(refusals(&gateway, "body_too_large"), 1.0);
    assert_eq!(upstream.connections(), 0);
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn a_body_of_exactly_the_limit_is_taken() {
    let (gateway, upstream) = started("");
    let body = vec![b'x'; LIMIT];
    assert_eq!(Github::delivery("1", body.as_slice()).send(gateway.address()).status, 200);
    let other = vec![b'y'; LIMIT];
    assert_eq!(Github::delivery("2", other.as_slice()).chunked(1000).send(gateway.address()).status, 200);
    let received: Vec<_> = upstream.received().into_iter().map(|message| message.body).collect();
    assert!(received == [body, other]);
}

#[test]
fn bodies_in_other_codings_are_refused_and_identity_is_none() {
    let (gateway, upstream) = started("");
    for encoding in ["br", "zstd", "aes128gcm", "identity, gzip"] {
        let answer = Github::delivery("1", "{}").with("Content-Encoding", encoding).send(gateway.address());
        assert_eq!(answer.status, 415, "{encoding}");
    }
    assert_eq!(refusals(&gateway, "body_encoded"), 4.0);
    assert_eq!(upstream.connections(), 0);
    for encoding in ["identity", "Identity"] {
        let answer = Github::delivery(encoding, encoding).with("Content-Encoding", encoding).send(gateway.address());
        assert_eq!(answer.status, 200, "{encoding}");
    }
}

#[test]
fn a_sender_that_stops_in_mid_body_is_told_so_in_time() {
    let (gateway, upstream) = started("body_timeout = \"300ms\"");
    for delivery in [Github::delivery("1", "{\"n\": 1}"), Github::delivery("1", "{\"n\": 1}").chunked(4)] {
        let bytes = delivery.bytes();
        let begun = Instant::now();
        let stream = sent(&gateway, &bytes[..bytes.len() - 7]);
        assert_refused(&stream, 408);
        assert!(begun.elapsed() >= Duration::from_millis(300));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(refusals(&gateway, "body_timed_out"), 2.0);
    assert_eq!(upstream.connections(), 0);
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn a_body_that_trickles_has_no_more_time_than_others() {
    let (gateway, upstream) = started("body_timeout = \"300ms\"");
    let bytes = Github::delivery("1", vec![b'x'; LIMIT]).bytes();
    let (head, mut body) = bytes.split_at(bytes.len() - LIMIT);
    let mut stream = sent(&gateway, head);
    stream.set_read_timeout(Some(Duration::from_millis(5))).expect("a timeout");
    let mut status = Vec::new();
    wait_until("the end of the gateway's patience", || {
        if let Some((byte, rest)) = body.split_first() {
            drop(stream.write_all(&[*byte]));
            body = rest;
        }
        let mut read = [0; 12];
        status.extend(stream.read(&mut read).map_or(&[][..], |count| &read[..count]));
        status.len() >= read.len()
    });
    assert!(status.starts_with(b"HTTP/1.1 408"), "{status:?}");
    assert_eq!(upstream.connections(), 0);
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn a_sender_that_hangs_up_in_mid_body_is_counted_and_nothing_is_delivered() {
    let (gateway, upstream) = started("");
    let whole = Github::delivery("1", "{\"n\": 1}");
    let bytes = whole.bytes();
    drop(sent(&gateway, &bytes[..bytes.len() - 1]));
    wait_until("the refusal to be counted", || refusals(&gateway, "body_incomplete") == 1.0);
    let bytes = whole.clone().chunked(3).bytes();
    let stream = sent(&gateway, &bytes[..bytes.len() - 7]);
    stream.shutdown(Shutdown::Write).expect("shut down");
    wait_until("the refusal to be counted", || refusals(&gateway, "body_incomplete") == 2.0);
    assert_eq!(upstream.connections(), 0);
    assert_eq!(whole.send(gateway.address()).status, 200, "the id is still free");
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn expect_100_continue_is_answered() {
    let (gateway, upstream) = started("");
    let bytes = Github::delivery("1", "{\"n\": 1}").with("Expect", "100-continue").bytes();
    let (head, body) = bytes.split_at(bytes.len() - 8);
    let mut stream = sent(&gateway, head);
    let mut leave = vec![0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut leave).expect("leave to send");
    assert_eq!(leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body).expect("sent");
    assert_eq!(answer(&stream).status, 200);
    let received = upstream.received().remove(0);
    assert_eq!((received.header("expect"), received.body.as_slice()), (None, &b"{\"n\": 1}"[..]));
}

#[test]
fn expect_100_continue_for_a_body_that_is_too_long_is_refused_at_once() {
    let (gateway, upstream) = started("");
    let mut delivery = Github::delivery("1", "").with("Expect", "100-continue").with("Content-Length", "1000000");
    delivery.body.clear();
    assert_refused(&sent(&gateway, &delivery.bytes()), 413);
    assert_refused(&sent(&gateway, &delivery.to("/nowhere").bytes()), 404);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn the_oldest_incomplete_body_is_dropped_when_others_need_its_memory() {
    let (gateway, upstream) = started("max_buffered = \"64KiB\"");
    let large = Github::delivery("1", vec![b'x'; LIMIT]).bytes();
    let (most, last) = large.split_at(large.len() - 1);
    let mut first = sent(&gateway, most);
    let other = Github::delivery("2", "{}");
    wait_until("the first one's head to be read", || gateway.metric("doorward_in_flight_requests") == 1.0);
    // How much of it has come is not to be seen; once all has, there is no room beside it.
    wait_until("the first one to be closed", || {
        assert_eq!(other.send(gateway.address()).status, 200);
        refusals(&gateway, "displaced") == 1.0
    });
    let closed = answer(&first);
    assert_eq!((closed.status, closed.header("connection")), (408, Some("close")));
    drop(first.write_all(last));
    assert_eq!(Github::delivery("1", vec![b'x'; LIMIT]).send(gateway.address()).status, 200, "its room is given back");
    assert_serves(gateway.address(), &upstream);
}

fn started(server: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let source = Github::source(&upstream.url());
    (Gateway::start(&format!("[server]\nmax_body = \"64KiB\"\n{server}\n{source}")), upstream)
}

/// Sends bytes on a connection of their own, which stays open.
fn sent(gateway: &Gateway, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(gateway.address());
    drop(stream.write_all(bytes));
    stream
}

#[track_caller]
fn answer(stream: &TcpStream) -> Answer {
    Message::read(&mut BufReader::new(stream)).expect("an answer").expect("an answer before the end").into()
}

/// Asserts an answer with this status, and that the connection ends with it: what follows is no request.
#[track_caller]
fn assert_refused(stream: &TcpStream, status: u16) {
    let mut reader = BufReader::new(stream);
    let answer = Answer::from(Message::read(&mut reader).expect("an answer").expect("an answer before the end"));
    assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/problem+json")));
    let mut rest = Vec::new();
    if let Err(error) = reader.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the connection is not closed");
    }
    assert!(rest.is_empty(), "{rest:?}");
}

fn refusals(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("doorward_refusals_total{{reason=\"{reason}\",source=\"github\"}}"))
}
