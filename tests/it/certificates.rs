//! Certificates that messages name: fetched from allowed hosts, seldom, one after the other, and kept.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::harness::Reply;
use crate::harness::Upstream;
use crate::harness::receive;
use crate::harness::sns::CERTIFICATE;
use crate::harness::sns::Sns;
use crate::harness::sns::certificate;

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
fn not_more_than_ten_are_fetched_in_a_minute() {
    let sns = Sns::with(|_| certificate());
    let (gateway, _upstream) = sns.gateway();
    let message = |number: usize| sns.notification(&format!("{number}"), &format!("/{number}.pem"));
    for number in 0..10 {
        assert_eq!(message(number).send(gateway.address()).status, 200, "{number}");
    }
    for number in 10..15 {
        let answer = message(number).send(gateway.address());
        assert!(answer.asks_to_come_again(), "{number}: {answer:?}");
    }
    assert_eq!(gateway.refusals("aws-sns", "keys_unavailable"), 5.0);
    assert_eq!(sns.notification("15", "/3.pem").send(gateway.address()).status, 200, "one that is known");
    assert_eq!(sns.asked().len(), 10);
}

#[test]
fn one_file_has_one_address() {
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
fn no_other_host_is_asked() {
    let (sns, other) = (Sns::with(|_| certificate()), Sns::with(|_| certificate()));
    let (gateway, upstream) = sns.gateway();
    // Signed with the right key: only where the certificate lies is wrong.
    assert_eq!(other.notification("1", CERTIFICATE).send(gateway.address()).status, 401);
    assert_eq!(gateway.refusals("aws-sns", "certificate_not_allowed"), 1.0);
    assert_eq!((other.0.connections(), sns.0.connections(), upstream.connections()), (0, 0, 0));
}

#[test]
fn one_is_fetched_after_the_other() {
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counting, seen) = (Arc::clone(&inside), Arc::clone(&most));
    let sns = Sns::with(move |_| {
        seen.fetch_max(counting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        counting.fetch_sub(1, Ordering::SeqCst);
        certificate()
    });
    let (gateway, _upstream) = sns.gateway();
    let held: Vec<_> = (0..4)
        .map(|number| sns.notification(&format!("{number}"), &format!("/{number}.pem")).begin(gateway.address()))
        .collect();
    assert!(held.iter().all(|stream| receive(stream).status == 200));
    assert_eq!((most.load(Ordering::SeqCst), sns.asked().len()), (1, 4));
}

#[test]
fn a_slow_fetch_holds_up_nobody_whose_certificate_is_known() {
    let sns = Sns::with(|request| if request.start.contains("slow") { Reply::Hold } else { certificate() });
    let (gateway, _upstream) = sns.gateway();
    assert_eq!(sns.notification("1", CERTIFICATE).send(gateway.address()).status, 200);
    let held = sns.notification("2", "/slow.pem").begin(gateway.address());
    sns.0.wait_for(2);
    assert_eq!(sns.notification("3", CERTIFICATE).send(gateway.address()).status, 200);
    sns.0.release();
    // What was held is no certificate.
    assert_eq!(receive(&held).status, 401);
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
    gateway.logged("the failure", |event| event["message"] == "a certificate could not be fetched");
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
    nothing: raw(""), 401
    garbage: raw("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 401
    a_page: raw("<html>"), 401
    a_key: raw("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"), 401
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
