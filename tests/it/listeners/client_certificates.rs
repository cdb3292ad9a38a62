//! Client certificates: sources that require one, and what does not count as one.

use std::io::Read as _;
use std::io::Write as _;
use std::process::Command;

use rcgen::CertificateParams;
use rcgen::SanType;

use crate::harness::authority::Authority;
use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http2::Http2;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::tls::client_config;
use crate::harness::tls::connect_as;
use crate::harness::tls::exchange_on;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const LISTENER: &str = "[server.listeners.public]\nlisten = \"127.0.0.1:0\"\ntls.client_ca = \"ca.pem\"\n\
                        tls.certificates = [{ certificate = \"server.pem\", key = \"server.key\" }]\n\
                        [server.listeners.plain]\nlisten = \"127.0.0.1:0\"\n\
                        [server.listeners.unasked]\nlisten = \"127.0.0.1:0\"\n\
                        tls.certificates = [{ certificate = \"server.pem\", key = \"server.key\" }]\n";
const RULE: &str =
    "client_certificate = { san = [\"*.bank.example\", \"spiffe://bank.example/hooks\", \"hooks@bank.example\"] }";

#[test]
fn a_certificate_with_one_of_the_names_lets_in() {
    let (authority, upstream) = (authority(), Upstream::start());
    let gateway = started(&authority, RULE, &upstream);
    for name in ["hooks", "uri", "email", "several"] {
        assert_eq!(send(&gateway, &authority, Some(name), &delivery(name)).status, 200, "{name}");
        let mut client =
            Http2::connect_with(gateway.listener("public"), client_config(&authority, &[b"h2"], Some(name)));
        assert_eq!(client.send(&delivery(&format!("{name} over HTTP/2"))).status, 200, "{name}");
    }
    assert_eq!(upstream.received().len(), 8);
}

#[test]
fn one_with_other_names_or_none_is_refused_whatever_is_signed() {
    let (authority, upstream) = (authority(), Upstream::start());
    let gateway = started(&authority, RULE, &upstream);
    for (number, name) in (1..).zip(["bank", "deep", "other", "nameless", "common-name"]) {
        assert_eq!(send(&gateway, &authority, Some(name), &delivery(name)).status, 403, "{name}");
        assert_eq!(gateway.refusals("github", "client_certificate_mismatch"), f64::from(number), "{name}");
    }
    assert_eq!(send(&gateway, &authority, None, &delivery("none")).status, 403);
    let forged = delivery("forged")
        .with("X-SSL-Client-Verify", "SUCCESS")
        .with("X-Forwarded-Client-Cert", "DNS=hooks.bank.example");
    assert_eq!(forged.send(gateway.listener("plain")).status, 403);
    let config = client_config(&authority, &[], Some("hooks"));
    let mut unasked = connect_as(gateway.listener("unasked"), "127.0.0.1", config);
    assert_eq!(exchange_on(&mut unasked, &delivery("unasked").bytes()).status, 403);
    assert_eq!(gateway.refusals("github", "client_certificate_missing"), 3.0);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn one_that_nobody_vouches_for_ends_the_handshake() {
    let (authority, upstream) = (authority(), Upstream::start());
    let gateway = started(&authority, RULE, &upstream);
    let stranger = Authority::new();
    stranger.issue("hooks", &["hooks.bank.example"]);
    for file in ["hooks.pem", "hooks.key"] {
        std::fs::copy(stranger.path(file), authority.path(&file.replace("hooks", "stranger"))).expect("copied");
    }
    for (number, name) in (1..).zip(["stranger", "expired"]) {
        let mut client =
            connect_as(gateway.listener("public"), "127.0.0.1", client_config(&authority, &[], Some(name)));
        // With TLS 1.3 a client has finished before its certificate is refused.
        drop(client.write_all(&delivery(name).bytes()));
        assert!(client.read(&mut [0; 1]).is_err(), "{name}");
        wait_until("it to be counted", || gateway.refusals("", "tls_handshake") == f64::from(number));
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn sources_without_a_rule_take_clients_with_a_certificate_and_without() {
    let (authority, upstream) = (authority(), Upstream::start());
    let gateway = started(&authority, "", &upstream);
    for name in [None, Some("hooks"), Some("other")] {
        assert_eq!(send(&gateway, &authority, name, &delivery(&format!("{name:?}").replace('"', ""))).status, 200);
    }
}

#[test]
fn addresses_count_beside_certificates() {
    let (authority, upstream) = (authority(), Upstream::start());
    let gateway = started(&authority, &format!("{RULE}\nallow = [\"203.0.113.0/24\"]"), &upstream);
    assert_eq!(send(&gateway, &authority, Some("hooks"), &delivery("1")).status, 403);
    assert_eq!(gateway.refusals("github", "address_not_allowed"), 1.0);
}

#[test]
fn a_session_that_goes_on_shows_its_certificate_again() {
    let (authority, upstream) = (authority(), Upstream::start());
    let gateway = started(&authority, RULE, &upstream);
    for (version, max) in [("--tlsv1.2", "1.2"), ("--tlsv1.3", "1.3")] {
        let session = authority.path(&format!("session{max}"));
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl")
                .args(["s_client", "-connect", &gateway.listener("public").to_string(), "-cert"])
                .arg(authority.path("hooks.pem"))
                .arg("-key")
                .arg(authority.path("hooks.key"))
                .arg(version.replace("--tlsv", "-tls").replace('.', "_"))
                .args(arguments)
                .arg(&session)
                .stdin(std::process::Stdio::null())
                .output()
                .expect("openssl");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let first = openssl(&["-sess_out"]);
        assert!(first.contains("New, TLSv1"), "{first}");
        if session.exists() {
            let second = openssl(&["-sess_in"]);
            assert!(!second.contains("Reused, TLSv1"), "{second}");
        }
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-d", "{}", version, "--tls-max", max, "--cacert"])
            .arg(authority.path("ca.pem"))
            .arg("--cert")
            .arg(authority.path("hooks.pem"))
            .arg("--key")
            .arg(authority.path("hooks.key"))
            .arg(format!("https://{}/webhooks/github", gateway.listener("public")))
            .output()
            .expect("curl");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "401", "{output:?}");
    }
}

/// With certificates of clients: `hooks`, `uri`, `email` and `several` have a name that lets in.
fn authority() -> Authority {
    let authority = Authority::new();
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
    let uri = || SanType::URI("spiffe://bank.example/hooks".try_into().expect("a URI"));
    let issue = |name: &str, names: Vec<SanType>| {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = names;
        authority.issue_with(name, &parameters);
    };
    issue("hooks", vec![dns("hooks.bank.example")]);
    issue("uri", vec![uri()]);
    issue("email", vec![SanType::Rfc822Name("hooks@bank.example".try_into().expect("an address"))]);
    issue("several", vec![dns("other.example"), uri()]);
    issue("bank", vec![dns("bank.example")]);
    issue("deep", vec![dns("a.hooks.bank.example")]);
    issue("other", vec![dns("hooks.bank.example.evil.example"), SanType::IpAddress([127, 0, 0, 1].into())]);
    issue("nameless", Vec::new());
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "hooks.bank.example");
    authority.issue_with("common-name", &parameters);
    let mut expired = CertificateParams::new(["hooks.bank.example".to_owned()]).expect("a name");
    (expired.not_before, expired.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    authority.issue_with("expired", &expired);
    authority
}

#[track_caller]
fn started(authority: &Authority, source: &str, upstream: &Upstream) -> Gateway {
    authority.gateway(&format!("{LISTENER}{}{source}\n", Github::source(&upstream.url())))
}

/// Sends on a connection of its own, with this certificate.
fn send(gateway: &Gateway, authority: &Authority, certificate: Option<&str>, delivery: &Delivery) -> Answer {
    let mut client = connect_as(gateway.listener("public"), "127.0.0.1", client_config(authority, &[], certificate));
    exchange_on(&mut client, &delivery.bytes())
}

fn delivery(id: &str) -> Delivery {
    Github::delivery(id, format!("{{\"id\":\"{id}\"}}"))
}
