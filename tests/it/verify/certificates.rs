//! Certificates that messages name: fetched from allowed addresses only, within limits that nobody can use up for
//! others.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::gateway::log::is_failed_fetch;
use crate::harness::http::receive;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::sns::CERTIFICATE;
use crate::harness::provider::sns::Sns;
use crate::harness::provider::sns::certificate;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

#[test]
fn a_certificate_is_fetched_once_for_many_messages() {
    let sns = Sns::with(|_| certificate());
    let (gateway, upstream) = sns.gateway();
    let held: Vec<_> =
        (0..20).map(|number| sns.notification(&number.to_string(), CERTIFICATE).begin(gateway.address())).collect();
    assert!(held.iter().all(|stream| receive(stream).status == 200));
    assert_eq!(sns.notification("20", CERTIFICATE).send(gateway.address()).status, 200);
    assert_eq!((sns.asked(), upstream.received().len()), (vec![CERTIFICATE.to_owned()], 21));
}

#[test]
fn made_up_addresses_do_not_keep_a_genuine_certificate_out() {
    let sns = Sns::answering(|_| Reply::Status(404, ""));
    let (gateway, upstream) = sns.gateway();
    let junk: Vec<_> =
        (0..49).map(|number| sns.notification("junk", &made_up(number)).begin(gateway.address())).collect();
    assert_eq!(sns.notification("1", CERTIFICATE).send(gateway.address()).status, 200);
    assert!(junk.iter().all(|stream| receive(stream).asks_to_come_again()));
    assert_eq!(gateway.refusals("aws-sns", "keys_unavailable"), 49.0);
    assert_eq!(upstream.ids(), ["1"]);
}

#[test]
fn a_certificate_that_is_known_is_not_pushed_out_by_others() {
    let sns = Sns::with(|_| certificate());
    let (gateway, _upstream) = sns.gateway();
    let genuine = |number: usize| sns.notification(&format!("genuine-{number}"), CERTIFICATE).send(gateway.address());
    assert_eq!(genuine(0).status, 200);
    // Certificates of the provider, all of them, but nothing that they have signed.
    let other = |number: usize| {
        let mut other = sns.notification("other", &made_up(number));
        other.body = String::from_utf8(other.body).expect("text").replace("Hello", "Hallo").into_bytes();
        other.send(gateway.address())
    };
    for number in 0..65 {
        assert_eq!(other(number).status, 401, "{number}");
    }
    assert_eq!(genuine(1).status, 200);
    assert_eq!(sns.asked().len(), 66);
    // Of those there are 64: the last is known still, the first is not.
    for (number, asked) in [(64, 66), (0, 67)] {
        assert_eq!(other(number).status, 401, "{number}");
        assert_eq!(sns.asked().len(), asked, "{number}");
    }
}

#[test]
fn a_full_fetch_queue_makes_room_for_other_networks() {
    let (gateway, upstream, sns) = behind_a_proxy();
    let junk = fill(&gateway, &sns);
    // No more room for whoever has filled it, from none of his addresses.
    for (address, number) in [("192.0.2.1", 100), ("192.0.2.77", 101)] {
        let answer = from(&sns, address, "more", &made_up(number)).send(gateway.address());
        assert!(answer.asks_to_come_again(), "{address}");
    }
    let genuine = from(&sns, "198.51.100.7", "1", CERTIFICATE).begin(gateway.address());
    // One of the others has to go.
    wait_until("room to be made", || gateway.refusals("aws-sns", "keys_unavailable") == 3.0);
    sns.0.release();
    assert_eq!(receive(&genuine).status, 200);
    drop(junk);
    assert_eq!(upstream.ids(), ["1"]);
}

#[test]
fn in_a_full_fetch_queue_a_client_that_retries_replaces_one_that_came_once() {
    let (gateway, upstream, sns) = behind_a_proxy();
    let junk = fill(&gateway, &sns);
    let genuine = from(&sns, "192.0.2.2", "1", CERTIFICATE);
    assert!(genuine.send(gateway.address()).asks_to_come_again());
    let again = genuine.begin(gateway.address());
    wait_until("room to be made", || gateway.refusals("aws-sns", "keys_unavailable") == 2.0);
    sns.0.release();
    assert_eq!(receive(&again).status, 200);
    drop(junk);
    assert_eq!(upstream.ids(), ["1"]);
}

/// A gateway behind a proxy, and an SNS that does not answer for certificates that are made up.
fn behind_a_proxy() -> (Gateway, Upstream, Sns) {
    let sns = Sns::with(|request| if request.start.contains("ffff") { Reply::Hold } else { certificate() });
    let lines = Sns::lines(&sns.0.address().to_string());
    let upstream = Upstream::start();
    let gateway = Gateway::start(&format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [sources.aws-sns]\nprofile = \"aws-sns\"\npath = \"/aws-sns\"\n{lines}\n\
         deliver.upstream = {{ url = \"{}\" }}\n",
        upstream.url()
    ));
    (gateway, upstream, sns)
}

fn from(sns: &Sns, address: &str, id: &str, path: &str) -> Delivery {
    sns.notification(id, path).with("X-Forwarded-For", address)
}

/// Makes up as many addresses as may wait.
fn fill(gateway: &Gateway, sns: &Sns) -> Vec<TcpStream> {
    let begin = |number: usize| from(sns, "192.0.2.1", "junk", &made_up(number)).begin(gateway.address());
    let junk = (0..50).map(begin).collect();
    wait_until("the line to be full", || gateway.metric("doorward_in_flight_requests") == 50.0);
    sns.0.wait_for(8);
    junk
}

#[test]
fn a_certificate_is_fetched_though_its_sender_has_hung_up() {
    let sns = Sns::with(|_| Reply::Hold);
    let (gateway, _upstream) = sns.gateway();
    drop(sns.notification("1", CERTIFICATE).begin(gateway.address()));
    sns.0.wait_for(1);
    let again = sns.notification("2", CERTIFICATE).begin(gateway.address());
    wait_until("the next to wait", || gateway.metric("doorward_in_flight_requests") >= 1.0);
    sns.0.release();
    // What was held is no certificate, which both are told by one fetch.
    assert_eq!(receive(&again).status, 503);
    assert_eq!(sns.asked().len(), 1);
}

#[test]
fn a_certificate_url_with_a_query_or_fragment_is_refused() {
    let sns = Sns::with(|_| certificate());
    let (gateway, upstream) = sns.gateway();
    for suffix in ["?", "?a", "?a=.pem", "#", "#a.pem", "?a#b"] {
        let answer = sns.notification("1", &format!("{CERTIFICATE}{suffix}")).send(gateway.address());
        assert_eq!(answer.status, 401, "{suffix}");
    }
    assert_eq!(gateway.refusals("aws-sns", "certificate_not_allowed"), 6.0);
    assert_eq!((sns.0.connections(), upstream.connections()), (0, 0));
}

#[test]
fn certificates_are_fetched_from_no_other_host() {
    let (sns, other) = (Sns::with(|_| certificate()), Sns::with(|_| certificate()));
    let (gateway, upstream) = sns.gateway();
    // Signed with the right key: only where the certificate lies is wrong.
    assert_eq!(other.notification("1", CERTIFICATE).send(gateway.address()).status, 401);
    assert_eq!(gateway.refusals("aws-sns", "certificate_not_allowed"), 1.0);
    assert_eq!((other.0.connections(), sns.0.connections(), upstream.connections()), (0, 0, 0));
}

#[test]
fn no_other_path_is_fetched_from_an_allowed_host() {
    let sns = Sns::with(|_| certificate());
    let (gateway, upstream) = sns.gateway();
    for path in [
        "/",
        "/1.pem",
        "/SimpleNotificationService-.pem",
        "/SimpleNotificationService-1.pem.txt",
        "/bucket/SimpleNotificationService-1.pem",
        "/SimpleNotificationService-1/2.pem",
        "/SimpleNotificationService-1%2f2.pem",
        "/SimpleNotificationService-1/../1.pem",
        "/simplenotificationservice-1.pem",
        &made_up_of(500),
    ] {
        assert_eq!(sns.notification("1", path).send(gateway.address()).status, 401, "{path}");
    }
    assert_eq!(gateway.refusals("aws-sns", "certificate_not_allowed"), 10.0);
    assert_eq!((sns.0.connections(), upstream.connections()), (0, 0));
}

#[test]
fn hosts_that_anybody_can_register_are_refused_by_check() {
    let upstream = Upstream::start();
    for hosts in ["sns.*.amazonaws.com", "*.paypal.com"] {
        let source = format!(
            "[sources.aws-sns]\nprofile = \"aws-sns\"\npath = \"/aws-sns\"\n{}\n\
             deliver.upstream = {{ url = \"{}\" }}\n",
            Sns::lines(hosts),
            upstream.url()
        );
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("doorward.toml");
        std::fs::write(&config, source).expect("a configuration");
        let output = doorward().arg("check").arg("--config").arg(&config).output().expect("doorward runs");
        let spec = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(78), "{spec}");
        assert!(spec.contains("sns.<region>.amazonaws.com"), "{spec}");
    }
}

#[test]
fn at_most_eight_certificates_are_fetched_at_once() {
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counting, seen) = (Arc::clone(&inside), Arc::clone(&most));
    let sns = Sns::with(move |_| {
        seen.fetch_max(counting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        counting.fetch_sub(1, Ordering::SeqCst);
        certificate()
    });
    let (gateway, _upstream) = sns.gateway();
    let held: Vec<_> = (0..24)
        .map(|number| sns.notification(&format!("{number}"), &made_up(number)).begin(gateway.address()))
        .collect();
    assert!(held.iter().all(|stream| receive(stream).status == 200));
    let most = most.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most}");
    assert_eq!(sns.asked().len(), 24);
}

#[test]
fn a_slow_fetch_holds_up_nobody_whose_certificate_is_known() {
    let sns = Sns::with(|request| if request.start.contains("slow") { Reply::Hold } else { certificate() });
    let (gateway, _upstream) = sns.gateway();
    assert_eq!(sns.notification("1", CERTIFICATE).send(gateway.address()).status, 200);
    let held = sns.notification("2", "/SimpleNotificationService-slow.pem").begin(gateway.address());
    sns.0.wait_for(2);
    assert_eq!(sns.notification("3", CERTIFICATE).send(gateway.address()).status, 200);
    sns.0.release();
    // What was held is no certificate.
    assert_eq!(receive(&held).status, 503);
}

#[test]
fn a_file_that_is_not_there_is_not_asked_for_time_and_again() {
    let sns = Sns::with(|_| Reply::Status(404, ""));
    let (gateway, _upstream) = sns.gateway();
    for _ in 0..20 {
        assert!(sns.notification("1", CERTIFICATE).send(gateway.address()).asks_to_come_again());
    }
    assert_eq!(sns.asked().len(), 1);
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let answers = AtomicUsize::new(0);
    let sns = Sns::with(move |_| match answers.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Status(500, ""),
        1 => Reply::Close,
        2 => Reply::Status(429, ""),
        _ => certificate(),
    });
    let (gateway, upstream) = sns.gateway();
    let message = sns.notification("1", CERTIFICATE);
    for _ in 0..3 {
        assert!(message.send(gateway.address()).asks_to_come_again());
    }
    assert_eq!(message.send(gateway.address()).status, 200);
    assert_eq!(upstream.ids(), ["1"]);
    gateway.logged("the failure", is_failed_fetch);
}

macro_rules! answers_that_are_no_certificate {
    ($($name:ident: $reply:expr, $status:expr)*) => {
        mod what_is_fetched_may_be {
            use super::*;
            $(#[test] fn $name() { assert_refused($reply, $status); })*
        }
    };
}

answers_that_are_no_certificate! {
    nothing: raw(""), 503
    garbage: raw("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 503
    a_page: raw("<html>"), 503
    a_key: raw("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"), 503
    too_large: raw(&format!("{}{}", "\n".repeat(300_000), "x")), 503
    endless: Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n-----BEGIN".to_vec()), 503
    late: Reply::Hold, 503
    not_http: Reply::RawThenClose(b"\x16\x03\x01".to_vec()), 503
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Upstream::start();
    let url = elsewhere.url();
    assert_refused(
        Reply::Raw(format!("HTTP/1.1 301 Moved\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n").into()),
        503,
    );
    assert_eq!(elsewhere.connections(), 0);
}

#[track_caller]
fn assert_refused(reply: Reply, status: u16) {
    let sns = Sns::with(move |_| reply.clone());
    let (gateway, upstream) = sns.gateway();
    let answer = sns.notification("1", CERTIFICATE).send(gateway.address());
    assert_eq!(answer.status, status, "{answer:?}");
    let reason = if status == 503 { "keys_unavailable" } else { "certificate_invalid" };
    assert_eq!(gateway.refusals("aws-sns", reason), 1.0);
    assert_eq!((sns.asked().len(), upstream.connections()), (1, 0));
}

fn raw(body: &str) -> Reply {
    Reply::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

/// A path where a certificate might be.
fn made_up(number: usize) -> String {
    format!("/SimpleNotificationService-ffff{number}.pem")
}

/// A path of this many letters.
fn made_up_of(length: usize) -> String {
    made_up(0).replace("ffff0", &"f".repeat(length))
}
