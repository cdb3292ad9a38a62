//! Responses of upstreams: what the sender is told of them.

use std::io::BufReader;
use std::io::Write as _;
use std::net::TcpStream;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::Message;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::upstream::raw_upstream;

#[test]
fn status_type_and_body_of_the_upstream_are_relayed() {
    for status in [200, 201, 202, 203, 299, 400, 401, 403, 404, 409, 410, 422, 429, 500, 501, 503, 599] {
        let answer = relayed(raw(&format!("{status} Said"), "Content-Type: text/x-said; q=\"1\"\r\n", "so\0 said\n"));
        assert_eq!((answer.status, answer.body.as_slice()), (status, &b"so\0 said\n"[..]), "{status}");
        assert_eq!(answer.header("content-type"), Some("text/x-said; q=\"1\""), "{status}");
    }
}

#[test]
fn an_answer_without_content_is_relayed() {
    let answer = relayed(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
    assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (204, 0, None));
    let answer = relayed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec());
    assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (200, 0, None));
}

#[test]
fn a_chunked_answer_is_relayed_whole() {
    let answer =
        relayed(b"HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec());
    assert_eq!((answer.status, answer.text().as_str()), (201, "abcde"));
}

#[test]
fn an_answer_that_ends_with_its_connection_is_relayed_whole() {
    let bytes = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold but true".to_vec();
    let upstream = Upstream::with(move |_, _| Reply::RawThenClose(bytes.clone()));
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let answer = Github::delivery("1", "{}").send(gateway.address());
    assert_eq!((answer.status, answer.text().as_str()), (200, "old but true"));
}

#[test]
fn informational_responses_of_the_upstream_are_skipped() {
    let mut bytes = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec();
    bytes.extend(raw("200 OK", "", "final"));
    let answer = relayed(bytes);
    assert_eq!((answer.status, answer.text().as_str()), (200, "final"));
}

#[test]
fn other_headers_of_the_upstream_are_not_relayed() {
    for status in ["200 OK", "401 No", "503 Later"] {
        let headers = "Content-Type: text/plain\r\nServer: app/1.2\r\nSet-Cookie: session=1\r\nX-Powered-By: app\r\n\
                       X-Internal: 10.0.0.1\r\nWWW-Authenticate: Basic\r\nLocation: http://10.0.0.1/\r\n\
                       Connection: X-Internal\r\nDoorward-Event-Id: 1\r\n";
        let mut names: Vec<_> = relayed(raw(status, headers, "x")).headers.into_iter().map(|(name, _)| name).collect();
        names.retain(|name| name != "retry-after" || !status.starts_with("503"));
        names.sort_unstable();
        assert_eq!(names, ["connection", "content-length", "content-type", "date"], "{status}");
    }
}

#[test]
fn redirects_are_never_followed_and_answered_502() {
    for status in [300, 301, 302, 303, 304, 307, 308] {
        let inner = Upstream::start();
        let answer = relayed(raw(&format!("{status} Elsewhere"), &format!("Location: {}\r\n", inner.url()), ""));
        assert_eq!(answer.status, 502, "{status}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("location"), None);
        assert!(!answer.text().contains(&inner.address().to_string()), "{}", answer.text());
        assert_eq!(inner.connections(), 0, "{status}");
    }
}

#[test]
fn a_redirected_event_may_come_again() {
    let upstream = Upstream::with(|number, _| match number {
        0 => Reply::Raw(raw("302 Found", "Location: /login\r\n", "")),
        _ => Reply::Status(200, "{}"),
    });
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let delivery = Github::delivery("1", "{}");
    assert_eq!(delivery.send(gateway.address()).status, 502);
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="upstream_redirected",source="github"}"#), 1.0);
    assert_eq!(delivery.send(gateway.address()).status, 200);
    assert_eq!(upstream.ids(), ["1", "1"]);
}

#[test]
fn answers_are_relayed_up_to_the_limit() {
    let (just, over) = (vec![b'x'; 1 << 16], vec![b'x'; (1 << 16) + 1]);
    for (number, (status, body)) in [(200, &just), (200, &over), (500, &just), (500, &over)].into_iter().enumerate() {
        let mut bytes = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n", body.len()).into_bytes();
        bytes.extend(b"Content-Type: text/plain\r\n\r\n");
        bytes.extend(body);
        let upstream = Upstream::with(move |_, _| Reply::Raw(bytes.clone()));
        let gateway = Gateway::start(&format!("[server]\nmax_body = \"64KiB\"\n{}", Github::source(&upstream.url())));
        let answer = Github::delivery("1", "{}").send(gateway.address());
        assert_eq!(answer.status, status);
        match number {
            0 | 2 => assert_eq!((&answer.body, answer.header("content-type")), (body, Some("text/plain"))),
            1 => assert_eq!(answer.text(), r#"{"received":true}"#),
            _ => assert_eq!(answer.json()["status"], 500),
        }
    }
}

#[test]
fn an_answer_without_end_costs_no_memory_and_the_event_is_done() {
    let upstream = raw_upstream(|_, stream| {
        drop(Message::read(&mut BufReader::new(&stream)));
        endless(stream);
    });
    let gateway = Gateway::start(&Github::source(&format!("http://{upstream}/app")));
    let delivery = Github::delivery("1", "{}");
    let answer = delivery.send(gateway.address());
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"received":true}"#));
    assert_eq!(delivery.send(gateway.address()).text(), r#"{"received":true,"duplicate":true}"#);
    let peak = peak_memory(gateway.pid());
    assert!(peak < 100 << 20, "{peak} bytes");
}

/// 100 MB, of which no more than a block is in memory at a time.
fn endless(mut stream: TcpStream) {
    let block = vec![b'x'; 1 << 16];
    let mut left = 100_000_000;
    drop(write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {left}\r\n\r\n"));
    while left > 0 && stream.write_all(&block[..block.len().min(left)]).is_ok() {
        left -= block.len().min(left);
    }
}

/// The most memory that a process has ever had, in bytes.
fn peak_memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// What a sender is told when the upstream answers with these bytes.
#[track_caller]
fn relayed(bytes: Vec<u8>) -> Answer {
    let upstream = Upstream::with(move |_, _| Reply::Raw(bytes.clone()));
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    Github::delivery("1", "{}").send(gateway.address())
}

fn raw(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
