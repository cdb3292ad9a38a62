//! Values that are signed one by one: what counts as the same value, and what would be read in two ways.

use sha2::Digest as _;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::http::Answer;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing::base64;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::provider::signing::hmac_sha1;
use crate::harness::upstream::Upstream;

#[test]
fn a_form_is_read_alike_however_it_is_escaped() {
    let (gateway, _upstream) = signing("{form:a}|{form:b}", "X-Id");
    let send = |body: &str, signed: &str| form(&gateway, body.as_bytes(), signed);
    for body in [
        "a=A+B&b=1%2B1",
        "a=A%20B&b=1%2b1",
        "a=%41%20%42&b=1%2B1",
        "b=1%2B1&a=A+B",
        "%61=A+B&b=1%2B1",
        "a=A+B&x=1&x=2&b=1%2B1",
        "&a=A+B&&b=1%2B1&",
        "a=A+B&b=1%2B1&c",
        "x=%7B&a=A+B&b=1%2B1",
    ] {
        assert_eq!(send(body, "A B|1+1").status, 200, "{body}");
    }
    for body in
        ["a=A+B&b=1+1", "a=A%2BB&b=1%2B1", "a=A%2520B&b=1%2B1", "A=A+B&b=1%2B1", "a=A+B;b=1%2B1", " a=A+B&b=1%2B1"]
    {
        assert_eq!(send(body, "A B|1+1").status, 401, "{body}");
    }
}

#[test]
fn empty_and_absent_values_of_a_form_are_the_same_and_no_others() {
    let (gateway, _upstream) = signing("{form:a}|{form:b}", "X-Id");
    for body in ["a=&b=1", "a&b=1", "b=1"] {
        assert_eq!(form(&gateway, body.as_bytes(), "|1").status, 200, "{body}");
    }
    for body in ["a=+&b=1", "a=%00&b=1", "a=%0A&b=1", "b=1&a=0"] {
        assert_eq!(form(&gateway, body.as_bytes(), "|1").status, 401, "{body}");
    }
}

#[test]
fn a_signed_field_that_is_there_twice_is_not_verified() {
    let (gateway, upstream) = signing("{form:a}|{form:b}", "X-Id");
    for body in ["a=1&a=1&b=2", "a=1&b=2&a=3", "a=3&a=1&b=2", "a=1&%61=&b=2", "a=1&a&b=2"] {
        for signed in ["1|2", "3|2", "|2", "11|2"] {
            assert_eq!(form(&gateway, body.as_bytes(), signed).status, 401, "{body}");
        }
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_form_that_parsers_read_in_two_ways_is_refused() {
    let (gateway, upstream) = signing("x{sorted_form}", "X-Id");
    let too_many = format!("{}&a=1", vec!["c=1"; 1000].join("&"));
    let bodies: [&[u8]; 10] = [
        b"a=%&b=1",
        b"a=1&b=%4",
        b"a=1&b=%4x",
        b"a=1&%zz=1&b=1",
        b"a=1%",
        b"a=\xff&b=1",
        b"a=%ff&b=1",
        b"a=%C3%28&b=1",
        b"a=1&c=\xc3\x28",
        too_many.as_bytes(),
    ];
    for body in bodies {
        for signed in ["xa1b1", "x"] {
            let answer = form(&gateway, body, signed);
            assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(&body[..body.len().min(20)]));
        }
    }
    assert_eq!((gateway.refusals("own", "body_malformed"), upstream.connections()), (20.0, 0));
    let as_many = vec!["c=1"; 1000].join("&");
    assert_eq!(form(&gateway, as_many.as_bytes(), "xc1").status, 200);
}

#[test]
fn of_a_form_whose_fields_are_signed_one_by_one_nothing_else_is_judged() {
    let (gateway, upstream) = signing("{form:a}|{form:b}", "X-Id");
    let others = |count: usize| format!("a=1&b=2{}", "&c".repeat(count - 2));
    for body in [
        &b"a=1&b=2&c=100%"[..],
        b"c=%zz&a=1&c=\xff&b=2",
        b"a=1&c%=1&100%=&b=2",
        b"a=1&b=2&c=%C3%28&c\xff",
        others(1000).as_bytes(),
    ] {
        assert_eq!(form(&gateway, body, "1|2").status, 200, "{}", body.escape_ascii());
    }
    let taken = upstream.connections();
    for body in [
        &b"a=%&b=2"[..],
        b"a=1&b=%4x",
        b"a=\xff&b=2",
        b"a=%ff&b=2",
        b"a=1&b=2&%zz=1",
        b"a=1&b=2&%u0061=3",
        b"a=1&b=2&\xffa=3",
        others(1001).as_bytes(),
    ] {
        for signed in ["1|2", "|2", "1|", "|"] {
            assert_eq!(form(&gateway, body, signed).status, 401, "{}", body.escape_ascii());
        }
    }
    assert_eq!(upstream.connections(), taken);
}

#[test]
fn of_a_query_only_wanted_parameters_are_judged() {
    let (gateway, _upstream) = signing("{query:a}|", "X-Id");
    for target in ["/own?a=1&b=100%", "/own?b=%zz&a=1&c=%", "/own?b%&a=1", "/own?b=%ff&a=1", "/own?50%&a=1"] {
        assert_eq!(query(&gateway, target, "1|").status, 200, "{target}");
    }
    for target in ["/own?a=1&a=1", "/own?a=1&%=", "/own?a=1&%61=1", "/own?a=%", "/own?a=1&%u0061=1", "/own?a=1&a%=2"] {
        assert_eq!(query(&gateway, target, "1|").status, 401, "{target}");
    }
}

#[test]
fn json_of_twilio_is_not_judged_as_a_form() {
    let address = "https://hooks.example/twilio";
    let (gateway, upstream) = start_shipped("twilio", &format!("{}\nparams.url = \"{address}\"", with_secret()));
    let mac = |signed: &str| base64(hmac_sha1(SECRET.as_bytes(), signed.as_bytes()));
    let many = format!("[{{\"type\":\"a\",\"data\":\"{}\"}}]", "a&".repeat(1200));
    let bodies = [r#"[{"type":"a","data":"fine"}]"#, r#"[{"type":"a","data":"100% sure\ud83d"}]"#, &many];
    for (count, body) in bodies.iter().enumerate() {
        let query = format!("?bodySHA256={}", const_hex::encode(sha2::Sha256::digest(body)));
        let target = format!("/twilio{query}");
        let send = |body: &str| {
            let signature = mac(&format!("{address}{query}"));
            request("POST", &target, &[("X-Twilio-Signature", &signature)], body).send(gateway.address()).status
        };
        assert_eq!(send(&body.replace("\"a\"", "\"b\"")), 401, "{body:.40}");
        assert_eq!(send(body), 200, "{body:.40}");
        assert_eq!(upstream.received().len(), count + 1);
        assert_eq!(upstream.received()[count].header("doorward-event-type"), Some("a"));
    }
    // As a form it is signed with its fields, and has to be one.
    for (body, status) in [("MessageStatus=sent&Body=100%25", 200), ("MessageStatus=sent&Body=100%", 400)] {
        let signature = mac(&format!("{address}Body100%MessageStatussent"));
        let form = request("POST", "/twilio", &[("X-Twilio-Signature", &signature)], body);
        assert_eq!(form.send(gateway.address()).status, status, "{body}");
    }
}

#[test]
fn a_body_that_looks_like_json_is_no_form() {
    let (gateway, _upstream) = signing("{form:a}|", "X-Id");
    for body in ["{&a=1", "[&a=1", " {&a=1", "\n[&a=1"] {
        assert_eq!(form(&gateway, body.as_bytes(), "1|").status, 401, "{body}");
    }
}

#[test]
fn a_whole_query_is_signed_as_it_was_sent() {
    let (gateway, upstream) = signing("x{query}", "X-Id");
    let send = |target: &str, signed: &str| query(&gateway, target, signed);
    for (target, signed) in [
        ("/own?a=%41&b=+", "x?a=A&b=+"),
        ("/own?a=A&b=+", "x?a=%41&b=+"),
        ("/own?a=A&b=%20", "x?a=A&b=+"),
        ("/own?b=1&a=A", "x?a=A&b=1"),
        ("/own?a=A&a=A", "x?a=A"),
        ("/own?a=A&", "x?a=A"),
        ("/own", "x?"),
        ("/own?", "x"),
        ("/own?a=%e9", "x?a=%E9"),
        ("/own??", "x?"),
    ] {
        assert_eq!(send(target, signed).status, 401, "{target}");
    }
    assert_eq!(upstream.connections(), 0);
    for query in ["", "?", "?a=%41&b=+", "?a=A&a=A", "?%", "?%ff", "?a;b=??", "?a[]=1&a[]=2"] {
        assert_eq!(send(&format!("/own{query}"), &format!("x{query}")).status, 200, "{query}");
    }
}

#[test]
fn a_parameter_of_the_query_is_decoded_and_there_once() {
    let (gateway, upstream) = signing("{query:a}|", "X-Id");
    for target in ["/own?a=A+B", "/own?a=%41%20%42", "/own?x&a=A%20B&y=1&y=2", "/own?%61=A+B"] {
        assert_eq!(query(&gateway, target, "A B|").status, 200, "{target}");
    }
    let before = upstream.received().len();
    for target in ["/own?a=A+B&a=A+B", "/own?a=A+B&%61=x", "/own?a=A%2BB", "/own?A=A+B", "/own#a=A+B", "/own"] {
        assert_eq!(query(&gateway, target, "A B|").status, 401, "{target}");
    }
    for target in ["/own?a=A%20B%", "/own?a=A%20B%ff"] {
        assert_eq!(query(&gateway, target, "A B|").status, 401, "{target}");
    }
    assert_eq!(upstream.received().len(), before);
}

#[test]
fn headers_are_signed_whatever_their_names_case_and_order() {
    let (gateway, upstream) = signing("{header:X-A}|{header:X-B}", "X-Id");
    let send = |headers: &[(&str, &str)], signed: &str| {
        let mac = hmac_hex(SECRET, &[signed.as_bytes()]);
        let delivery = request("POST", "/own", headers, "").with("X-Mac", &mac).with("X-Id", &format!("{headers:?}"));
        delivery.send(gateway.address()).status
    };
    for headers in [[("X-A", "a b"), ("X-B", "B")], [("x-b", "B"), ("X-a", "a b")], [("X-A", "  a b\t "), ("X-B", "B")]]
    {
        assert_eq!(send(&headers, "a b|B"), 200, "{headers:?}");
    }
    let before = upstream.received().len();
    for headers in [
        [("X-A", "a  b"), ("X-B", "B")],
        [("X-A", "A B"), ("X-B", "B")],
        [("X-A", "a b|B"), ("X-C", "")],
        [("X_A", "a b"), ("X-B", "B")],
        [("X-A", "a b"), ("X-B", "B\u{e9}")],
    ] {
        assert_eq!(send(&headers, "a b|B"), 401, "{headers:?}");
    }
    for headers in [[("X-A", "a b"), ("X-A", "a b")], [("X-A", "a b"), ("x-a", "other")]] {
        assert_eq!(send(&headers, "a b|"), 400, "{headers:?}");
    }
    assert_eq!(upstream.received().len(), before);
}

#[test]
fn signed_json_values_have_one_meaning() {
    let (gateway, upstream) = signing("{json:/a}|{json:/b/0}", "X-Id");
    for (body, signed) in [
        (r#"{"a":"1","b":["x"]}"#, "1|x"),
        (r#"{"a":1,"b":["x"]}"#, "1|x"),
        (r#"{"b":["x"],"a":1}"#, "1|x"),
        (r#"{"\u0061":"\u0031","b":["\u0078","y"]}"#, "1|x"),
        (r#"{"a":18446744073709551615}"#, "18446744073709551615|"),
        (r#"{"a":18446744073709551616}"#, "18446744073709551616|"),
        (r#"{"a":1.0}"#, "1.0|"),
        (r#"{"a":1E+0,"b":[-0]}"#, "1E+0|-0"),
        (r#"{"a":-1,"b":{"0":"x"}}"#, "-1|"),
        (r#"{"a":null}"#, "|"),
        (r#"{"c":1,"c":2}"#, "|"),
        (r#"{"a":"\ud83d\ude00"}"#, "\u{1f600}|"),
    ] {
        assert_eq!(json(&gateway, body, signed).status, 200, "{body}");
    }
    let before = upstream.received().len();
    for (body, signed) in [
        (r#"{"a":1.0}"#, "1|"),
        (r#"{"a":1e0}"#, "1|"),
        (r#"{"a":1E+0}"#, "1|"),
        (r#"{"a":-0}"#, "0|"),
        (r#"{"a":"\ud800"}"#, "|"),
        (r#"{"a":"\ud800"}"#, "\u{fffd}|"),
        (r#"{"a":"\ud800"}"#, "\\ud800|"),
        (r#"{"a":18446744073709551616}"#, "18446744073709552000|"),
        (r#"{"a":true}"#, "true|"),
        (r#"{"a":[]}"#, "|"),
        (r#"{"a":{}}"#, "|"),
        (r#"{"a":["1"]}"#, "1|"),
        (r#"{"A":"1"}"#, "1|"),
        (r#"{"a":1,"b":{"0":"x"}}"#, "1|x"),
        (r#"{"a":" 1"}"#, "1|"),
        (r#"{"a":"1|x"}"#, "1|y"),
    ] {
        assert_eq!(json(&gateway, body, signed).status, 401, "{body}");
    }
    assert_eq!(upstream.received().len(), before);
}

#[test]
fn json_that_parsers_read_in_two_ways_is_refused_whatever_is_signed() {
    let (gateway, upstream) = signing("{json:/a}|{json:/b/0}", "X-Id");
    for body in [
        r#"{"a":"1","a":"1"}"#,
        r#"{"a":"1","\u0061":"2"}"#,
        r#"{"b":["x"],"b":["y"]}"#,
        r#"{"a":01}"#,
        r#"{"a":+1}"#,
        r#"{"a":.5}"#,
        r#"{"a":0x1}"#,
        r#"{"a":1,}"#,
        r#"{"a":1}{"a":2}"#,
        "a=1",
        "",
    ] {
        for signed in ["1|", "|", "2|", "1|x"] {
            assert_eq!(json(&gateway, body, signed).status, 400, "{body}");
        }
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn an_id_in_json_has_one_spelling() {
    let (gateway, upstream) = start_with_profile(&profile("{body}", "json = \"/id\""), &with_secret());
    let send = |id: &str| {
        let body = format!("{{\"id\":{id}}}");
        let mac = hmac_hex(SECRET, &[body.as_bytes()]);
        request("POST", "/own", &[("X-Mac", &mac)], body).send(gateway.address())
    };
    for odd in ["true", "[1]", "null", "\"\"", "\"a\\u0000\"", "\"\\ud800\""] {
        assert_eq!(send(odd).status, 400, "{odd}");
    }
    assert_eq!(upstream.connections(), 0);
    let texts = ["1", "\"1\"", "\"\\u0031\"", " 1"].map(|id| send(id).text().contains("duplicate"));
    assert_eq!(texts, [false, true, true, true]);
    // A sender who means the same number writes it in the same way.
    for other in ["\"1 \"", "\"01\"", "1.0", "10", "-1", "1e0", "1E0", "10e-1", "-0", "1e400", "18446744073709551616"] {
        assert!(!send(other).text().contains("duplicate"), "{other}");
    }
}

#[test]
fn numbered_headers_are_read_up_to_the_first_that_is_missing() {
    let location = "signature = { header = \"X-Sig\", numbered = true, encoding = \"hex\" }\nsigned = \"{body}\"\n";
    let (gateway, _upstream) =
        start_with_profile(&format!("[auth.hmac]\n{location}[event]\nid = {{ header = \"X-Id\" }}\n"), &with_secret());
    let (right, wrong) = (hmac_hex(SECRET, &[b"{}"]), "0".repeat(64));
    let send = |headers: &[(&str, &str)]| {
        request("POST", "/own", headers, "{}").with("X-Id", "1").send(gateway.address()).status
    };
    for headers in [
        [("X-Sig", right.as_str()), ("X-A", "")],
        [("X-Sig-0", &right), ("X-A", "")],
        [("X-Sig-2", &right), ("X-A", "")],
        [("X-Sig-1", &wrong), ("X-Sig-3", &right)],
        [("X-Sig-01", &right), ("X-A", "")],
        [("X-Sig-1", &wrong), ("X-Sig-2", &wrong)],
        [("X-Sig-1", &wrong), ("X-Sig-2", "")],
    ] {
        assert_eq!(send(&headers), 401, "{headers:?}");
    }
    assert_eq!(send(&[("X-Sig-1", &right), ("X-Sig-1", &right)]), 400);
    assert_eq!(send(&[("X-Sig-1", &wrong), ("X-Sig-2", "x"), ("X-Sig-3", &right)]), 200);
}

/// A gateway whose source signs this, with the id in a header.
fn signing(template: &str, id: &str) -> (Gateway, Upstream) {
    start_with_profile(&profile(template, &format!("header = \"{id}\"")), &with_secret())
}

fn profile(template: &str, id: &str) -> String {
    let several = template.matches('{').count() > 1 || template.contains("sorted_form");
    let ambiguous = if several { "ambiguous = \"what is signed counts once\"\n" } else { "" };
    format!(
        "[auth.hmac]\nsignature = {{ header = \"X-Mac\", encoding = \"hex\" }}\nsigned = \"{template}\"\n{ambiguous}\
         [event]\nid = {{ {id} }}\n"
    )
}

fn with_secret() -> String {
    format!("secrets = [\"plain:{SECRET}\"]")
}

fn form(gateway: &Gateway, body: &[u8], signed: &str) -> Answer {
    let mac = hmac_hex(SECRET, &[signed.as_bytes()]);
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-Mac", &mac), ("X-Id", "1")];
    request("POST", "/own", &headers, body).send(gateway.address())
}

fn json(gateway: &Gateway, body: &str, signed: &str) -> Answer {
    form(gateway, body.as_bytes(), signed)
}

fn query(gateway: &Gateway, target: &str, signed: &str) -> Answer {
    let mac = hmac_hex(SECRET, &[signed.as_bytes()]);
    request("POST", target, &[("X-Mac", &mac), ("X-Id", "1")], "").send(gateway.address())
}
