//! Request smuggling: requests that two parsers could read in two ways, and bytes that are no requests.

use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::Message;
use crate::harness::http::connect;
use crate::harness::http::exchange;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::provider::github::assert_serves;
use crate::harness::upstream::Upstream;

/// RFC 9112 section 6.1 allows two answers: refuse it, or believe the chunks alone and end the connection after it.
#[test]
fn a_request_with_both_framings_is_read_by_its_chunks_and_ends_the_connection() {
    let (gateway, upstream) = started("");
    for (id, first) in [("1", true), ("2", false)] {
        let mut delivery = Github::delivery(id, format!("[{id}]")).chunked(1);
        let at = if first { 0 } else { delivery.headers.len() };
        delivery.headers.insert(at, ("Content-Length".to_owned(), delivery.body.len().to_string()));
        let mut stream = connect(gateway.address());
        stream.write_all(&delivery.bytes()).expect("sent");
        assert_ended(&mut stream, "HTTP/1.1 200");
    }
    let received = upstream.received();
    assert_eq!(received.iter().map(|message| message.body.clone()).collect::<Vec<_>>(), [b"[1]", b"[2]"]);
    assert!(received.iter().all(|message| message.header("content-length") == Some("3")));
    assert!(received.iter().all(|message| message.header("transfer-encoding").is_none()));
}

#[test]
fn what_follows_a_request_with_both_framings_is_no_request() {
    let (gateway, upstream) = started("");
    for (id, first) in [("1", true), ("2", false)] {
        // By its length, the body ends after the last chunk; by its chunks, a request follows the first one.
        let mut delivery = Github::delivery(id, "").chunked(1);
        let smuggled = Github::delivery("smuggled", "[]").bytes();
        delivery.body.extend(&smuggled);
        let length = delivery.body.len().to_string();
        let at = if first { 0 } else { delivery.headers.len() };
        delivery.headers.insert(at, ("Content-Length".to_owned(), length));
        let mut stream = connect(gateway.address());
        stream.write_all(&delivery.bytes()).expect("sent");
        assert_ended(&mut stream, "HTTP/1.1 ");
    }
    assert!(!upstream.ids().contains(&"smuggled".to_owned()));
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn two_lengths_are_refused() {
    assert_bad("different", |genuine| genuine.with("Content-Length", "2").with("Content-Length", "3"));
    assert_bad("different in a list", |genuine| genuine.with("Content-Length", "2, 3"));
}

#[test]
fn lengths_that_are_no_numbers_are_refused() {
    for length in ["-1", "+2", "0x2", "2.0", "two", "", "2 2", "99999999999999999999"] {
        assert_bad(length, |genuine| genuine.with("Content-Length", length));
    }
}

#[test]
fn transfer_encodings_other_than_chunked_are_refused() {
    for encoding in ["gzip, chunked", "chunked, gzip", "chunked, chunked", "identity", "xchunked", "gzip", "chunked;x"]
    {
        assert_bad(encoding, |genuine| genuine.chunked(100).set("Transfer-Encoding", encoding));
    }
    assert_bad("two headers", |genuine| genuine.chunked(100).with("Transfer-Encoding", "chunked"));
    assert_bad("gzip first", |genuine| {
        genuine.chunked(100).set("Transfer-Encoding", "gzip").with("Transfer-Encoding", "chunked")
    });
}

#[test]
fn headers_that_are_read_differently_are_refused() {
    for line in ["X-A: 1\r\n folded: 2", "X-A : 1", " X-A: 1", "X-A", ": 1", "X-A: 1\0", "X A: 1", "X-A: 1\rX-B: 2"] {
        assert_bad_bytes(line, |genuine| {
            let text = String::from_utf8(genuine.bytes()).expect("ASCII");
            text.replacen("Content-Type: application/json", &format!("Content-Type: application/json\r\n{line}"), 1)
                .into_bytes()
        });
    }
}

#[test]
fn chunks_that_are_read_differently_are_refused() {
    for chunks in
        ["x\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n0\r\n\r\n", "2\r\n{}0\r\n\r\n", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"]
    {
        assert_bad(chunks, |genuine| {
            let mut delivery = genuine.chunked(100);
            delivery.body = chunks.as_bytes().to_vec();
            delivery
        });
    }
}

#[test]
fn a_header_section_beyond_the_limit_is_refused() {
    let (gateway, upstream) = started("");
    let long = Github::delivery("1", "{}").with("X-Long", &"x".repeat(80 << 10));
    let many = (0..2000).fold(Github::delivery("1", "{}"), |delivery, n| delivery.with(&format!("X-{n}"), "x"));
    let path = Github::delivery("1", "{}").to(&format!("/webhooks/github?{}", "x".repeat(80 << 10)));
    for delivery in [long, many, path] {
        let bytes = delivery.with("Connection", "close").bytes();
        // The answer may overtake what is still being sent; only that nothing gets through is certain.
        let mut stream = connect(gateway.address());
        drop(stream.write_all(&bytes));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(upstream.connections(), 0);
    }
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn a_sender_that_stops_in_mid_headers_is_cut_off() {
    let (gateway, upstream) = started("[server]\nheader_timeout = \"300ms\"\n");
    let whole = Github::delivery("1", "{}").bytes();
    for bytes in [&whole[..0], &whole[..1], &whole[..20], &whole[..60], &whole[..whole.len() - 4]] {
        let begun = Instant::now();
        let mut stream = connect(gateway.address());
        stream.write_all(bytes).expect("sent");
        assert_ended(&mut stream, "HTTP/1.1 4");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(upstream.connections(), 0);
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn a_connection_that_lies_idle_is_closed() {
    let (gateway, upstream) = started("[server]\nidle_timeout = \"300ms\"\n");
    let mut stream = connect(gateway.address());
    assert_eq!(Github::delivery("1", "{}").send_on(&stream).status, 200);
    assert_ended(&mut stream, "HTTP/1.1 4");
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn http_1_0_is_served() {
    let (gateway, upstream) = started("");
    let text = String::from_utf8(Github::delivery("1", "{}").bytes()).expect("ASCII");
    let old = text.replacen("HTTP/1.1", "HTTP/1.0", 1);
    let answer = exchange(gateway.address(), old.as_bytes());
    assert_eq!((answer.status, upstream.ids()), (200, vec!["1".to_owned()]));
    assert_eq!(upstream.received()[0].start, "POST /app HTTP/1.1");
    // It knows no chunks, so whoever uses them there means to be read in two ways.
    let chunked = String::from_utf8(Github::delivery("2", "[]").chunked(9).bytes()).expect("ASCII");
    assert_eq!(exchange(gateway.address(), chunked.replacen("HTTP/1.1", "HTTP/1.0", 1).as_bytes()).status, 400);
    assert_serves(gateway.address(), &upstream);
}

#[test]
fn requests_in_a_row_are_answered_in_their_order() {
    let (gateway, upstream) = started("");
    let mut forged = Github::delivery("2", "{\"n\":2}");
    forged.body[5] = b'9';
    let row = [Github::delivery("1", "{\"n\":1}"), forged, Github::delivery("3", "{\"n\":3}").chunked(2)];
    let bytes: Vec<u8> = row.iter().flat_map(Delivery::bytes).collect();
    let mut stream = connect(gateway.address());
    stream.write_all(&bytes).expect("sent");
    let mut reader = BufReader::new(&stream);
    let statuses: Vec<_> = (0..3)
        .map(|_| Answer::from(Message::read(&mut reader).expect("an answer").expect("an answer")).status)
        .collect();
    assert_eq!(statuses, [200, 401, 200]);
    assert_eq!(upstream.ids(), ["1", "3"]);
}

#[test]
fn bytes_that_are_no_http_do_no_harm() {
    let hello = const_hex::decode(
        "1603010075010000710303000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f000004130113020100004400\
         00000e000c0000096c6f63616c686f7374000a00040002001d000d0006000404030804002b0003020304",
    );
    let garbage: Vec<Vec<u8>> = vec![
        hello.expect("hexadecimal"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        b"\0\0\0\0\0\0\0\0\r\n\r\n".to_vec(),
        b"\r\n\r\n\r\n\r\nhello\r\n\r\n".to_vec(),
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nPOST /webhooks/github HTTP/1.1\r\n\r\n".to_vec(),
        b"POST /webhooks/github\r\n\r\n".to_vec(),
        b"POST  /webhooks/github HTTP/1.1\r\n\r\n".to_vec(),
        b"POST /webhooks/github HTTP/1.2\r\nHost: a\r\n\r\n".to_vec(),
        b"POST /webhooks/github HTTP/9.9\r\nHost: a\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(),
        (0..=255).cycle().take(10_000).chain(*b"\r\n\r\n").collect(),
        vec![b'A'; 100_000],
        vec![b'\n'; 100_000],
    ];
    let (gateway, upstream) = started("[server]\nheader_timeout = \"300ms\"\n");
    for bytes in garbage {
        let mut stream = connect(gateway.address());
        drop(stream.write_all(&bytes));
        assert_ended(&mut stream, "HTTP/1.1 4");
        assert_eq!(upstream.connections(), 0);
    }
    assert_serves(gateway.address(), &upstream);
}

fn started(server: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&format!("{server}{}", Github::source(&upstream.url()))), upstream)
}

#[track_caller]
fn assert_bad(what: &str, make: impl Fn(Delivery) -> Delivery) {
    assert_bad_bytes(what, |genuine| make(genuine).bytes());
}

/// Asserts that what becomes of a genuine delivery is answered 400, that nothing of it reaches the upstream, and that
/// what follows on the same connection is not taken for a request.
#[track_caller]
fn assert_bad_bytes(what: &str, make: impl Fn(Delivery) -> Vec<u8>) {
    let (gateway, upstream) = started("");
    let mut bytes = make(Github::delivery("1", "{}"));
    bytes.extend(Github::delivery("smuggled", "[]").bytes());
    let mut stream = connect(gateway.address());
    stream.write_all(&bytes).expect("sent");
    // Some of these end the connection without a word, which is as good.
    let mut reader = BufReader::new(&stream);
    if let Ok(Some(answer)) = Message::read(&mut reader) {
        assert_eq!(Answer::from(answer).status, 400, "{what}");
        let mut rest = Vec::new();
        drop(reader.read_to_end(&mut rest));
        assert!(rest.is_empty(), "{what}: {}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(upstream.ids(), [""; 0], "{what}");
    assert_eq!(upstream.connections(), 0, "{what}");
    assert_serves(gateway.address(), &upstream);
}

/// Asserts that the connection is closed by the gateway, after one answer that begins like this or without any.
#[track_caller]
fn assert_ended(stream: &mut TcpStream, beginning: &str) {
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the connection is not closed");
    }
    let text = String::from_utf8_lossy(&rest);
    assert!(rest.is_empty() || text.starts_with(beginning), "{text}");
    assert!(text.matches("HTTP/1.1 ").count() <= 1, "{text}");
}
