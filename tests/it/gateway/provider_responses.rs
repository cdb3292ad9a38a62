//! The statuses and bodies that a provider understands, where they are not the usual ones.

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::folder_with_profile;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::http::Answer;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::github::Github;
use crate::harness::provider::signing;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;

/// A profile whose id is a header, so that any body can be sent.
const OWN: &str = "[auth.hmac]\nsignature = { header = \"X-Sig\", encoding = \"hex\" }\nsigned = \"{body}\"\n\
                   [event]\nid = { header = \"X-Id\" }\ntype = { header = \"X-Type\" }\n";
const PROBLEM: Option<&str> = Some("application/problem+json");

#[test]
fn duplicate_and_ignored_events_are_answered_as_the_profile_says() {
    for (said, status, content_type, body) in [
        ("accepted = 202", 202, Some("application/json"), None),
        ("accepted = 204", 204, None, Some("")),
        ("accepted = { text = \"\" }", 200, None, Some("")),
        ("accepted = { status = 202, text = \"\" }", 202, None, Some("")),
        ("accepted = { text = \"[accepted]\" }", 200, Some("text/plain"), Some("[accepted]")),
        (
            "accepted = { status = 201, json = { b = 1, a = [true] } }",
            201,
            Some("application/json"),
            Some("{\"a\":[true],\"b\":1}"),
        ),
    ] {
        let (gateway, _upstream) = start_with_profile(&answering(said), &with_secret("events = [\"wanted\"]"));
        assert_eq!(
            delivery("1", "wanted").send(gateway.address()).text(),
            r#"{"ok":true}"#,
            "the upstream's own answer"
        );
        let duplicate = delivery("1", "wanted").send(gateway.address());
        let ignored = delivery("2", "other").send(gateway.address());
        for (answer, usual) in [(duplicate, "duplicate"), (ignored, "ignored")] {
            assert_eq!((answer.status, answer.header("content-type")), (status, content_type), "{said}");
            let usual = format!("{{\"received\":true,\"{usual}\":true}}");
            assert_eq!(answer.text(), body.unwrap_or(&usual), "{said}");
        }
    }
}

#[test]
fn a_published_event_is_answered_as_the_profile_says() {
    let redis = Redis::start();
    let folder = folder_with_profile(&answering("accepted = { status = 202, text = \"[accepted]\" }"));
    let sections = format!(
        "profiles = \"profiles\"\n[store]\nurl = \"{}\"\n[sources.own]\nprofile = \"own\"\npath = \"/own\"\n{}\n\
         deliver.redis-stream = {{ key = \"events\" }}\n",
        redis.url(),
        with_secret("")
    );
    let gateway = Gateway::start_in(folder, &sections);
    for _ in 0..2 {
        let answer = delivery("1", "t").send(gateway.address());
        assert_eq!((answer.status, answer.text().as_str()), (202, "[accepted]"));
    }
}

#[test]
fn a_duplicate_command_of_slack_is_answered_without_a_body() {
    let (gateway, _upstream) = start_shipped("slack", &with_secret(""));
    let time = doorward::base::time::Moment::now().unix().to_string();
    let body = r#"{"type":"event_callback","event_id":"Ev1"}"#;
    let signature = format!("v0={}", hmac_hex(SECRET, &[b"v0:", time.as_bytes(), b":", body.as_bytes()]));
    let headers = [("X-Slack-Request-Timestamp", time.as_str()), ("X-Slack-Signature", signature.as_str())];
    let command = request("POST", "/slack", &headers, body);
    assert_eq!(command.send(gateway.address()).status, 200);
    assert_answer(&command.send(gateway.address()), 200, None, "");
}

#[test]
fn xero_and_adyen_and_discord_are_answered_as_they_require() {
    let (gateway, _upstream) = start_shipped("xero", &with_secret(""));
    let body = r#"{"events":[{"eventType":"UPDATE"}],"entropy":"x"}"#;
    let signature = signing::base64(signing::hmac_sha256(SECRET.as_bytes(), body.as_bytes()));
    let event = request("POST", "/xero", &[("x-xero-signature", &signature)], body);
    event.send(gateway.address());
    assert_answer(&event.send(gateway.address()), 200, None, "");
    // Those of its probes that are wrongly signed, and any other.
    for wrong in [event.clone().set("x-xero-signature", &signing::base64([0; 32])), event.without("x-xero-signature")] {
        let answer = wrong.send(gateway.address());
        assert_answer(&answer, 401, None, "");
        assert_eq!((answer.header("content-length"), answer.header("set-cookie")), (Some("0"), None));
    }

    let (gateway, _upstream) = start_shipped("adyen", "secrets = [\"plain:00ff\"]");
    let signed = "p:o:m:r:1130:EUR:AUTHORISATION:true";
    let signature = signing::base64(signing::hmac_sha256(&[0, 0xff], signed.as_bytes()));
    let item = serde_json::json!({
        "additionalData": { "hmacSignature": signature }, "amount": { "currency": "EUR", "value": 1130 },
        "eventCode": "AUTHORISATION", "merchantAccountCode": "m", "merchantReference": "r", "originalReference": "o",
        "pspReference": "p", "success": "true",
    });
    let body = serde_json::json!({ "live": "false", "notificationItems": [{ "NotificationRequestItem": item }] });
    let event = request("POST", "/adyen", &[], body.to_string());
    event.send(gateway.address());
    assert_answer(&event.send(gateway.address()), 200, Some("text/plain"), "[accepted]");

    let key = signing::ed25519("ed25519-a");
    let public = const_hex::encode(aws_lc_rs::signature::KeyPair::public_key(&key).as_ref());
    let (gateway, _upstream) = start_shipped("discord", &format!("secrets = [\"plain:{public}\"]"));
    let now = doorward::base::time::Moment::now().unix().to_string();
    let signature = const_hex::encode(key.sign(format!("{now}{{\"type\":1}}").as_bytes()));
    let headers = [("X-Signature-Ed25519", signature.as_str()), ("X-Signature-Timestamp", &now)];
    let event = request("POST", "/discord", &headers, "{\"type\":1}");
    event.send(gateway.address());
    assert_answer(&event.send(gateway.address()), 204, None, "");
}

#[test]
fn refusals_have_the_statuses_of_the_profile() {
    let said = "refused = 403\nmalformed = 422\ntoo_large = 400\n[limits]\nmax_body = \"100B\"\njson = true";
    let (gateway, upstream) = start_with_profile(&answering(said), &with_secret(""));
    let send = |delivery: Delivery| delivery.send(gateway.address());
    assert_answer_problem(&send(delivery("1", "t").set("X-Sig", &"0".repeat(64))), 403);
    assert_answer_problem(&send(delivery("1", "t").without("X-Sig")), 403);
    assert_answer_problem(&send(delivery("1", "t").without("X-Id")), 422);
    assert_answer_problem(&send(delivery("", "t")), 422);
    assert_answer_problem(&send(delivery("1", "t").with("X-Id", "2")), 422);
    assert_answer_problem(&send(signed("1", "t", "text")), 422);
    assert_answer_problem(&send(signed("1", "t", &format!("[{}]", " ".repeat(99)))), 400);
    assert_eq!(upstream.connections(), 0);
    assert_eq!(send(signed("1", "t", &format!("[{}]", " ".repeat(98)))).status, 200);
}

#[test]
fn what_is_not_authentic_is_answered_with_the_body_of_the_profile() {
    for (said, status, content_type, body) in [
        ("refused = { text = \"\" }", 401, None, ""),
        ("refused = { status = 403, text = \"no\" }", 403, Some("text/plain"), "no"),
        ("refused = { json = { ok = false } }", 401, Some("application/json"), "{\"ok\":false}"),
    ] {
        let (gateway, _upstream) = start_with_profile(&answering(said), &with_secret(""));
        assert_answer(&delivery("1", "t").without("X-Sig").send(gateway.address()), status, content_type, body);
        // Other refusals say what is wrong.
        assert_answer_problem(&delivery("1", "t").without("X-Id").send(gateway.address()), 400);
    }
}

#[test]
fn providers_that_want_403_get_it() {
    for (name, lines) in [
        ("pagerduty", with_secret("")),
        ("pitchpoint", "params = { issuer = \"http://127.0.0.1:9\", audience = \"a\" }".to_owned()),
    ] {
        let (gateway, _upstream) = start_shipped(name, &lines);
        assert_answer_problem(&request("POST", &format!("/{name}"), &[], "{}").send(gateway.address()), 403);
    }
}

#[test]
fn a_refused_handshake_has_the_status_of_other_refusals() {
    let handshake = "[[handshake]]\nmethod = \"GET\"\nwhen = [{ query = \"a\", present = true }]\n\
                     check = [{ query = \"a\", equals = \"b\" }]\n";
    let (gateway, _upstream) = start_with_profile(&(answering("refused = 403\n") + handshake), &with_secret(""));
    assert_answer_problem(&request("GET", "/own?a=c", &[], "").send(gateway.address()), 403);
    assert_answer(&request("GET", "/own?a=b", &[], "").send(gateway.address()), 200, None, "");
}

#[test]
fn zendesk_is_asked_with_409_to_retry() {
    for reply in [Reply::Status(500, ""), Reply::Status(503, ""), Reply::Close] {
        let upstream = Upstream::with(move |_, _| reply.clone());
        let gateway = zendesk(&upstream.url());
        assert_eq!(zendesk_event().send(gateway.address()).status, 409);
    }
    let gateway = zendesk(&format!("http://{}/", Upstream::nowhere()));
    let answer = zendesk_event().send(gateway.address());
    assert_eq!((answer.status, answer.header("retry-after")), (409, Some("1")));
}

#[test]
fn zendesk_is_asked_with_409_to_retry_while_the_store_is_unavailable() {
    let (mut redis, upstream) = (Redis::start(), Upstream::start());
    let store = format!("[store]\nurl = \"{}\"\n", redis.url());
    let gateway = Gateway::start(&(zendesk_source(&upstream.url()) + &store));
    redis.kill();
    assert_eq!(zendesk_event().send(gateway.address()).status, 409);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_profile_can_make_the_largest_body_smaller_and_not_larger() {
    let large = |length: usize| signed("1", "t", &format!("[{}]", " ".repeat(length - 2)));
    for (said, server, fits, most) in
        [("10KiB", "20KiB", 10_240, 10_241), ("20KiB", "10KiB", 10_240, 10_241), ("1B", "10KiB", 1, 2)]
    {
        let upstream = Upstream::start();
        let sections = format!(
            "profiles = \"profiles\"\n[server]\nmax_body = \"{server}\"\n[sources.own]\nprofile = \"own\"\npath = \"/own\"\n\
             {}\ndeliver.upstream = {{ url = \"{}\" }}\n",
            with_secret(""),
            upstream.url()
        );
        let profile = format!("{OWN}[limits]\nmax_body = \"{said}\"\n");
        let gateway = Gateway::start_in(folder_with_profile(&profile), &sections);
        assert_eq!(large(most).send(gateway.address()).status, 413, "{said} {server}");
        assert_eq!(large(most).chunked(1000).send(gateway.address()).status, 413, "{said} {server}");
        let good = if fits == 1 { signed("1", "t", "x") } else { large(fits) };
        assert_eq!(good.send(gateway.address()).status, 200, "{said} {server}");
    }
}

#[test]
fn a_source_takes_more_or_less_than_others_and_no_more_than_the_provider_sends() {
    let large = |length: usize| signed("1", "t", &format!("[{}]", " ".repeat(length - 2)));
    for (said, limits, fits) in
        [("5KiB", "", 5 << 10), ("30KiB", "", 30 << 10), ("30KiB", "[limits]\nmax_body = \"20KiB\"\n", 20 << 10)]
    {
        let upstream = Upstream::start();
        let sections = format!(
            "profiles = \"profiles\"\n[server]\nmax_body = \"10KiB\"\n[sources.own]\nprofile = \"own\"\npath = \"/own\"\n\
             max_body = \"{said}\"\n{}\ndeliver.upstream = {{ url = \"{}\" }}\n",
            with_secret(""),
            upstream.url()
        );
        let gateway = Gateway::start_in(folder_with_profile(&format!("{OWN}{limits}")), &sections);
        assert_eq!(large(fits + 1).send(gateway.address()).status, 413, "{said} {limits}");
        assert_eq!(large(fits).send(gateway.address()).status, 200, "{said} {limits}");
    }
}

#[test]
fn a_body_that_has_to_be_json_is_an_object_or_an_array() {
    let (gateway, upstream) = start_with_profile(&format!("{OWN}[limits]\njson = true\n"), &with_secret(""));
    let bad = [
        "",
        " ",
        "text",
        "\"text\"",
        "1",
        "null",
        "true",
        "{",
        "{}x",
        "{\"a\":1,}",
        "{'a':1}",
        "[1,]",
        "{}{}",
        "0{}",
        "a=b",
        "{\"a\":\"\t\"}",
        "{\"a\":NaN}",
        "// c\n{}",
        "\u{feff}\u{feff}{}",
        "{\"a\":\"\\ud80\"}",
    ];
    for body in bad {
        assert_answer_problem(&signed("1", "t", body).send(gateway.address()), 400);
    }
    assert_eq!((gateway.refusals("own", "body_malformed"), upstream.connections()), (20.0, 0));
    let good = [
        "{}",
        "[]",
        " \r\n\t{ } ",
        "\u{feff}{\"a\":3}",
        "[{\"a\":[null,1e400]}]",
        "{\"a\":1,\"a\":2}",
        "{\"a\":\"\\ud800\"}",
    ];
    for (id, body) in good.into_iter().enumerate() {
        assert_eq!(signed(&id.to_string(), "t", body).send(gateway.address()).status, 200, "{body}");
    }
}

#[track_caller]
fn assert_answer(answer: &Answer, status: u16, content_type: Option<&str>, body: &str) {
    assert_eq!((answer.status, answer.header("content-type"), answer.text().as_str()), (status, content_type, body));
}

#[track_caller]
fn assert_answer_problem(answer: &Answer, status: u16) {
    assert_eq!((answer.status, answer.header("content-type")), (status, PROBLEM), "{}", answer.text());
    assert_eq!(answer.json()["status"], status);
}

fn answering(said: &str) -> String {
    format!("{OWN}[answers]\n{said}\n")
}

fn with_secret(lines: &str) -> String {
    format!("secrets = [\"plain:{SECRET}\"]\n{lines}")
}

fn delivery(id: &str, kind: &str) -> Delivery {
    signed(id, kind, "{}")
}

fn signed(id: &str, kind: &str, body: &str) -> Delivery {
    let signature = hmac_hex(SECRET, &[body.as_bytes()]);
    request("POST", "/own", &[("X-Sig", &signature), ("X-Id", id), ("X-Type", kind)], body)
}

fn zendesk_source(url: &str) -> String {
    let lines = with_secret("");
    format!(
        "[sources.zendesk]\nprofile = \"zendesk\"\npath = \"/z\"\n{lines}\ndeliver.upstream = {{ url = \"{url}\" }}\n"
    )
}

fn zendesk(url: &str) -> Gateway {
    Gateway::start(&zendesk_source(url))
}

fn zendesk_event() -> Delivery {
    let time = doorward::base::time::Moment::now().rfc3339().to_string();
    let signature = signing::base64(signing::hmac_sha256(SECRET.as_bytes(), format!("{time}{{}}").as_bytes()));
    let headers =
        [("X-Zendesk-Webhook-Signature", signature.as_str()), ("X-Zendesk-Webhook-Signature-Timestamp", &time)];
    request("POST", "/z", &headers, "{}")
}

#[test]
fn retry_after_is_the_upstreams_and_the_gateways_only_where_the_upstream_has_none() {
    const ASKED: &str = "HTTP/1.1 503 Busy\r\nretry-after: 17\r\ncontent-length: 0\r\n\r\n";
    let upstream = Upstream::with(|number, _| match number {
        0 => Reply::Raw(ASKED.into()),
        1 => Reply::Raw(ASKED.replace("503", "409").into()),
        2 => Reply::Status(503, ""),
        3 => Reply::Status(429, ""),
        _ => Reply::Status(422, ""),
    });
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let answers = ["0", "1", "2", "3", "4"].map(|id| {
        let answer = Github::delivery(id, id).send(gateway.address());
        (answer.status, answer.header("retry-after").map(str::to_owned))
    });
    let seconds = |seconds: &str| Some(seconds.to_owned());
    assert_eq!(
        answers,
        [(503, seconds("17")), (409, seconds("17")), (503, seconds("1")), (429, seconds("1")), (422, None)]
    );
}

#[test]
fn an_invalid_retry_after_of_the_upstream_is_not_relayed() {
    const SAID: [&str; 5] = ["soon", "-5", "", "1.5", "Wed, 99 Foo 2026 00:00:00 GMT"];
    let upstream = Upstream::with(|number, _| {
        let said = SAID.get(number).copied().unwrap_or("Fri, 31 Dec 2038 23:59:59 GMT");
        Reply::Raw(format!("HTTP/1.1 503 Busy\r\nretry-after: {said}\r\ncontent-length: 0\r\n\r\n").into())
    });
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let retry_after = |id: usize| {
        let id = id.to_string();
        Github::delivery(&id, id.as_str()).send(gateway.address()).header("retry-after").map(str::to_owned)
    };
    for (id, said) in SAID.into_iter().enumerate() {
        assert_eq!(retry_after(id).as_deref(), Some("1"), "{said:?}");
    }
    assert_eq!(retry_after(SAID.len()).as_deref(), Some("Fri, 31 Dec 2038 23:59:59 GMT"));
}
