//! HTTP/2 over TLS: several requests on one connection, under the rules of HTTP/1.1, and what breaks those of HTTP/2.

use std::process::Command;
use std::time::Duration;

use doorward::base::limits::Edge;
use doorward::base::limits::Limits;

use crate::harness::authority::Authority;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::in_process::InProcessGateway;
use crate::harness::http2::CONTINUATION;
use crate::harness::http2::DATA;
use crate::harness::http2::END_HEADERS;
use crate::harness::http2::END_STREAM;
use crate::harness::http2::Frames;
use crate::harness::http2::GOAWAY;
use crate::harness::http2::HEADERS;
use crate::harness::http2::Http2;
use crate::harness::http2::PING;
use crate::harness::http2::RST_STREAM;
use crate::harness::http2::field;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::tls::connect_tls;
use crate::harness::tls::exchange_on;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const LISTENER: &str = "[server.listeners.public]\nlisten = \"127.0.0.1:0\"\n\
                        tls.certificates = [{ certificate = \"server.pem\", key = \"server.key\" }]\n";

const OPEN: &str = "doorward_open_connections";

#[test]
fn many_requests_share_a_connection_and_reach_the_app_as_those_of_http_1_do() {
    let (authority, upstream) = (Authority::new(), Upstream::with(|_, _| Reply::Hold));
    let gateway = started(&authority, "", &upstream);
    let mut client = Http2::connect(gateway.address(), &authority);
    let begun: Vec<_> = (0..50).map(|id| client.begin(&delivery(&id.to_string()))).collect();
    upstream.wait_for(50);
    assert_eq!((gateway.metric(OPEN), gateway.metric("doorward_in_flight_requests")), (1.0, 50.0));
    upstream.release();
    assert!(begun.into_iter().all(|exchange| exchange.answer().status == 200));
    let received = upstream.received();
    let mut names: Vec<_> = received[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let known = [
        "content-length",
        "content-type",
        "doorward-attempt",
        "doorward-event-id",
        "doorward-event-type",
        "doorward-received-at",
        "doorward-source",
        "doorward-target",
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-github-delivery",
        "x-github-event",
        "x-hub-signature-256",
    ];
    names.retain(|name| !matches!(*name, "doorward-deduplicated" | "doorward-verified" | "idempotency-key"));
    assert_eq!(names, known);
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "hooks.example"),
        ("doorward-target", "/webhooks/github"),
    ] {
        assert_eq!(received[0].header(name), Some(value), "{name}");
    }
}

#[test]
fn bodies_larger_than_a_window_arrive_whole_and_too_large_ones_are_refused() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, "", &upstream);
    let mut client = Http2::connect(gateway.address(), &authority);
    for size in [0, 1, 65_535, 65_536, 1024 * 1024] {
        let sent = Github::delivery(&size.to_string(), "x".repeat(size));
        assert_eq!(client.send(&sent).status, 200, "{size}");
        assert_eq!(upstream.received().last().map(|received| received.body.len()), Some(size));
    }
    let large = Github::delivery("large", "x".repeat(1024 * 1024 + 1));
    assert_eq!(client.send(&large.clone().with("Content-Length", &large.body.len().to_string())).status, 413);
    assert_eq!(client.send(&large).status, 413);
    assert_eq!(client.send(&delivery("after")).status, 200);
}

#[test]
fn curl_and_nghttp2_speak_it_as_the_gateway_does() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, "", &upstream);
    for (argument, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output = Command::new("curl")
            .args(["-sS", argument, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "-d", "{}", "--cacert"])
            .arg(authority.path("ca.pem"))
            .arg(format!("https://{}/webhooks/github", gateway.address()))
            .output()
            .expect("curl");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("401 {version}"), "{output:?}");
    }
    let body = authority.path("body");
    std::fs::write(&body, "{}").expect("written");
    let output = Command::new("h2load")
        .args(["-n", "3000", "-c", "4", "-m", "100", "-d"])
        .arg(&body)
        .arg(format!("https://{}/webhooks/github", gateway.address()))
        .output()
        .expect("h2load");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("3000 total, 3000 started, 3000 done") && said.contains("3000 4xx"), "{said}");
    assert_eq!(gateway.refusals("github", "signature_missing"), 3002.0);
}

#[test]
fn heads_have_the_rules_of_http_1() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, "", &upstream);
    let mut client = Http2::connect(gateway.address(), &authority);
    let many = |count: usize| {
        let more = count - delivery("1").headers.len();
        (0..more).fold(delivery(&count.to_string()), |delivery, at| delivery.with(&format!("x-{at}"), "1"))
    };
    // One more is `Host`, which is made of `:authority`.
    let cases = [
        (many(100), 200, ""),
        (many(101), 431, "head_too_large"),
        (delivery("padded").with("x-padded", " value"), 400, "head_malformed"),
        (delivery("padded-end").with("x-padded", "value\t"), 400, "head_malformed"),
        (delivery("host").with("Host", "hooks.example"), 200, ""),
        (delivery("case").with("Host", "HOOKS.example"), 200, ""),
        (delivery("other").with("Host", "other.example"), 400, "host_mismatch"),
        (delivery("two").with("Host", "hooks.example").with("Host", "other.example"), 400, "host_mismatch"),
        (delivery("twice").with("Host", "hooks.example").with("Host", "hooks.example"), 400, "header_repeated"),
        (delivery("type").with("Content-Type", "text/plain"), 400, "header_repeated"),
        (delivery("id").with("X-GitHub-Delivery", "another"), 400, "header_repeated"),
    ];
    for (sent, status, reason) in cases {
        let before = gateway.refusals("github", reason);
        assert_eq!(client.send(&sent).status, status, "{:?}", sent.headers);
        assert!(reason.is_empty() || gateway.refusals("github", reason) == before + 1.0, "{reason}");
    }
    let large = delivery("large").with("x-large", &"x".repeat(20_000));
    assert_eq!(client.send(&large).status, 431);
    assert_eq!(client.begin_as("user@hooks.example", &delivery("user"), true).answer().status, 400);
    assert_eq!(gateway.refusals("github", "host_mismatch"), 3.0);
    assert_eq!(client.begin_as("a:1", &delivery("port"), true).answer().status, 200);
    let mut frames = Frames::connect(gateway.address(), &authority);
    let fields = [(":method", "POST"), (":scheme", "https"), (":path", "/webhooks/github")];
    let fields: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    frames.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields).expect("sent");
    assert_eq!(frames.next_of(HEADERS).expect("an answer").stream, 1);
    assert_eq!(gateway.refusals("github", "host_missing"), 1.0);
    let sent = delivery("app").with("cookie", "a=1").with("cookie", "b=2").with("x_forwarded_for", "6.6.6.6");
    assert_eq!(client.send(&sent.with("x-forwarded-for", "6.6.6.6")).status, 200);
    let received = upstream.received().pop().expect("a delivery");
    assert_eq!(received.header("cookie"), Some("a=1; b=2"));
    assert_eq!(received.header("x_forwarded_for"), None);
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn fields_that_http_2_forbids_are_not_taken() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, "", &upstream);
    let forbidden = [
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("X-Upper", "1"),
        ("x-line", "a\r\nx-smuggled: 1"),
        (":path", "/other"),
        (":unknown", "1"),
        ("content-length", "0, 0"),
    ];
    for (name, value) in forbidden {
        let mut client = Frames::connect(gateway.address(), &authority);
        client.request(1, END_HEADERS | END_STREAM, &[(name, value)]).expect("sent");
        // Those that HPACK cannot mean end the connection.
        let end =
            std::iter::from_fn(|| client.next()).find(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY));
        assert!(matches!(end.expect("an end").kind, RST_STREAM | GOAWAY), "{name}: {value}");
    }
    let mut client = Frames::connect(gateway.address(), &authority);
    assert_eq!(upstream.connections(), 0);
    // A body that is shorter than it says is not complete.
    client.request(101, END_HEADERS, &[("content-length", "10")]).expect("sent");
    client.send(DATA, END_STREAM, 101, b"short").expect("sent");
    assert_eq!(client.next_of(RST_STREAM).expect("a reset").stream, 101);
    wait_until("it to be counted", || gateway.refusals("github", "body_incomplete") == 1.0);
}

#[test]
fn a_request_that_its_client_gives_up_is_delivered_all_the_same() {
    let (authority, upstream) = (Authority::new(), Upstream::with(|_, _| Reply::Hold));
    let gateway = started(&authority, "", &upstream);
    let mut client = Http2::connect(gateway.address(), &authority);
    let mut given_up = client.begin(&delivery("1"));
    upstream.wait_for(1);
    given_up.body.send_reset(h2::Reason::CANCEL);
    drop(given_up.result());
    let other = client.begin(&delivery("2"));
    upstream.wait_for(2);
    upstream.release();
    assert_eq!(other.answer().status, 200, "the connection goes on");
    wait_until("both to be delivered", || gateway.outcomes("github", "delivered") == 2.0);
    assert_eq!(client.send(&delivery("1")).json()["duplicate"], true);
}

#[test]
fn a_slow_body_ends_its_request_alone_and_a_silent_connection_ends() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let limits = "body_timeout = \"300ms\"\nheader_timeout = \"300ms\"\nidle_timeout = \"600ms\"\n";
    let gateway = started(&authority, limits, &upstream);
    let mut client = Http2::connect(gateway.address(), &authority);
    let slow = client.begin_as("hooks.example", &delivery("slow"), false);
    assert_eq!(client.send(&delivery("1")).status, 200);
    assert_eq!(slow.answer().status, 408);
    assert_eq!(gateway.refusals("github", "body_timed_out"), 1.0);
    assert_eq!(client.send(&delivery("2")).status, 200);
    client.wait_for_end();
    // Neither without a byte nor with a head that does not end.
    let silent = Frames::connect_silent(gateway.address(), &authority);
    let idle = Frames::connect(gateway.address(), &authority);
    let mut begun = Frames::connect(gateway.address(), &authority);
    begun.request(1, 0, &[]).expect("sent");
    for mut client in [silent, idle, begun] {
        while client.next().is_some() {}
    }
    wait_until("they to be counted", || gateway.refusals("", "head_timed_out") == 3.0);
    wait_until("nothing to be left", || gateway.metric(OPEN) == 0.0);
}

#[test]
fn a_connection_gives_way_unless_one_of_its_requests_is_complete() {
    let (authority, upstream) = (Authority::new(), Upstream::with(|_, _| Reply::Hold));
    let gateway = started(&authority, "workers = 1\nmax_connections = 2\n", &upstream);
    let mut busy = Http2::connect(gateway.address(), &authority);
    let complete = busy.begin(&delivery("1"));
    let _incomplete = busy.begin_as("hooks.example", &delivery("never"), false);
    upstream.wait_for(1);
    let mut waiting = Http2::connect(gateway.address(), &authority);
    let displaced = waiting.begin_as("hooks.example", &delivery("displaced"), false);
    wait_until("both to be open", || gateway.metric(OPEN) == 2.0);
    let mut third = Http2::connect(gateway.address(), &authority);
    let other = third.begin(&delivery("2"));
    upstream.wait_for(2);
    displaced.result().expect_err("its connection was closed");
    waiting.wait_for_end();
    wait_until("it to be counted", || gateway.refusals("github", "displaced") == 1.0);
    assert_eq!(gateway.metric("doorward_displaced_connections_total"), 1.0);
    upstream.release();
    assert_eq!((complete.answer().status, other.answer().status), (200, 200));
    // With the complete one answered, the incomplete one keeps nobody out.
    let mut fourth = Http2::connect(gateway.address(), &authority);
    assert_eq!(fourth.send(&delivery("3")).status, 200);
    wait_until("it to be counted", || gateway.metric("doorward_displaced_connections_total") == 2.0);
}

#[test]
fn a_shutdown_answers_what_is_complete_and_ends_the_connection() {
    let (authority, upstream) = (Authority::new(), Upstream::with(|_, _| Reply::Hold));
    // The idle client neither goes away by itself nor answers a ping.
    let gateway = started(&authority, "drain_timeout = \"5m\"\n", &upstream);
    let mut client = Http2::connect(gateway.address(), &authority);
    let mut idle = Frames::connect(gateway.address(), &authority);
    let begun: Vec<_> = ["1", "2", "3"].map(|id| client.begin(&delivery(id))).into();
    upstream.wait_for(3);
    gateway.signal("TERM");
    assert!(idle.next_of(GOAWAY).is_some(), "it is told");
    upstream.release();
    assert!(begun.into_iter().all(|exchange| exchange.answer().status == 200));
    client.wait_for_end();
    assert!(gateway.wait().status.success());
}

#[test]
fn a_gateway_that_drains_asks_to_connect_anew() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, "", &upstream);
    let mut client = Http2::connect(gateway.address(), &authority);
    assert_eq!(client.send(&delivery("1")).status, 200);
    let mut frames = Frames::connect(gateway.address(), &authority);
    let drained = crate::harness::http::exchange(
        gateway.admin_address(),
        b"POST /drain HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
    assert_eq!(drained.status, 200);
    let answer = client.send(&delivery("2"));
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    client.wait_for_end();
    frames.request(1, END_HEADERS | END_STREAM, &[]).expect("sent");
    let mut left = vec![HEADERS, GOAWAY];
    while !left.is_empty() {
        let frame = frames.next().expect("it is answered and told, in any order");
        left.retain(|kind| *kind != frame.kind);
    }
    assert_eq!(Http2::connect(gateway.address(), &authority).send(&delivery("3")).status, 200);
}

#[test]
fn a_flood_of_resets_does_no_harm() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, "", &upstream);
    for with_body in [false, true] {
        let mut client = Frames::connect(gateway.address(), &authority);
        for at in 0..5000 {
            let flags = if with_body { END_HEADERS | END_STREAM } else { END_HEADERS };
            let sent = client.request(at * 2 + 1, flags, &[]);
            if sent.and_then(|()| client.send(RST_STREAM, 0, at * 2 + 1, &[0, 0, 0, 8])).is_err() {
                break;
            }
        }
        drop(client);
    }
    let mut client = Http2::connect(gateway.address(), &authority);
    assert_eq!(client.send(&delivery("1")).status, 200);
    drop(client);
    wait_until("everything to be given back", || {
        gateway.metric(OPEN) == 0.0 && gateway.metric("doorward_in_flight_requests") == 0.0
    });
    assert_eq!(gateway.metric("doorward_panics_total"), 0.0);
}

#[test]
fn a_head_that_does_not_end_is_cut_off() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, "", &upstream);
    let mut client = Frames::connect(gateway.address(), &authority);
    client.request(1, END_STREAM, &[]).expect("sent");
    let more = field("x-flood", &"x".repeat(8000));
    let mut sent = 0;
    while sent < 10_000 && client.send(CONTINUATION, 0, 1, &more).is_ok() {
        sent += 1;
    }
    assert!(sent < 10_000, "80 MB were taken");
    wait_until("it to be counted", || gateway.refusals("", "http2_error") == 1.0);
    // Frames without a byte cost something too.
    let mut client = Frames::connect(gateway.address(), &authority);
    client.request(1, END_STREAM, &[]).expect("sent");
    let mut sent = 0;
    while sent < 200_000 && client.send(CONTINUATION, 0, 1, &[]).is_ok() {
        sent += 1;
    }
    assert!(sent < 200_000, "all of them were taken");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn http_1_where_http_2_was_chosen_is_an_error() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, "", &upstream);
    let mut client = Http2::connect(gateway.address(), &authority);
    let config = crate::harness::tls::client_config(&authority, &[b"h2"], None);
    let mut wrong = crate::harness::tls::connect_as(gateway.address(), "127.0.0.1", config);
    std::io::Write::write_all(&mut wrong, &delivery("1").bytes()).expect("sent");
    wait_until("it to be counted", || gateway.refusals("", "http2_error") == 1.0);
    assert_eq!(client.send(&delivery("1")).status, 200);
    let mut plain = connect_tls(gateway.address(), &authority);
    assert_eq!(exchange_on(&mut plain, &delivery("2").bytes()).status, 200);
}

#[test]
fn heads_of_unfinished_requests_count_as_bytes_of_their_address() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, "max_body = \"1KiB\"\nmax_buffered_per_address = \"64KiB\"\n", &upstream);
    let mut client = Http2::connect(gateway.address(), &authority);
    let large = |id: usize| delivery(&id.to_string()).with("x-large", &"x".repeat(12_000));
    let _held: Vec<_> = (0..10).map(|id| client.begin_as("hooks.example", &large(id), false)).collect();
    wait_until("the oldest to give way", || gateway.refusals("github", "displaced") >= 4.0);
    assert_eq!(client.send(&large(99)).status, 200);
}

#[test]
fn the_limits_of_a_connection_hold_on_both_sides() {
    let authority = Authority::new();
    let limits = Limits {
        edge: Edge {
            http2_streams: 2,
            http2_ping_every: Duration::from_millis(100),
            http2_ping_timeout: Duration::from_millis(200),
            ..Edge::default()
        },
        ..Limits::default()
    };
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let listener = LISTENER
        .replace("server.pem", authority.path("server.pem").to_str().expect("a path"))
        .replace("server.key", authority.path("server.key").to_str().expect("a path"));
    let gateway = InProcessGateway::start(&format!("{listener}{}", Github::source(&upstream.url())), limits);
    let mut client = Http2::connect(gateway.address(), &authority);
    let begun = ["1", "2"].map(|id| client.begin(&delivery(id)));
    upstream.wait_for(2);
    let mut greedy = Frames::connect(gateway.address(), &authority);
    for stream in [1, 3, 5] {
        greedy.request(stream, END_HEADERS, &[]).expect("sent");
    }
    let refused = greedy.next_of(RST_STREAM).expect("a reset");
    assert_eq!((refused.stream, &refused.payload[..]), (5, &[0, 0, 0, 7][..]), "REFUSED_STREAM");
    // It answers no ping, and is not there any more.
    assert!(greedy.next_of(PING).is_some());
    while greedy.next().is_some() {}
    upstream.release();
    assert_eq!(begun.map(|exchange| exchange.answer().status), [200, 200], "whoever answers pings stays");
    let mut other = Frames::connect(gateway.address(), &authority);
    other.send(HEADERS, END_HEADERS, 2, &[]).expect("sent");
    assert!(other.next_of(GOAWAY).is_some(), "streams of clients have odd numbers");
}

#[track_caller]
fn started(authority: &Authority, server: &str, upstream: &Upstream) -> Gateway {
    authority.gateway(&format!("[server]\n{server}{LISTENER}{}", Github::source(&upstream.url())))
}

fn delivery(id: &str) -> Delivery {
    Github::delivery(id, format!("{{\"id\":\"{id}\"}}"))
}
