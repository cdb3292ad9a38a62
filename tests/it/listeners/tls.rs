//! TLS of listeners: certificates by name, what clients of other makes see, and what goes wrong before a request.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use rcgen::CertificateParams;

use crate::harness::authority::Authority;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::http::connect;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::tls::client_config;
use crate::harness::tls::connect_as;
use crate::harness::tls::connect_tls;
use crate::harness::tls::exchange_on;
use crate::harness::tls::on_stream;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const LISTENER: &str = "[server.listeners.public]\nlisten = \"127.0.0.1:0\"\n\
                        tls.certificates = [{ certificate = \"server.pem\", key = \"server.key\" }]\n";

#[test]
fn requests_over_tls_are_those_of_an_https_address() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, LISTENER, &upstream);
    let mut client = connect_tls(gateway.address(), &authority);
    for id in ["1", "2", "3"] {
        assert_eq!(exchange_on(&mut client, &delivery(id).bytes()).status, 200);
    }
    let large = Github::delivery("large", "x".repeat(900_000));
    assert_eq!(exchange_on(&mut client, &large.bytes()).status, 200);
    let received = upstream.received();
    assert_eq!(received[0].header("x-forwarded-proto"), Some("https"));
    assert_eq!(received[0].header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(received[3].body, large.body);
    assert_eq!(handshakes(&gateway, "completed"), 1.0);
}

#[test]
fn curl_and_openssl_connect_with_both_versions_of_tls() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, LISTENER, &upstream);
    for version in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "-d", "{}", "--cacert"])
            .arg(authority.path("ca.pem"))
            .args(version)
            .arg(format!("https://{}/webhooks/github", gateway.address()))
            .output()
            .expect("curl");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("401 "), "{version:?}: {output:?}");
    }
    let said = s_client(&gateway, &authority, &["-verify_return_error", "-alpn", "http/1.1"]);
    assert!(said.contains("ALPN protocol: http/1.1") && said.contains("Verify return code: 0 (ok)"), "{said}");
}

#[test]
fn what_is_too_old_or_trusts_nobody_fails_and_is_counted() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, LISTENER, &upstream);
    let said = s_client(&gateway, &authority, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
    assert!(said.contains("alert") || said.contains("Cipher is (NONE)"), "{said}");
    wait_until("the first to be counted", || handshakes(&gateway, "failed") == 1.0);
    let stranger = Authority::new();
    let mut client = connect_tls(gateway.address(), &stranger);
    client.write_all(&delivery("1").bytes()).expect_err("the certificate is not believed");
    drop(client);
    wait_until("both to be counted", || handshakes(&gateway, "failed") == 2.0);
    assert_eq!(gateway.refusals("", "tls_handshake"), 2.0);
    gateway.logged("why", |line| {
        line["reason"] == "tls_handshake" && line["cause"].as_str().is_some_and(|cause| cause.contains("fatal alert"))
    });
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let authority = Authority::new();
    authority.issue("one", &["one.example", "more.one.example"]);
    authority.issue("any", &["*.two.example"]);
    let listener = "[server.listeners.public]\nlisten = \"127.0.0.1:0\"\ntls.certificates = [\n\
                    { certificate = \"server.pem\", key = \"server.key\" },\n\
                    { certificate = \"one.pem\", key = \"one.key\" },\n{ certificate = \"any.pem\", key = \"any.key\" },\n]\n";
    let upstream = Upstream::start();
    let gateway = started(&authority, listener, &upstream);
    for name in ["127.0.0.1", "one.example", "more.one.example", "a.two.example"] {
        let mut client = connect_as(gateway.address(), name, client_config(&authority, &[], None));
        assert_eq!(exchange_on(&mut client, &delivery(name).bytes()).status, 200, "{name}");
    }
    for name in ["two.example", "a.b.two.example", "three.example"] {
        let mut client = connect_as(gateway.address(), name, client_config(&authority, &[], None));
        let error = client.write_all(&delivery(name).bytes()).expect_err("the first one is for another name");
        assert!(error.to_string().contains("not valid for name"), "{name}: {error}");
    }
    let metrics = gateway.metrics();
    for file in ["server.pem", "one.pem", "any.pem"] {
        let name =
            format!("doorward_tls_certificate_expiry_timestamp_seconds{{certificate=\"{file}\",listener=\"public\"}}");
        assert!(metrics.get(&name).is_some_and(|end| *end > 2e9), "{file}");
    }
}

#[test]
fn plain_http_and_a_load_balancer_on_the_port_of_tls_are_told_so() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, LISTENER, &upstream);
    for begun in [&delivery("1").bytes()[..], b"PROXY TCP4 203.0.113.9 10.0.0.1 1 1\r\n", b"\r\n\r\n\0\r\nQUIT\n"] {
        let mut stream = connect(gateway.address());
        stream.write_all(begun).expect("sent");
        assert!(rest_of(stream).starts_with(b"HTTP/1.1 400 "), "{}", begun.escape_ascii());
    }
    wait_until("they to be counted", || gateway.refusals("", "tls_expected") == 3.0);
    assert_eq!((handshakes(&gateway, "failed"), upstream.connections()), (3.0, 0));
}

#[test]
fn tls_on_a_plain_port_is_told_from_garbage() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, "", &upstream);
    let mut client = connect_tls(gateway.address(), &authority);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect_err("no TLS is spoken");
    wait_until("it to be counted", || gateway.refusals("", "tls") == 1.0);
}

#[test]
fn a_slow_handshake_and_a_slow_head_behind_it_share_one_timeout() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let server = format!("[server]\nheader_timeout = \"400ms\"\n{LISTENER}");
    let gateway = started(&authority, &server, &upstream);
    for begun in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut stream = connect(gateway.address());
        stream.write_all(begun).expect("sent");
        assert_eq!(rest_of(stream), b"", "{}", begun.escape_ascii());
    }
    wait_until("they to be counted", || handshakes(&gateway, "timed_out") == 3.0);
    let mut client = connect_tls(gateway.address(), &authority);
    client.write_all(b"POST /webhooks/github HTTP/1.1\r\nHost").expect("sent");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an answer, and the end that TLS tells");
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
    wait_until("it to be counted", || gateway.refusals("", "head_timed_out") == 4.0);
}

#[test]
fn garbage_in_a_handshake_ends_it() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, LISTENER, &upstream);
    let garbage: [&[u8]; 4] = [
        b"\x16\x03\x01\xff\xff",
        b"\x17\x03\x03\x00\x01\x00",
        b"\x80\x2e\x01\x00\x02",
        b"\x16\x03\x01\x00\x04\xff\xff\xff\xff",
    ];
    for bytes in garbage {
        let mut stream = connect(gateway.address());
        stream.write_all(bytes).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        rest_of(stream);
    }
    wait_until("they to be counted", || handshakes(&gateway, "failed") == 4.0);
    drop(connect(gateway.address()));
    let mut client = connect_tls(gateway.address(), &authority);
    assert_eq!(exchange_on(&mut client, &delivery("1").bytes()).status, 200);
    assert_eq!(gateway.refusals("", "tls_handshake"), 4.0, "who only looks whether the port is open is none");
}

#[test]
fn handshakes_that_do_not_go_on_give_way() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let server = format!("[server]\nworkers = 1\nmax_connections = 3\n{LISTENER}");
    let gateway = started(&authority, &server, &upstream);
    let silent: Vec<_> = (0..3).map(|_| connect(gateway.address())).collect();
    wait_until("they to be open", || gateway.metric("doorward_open_connections") == 3.0);
    let mut client = connect_tls(gateway.address(), &authority);
    assert_eq!(exchange_on(&mut client, &delivery("1").bytes()).status, 200);
    wait_until("one to give way", || handshakes(&gateway, "displaced") == 1.0);
    drop(silent);
}

#[test]
fn the_proxy_protocol_comes_before_tls() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = started(&authority, &format!("{LISTENER}proxy_protocol = [\"127.0.0.1\"]\n"), &upstream);
    let mut stream = connect(gateway.address());
    stream.write_all(b"PROXY TCP4 203.0.113.9 10.0.0.1 40000 443\r\n").expect("sent");
    let mut client = on_stream(stream, "127.0.0.1", client_config(&authority, &[], None));
    assert_eq!(exchange_on(&mut client, &delivery("1").bytes()).status, 200);
    let received = upstream.received().remove(0);
    assert_eq!(received.header("x-forwarded-for"), Some("203.0.113.9"));
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    let mut client = connect_tls(gateway.address(), &authority);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect_err("there is no header");
    wait_until("it to be counted", || gateway.refusals("", "proxy_header") == 1.0);
}

#[test]
fn a_shutdown_answers_what_came_over_tls() {
    let (authority, upstream) = (Authority::new(), Upstream::with(|_, _| Reply::Hold));
    let gateway = started(&authority, LISTENER, &upstream);
    let mut client = connect_tls(gateway.address(), &authority);
    client.write_all(&delivery("1").bytes()).expect("sent");
    upstream.wait_for(1);
    gateway.signal("TERM");
    wait_until("the listener to close", || TcpStream::connect(gateway.address()).is_err());
    upstream.release();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an answer, and the end that TLS tells");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
    assert!(gateway.wait().status.success());
}

#[test]
fn files_that_cannot_be_used_are_problems_of_the_configuration() {
    let authority = Authority::new();
    authority.issue("other", &["other.example"]);
    let mut expired = CertificateParams::new(["old.example".to_owned()]).expect("a name");
    (expired.not_before, expired.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    authority.issue_with("expired", &expired);
    let mut early = CertificateParams::new(["new.example".to_owned()]).expect("a name");
    (early.not_before, early.not_after) = (rcgen::date_time_ymd(2200, 1, 1), rcgen::date_time_ymd(2201, 1, 1));
    authority.issue_with("early", &early);
    let write = |name: &str, text: &str| std::fs::write(authority.path(name), text).expect("written");
    let pem = std::fs::read_to_string(authority.path("server.pem")).expect("PEM");
    write("empty.pem", "");
    write("cut.pem", &pem[..pem.len() / 2]);
    write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write("encrypted.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    write("garbage.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let cases = [
        ("server.pem", "server.key", 0, "good"),
        ("expired.pem", "expired.key", 0, "expired.pem has expired, at 2021-01-01T00:00:00"),
        ("early.pem", "early.key", 0, "early.pem is valid from 2200-01-01T00:00:00"),
        ("missing.pem", "server.key", 78, "certificates.certificate: cannot read missing.pem: No such file"),
        ("server.pem", "missing.key", 78, "certificates.key: cannot read missing.key: No such file"),
        ("empty.pem", "server.key", 78, "empty.pem has no certificate"),
        ("server.key", "server.key", 78, "server.key has no certificate"),
        ("cut.pem", "server.key", 78, "cut.pem is not PEM that can be read"),
        ("garbage.pem", "server.key", 78, "garbage.pem has a certificate that cannot be read"),
        ("server.pem", "server.pem", 78, "server.pem has no private key that is not encrypted"),
        ("server.pem", "encrypted.key", 78, "encrypted.key has no private key that is not encrypted"),
        ("server.pem", "garbage.key", 78, "garbage.key cannot be used"),
        ("server.pem", "other.key", 78, "other.key is not the key of server.pem"),
    ];
    for (certificate, key, code, expected) in cases {
        let output = check(authority.folder(), certificate, key);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).expect("text");
        assert_eq!(output.status.code(), Some(code), "{certificate}, {key}: {said}");
        assert!(said.contains(expected), "{certificate}, {key}: {said}");
        let lines = std::fs::read_to_string(authority.path("server.key")).expect("PEM");
        assert!(!lines.lines().filter(|line| !line.starts_with('-')).any(|line| said.contains(line)), "{said}");
    }
}

/// What `doorward check` says of a listener with these files.
fn check(folder: &Path, certificate: &str, key: &str) -> Output {
    let config = format!(
        "[store]\nurl = \"memory:\"\n[server.listeners.public]\nlisten = \"127.0.0.1:0\"\n\
         tls.certificates = [{{ certificate = \"{certificate}\", key = \"{key}\" }}]\n"
    );
    std::fs::write(folder.join("checked.toml"), config).expect("written");
    doorward().args(["check", "--config", "checked.toml"]).current_dir(folder).output().expect("it runs")
}

#[track_caller]
fn started(authority: &Authority, server: &str, upstream: &Upstream) -> Gateway {
    authority.gateway(&format!("{server}{}", Github::source(&upstream.url())))
}

fn delivery(id: &str) -> Delivery {
    Github::delivery(id, format!("{{\"id\":\"{id}\"}}"))
}

fn handshakes(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("doorward_tls_handshakes_total{{outcome=\"{outcome}\"}}"))
}

/// What `openssl s_client` says of the listener.
fn s_client(gateway: &Gateway, authority: &Authority, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &gateway.address().to_string(), "-CAfile"])
        .arg(authority.path("ca.pem"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn rest_of(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A connection that is closed with unread bytes is reset.
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    rest
}
