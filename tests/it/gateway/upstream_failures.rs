//! Upstreams that fail: what the sender is told, and that the provider's next attempt gets through.

use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::upstream::raw_upstream;
use crate::harness::wait_for;
use crate::harness::wait_until;

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

#[test]
fn an_upstream_that_refuses_connections_is_answered_502_until_it_is_up() {
    // Bound and not listening: nobody else can be given the port.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    let address = socket.local_addr().expect("an address").as_socket().expect("an address");
    let gateway = Gateway::start(&Github::source(&format!("http://{address}/app")));
    let delivery = Github::delivery("1", "{}");
    let refused = delivery.send(gateway.address());
    assert_eq!((refused.status, refused.header("retry-after")), (502, Some("1")));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert!(!refused.text().contains(&address.to_string()), "{}", refused.text());
    assert_eq!(refusals(&gateway, "upstream_unreachable"), 1.0);
    socket.listen(1).expect("it listens");
    let listener = TcpListener::from(socket);
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        drop(stream.read(&mut [0; 1 << 16]));
        drop(stream.write_all(GOOD));
    });
    // Nothing was sent the first time, so the event may come again at once.
    assert_eq!(delivery.send(gateway.address()).status, 200);
    assert_eq!(delivery.send(gateway.address()).text(), r#"{"received":true,"duplicate":true}"#);
}

#[test]
fn a_host_that_does_not_exist_is_answered_502() {
    let gateway = Gateway::start(&Github::source("http://nowhere.invalid:3000/app"));
    let answer = Github::delivery("1", "{}").send(gateway.address());
    assert!([502, 504].contains(&answer.status), "{}", answer.status);
}

#[test]
fn an_upstream_that_hangs_is_answered_504_and_the_retry_is_delivered() {
    let upstream = Upstream::with(|number, _| if number == 0 { Reply::Hold } else { Reply::Status(200, "{}") });
    let gateway = Gateway::start(&with_timeout(&upstream.url()));
    let delivery = Github::delivery("1", "{}");
    let begun = Instant::now();
    let late = delivery.send(gateway.address());
    assert_eq!((late.status, late.header("retry-after")), (504, Some("1")));
    assert!((Duration::from_millis(300)..Duration::from_secs(10)).contains(&begun.elapsed()));
    assert_eq!(refusals(&gateway, "upstream_timed_out"), 1.0);
    assert_delivered_later(&gateway, &delivery);
    assert_eq!(upstream.ids(), ["1", "1"]);
}

#[test]
fn an_event_that_may_have_been_taken_is_not_sent_again_at_once() {
    let upstream = Upstream::with(|number, _| if number == 0 { Reply::Close } else { Reply::Status(200, "{}") });
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let delivery = Github::delivery("1", "{}");
    assert_eq!(delivery.send(gateway.address()).status, 502);
    let held = delivery.send(gateway.address());
    assert_eq!(held.status, 503);
    let seconds: u64 = held.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=2).contains(&seconds), "{seconds}");
    assert_eq!(upstream.ids(), ["1"]);
    assert_eq!(Github::delivery("2", "[]").send(gateway.address()).status, 200, "others do not wait");
}

#[test]
fn an_upstream_that_breaks_off_is_answered_502_and_the_retry_is_delivered() {
    let broken: [&[u8]; 8] = [
        b"",
        b"HTT",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"220 mail.example ESMTP\r\n\r\n",
        b"\0\x01\x02garbage\r\n\r\n",
    ];
    for bytes in broken {
        let upstream = Upstream::with(move |number, _| match number {
            0 => Reply::RawThenClose(bytes.to_vec()),
            _ => Reply::Status(200, "{}"),
        });
        let gateway = Gateway::start(&Github::source(&upstream.url()));
        let answer = Github::delivery("1", "{}").send(gateway.address());
        assert_eq!(answer.status, 502, "{bytes:?}");
        assert_eq!(refusals(&gateway, "upstream_broke_off"), 1.0, "{bytes:?}");
        assert_eq!(upstream.ids(), ["1"], "not sent again on its own, for it may have been taken");
    }
}

/// Each has connections of its own.
const ONE_WORKER: &str = "[server]\nworkers = 1\n";

#[test]
fn what_is_no_answer_is_none_on_a_connection_that_was_used_before() {
    let upstream = Upstream::with(|number, _| match number {
        0 => Reply::Status(200, "{}"),
        _ => Reply::RawThenClose(b"220 mail.example ESMTP\r\n\r\n".to_vec()),
    });
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + ONE_WORKER));
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    assert_eq!(Github::delivery("2", "[]").send(gateway.address()).status, 502);
    assert_eq!((upstream.ids(), upstream.connections()), (vec!["1".to_owned(), "2".to_owned()], 1));
}

#[test]
fn an_upstream_that_dies_with_an_event_may_have_taken_it() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let upstream = listener.local_addr().expect("an address");
    let app = std::thread::spawn(move || {
        let (mut stream, _peer) = listener.accept().expect("a connection");
        drop(stream.read(&mut [0; 1 << 16]));
        stream.write_all(GOOD).expect("an answer");
        drop(stream.read(&mut [0; 1 << 16]));
    });
    let gateway = Gateway::start(&(Github::source(&format!("http://{upstream}/app")) + ONE_WORKER));
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    let delivery = Github::delivery("2", "[]");
    assert_eq!(delivery.send(gateway.address()).status, 502);
    app.join().expect("it ended");
    assert_eq!(refusals(&gateway, "upstream_broke_off"), 1.0);
    assert_eq!(delivery.send(gateway.address()).status, 503, "it is held");
}

#[test]
fn a_broken_off_event_is_delivered_when_it_comes_again() {
    let upstream = Upstream::with(|number, _| match number {
        0 => Reply::RawThenClose(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}".to_vec()),
        _ => Reply::Status(200, "{}"),
    });
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let delivery = Github::delivery("1", "{}");
    assert_eq!(delivery.send(gateway.address()).status, 502);
    assert_delivered_later(&gateway, &delivery);
    assert_eq!(upstream.ids(), ["1", "1"]);
}

#[test]
fn refusals_of_the_upstream_are_relayed_and_the_retry_is_delivered() {
    for status in [400, 404, 408, 409, 410, 422, 429, 500, 502, 503, 504] {
        let upstream = Upstream::with(move |number, _| match number {
            0 => Reply::Status(status, "{\"said\":\"no\"}"),
            _ => Reply::Status(200, "{}"),
        });
        let gateway = Gateway::start(&Github::source(&upstream.url()));
        let delivery = Github::delivery("1", "{}");
        let refused = delivery.send(gateway.address());
        assert_eq!((refused.status, refused.text().as_str()), (status, "{\"said\":\"no\"}"));
        assert_eq!(delivery.send(gateway.address()).status, 200, "{status}: at once, for it was not taken");
        assert_eq!(upstream.ids(), ["1", "1"], "{status}");
        assert_eq!(refusals(&gateway, "upstream_refused"), 1.0, "{status}");
    }
}

#[test]
fn a_slow_answer_within_the_time_is_waited_for() {
    let upstream = raw_upstream(|_, mut stream| {
        drop(stream.read(&mut [0; 1 << 16]));
        for byte in GOOD {
            drop(stream.write_all(&[*byte]));
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let gateway = Gateway::start(&Github::source(&format!("http://{upstream}/app")));
    let answer = Github::delivery("1", "{}").send(gateway.address());
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
}

#[test]
fn an_answer_that_never_ends_is_cut_at_the_timeout() {
    let upstream = raw_upstream(|_, mut stream| {
        drop(stream.read(&mut [0; 1 << 16]));
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"));
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let gateway = Gateway::start(&with_timeout(&format!("http://{upstream}/app")));
    let begun = Instant::now();
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 504);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_upstream_that_answers_before_it_has_read_the_body_is_heard() {
    for (head, status) in [("413 Too Large", 413), ("200 OK", 200)] {
        let upstream = raw_upstream(move |_, mut stream| {
            // The head and no more of a body that does not fit into the socket's buffers.
            drop(stream.read(&mut [0; 512]));
            drop(stream.write_all(format!("HTTP/1.1 {head}\r\nContent-Length: 5\r\n\r\nearly").as_bytes()));
            wait_until("the other end to close", || stream.read(&mut [0; 1 << 16]).is_ok_and(|count| count == 0));
        });
        let source = Github::source(&format!("http://{upstream}/app"));
        let gateway = Gateway::start(&format!("[server]\nmax_body = \"16MiB\"\n{source}"));
        let answer = Github::delivery("1", vec![b'x'; 15 << 20]).send(gateway.address());
        assert_eq!((answer.status, answer.text().as_str()), (status, "early"));
    }
}

#[test]
fn events_in_a_row_share_one_connection() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&format!("[server]\nworkers = 1\n{}", Github::source(&upstream.url())));
    for number in 0..20 {
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).status, 200);
    }
    assert_eq!((upstream.ids().len(), upstream.connections()), (20, 1));
}

#[test]
fn a_refusal_of_the_upstream_does_not_cost_its_connection() {
    let upstream = Upstream::with(|number, _| Reply::Status(if number % 2 == 0 { 500 } else { 200 }, "{}"));
    let gateway = Gateway::start(&format!("[server]\nworkers = 1\n{}", Github::source(&upstream.url())));
    for number in 0..6 {
        Github::delivery(&number.to_string(), number.to_string()).send(gateway.address());
    }
    assert_eq!((upstream.ids().len(), upstream.connections()), (6, 1));
}

#[test]
fn senders_do_not_notice_that_an_idle_connection_was_closed() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&format!("[server]\nworkers = 1\n{}", Github::source(&upstream.url())));
    for number in 0..5 {
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).status, 200);
        upstream.close_connections();
    }
    assert_eq!(upstream.ids(), ["0", "1", "2", "3", "4"], "each once");
}

#[test]
fn an_idle_connection_is_closed_without_another_event() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let app = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
        assert_ne!(stream.read(&mut [0; 1 << 16]).expect("a request"), 0);
        stream.write_all(GOOD).expect("an answer");
        assert_eq!(stream.read(&mut [0; 1]).expect("an end"), 0);
    });
    let gateway = Gateway::start(&Github::source(&format!("http://{address}/app")));
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    app.join().expect("it was closed");
}

#[test]
fn senders_do_not_notice_that_a_connection_is_closed_as_their_event_goes_out() {
    // It closes its first connection when the second request comes, as a server does whose idle time is just over.
    let upstream = Upstream::with(|number, _| if number == 1 { Reply::Close } else { Reply::Status(200, "{}") });
    let gateway = Gateway::start(&format!("[server]\nworkers = 1\n{}", Github::source(&upstream.url())));
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    assert_eq!(Github::delivery("2", "[]").send(gateway.address()).status, 200);
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn an_upstream_that_keeps_no_connections_is_served() {
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let upstream = Upstream::with(move |_, _| Reply::RawThenClose(answer.clone()));
    let gateway = Gateway::start(&format!("[server]\nworkers = 1\n{}", Github::source(&upstream.url())));
    for number in 0..5 {
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).status, 200);
    }
    assert_eq!((upstream.ids().len(), upstream.connections()), (5, 5));
}

#[test]
fn an_answer_with_more_than_was_announced_spoils_no_other() {
    let upstream = Upstream::with(|number, _| match number {
        0 => Reply::Raw([GOOD, b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nspoiled".as_slice()].concat()),
        _ => Reply::Status(200, "{\"own\":1}"),
    });
    let gateway = Gateway::start(&format!("[server]\nworkers = 1\n{}", Github::source(&upstream.url())));
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).text(), "{}");
    assert_eq!(Github::delivery("2", "[]").send(gateway.address()).text(), "{\"own\":1}");
}

#[test]
fn a_profile_may_name_the_one_status_that_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::with(|number, _| match number {
        0 => Reply::Close,
        1 => Reply::Hold,
        2 => Reply::Raw(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_vec()),
        3 => Reply::Status(500, "{\"said\":\"no\"}"),
        _ => Reply::Status(200, "{}"),
    });
    let gateway = with_profile(folder.path(), &upstream.url());
    let send = |id: &str| Github::delivery(id, id).send(gateway.address());
    for id in ["closed", "hung", "redirected", "refused"] {
        let answer = send(id);
        assert_eq!(answer.status, 429, "{id}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{id}");
    }
    let held = send("closed");
    assert_eq!((held.status, held.header("retry-after").is_some()), (429, true), "in flight, for the gateway");
    assert_eq!(send("taken").status, 200);
}

fn with_timeout(upstream: &str) -> String {
    Github::source(upstream).replace("\" }", "\", timeout = \"300ms\" }")
}

/// A gateway with a profile of the operator's own, whose provider tries again on 429 only.
fn with_profile(folder: &Path, upstream: &str) -> Gateway {
    let profiles = folder.join("profiles");
    std::fs::create_dir(&profiles).expect("a folder");
    let profile = "title = \"Own\"\n[auth.hmac]\n\
                   signature = { header = \"X-Hub-Signature-256\", prefix = \"sha256=\", encoding = \"hex\" }\n\
                   signed = \"{body}\"\n[event]\nid = { header = \"X-GitHub-Delivery\" }\n[answers]\nretry = 429\n";
    std::fs::write(profiles.join("own.toml"), profile).expect("a profile");
    let sections = format!(
        "profiles = \"{}\"\n[sources.github]\nprofile = \"own\"\npath = \"/webhooks/github\"\n\
         secrets = [\"plain:{SECRET}\"]\ndeliver.upstream = {{ url = \"{upstream}\", timeout = \"300ms\" }}\n",
        profiles.display()
    );
    Gateway::spawn(folder, &sections, &[])
}

/// Sends an event again, as a provider does, until the gateway lets it through.
#[track_caller]
fn assert_delivered_later(gateway: &Gateway, delivery: &Delivery) {
    let answer: Answer = wait_for("the event to be taken", || {
        let answer = delivery.send(gateway.address());
        (answer.status != 503).then_some(answer)
    });
    assert_eq!((answer.status, answer.text().contains("duplicate")), (200, false));
}

fn refusals(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("doorward_refusals_total{{reason=\"{reason}\",source=\"github\"}}"))
}
