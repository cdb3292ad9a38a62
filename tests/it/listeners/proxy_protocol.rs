//! The PROXY protocol: required where a listener speaks it, believed from trusted load balancers only.

use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;

use doorward::base::limits::Edge;
use doorward::base::limits::Limits;

use crate::harness::free_port;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::in_process::InProcessGateway;
use crate::harness::http::Answer;
use crate::harness::http::connect;
use crate::harness::http::exchange;
use crate::harness::http::exchange_unix;
use crate::harness::http::receive;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::provider::github::assert_serves;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const LISTENER: &str = "[server.listeners.balanced]\nlisten = \"127.0.0.1:0\"\nproxy_protocol = [\"127.0.0.0/8\"]\n";
const ALLOW: &str = "allow = [\"203.0.113.0/24\", \"2001:db8::/32\"]";
const V1: &[u8] = b"PROXY TCP4 203.0.113.9 10.0.0.1 40000 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[test]
fn the_client_is_the_one_that_the_header_names() {
    let (gateway, upstream) = started(LISTENER, ALLOW);
    let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x9c, 0x40, 0x01, 0xbb];
    let v6 = [&[0x20, 0x01, 0x0d, 0xb8], &[0; 11][..], &[1], &[0; 16], &[0x9c, 0x40, 0x01, 0xbb]].concat();
    let headers = [
        (V1.to_vec(), "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::1 ::1 40000 443\r\n".to_vec(), "2001:db8::1"),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 40000 443\r\n".to_vec(), "203.0.113.9"),
        (v2(0x21, 0x11, &v4), "203.0.113.9"),
        (v2(0x21, 0x21, &v6), "2001:db8::1"),
        // With an extension: the ALPN of a TLS connection that the load balancer ended.
        (v2(0x21, 0x11, &[&v4[..], &[1, 0, 2, b'h', b'2']].concat()), "203.0.113.9"),
    ];
    for (number, (header, client)) in headers.iter().enumerate() {
        let id = number.to_string();
        let answer = send(&gateway, header, &delivery(&id));
        assert_eq!(answer.status, 200, "{}", header.escape_ascii());
        assert_eq!(upstream.received().last().and_then(|received| received.header("x-forwarded-for")), Some(*client));
        gateway.logged("the client", |line| line["client"] == *client && line["event_id"] == id.as_str());
    }
    let other = send(&gateway, b"PROXY TCP4 203.0.114.9 10.0.0.1 40000 443\r\n", &delivery("other"));
    assert_eq!((other.status, gateway.refusals("github", "address_not_allowed")), (403, 1.0));
}

#[test]
fn a_header_may_come_in_pieces_and_requests_follow_on_the_connection() {
    let (gateway, upstream) = started(LISTENER, ALLOW);
    for header in [V1.to_vec(), v2(0x21, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0, 1, 0, 1])] {
        let mut stream = connect(gateway.address());
        for byte in &header {
            stream.write_all(&[*byte]).expect("sent");
        }
        for _ in 0..3 {
            let id = upstream.received().len().to_string();
            assert_eq!(delivery(&id).send_on(&stream).status, 200);
        }
    }
    assert_eq!(upstream.received().len(), 6);
}

#[test]
fn a_client_whose_address_the_load_balancer_does_not_know_is_on_no_allowlist() {
    let (gateway, upstream) = started(
        &format!("{LISTENER}[server]\ntrusted_proxies = [\"127.0.0.0/8\", \"unix:\"]\n"),
        "allow = [\"0.0.0.0/0\", \"::/0\"]",
    );
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0x21, 0, &[]), v2(0x21, 0x31, &[0; 216])] {
        let forged = delivery("1").with("X-Forwarded-For", "203.0.113.9");
        assert_eq!(send(&gateway, &header, &forged).status, 403, "{}", header.escape_ascii());
    }
    assert_eq!(gateway.refusals("github", "address_unknown"), 3.0);
    assert_eq!(upstream.connections(), 0);
    // Where addresses do not matter, they are taken.
    let (gateway, upstream) = started(LISTENER, "");
    assert_eq!(send(&gateway, b"PROXY UNKNOWN\r\n", &delivery("1")).status, 200);
    assert_eq!(upstream.received()[0].header("x-forwarded-for"), Some("unknown"));
}

#[test]
fn what_the_load_balancer_asks_for_itself_has_its_own_address() {
    let (gateway, upstream) = started(LISTENER, "allow = [\"127.0.0.1\"]");
    let answer = send(&gateway, &v2(0x20, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0, 1, 0, 1]), &delivery("1"));
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.received()[0].header("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn a_proxy_that_the_load_balancer_passes_on_can_be_trusted_in_turn() {
    let server = format!("{LISTENER}[server]\ntrusted_proxies = [\"203.0.113.9\"]\n");
    let (gateway, upstream) = started(&server, "allow = [\"198.51.100.7\"]");
    let forwarded = delivery("1").with("X-Forwarded-For", "198.51.100.7");
    assert_eq!(send(&gateway, V1, &forwarded).status, 200);
    assert_eq!(upstream.received()[0].header("x-forwarded-for"), Some("198.51.100.7, 203.0.113.9"));
    let other = send(&gateway, b"PROXY TCP4 203.0.113.10 10.0.0.1 1 1\r\n", &forwarded);
    assert_eq!(other.status, 403, "who is no proxy may not say so");
}

#[test]
fn a_connection_without_a_header_is_closed_unanswered() {
    let (gateway, upstream) = started(LISTENER, "");
    let cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"PROXY TCP4 203.0.113.9 10.0.0.1 40000\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.9 10.0.0.1 40000 99999\r\n".to_vec(),
        b"proxy TCP4 203.0.113.9 10.0.0.1 40000 443\r\n".to_vec(),
        v2(0x31, 0x11, &[0; 12]),
        v2(0x21, 0x11, &[0; 4]),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).into_bytes(),
        [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], &[0; 100]].concat(),
    ];
    for (number, header) in (1..).zip(&cases) {
        let sent = [&header[..], &delivery("1").bytes()].concat();
        assert_eq!(closed_with(gateway.address(), &sent), b"", "{}", header.escape_ascii());
        wait_until("it to be counted", || gateway.refusals("", "proxy_header") == f64::from(number));
    }
    let truncated = [&V1[..V1.len() - 2], &SIGNATURE[..5], &v2(0x21, 0x11, &[1; 12])[..20]];
    for header in truncated {
        let mut stream = connect(gateway.address());
        stream.write_all(header).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        assert_eq!(rest_of(stream), b"", "{}", header.escape_ascii());
    }
    wait_until("they to be counted", || gateway.refusals("", "proxy_header") == 11.0);
    let line = gateway.logged("the refusal", |line| line["reason"] == "proxy_header");
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(upstream.connections(), 0);
    assert_eq!(send(&gateway, V1, &delivery("2")).status, 200, "others are served");
}

#[test]
fn a_connection_that_only_looks_whether_the_port_is_open_is_no_refusal() {
    let (gateway, _upstream) = started(LISTENER, "");
    drop(connect(gateway.address()));
    wait_until("it to end", || gateway.metric("doorward_open_connections") == 0.0);
    assert_eq!(gateway.refusals("", "proxy_header"), 0.0);
}

#[test]
fn nobody_else_may_say_whom_they_connect_for() {
    let listener = LISTENER.replace("127.0.0.0/8", "10.0.0.0/8");
    let (gateway, upstream) = started(&listener, "");
    for header in [V1, b""] {
        let sent = [header, &delivery("1").bytes()].concat();
        assert_eq!(closed_with(gateway.address(), &sent), b"");
    }
    wait_until("they to be counted", || gateway.refusals("", "proxy_not_trusted") == 2.0);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_header_is_not_spoken_where_it_is_not_configured() {
    let plain = "[server.listeners.plain]\nlisten = \"127.0.0.1:0\"\n";
    let (gateway, upstream) = started(&format!("{LISTENER}{plain}"), ALLOW);
    for header in [V1.to_vec(), v2(0x21, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0, 1, 0, 1])] {
        let sent = [&header[..], &delivery("1").bytes()].concat();
        let answer = String::from_utf8(closed_with(gateway.listener("plain"), &sent)).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    wait_until("they to be counted", || gateway.refusals("", "proxy_protocol") == 2.0);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_slow_header_counts_in_the_timeout_of_the_first_head() {
    let (gateway, _upstream) = started(&format!("[server]\nheader_timeout = \"300ms\"\n{LISTENER}"), "");
    for begun in [&b""[..], b"PROXY TCP4 203.0.113.9", V1] {
        let mut stream = connect(gateway.address());
        stream.write_all(begun).expect("sent");
        let answered = rest_of(stream);
        // Only behind a whole header anybody understands an answer of HTTP.
        assert_eq!(!answered.is_empty(), begun == V1, "{}", begun.escape_ascii());
    }
    wait_until("they to be counted", || gateway.refusals("", "head_timed_out") == 3.0);
}

#[test]
fn the_limit_of_connections_by_address_is_for_clients_and_not_for_the_load_balancer() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let sections = format!(
        "[server]\nworkers = 1\nmax_connections_per_address = 2\n{LISTENER}{}",
        Github::source(&upstream.url())
    );
    let gateway = Gateway::start(&sections);
    let begin = |id: &str, address: &str| {
        let mut stream = connect(gateway.address());
        let header = format!("PROXY TCP4 {address} 10.0.0.1 40000 443\r\n");
        stream.write_all(&[header.as_bytes(), &delivery(id).bytes()].concat()).expect("sent");
        stream
    };
    let busy: Vec<_> = (0..6).map(|at| begin(&at.to_string(), &format!("203.0.113.{}", at / 2))).collect();
    upstream.wait_for(6);
    let third = begin("third", "203.0.113.1");
    assert!(receive(&third).status == 503, "all of its address are busy");
    wait_until("it to be counted", || gateway.refusals("", "overloaded") == 1.0);
    upstream.release();
    assert!(busy.iter().all(|stream| receive(stream).status == 200));
    // Idle connections of the same address give way.
    let _silent = [(); 2].map(|()| {
        let mut stream = connect(gateway.address());
        stream.write_all(b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 443\r\n").expect("sent");
        stream
    });
    wait_until("they to be open", || gateway.metric("doorward_open_connections") >= 8.0);
    assert_eq!(receive(&begin("seven", "203.0.113.7")).status, 200);
    wait_until("one to give way", || gateway.metric("doorward_displaced_connections_total") == 1.0);
}

#[test]
fn the_longest_header_is_a_limit() {
    let limits = Limits { edge: Edge { max_proxy_header: 64, ..Edge::default() }, ..Limits::default() };
    let upstream = Upstream::start();
    let gateway = InProcessGateway::start(&format!("{LISTENER}{}", Github::source(&upstream.url())), limits);
    let header = |length: usize| v2(0x20, 0, &vec![0; length - 16]);
    let sent = |length| [header(length), delivery("1").with("Connection", "close").bytes()].concat();
    assert_eq!(exchange(gateway.address(), &sent(64)).status, 200);
    assert_eq!(closed_with(gateway.address(), &sent(65)), b"");
}

#[test]
fn a_load_balancer_may_connect_to_the_socket_of_a_file() {
    let listener = "[server.listeners.file]\nlisten = \"unix:doorward.sock\"\nproxy_protocol = [\"unix:\"]\n";
    let (gateway, upstream) = started(listener, ALLOW);
    let sent = [V1, &delivery("1").with("Connection", "close").bytes()].concat();
    assert_eq!(exchange_unix(&gateway.folder().join("doorward.sock"), &sent).status, 200);
    assert_eq!(upstream.received()[0].header("x-forwarded-for"), Some("203.0.113.9"));
}

#[test]
fn curl_and_haproxy_speak_it_as_the_gateway_does() {
    let (gateway, upstream) = started(LISTENER, "allow = [\"127.0.0.0/8\"]");
    let curl = Command::new("curl")
        .args(["-sS", "--haproxy-protocol", "-o", "/dev/null", "-w", "%{http_code}", "-d", "{}"])
        .arg(format!("http://{}/webhooks/github", gateway.address()))
        .output()
        .expect("curl");
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "401", "{curl:?}");
    for version in ["send-proxy", "send-proxy-v2"] {
        let proxy = Haproxy::start(gateway.address(), version);
        assert_serves(proxy.address, &upstream);
        let received = upstream.received().pop().expect("a delivery");
        assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"), "{version}");
    }
    assert_eq!(gateway.refusals("", "proxy_header"), 0.0);
}

/// `HAProxy` in TCP mode in front of a gateway. It is killed when dropped.
struct Haproxy {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Haproxy {
    fn start(gateway: SocketAddr, how: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
             listen in\n bind {address}\n server gateway {gateway} {how}\n"
        );
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, config).expect("written");
        let child = Command::new("haproxy").arg("-db").arg("-f").arg(&file).spawn().expect("HAProxy starts");
        let started = Self { child, address, _folder: folder };
        wait_until("HAProxy", || TcpStream::connect(address).is_ok());
        started
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn started(server: &str, source: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&format!("{server}{}{source}\n", Github::source(&upstream.url()))), upstream)
}

fn delivery(id: &str) -> Delivery {
    Github::delivery(id, format!("{{\"id\":\"{id}\"}}"))
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

/// Sends a header and a request in one piece.
fn send(gateway: &Gateway, header: &[u8], delivery: &Delivery) -> Answer {
    exchange(gateway.address(), &[header, &delivery.clone().with("Connection", "close").bytes()].concat())
}

/// What comes back until the connection is closed.
fn closed_with(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    drop(stream.write_all(sent));
    rest_of(stream)
}

fn rest_of(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A connection that is closed with unread bytes is reset.
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    rest
}
