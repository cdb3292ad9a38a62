//! Genuine bodies in which the event's id cannot be read, or would be read differently by others.

use std::time::SystemTime;

use crate::harness::gateway::Gateway;
use crate::harness::provider::offergrid::offergrid;
use crate::harness::provider::offergrid::offergrid_signed;
use crate::harness::provider::offergrid::offergrid_source;
use crate::harness::upstream::Upstream;

#[test]
fn an_id_that_stands_there_twice_is_refused() {
    assert_refused(
        "body_malformed",
        &[
            r#"{"id":"a","id":"b"}"#,
            r#"{"id":"a","id":"a"}"#,
            r#"{"id":"a","\u0069d":"b"}"#,
            r#"{"id":null,"id":"b"}"#,
            r#"{"id":"a","data":{"id":"c"},"id":"b"}"#,
        ],
    );
}

#[test]
fn an_id_that_is_missing_is_refused() {
    assert_refused(
        "event_id_missing",
        &[
            "{}",
            r#"{"id":null}"#,
            r#"{"Id":"a"}"#,
            r#"{"data":{"id":"a"}}"#,
            r#"[{"id":"a"}]"#,
            r#""id""#,
            "17",
            "null",
        ],
    );
}

#[test]
fn an_id_that_cannot_be_used_is_refused() {
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(10 << 10));
    let long_number = format!("{{\"id\":{}}}", "1".repeat(513));
    let just_too_long = format!("{{\"id\":\"{}\"}}", "x".repeat(513));
    assert_refused(
        "event_id_invalid",
        &[
            r#"{"id":true}"#,
            r#"{"id":["a"]}"#,
            r#"{"id":{"id":"a"}}"#,
            r#"{"id":""}"#,
            r#"{"id":"a\nb"}"#,
            r#"{"id":"a\r\nDoorward-Source: other"}"#,
            r#"{"id":"\u0000"}"#,
            r#"{"id":"a\u007f"}"#,
            r#"{"id":"a\u0085b"}"#,
            r#"{"id":"\ud800"}"#,
            r#"{"id":"a\udc00"}"#,
            &long,
            &long_number,
            &just_too_long,
        ],
    );
}

#[test]
fn a_body_that_is_no_json_is_refused() {
    assert_refused(
        "body_malformed",
        &[
            "",
            " ",
            "{",
            r#"{"id":"a""#,
            r#"{"id":"a"}}"#,
            r#"{"id":"a"} {"id":"b"}"#,
            r#"{"id":"a",}"#,
            r#"{'id':'a'}"#,
            r#"{id:"a"}"#,
            r#"{"id":"a" /* b */}"#,
            r#"{"id":"a","n":NaN}"#,
            r#"{"id":"a","n":01}"#,
            "{\"id\":\"a\nb\"}",
            "\u{feff}\u{feff}{\"id\":\"a\"}",
            " \u{feff}{\"id\":\"a\"}",
            "\u{feff}",
            r#"{"id":"a","n":"\ud80"}"#,
            r#"{"id":"a","n":[1}}"#,
            "id=a&event=b",
            "<id>a</id>",
        ],
    );
}

#[test]
fn an_id_that_is_no_utf8_is_refused() {
    let (gateway, upstream) = started();
    for body in [b"{\"id\":\"\xff\"}".as_slice(), b"{\"id\":\"\xc3\x28\"}", b"{\"id\":\"\xed\xa0\x80\"}"] {
        assert_eq!(offergrid_signed(body, SystemTime::now()).send(gateway.address()).status, 400);
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn nesting_that_never_ends_is_refused_and_harmless() {
    let bodies = ["[".repeat(500_000), "{\"id\":".repeat(100_000), "{\"n\":[".repeat(100_000)];
    assert_refused("body_malformed", &bodies.each_ref().map(String::as_str));
}

#[test]
fn what_nobody_reads_is_not_judged() {
    let (gateway, upstream) = started();
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
    let values = [
        r#""\ud83d""#.to_owned(),
        r#"{"\udc00":"\udc00\ud83d"}"#.to_owned(),
        "1e400".to_owned(),
        "-1e-400".to_owned(),
        "9".repeat(5000),
        r#"{"id":1,"id":2}"#.to_owned(),
        deep("[", "]"),
        deep("{\"a\":", "}"),
    ];
    for (count, value) in values.iter().enumerate() {
        let id = format!("e-{count}");
        let body = format!("{{\"before\":{value},\"id\":\"{id}\",\"before\":[{value}]}}");
        let answer = offergrid_signed(body.as_bytes(), SystemTime::now()).send(gateway.address());
        assert_eq!(answer.status, 200, "{value:.60}");
        assert_eq!(upstream.ids().last(), Some(&id), "{value:.60}");
        assert_eq!(upstream.received().last().map(|message| message.body.clone()), Some(body.into_bytes()));
    }
    let latin1 = b"{\"name\":\"Andr\xe9\",\"id\":\"latin-1\"}".as_slice();
    assert_eq!(offergrid_signed(latin1, SystemTime::now()).send(gateway.address()).status, 200);
    assert_eq!(upstream.ids().last().map(String::as_str), Some("latin-1"));
}

#[test]
fn numbers_are_ids_as_they_are_written() {
    let (gateway, upstream) = started();
    let thirty = ["123456789012345678901234567890", "123456789012345678901234567891"];
    let ids = ["17", "-17", thirty[0], thirty[1], "12", "12.0", "1e3", "1E400", "-0"];
    for id in ids.into_iter().chain(ids) {
        let body = format!("{{\"id\": {id} }}");
        assert_eq!(offergrid_signed(body.as_bytes(), SystemTime::now()).send(gateway.address()).status, 200);
    }
    assert_eq!(upstream.ids(), ids, "each once");
}

#[test]
fn unusual_but_clear_json_is_taken() {
    let (gateway, upstream) = started();
    let longest = "x".repeat(512);
    let bodies = [
        (" \n{ \"id\" : \"spaces\" }\r\n".to_owned(), "spaces"),
        (r#"{"\u0069d":"escaped-key"}"#.to_owned(), "escaped-key"),
        (r#"{"id":"\u0061\/b"}"#.to_owned(), "a/b"),
        (r#"{"x":1,"x":2,"id":"other-key-twice"}"#.to_owned(), "other-key-twice"),
        (r#"{"data":{"id":"inner"},"id":"outer"}"#.to_owned(), "outer"),
        (r#"{"event":17,"id":"odd-type"}"#.to_owned(), "odd-type"),
        (r#"{"event":"\ud800","id":"no-type"}"#.to_owned(), "no-type"),
        ("\u{feff}{\"id\":\"mark\"}".to_owned(), "mark"),
        ("\u{feff} {\"id\":\"mark and space\"}".to_owned(), "mark and space"),
        (format!("{{\"n\":{}1{},\"id\":\"deep\"}}", "[".repeat(40), "]".repeat(40)), "deep"),
        (format!("{{\"id\":\"{longest}\"}}"), &longest),
    ];
    for (body, id) in &bodies {
        let answer = offergrid_signed(body.as_bytes(), SystemTime::now()).send(gateway.address());
        assert_eq!(answer.status, 200, "{body}");
        assert_eq!(upstream.ids().last().map(String::as_str), Some(*id), "{body}");
    }
}

#[test]
fn a_forged_body_is_not_even_parsed() {
    let (gateway, upstream) = started();
    let mut forged = offergrid("1", SystemTime::now());
    forged.body = b"no json at all".to_vec();
    assert_eq!(forged.send(gateway.address()).status, 401, "and not 400, which would tell them apart");
    assert_eq!(upstream.connections(), 0);
}

fn started() -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&offergrid_source(&upstream.url())), upstream)
}

/// Asserts that each of these bodies, though signed, is answered 400 for this reason and goes nowhere, and that a good
/// one is taken afterwards.
#[track_caller]
fn assert_refused(reason: &str, bodies: &[&str]) {
    let (gateway, upstream) = started();
    let label = format!("doorward_refusals_total{{reason=\"{reason}\",source=\"offergrid\"}}");
    for (count, body) in bodies.iter().enumerate() {
        let answer = offergrid_signed(*body, SystemTime::now()).send(gateway.address());
        assert_eq!(answer.status, 400, "{body:.60}");
        assert_eq!(answer.json()["status"], 400);
        assert_eq!(gateway.metric(&label), (count + 1) as f64, "{body:.60}");
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(offergrid("good", SystemTime::now()).send(gateway.address()).status, 200);
    assert_eq!(upstream.ids(), ["good"]);
}
