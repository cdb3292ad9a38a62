//! Compressed bodies: signed before or after their compression, delivered as they came, read as they were before.

use std::io::Write as _;

use flate2::Compression;
use flate2::GzBuilder;
use flate2::write::GzEncoder;
use flate2::write::ZlibEncoder;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::folder_with_profile;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::http::Answer;
use crate::harness::http::connect;
use crate::harness::http::receive;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const HMAC: &str = "[auth.hmac]\nsignature = { header = \"X-Sig\", encoding = \"hex\" }\nsigned = \"{body}\"\n";
const BY_JSON: &str = "[event]\nid = { json = \"/id\" }\ntype = { json = \"/type\" }\n";
const BY_DIGEST: &str = "[event]\nid = { digest = \"body\" }\n";
const EVENT: &[u8] = br#"{"id":"e1","type":"message.new","text":"hi hi hi hi hi hi hi hi"}"#;
const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

/// The same body in other streams, which anybody can make who has seen one.
fn compressed_anew(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut stored = GzEncoder::new(Vec::new(), Compression::none());
    stored.write_all(body).expect("memory");
    let mut named = GzBuilder::new().filename("a").mtime(7).write(Vec::new(), Compression::best());
    named.write_all(body).expect("memory");
    vec![
        ("gzip", gzip(body)),
        ("X-Gzip", gzip(body)),
        ("gzip", stored.finish().expect("memory")),
        ("gzip", named.finish().expect("memory")),
        ("deflate", zlib(body)),
        ("identity", body.to_vec()),
    ]
}

fn started(profile: &str) -> (Gateway, Upstream) {
    start_with_profile(profile, &format!("secrets = [\"plain:{SECRET}\"]"))
}

/// A request with this body, and the signature over other bytes.
fn signed(signed: &[u8], coding: Option<&str>, sent: &[u8]) -> Delivery {
    let signature = hmac_hex(SECRET, &[signed]);
    let delivery = request("POST", "/own", &[("X-Sig", &signature)], sent);
    match coding {
        Some(coding) => delivery.with("Content-Encoding", coding),
        None => delivery,
    }
}

#[track_caller]
fn assert_status(gateway: &Gateway, delivery: &Delivery, status: u16) -> Answer {
    let answer = delivery.send(gateway.address());
    assert_eq!(answer.status, status, "{}", answer.text());
    answer
}

#[test]
fn a_profile_says_which_bytes_are_signed_or_takes_both() {
    for (said, plain, as_sent) in [
        ("", 200, 200),
        ("content_encoding = \"signed-plain\"\n", 200, 401),
        ("content_encoding = \"signed-as-sent\"\n", 401, 200),
    ] {
        for (coding, sent) in [("gzip", gzip(EVENT)), ("x-gzip", gzip(EVENT)), ("deflate", zlib(EVENT))] {
            for (bytes, status) in [(EVENT, plain), (&sent, as_sent)] {
                let (gateway, upstream) = started(&format!("{said}{HMAC}{BY_JSON}"));
                assert_status(&gateway, &signed(bytes, Some(coding), &sent), status);
                let received = upstream.received();
                assert_eq!(received.len(), usize::from(status == 200));
                for message in received {
                    assert_eq!((message.header("content-encoding"), &message.body), (Some(coding), &sent));
                    assert_eq!(message.header("doorward-event-id"), Some("e1"));
                    assert_eq!(message.header("doorward-event-type"), Some("message.new"));
                }
                // Without a coding it is an ordinary body.
                assert_status(&gateway, &signed(br#"{"id":"e2"}"#, None, br#"{"id":"e2"}"#), 200);
            }
        }
    }
}

#[test]
fn an_event_that_was_signed_before_compression_comes_once_however_it_is_compressed() {
    let guarded = "[event]\nid = { header = \"X-Id\" }\n";
    for event in [BY_JSON, BY_DIGEST, guarded] {
        let (gateway, upstream) = started(&format!("{HMAC}{event}"));
        let first = signed(EVENT, Some("gzip"), &gzip(EVENT)).with("X-Id", "first");
        assert_eq!(assert_status(&gateway, &first, 200).text(), r#"{"ok":true}"#);
        for (number, (coding, sent)) in compressed_anew(EVENT).into_iter().enumerate() {
            let again = signed(EVENT, Some(coding), &sent).with("X-Id", &number.to_string());
            let answer = assert_status(&gateway, &again, 200).json();
            assert_eq!(answer["duplicate"], true, "{coding} {number}");
        }
        assert_eq!(upstream.received().len(), 1, "{event}");
    }
}

#[test]
fn an_event_that_was_signed_as_sent_comes_once_whatever_its_headers_say() {
    let optional = "[event]\nid = { first = [{ json = \"/id\" }, { digest = \"body\" }] }\n";
    let guarded = "[event]\nid = { header = \"X-Id\" }\n";
    for said in ["", "content_encoding = \"signed-as-sent\"\n"] {
        for event in [BY_JSON, BY_DIGEST, optional, guarded] {
            let (gateway, upstream) = started(&format!("{said}{HMAC}{event}"));
            let sent = gzip(EVENT);
            assert_status(&gateway, &signed(&sent, Some("gzip"), &sent).with("X-Id", "first"), 200);
            for (coding, body) in [
                (None, sent.clone()),
                (Some("x-gzip"), sent.clone()),
                (Some("gzip"), gzip(&sent)),
                (Some("deflate"), zlib(&sent)),
            ] {
                let again = signed(&sent, coding, &body).with("X-Id", "again").send(gateway.address());
                assert!(matches!(again.status, 200 | 400 | 401), "{} {}", again.status, again.text());
            }
            assert_eq!(upstream.received().len(), 1, "{said}{event}");
        }
    }
}

#[test]
fn what_is_no_whole_stream_of_its_coding_is_refused() {
    let (gateway, upstream) = started(&format!("{HMAC}{BY_JSON}"));
    let sent = gzip(EVENT);
    let two = [gzip(EVENT), gzip(b"{}")].concat();
    let behind = [&sent[..], b"{}"].concat();
    let bare = zlib(EVENT);
    for (coding, body) in [
        ("gzip", &sent[..sent.len() - 1]),
        ("gzip", &behind),
        ("gzip", &two),
        ("gzip", EVENT),
        ("gzip", &zlib(EVENT)),
        ("deflate", &sent),
        ("deflate", EVENT),
        // Text, which is also a head of zlib's.
        ("deflate", b"x^=1&id=2"),
        ("deflate", &bare[2..bare.len() - 4]),
    ] {
        for bytes in [EVENT, body] {
            assert_status(&gateway, &signed(bytes, Some(coding), body), 400);
        }
    }
    assert_eq!(gateway.refusals("own", "body_malformed"), 18.0);
    for coding in ["br", "zstd", "gzip, gzip", "identity, gzip", "compress", "utf-8", ""] {
        let answer = assert_status(&gateway, &signed(EVENT, Some(coding), &sent), 415);
        assert!(answer.text().contains("gzip or deflate"), "{}", answer.text());
    }
    assert_status(&gateway, &signed(EVENT, Some("gzip"), &sent).with("Content-Encoding", "gzip"), 415);
    assert_eq!(gateway.refusals("own", "body_encoded"), 8.0);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_body_is_as_large_as_allowed_before_and_after_its_compression() {
    const LIMIT: usize = 64 << 10;
    let upstream = Upstream::start();
    let source = format!(
        "profiles = \"profiles\"\n[server]\nmax_body = \"64KiB\"\nmax_buffered = \"128KiB\"\n[sources.own]\nprofile = \"own\"\n\
         path = \"/own\"\nsecrets = [\"plain:{SECRET}\"]\ndeliver.upstream = {{ url = \"{}\" }}\n",
        upstream.url()
    );
    let profile = folder_with_profile(&format!("{HMAC}{BY_DIGEST}"));
    let gateway = Gateway::start_in(profile, &source);
    let large = |length: usize| vec![b'x'; length];
    for (length, status) in [(LIMIT, 200), (LIMIT + 1, 413), (1 << 26, 413)] {
        let body = large(length);
        assert_status(&gateway, &signed(&body, Some("gzip"), &gzip(&body)), status);
    }
    // Stored, it is larger than before.
    let mut stored = GzEncoder::new(Vec::new(), Compression::none());
    stored.write_all(&large(LIMIT)).expect("memory");
    assert_status(&gateway, &signed(&large(LIMIT), Some("gzip"), &stored.finish().expect("memory")), 413);
    assert_eq!(gateway.refusals("own", "body_too_large"), 3.0);
    // Both count in what all bodies may take.
    let tight = source.replace("128KiB", "64KiB");
    let tight = Gateway::start_in(folder_with_profile(&format!("{HMAC}{BY_DIGEST}")), &tight);
    let body = large(LIMIT);
    assert_status(&tight, &signed(&body, Some("gzip"), &gzip(&body)), 503);
    assert_status(&tight, &signed(&body, None, &body), 200);
    let small = large(LIMIT - 200);
    assert_status(&tight, &signed(&small, Some("gzip"), &gzip(&small)), 200);
}

#[test]
fn nothing_is_decompressed_for_strangers_where_the_signature_is_over_what_is_sent() {
    let bomb = gzip(&vec![b' '; 1 << 24]);
    let cut = &gzip(EVENT)[..40];
    let json_first = "[timestamp]\nfrom = { json = \"/time\" }\nformat = \"unix\"\npolicy = \"record\"\n";
    let probe = |of: &str| format!("[[handshake]]\nsigned = false\n{of}\nreply = {{ status = 200 }}\n");
    let visited = probe("method = \"GET\"");
    let unsigned = probe("when = [{ header = \"X-Sig\", absent = true }, { json = \"/a\", present = true }]");
    let any = probe("when = [{ json = \"/a\", present = true }]");
    for (said, bombed, garbled) in [
        (format!("content_encoding = \"signed-as-sent\"\n{HMAC}{BY_JSON}"), 401, 401),
        (format!("content_encoding = \"signed-as-sent\"\n{HMAC}{BY_JSON}{visited}{unsigned}"), 401, 401),
        (format!("content_encoding = \"signed-as-sent\"\n{HMAC}{BY_JSON}{any}"), 413, 400),
        (format!("content_encoding = \"signed-as-sent\"\n{HMAC}{BY_JSON}{json_first}"), 413, 400),
        (format!("content_encoding = \"signed-plain\"\n{HMAC}{BY_JSON}"), 413, 400),
        (format!("{HMAC}{BY_JSON}"), 413, 400),
    ] {
        let (gateway, upstream) = started(&said);
        assert_status(&gateway, &signed(b"another", Some("gzip"), &bomb), bombed);
        assert_status(&gateway, &signed(b"another", Some("gzip"), cut), garbled);
        // Of the provider's own, it shows.
        assert_status(&gateway, &signed(&bomb, Some("gzip"), &bomb), 413);
        assert_status(&gateway, &signed(cut, Some("gzip"), cut), 400);
        assert_eq!(upstream.connections(), 0);
    }
}

#[test]
fn more_bodies_than_may_wait_to_be_decompressed_are_asked_to_come_again() {
    let large = gzip(&vec![b' '; 24 << 20]);
    for (max, overloaded) in [(1, true), (8, false)] {
        let upstream = Upstream::start();
        let sections = format!(
            "profiles = \"profiles\"\n[server]\nmax_body = \"24MiB\"\nworkers = 1\nmax_decompressions = {max}\n[sources.own]\n\
             profile = \"own\"\npath = \"/own\"\nsecrets = [\"plain:{SECRET}\"]\ndeliver.upstream = {{ url = \"{}\" }}\n",
            upstream.url()
        );
        let gateway = Gateway::start_in(folder_with_profile(&format!("{HMAC}{BY_JSON}")), &sections);
        // All but the last byte of each, so that all are complete at about the same time.
        let mut bombs: Vec<_> = (0..8)
            .map(|_| {
                let bytes = signed(EVENT, Some("gzip"), &large).bytes();
                let mut stream = connect(gateway.address());
                stream.write_all(&bytes[..bytes.len() - 1]).expect("sent");
                (stream, bytes)
            })
            .collect();
        wait_until("the heads to be read", || gateway.metric("doorward_in_flight_requests") == 8.0);
        bombs.iter_mut().for_each(|(stream, bytes)| stream.write_all(&bytes[bytes.len() - 1..]).expect("sent"));
        let statuses: Vec<_> = bombs.iter().map(|(stream, _)| receive(stream).status).collect();
        assert_eq!(statuses.contains(&503), overloaded, "{max}: {statuses:?}");
        assert!(statuses.contains(&401), "{statuses:?}");
        // Nothing is left of them.
        assert_status(&gateway, &signed(EVENT, Some("gzip"), &gzip(EVENT)), 200);
    }
}

#[test]
fn nothing_is_decompressed_for_strangers_whose_token_is_wrong() {
    let bomb = gzip(&vec![b' '; 1 << 24]);
    let header = "[auth.token]\nfrom = { header = \"X-Token\" }\n";
    let form = "[auth.token]\nfrom = { form = \"token\" }\n";
    for (said, token, status) in [
        (format!("{header}{BY_DIGEST}"), "another", 401),
        (format!("{header}{BY_DIGEST}"), "", 401),
        (format!("{header}{BY_DIGEST}"), SECRET, 413),
        (format!("{form}{BY_DIGEST}"), SECRET, 413),
    ] {
        let (gateway, upstream) = started(&said);
        let event = request("POST", "/own", &[("X-Token", token), ("Content-Encoding", "gzip")], &bomb[..]);
        assert_status(&gateway, &event, status);
        assert_eq!(upstream.connections(), 0);
    }
    let (gateway, upstream) = started(&format!("{form}{BY_DIGEST}"));
    let sent = gzip(format!("token={SECRET}").as_bytes());
    assert_status(&gateway, &request("POST", "/own", &[("Content-Encoding", "gzip")], sent), 200);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn the_log_says_why_a_body_is_not_what_its_coding_says() {
    let (gateway, _upstream) = started(&format!("{HMAC}{BY_JSON}"));
    let whole = gzip(EVENT);
    for (sent, why) in [
        (EVENT, "does not begin as gzip does"),
        (&whole[..40], "damaged, or cut short"),
        (&[&whole[..], &whole].concat(), "something stands behind the end"),
    ] {
        assert_status(&gateway, &signed(EVENT, Some("gzip"), sent), 400);
        gateway.logged(why, |event| event["cause"].as_str().is_some_and(|cause| cause.contains(why)));
    }
}

#[test]
fn compressed_bodies_of_many_senders_are_all_taken() {
    let (gateway, upstream) = started(&format!("{HMAC}{BY_DIGEST}"));
    let bodies: Vec<_> = (0..16).map(|number| format!("{number}{}", " ".repeat(900_000)).into_bytes()).collect();
    let streams: Vec<_> =
        bodies.iter().map(|body| signed(body, Some("gzip"), &gzip(body)).begin(gateway.address())).collect();
    for stream in &streams {
        assert_eq!(receive(stream).status, 200);
    }
    assert_eq!(upstream.received().len(), bodies.len());
}

#[test]
fn a_sender_that_hangs_up_while_its_body_waits_holds_up_nobody() {
    let (gateway, upstream) = started(&format!("{HMAC}{BY_DIGEST}"));
    let bomb = gzip(&vec![0; 1 << 20]);
    for _ in 0..32 {
        drop(signed(b"another", Some("gzip"), &bomb).begin(gateway.address()));
    }
    assert_status(&gateway, &signed(EVENT, Some("gzip"), &gzip(EVENT)), 200);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn handshakes_are_read_before_their_compression() {
    let handshake = "[[handshake]]\nsigned = false\nwhen = [{ json = \"/challenge\", present = true }]\n\
                     reply = { text = \"{json:/challenge}\" }\n";
    let (gateway, _upstream) = started(&format!("{HMAC}{BY_JSON}{handshake}"));
    let probe = request("POST", "/own", &[("Content-Encoding", "gzip")], gzip(br#"{"challenge":"c"}"#));
    assert_eq!(assert_status(&gateway, &probe, 200).text(), "c");
}

#[test]
fn a_token_goes_with_any_coding() {
    let token = format!("[auth.token]\nfrom = {{ header = \"X-Token\" }}\n{BY_DIGEST}");
    let (gateway, upstream) = started(&token);
    for (coding, sent) in compressed_anew(EVENT) {
        let event = request("POST", "/own", &[("X-Token", SECRET), ("Content-Encoding", coding)], sent);
        assert_status(&gateway, &event, 200);
    }
    assert_eq!(upstream.received().len(), 1, "it is the same event");
}

#[test]
fn what_is_only_observed_is_delivered_as_it_came() {
    let observed = format!("secrets = [\"plain:{SECRET}\"]\nverify = \"observe\"");
    let (gateway, upstream) = start_with_profile(&format!("{HMAC}{BY_JSON}"), &observed);
    let sent = gzip(EVENT);
    assert_status(&gateway, &signed(b"another", Some("gzip"), &sent), 200);
    let received = upstream.received().remove(0);
    assert_eq!(
        (received.header("doorward-verified"), received.header("content-encoding")),
        (Some("false"), Some("gzip"))
    );
    assert_eq!(received.body, sent);
}

#[test]
fn a_queue_hands_on_what_came() {
    let upstream = Upstream::start();
    let settings = format!(
        "profiles = \"profiles\"\n[store]\nurl = \"sqlite:store.db\"\n[sources.own]\nprofile = \"own\"\npath = \"/own\"\n\
         secrets = [\"plain:{SECRET}\"]\ndeliver.queue = {{ url = \"{}\" }}\n",
        upstream.url()
    );
    let gateway = Gateway::start_in(folder_with_profile(&format!("{HMAC}{BY_JSON}")), &settings);
    let sent = gzip(EVENT);
    assert_status(&gateway, &signed(EVENT, Some("gzip"), &sent), 200);
    assert_eq!(assert_status(&gateway, &signed(EVENT, Some("deflate"), &zlib(EVENT)), 200).text(), DUPLICATE);
    upstream.wait_for(1);
    let received = upstream.received().remove(0);
    assert_eq!((received.header("content-encoding"), &received.body), (Some("gzip"), &sent));
    assert_eq!(received.header("doorward-event-id"), Some("e1"));
}
