//! Subscription confirmations of SNS: `SubscribeURL` is visited on allowed hosts only, and only when SNS asks for it.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::http::Message;
use crate::harness::provider::sns::CERTIFICATE;
use crate::harness::provider::sns::Sns;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;

const VISIT: &str = "/?Action=ConfirmSubscription&Token=2336412f37f";

#[test]
fn a_subscription_is_confirmed_by_a_visit_and_answered_afterwards() {
    let (gateway, upstream, sns) = started(|_| Reply::Status(200, "<ConfirmSubscriptionResponse/>"));
    let answer = sns.confirmation(&at(sns.0.address())).send(gateway.address());
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    assert_eq!(sns.asked(), [CERTIFICATE, VISIT]);
    assert_eq!((gateway.outcomes("aws-sns", "handshake"), upstream.connections()), (1.0, 0));
}

#[test]
fn a_subscription_that_is_confirmed_again_is_visited_again() {
    let (gateway, _upstream, sns) = started(|_| Reply::Status(200, ""));
    for _ in 0..2 {
        assert_eq!(sns.confirmation(&at(sns.0.address())).send(gateway.address()).status, 200);
    }
    assert_eq!((visits(&sns), gateway.outcomes("aws-sns", "handshake")), (2, 2.0));
}

#[test]
fn no_other_host_is_visited() {
    let (gateway, _upstream, sns) = started(|_| Reply::Status(200, ""));
    let elsewhere = Upstream::start();
    let host = sns.0.address();
    for address in [
        at(elsewhere.address()),
        format!("http://{host}@{}{VISIT}", elsewhere.address()),
        format!("http://{}/#{host}", elsewhere.address()),
        format!("http://localhost:{}{VISIT}", elsewhere.address().port()),
        format!("http://127.0.0.1:{}{VISIT}", elsewhere.address().port()),
        format!("http://2130706433:{}{VISIT}", elsewhere.address().port()),
        format!("http://[::ffff:127.0.0.1]:{}{VISIT}", host.port()),
        format!("ftp://{host}{VISIT}"),
        format!("file://{CERTIFICATE}"),
        format!("//{host}{VISIT}"),
        VISIT.to_owned(),
        String::new(),
    ] {
        let answer = sns.confirmation(&address).send(gateway.address());
        assert_eq!(answer.status, 401, "{address}");
    }
    assert_eq!(gateway.refusals("aws-sns", "handshake_refused"), 12.0);
    assert_eq!((visits(&sns), elsewhere.connections()), (0, 0));
}

#[test]
fn nothing_is_visited_that_is_not_signed() {
    let (gateway, _upstream, sns) = started(|_| Reply::Status(200, ""));
    let mut forged = sns.confirmation(&at(sns.0.address()));
    let text = String::from_utf8(forged.body).expect("text").replace("2336412f37f", "2336412f37a");
    forged.body = text.into_bytes();
    assert_eq!(forged.send(gateway.address()).status, 401);
    assert_eq!(gateway.refusals("aws-sns", "signature_mismatch"), 1.0);
    let mut unsigned: Value = serde_json::from_slice(&sns.confirmation(&at(sns.0.address())).body).expect("JSON");
    unsigned.as_object_mut().expect("an object").remove("Signature");
    forged.body = unsigned.to_string().into_bytes();
    assert_eq!(forged.send(gateway.address()).status, 401);
    assert_eq!(visits(&sns), 0);
}

macro_rules! visits_that_fail {
    ($($name:ident: $reply:expr)*) => {
        mod sns_is_asked_to_come_again_after {
            use super::*;
            $(#[test] fn $name() { assert_come_again($reply); })*
        }
    };
}

visits_that_fail! {
    a_server_error: Reply::Status(500, "")
    a_refusal: Reply::Status(403, "")
    no_content: Reply::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
    a_closed_connection: Reply::Close
    an_answer_that_never_comes: Reply::Hold
    an_answer_that_never_ends: Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n<".to_vec())
    an_answer_that_is_too_long: Reply::Raw(long())
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Upstream::start();
    let url = elsewhere.url();
    assert_come_again(Reply::Raw(
        format!("HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n").into_bytes(),
    ));
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn while_the_subscribe_url_is_unreachable_the_sender_is_asked_to_retry() {
    let dead = Upstream::nowhere();
    let sns = Sns::answering(|_| Reply::Status(200, ""));
    let (gateway, upstream) = start_shipped("aws-sns", &Sns::lines(&format!("{} {dead}", sns.0.address())));
    let delivery = sns.confirmation(&at(dead));
    assert!(delivery.send(gateway.address()).asks_to_come_again());
    assert_eq!(gateway.refusals("aws-sns", "handshake_unavailable"), 1.0);
    let alive = Upstream::at(dead, |_, _| Reply::Status(200, ""));
    assert_eq!(delivery.send(gateway.address()).status, 200);
    assert_eq!((alive.received().len(), upstream.connections()), (1, 0));
}

#[track_caller]
fn assert_come_again(reply: Reply) {
    let (gateway, upstream, sns) = started(move |_| reply.clone());
    let answer = sns.confirmation(&at(sns.0.address())).send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    assert_eq!(gateway.refusals("aws-sns", "handshake_unavailable"), 1.0);
    assert_eq!((visits(&sns), upstream.connections()), (1, 0));
}

/// A gateway with a source of SNS, and an SNS that answers visits so.
fn started(visited: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> (Gateway, Upstream, Sns) {
    let sns = Sns::answering(visited);
    let (gateway, upstream) = sns.gateway();
    (gateway, upstream, sns)
}

fn at(address: SocketAddr) -> String {
    format!("http://{address}{VISIT}")
}

/// How often anything but the certificate was asked for.
fn visits(sns: &Sns) -> usize {
    sns.asked().iter().filter(|path| *path != CERTIFICATE).count()
}

fn long() -> Vec<u8> {
    let body = "x".repeat(300_000);
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
