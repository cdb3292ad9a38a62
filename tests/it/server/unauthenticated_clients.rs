//! Unauthenticated clients: the connections and memory that they hold are given to genuine senders that need them.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::log::is_out_of_files;
use crate::harness::http::connect;
use crate::harness::http::exchange;
use crate::harness::http::receive;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

#[test]
fn silent_connections_make_room_the_oldest_first() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "workers = 1\nmax_connections = 4");
    let mut silent = Vec::new();
    for count in 1..=4 {
        silent.push(connect(gateway.address()));
        wait_until("it to be accepted", || gateway.metric("doorward_open_connections") == f64::from(count));
    }
    assert_eq!(gateway.metric("doorward_displaced_connections_total"), 0.0, "up to the limit");
    let genuine = connect(gateway.address());
    assert_eq!(delivery("one").send_on(&genuine).status, 200);
    let closed = receive(&silent[0]);
    assert_eq!((closed.status, closed.header("connection")), (408, Some("close")));
    assert_eq!(gateway.metric("doorward_displaced_connections_total"), 1.0);
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="displaced",source=""}"#), 1.0);
    // Strangers go before whoever has proven anything.
    let more: Vec<_> = (0..10).map(|_| connect(gateway.address())).collect();
    wait_until("them to be accepted", || gateway.metric("doorward_displaced_connections_total") == 11.0);
    assert_eq!(delivery("two").send_on(&genuine).status, 200);
    drop(more);
}

#[test]
fn where_few_files_may_be_open_fewer_connections_are_taken_and_the_oldest_make_room() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::start_with_files(256, &format!("{}[server]\nworkers = 1\n", Github::source(&upstream.url())));
    let said = gateway.logged("a warning", |event| event["files"].is_u64());
    let max = u32::try_from(said["max_connections"].as_u64().expect("a number")).expect("a small one");
    let _silent: Vec<_> = (0..300).map(|_| connect(gateway.address())).collect();
    assert_eq!(delivery("one").send(gateway.address()).status, 200);
    assert_eq!(gateway.metric("doorward_displaced_connections_total"), f64::from(301 - max));
    assert!(!gateway.log().iter().any(is_out_of_files));
}

#[test]
fn connections_with_incomplete_headers_make_room() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "workers = 1\nmax_connections = 2");
    let begun = ["one", "two"].map(|id| {
        let sender = part(&gateway, &delivery(id), 40);
        wait_until("it to be read", || gateway.metric("doorward_open_connections") >= 1.0);
        sender
    });
    wait_until("both to be accepted", || gateway.metric("doorward_open_connections") == 2.0);
    let genuine = ["three", "four"].map(|id| {
        let connection = connect(gateway.address());
        assert_eq!(delivery(id).send_on(&connection).status, 200);
        connection
    });
    assert!(begun.iter().all(|sender| receive(sender).status == 408));
    let line = gateway.logged("why", |event| event["reason"] == "displaced" && event["path"].is_string());
    assert_eq!((&line["path"], &line["client"]), (&"/webhooks/github".into(), &"127.0.0.1".into()));
    drop(genuine);
}

#[test]
fn a_body_that_does_not_come_makes_room_for_a_connection() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "workers = 1\nmax_connections = 1");
    let started = unfinished(&gateway, &delivery("one"));
    wait_until("its head to be read", || gateway.metric("doorward_in_flight_requests") == 1.0);
    assert_eq!(delivery("two").send(gateway.address()).status, 200);
    assert_eq!(receive(&started).status, 408);
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="displaced",source="github"}"#), 1.0);
    assert_eq!(upstream.ids(), ["two"]);
}

#[test]
fn a_request_that_has_come_is_served_although_its_place_is_needed() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "workers = 1\nmax_connections = 4");
    let senders: Vec<_> = (0..4).map(|_| connect(gateway.address())).collect();
    wait_until("them to be accepted", || gateway.metric("doorward_open_connections") == 4.0);
    // All of this comes at once.
    gateway.signal("STOP");
    for (id, mut sender) in (0..).zip(&senders) {
        sender.write_all(&delivery(&id.to_string()).bytes()).expect("sent");
    }
    let _new: Vec<_> = (0..8).map(|_| connect(gateway.address())).collect();
    gateway.signal("CONT");
    assert_eq!(senders.iter().map(|sender| receive(sender).status).collect::<Vec<_>>(), [200; 4]);
    assert_eq!(upstream.received().len(), 4);
}

#[test]
fn bodies_that_do_not_come_are_not_in_flight() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = gateway(&upstream, "max_in_flight = 2");
    let started: Vec<_> = (0..4).map(|id| unfinished(&gateway, &delivery(&id.to_string()))).collect();
    wait_until("their heads to be read", || gateway.metric("doorward_in_flight_requests") == 4.0);
    let genuine = ["a", "b"].map(|id| delivery(id).begin(gateway.address()));
    upstream.wait_for(2);
    assert!(delivery("c").send(gateway.address()).asks_to_come_again(), "what is complete is in flight");
    // Whoever then goes on is served like all others.
    upstream.release();
    assert!(genuine.iter().all(|sender| receive(sender).status == 200));
    for sender in &started {
        let mut writer = sender;
        writer.write_all(b"!").expect("sent");
        assert_eq!(receive(sender).status, 401);
    }
}

#[test]
fn a_slow_sender_keeps_its_room_for_as_long_as_nobody_needs_it() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "max_body = \"64KiB\"\nmax_buffered = \"128KiB\"");
    let slow = Github::delivery("slow", "s".repeat(60_000));
    let sender = unfinished(&gateway, &slow);
    wait_until("its head to be read", || gateway.metric("doorward_in_flight_requests") == 1.0);
    for id in 0..5 {
        assert_eq!(Github::delivery(&id.to_string(), "x".repeat(60_000)).send(gateway.address()).status, 200);
    }
    let mut writer = &sender;
    writer.write_all(b"s").expect("sent");
    assert_eq!(receive(&sender).status, 200);
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="displaced",source="github"}"#), 0.0);
}

#[test]
fn an_address_makes_room_for_itself_and_no_other_address_for_it() {
    let upstream = Upstream::start();
    let proxied = "workers = 1\nmax_connections_per_address = 2\ntrusted_proxies = [\"127.0.0.2\"]";
    let gateway = gateway(&upstream, proxied);
    // Of the trusted proxy's there may be more.
    let proxy: Vec<_> = (0..4).map(|_| connect_from("127.0.0.2", gateway.address())).collect();
    let other = connect_from("127.0.0.3", gateway.address());
    wait_until("them to be accepted", || gateway.metric("doorward_open_connections") == 5.0);
    let own: Vec<_> = (0..2).map(|_| connect(gateway.address())).collect();
    wait_until("them to be accepted", || gateway.metric("doorward_open_connections") == 7.0);
    assert_eq!(gateway.metric("doorward_displaced_connections_total"), 0.0, "up to the limit");
    assert_eq!(delivery("one").send(gateway.address()).status, 200);
    assert_eq!(receive(&own[0]).status, 408);
    assert_eq!(gateway.metric("doorward_displaced_connections_total"), 1.0);
    for (id, stream) in (0..).zip(proxy.iter().chain([&other])) {
        assert_eq!(delivery(&format!("others-{id}")).send_on(stream).status, 200);
    }
}

#[test]
fn an_address_whose_connections_are_all_busy_is_asked_to_come_again() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = gateway(&upstream, "workers = 1\nmax_connections_per_address = 1");
    let first = delivery("one").begin(gateway.address());
    upstream.wait_for(1);
    assert!(read_all(connect(gateway.address())).starts_with("HTTP/1.1 503 "));
    let line = gateway.logged("why", |event| event["reason"] == "overloaded");
    assert_eq!(line["cause"], "all connections that one address may have are busy");
    let elsewhere = connect_from("127.0.0.3", gateway.address());
    assert_eq!(delivery("two").to("/nowhere").send_on(&elsewhere).status, 404);
    upstream.release();
    assert_eq!(receive(&first).status, 200);
}

#[test]
fn the_byte_quota_of_an_address_holds_behind_any_proxy() {
    let upstream = Upstream::start();
    let server = "max_body = \"64KiB\"\nmax_buffered_per_address = \"64KiB\"\ntrusted_proxies = [\"127.0.0.1\"]";
    let gateway = gateway(&upstream, server);
    let from = |client: &str, id: &str| Github::delivery(id, "x".repeat(40_000)).with("X-Forwarded-For", client);
    let other = unfinished(&gateway, &from("192.0.2.1", "other"));
    let one = unfinished(&gateway, &from("2001:db8::1", "one"));
    wait_until("their heads to be read", || gateway.metric("doorward_in_flight_requests") == 2.0);
    // Complete ones in one piece never had to wait; this one of the same network has to.
    let two = unfinished(&gateway, &from("2001:db8::2", "two"));
    assert_eq!(receive(&one).status, 408);
    for sender in [&other, &two] {
        let mut writer = sender;
        writer.write_all(b"x").expect("sent");
        assert_eq!(receive(sender).status, 200);
    }
}

#[test]
fn a_source_leaves_others_their_quota_of_requests_in_flight() {
    let upstream = Upstream::with(|number, _| if number < 2 { Reply::Hold } else { Reply::Status(200, "{}") });
    let gateway = two_sources(&upstream, "max_in_flight = 4\nmax_share = \"50%\"");
    let held = ["one", "two"].map(|id| delivery(id).begin(gateway.address()));
    upstream.wait_for(2);
    assert!(delivery("three").send(gateway.address()).asks_to_come_again());
    assert_eq!(delivery("four").to("/webhooks/other").send(gateway.address()).status, 200);
    upstream.release();
    assert!(held.iter().all(|sender| receive(sender).status == 200));
    assert_eq!(delivery("three").send(gateway.address()).status, 200);
}

#[test]
fn a_source_leaves_others_their_quota_of_buffered_bytes() {
    let upstream = Upstream::with(|number, _| if number < 2 { Reply::Hold } else { Reply::Status(200, "{}") });
    let gateway = two_sources(&upstream, "max_body = \"40KiB\"\nmax_buffered = \"200KiB\"\nmax_share = \"50%\"");
    let large = |id: &str| Github::delivery(id, format!("{id}{}", "x".repeat(40_000)));
    let held = ["zero", "one"].map(|id| large(id).begin(gateway.address()));
    upstream.wait_for(2);
    assert!(large("two").send(gateway.address()).asks_to_come_again());
    assert_eq!(Github::delivery("three", "x".repeat(10_000)).send(gateway.address()).status, 200, "up to its share");
    assert_eq!(large("four").to("/webhooks/other").send(gateway.address()).status, 200);
    upstream.release();
    assert!(held.iter().all(|sender| receive(sender).status == 200));
    assert_eq!(large("two").send(gateway.address()).status, 200);
}

#[test]
fn headers_with_underscores_are_dropped_before_anything_reads_them() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "trusted_proxies = [\"127.0.0.1\"]");
    let names = ["X_Forwarded_For", "X_GitHub_Event", "_", "a_", "X-Hub_Signature-256", "Content_Length", "__"];
    let spoofed = names.iter().fold(delivery("one"), |delivery, name| delivery.with(name, "6"));
    assert_eq!(spoofed.with("X-Dashed", "7").send(gateway.address()).status, 200);
    let received = upstream.received();
    assert!(received[0].headers.iter().all(|(name, _)| !name.contains('_')), "{:?}", received[0].headers);
    let order = ["x-github-event", "x-github-delivery", "x-hub-signature-256", "x-dashed"];
    let kept = received[0].headers.iter().map(|(name, _)| name.as_str()).filter(|name| order.contains(name));
    assert_eq!(kept.collect::<Vec<_>>(), order);
    assert_eq!((received[0].header("x-github-event"), received[0].header("x-dashed")), (Some("push"), Some("7")));
    // Nor is one of them the signature.
    let mut unsigned = delivery("two");
    for (name, _) in &mut unsigned.headers {
        *name = name.replace("X-Hub-Signature-256", "X_Hub_Signature_256");
    }
    assert_eq!(unsigned.send(gateway.address()).status, 401);
}

#[test]
fn an_http_1_1_request_without_a_host_is_refused() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "");
    let without = |version: &str| {
        let bytes = delivery("one").with("Connection", "close").bytes();
        let text = String::from_utf8(bytes).expect("ASCII").replacen("Host: hooks.example\r\n", "", 1);
        exchange(gateway.address(), text.replacen("HTTP/1.1", version, 1).as_bytes())
    };
    assert_eq!(without("HTTP/1.1").status, 400);
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="host_missing",source="github"}"#), 1.0);
    assert_eq!(without("HTTP/1.0").status, 200);
}

#[test]
fn a_malformed_request_is_logged_with_its_path_and_counted() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "header_timeout = \"300ms\"");
    let head = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    let long = format!("/{}", "a".repeat(300));
    let cases: [(&str, Vec<u8>, Option<String>, &str); 9] = [
        ("head_malformed", head("POST /a?token=hidden HTTP/1.2"), Some("/a".to_owned()), ""),
        ("head_malformed", head(&format!("GET {long} HTTP/3")), Some(format!("{}\u{2026}", &long[..128])), ""),
        ("head_malformed", b"POST /b HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_vec(), Some("/b".to_owned()), ""),
        ("head_too_large", head(&format!("GET /c HTTP/1.1\r\nX: {}", "x".repeat(80_000))), Some("/c".to_owned()), ""),
        ("head_timed_out", b"GET /d HTTP/1.1\r\nHost".to_vec(), Some("/d".to_owned()), ""),
        ("proxy_protocol", head("PROXY TCP4 10.0.0.1 10.0.0.2 1 2"), None, "server.trusted_proxies"),
        ("proxy_protocol", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c01234567890a".to_vec(), None, "server.trusted_proxies"),
        ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), None, "HTTP/1.1"),
        ("tls", b"\x16\x03\x01\0\x75\x01\0\0\x71\x03\x03abc".to_vec(), None, "TLS"),
    ];
    for (number, (reason, bytes, path, cause)) in cases.iter().enumerate() {
        let mut sender = connect(gateway.address());
        drop(sender.write_all(bytes));
        drop(sender.read_to_end(&mut Vec::new()));
        let refused = || gateway.log().into_iter().filter(|event| event["outcome"] == "refused").collect::<Vec<_>>();
        wait_until("it to be logged", || refused().len() > number);
        let line = &refused()[number];
        assert_eq!(line["reason"], *reason, "{line}");
        assert_eq!(line["path"].as_str().map(str::to_owned), *path, "{line}");
        assert_eq!(line["client"], "127.0.0.1", "{line}");
        assert!(line["cause"].as_str().is_some_and(|said| said.contains(cause)), "{line}");
        assert!(!line.to_string().contains("hidden"), "{line}");
    }
    assert_eq!(gateway.metric(r#"doorward_requests_total{outcome="refused",source=""}"#), 9.0);
    assert_eq!(gateway.metric(r#"doorward_refusals_total{reason="proxy_protocol",source=""}"#), 2.0);
    assert!(upstream.received().is_empty());
}

#[test]
fn a_path_that_nobody_has_is_logged_so_that_it_does_no_harm() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "");
    assert_eq!(delivery("one").to("/webhook/github?token=hidden").send(gateway.address()).status, 404);
    let line = gateway.logged("the refusal", |event| event["reason"] == "not_found");
    assert_eq!((&line["path"], &line["client"]), (&"/webhook/github".into(), &"127.0.0.1".into()));
    assert!(!line.to_string().contains("hidden"), "{line}");
}

#[test]
fn a_flood_does_not_fill_the_log() {
    let upstream = Upstream::start();
    let log = "[log]\nunverified_burst = 3\nunverified_rate = 1\n";
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + log));
    let connection = connect(gateway.address());
    let forged = delivery("one").set("X-Hub-Signature-256", &format!("sha256={}", "0".repeat(64)));
    for (refused, reason) in [(delivery("one").to("/nowhere"), "not_found"), (forged, "signature_mismatch")] {
        let lines = || gateway.log().into_iter().filter(|event| event["reason"] == reason).collect::<Vec<_>>();
        let mut sent = 0;
        // Until a line tells of others; each source has lines of its own.
        wait_until("a line to say how many were left out", || {
            for _ in 0..20 {
                assert!(matches!(refused.send_on(&connection).status, 401 | 404));
                sent += 1;
            }
            lines().iter().any(|event| event["left_out"].is_u64())
        });
        let lines = lines();
        assert!(lines.len() < sent / 2, "{} of {sent}", lines.len());
        assert!(lines[..3].iter().all(|event| event["outcome"] == "refused" && event["left_out"].is_null()));
    }
    // What is verified has its lines all the same.
    (0..20).for_each(|id| assert_eq!(delivery(&format!("v{id}")).send_on(&connection).status, 200));
    let taken = || gateway.log().iter().filter(|event| event["outcome"] == "delivered").count();
    wait_until("all that were taken to be logged", || taken() == 20);
}

#[test]
fn a_flood_at_a_source_that_only_observes_does_not_fill_the_log() {
    let upstream = Upstream::start();
    let log = "verify = \"observe\"\n[log]\nunverified_burst = 3\nunverified_rate = 1\n";
    let gateway = Gateway::start(&(Github::source(&upstream.url()) + log));
    let connection = connect(gateway.address());
    let mut sent = 0;
    wait_until("a line to say how many were left out", || {
        for _ in 0..20 {
            let unsigned = delivery(&sent.to_string()).without("X-Hub-Signature-256");
            assert_eq!(unsigned.send_on(&connection).status, 200);
            sent += 1;
        }
        gateway.log().iter().any(|event| event["left_out"].is_u64())
    });
    let lines = gateway.log().iter().filter(|event| event["unverified"].is_string()).count();
    assert!(lines < sent / 2, "{lines} of {sent}");
    assert_eq!(upstream.received().len(), sent);
}

#[track_caller]
fn gateway(upstream: &Upstream, server: &str) -> Gateway {
    Gateway::start(&format!("{}[server]\n{server}\n", Github::source(&upstream.url())))
}

/// A second source that is like the first but for its path.
fn two_sources(upstream: &Upstream, server: &str) -> Gateway {
    let one = Github::source(&upstream.url());
    let other = one.replace("sources.github", "sources.other").replace("/webhooks/github", "/webhooks/other");
    Gateway::start(&format!("{one}{other}[server]\n{server}\n"))
}

fn delivery(id: &str) -> Delivery {
    Github::delivery(id, id)
}

/// Sends all of a request but its last byte.
fn unfinished(gateway: &Gateway, delivery: &Delivery) -> TcpStream {
    part(gateway, delivery, delivery.bytes().len() - 1)
}

fn part(gateway: &Gateway, delivery: &Delivery, length: usize) -> TcpStream {
    let mut stream = connect(gateway.address());
    stream.write_all(&delivery.bytes()[..length]).expect("sent");
    stream
}

/// A connection from another address of this machine.
fn connect_from(address: &str, gateway: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let from: SocketAddr = format!("{address}:0").parse().expect("an address");
    socket.bind(&from.into()).expect("an address of this machine");
    socket.connect(&gateway.into()).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).expect("a timeout");
    stream
}

fn read_all(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
