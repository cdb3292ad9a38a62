//! Captured requests in the forms in which tools print, show and export them.

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::gateway::doorward;
use crate::harness::provider::signing::base64;
use crate::harness::provider::signing::hmac_sha256;

const SECRET: &str = "It's a Secret to Everybody";
const BODY: &str = "{\"zen\":\"Keep it logically awesome.\",\"hook_id\":1}";

fn signature(body: &[u8]) -> String {
    let digits: String = hmac_sha256(SECRET.as_bytes(), body).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

fn headers(body: &str) -> Value {
    json!({ "x-github-event": "ping", "x-github-delivery": "1", "x-hub-signature-256": signature(body.as_bytes()) })
}

fn lists(headers: &Value) -> Value {
    let listed = headers.as_object().expect("an object").iter().map(|(name, value)| (name.clone(), json!([value])));
    Value::Object(listed.collect())
}

/// The lines of a head, for this body.
fn head(body: &str) -> String {
    let names = headers(body);
    let names = names.as_object().expect("an object");
    names.iter().map(|(name, value)| format!("{name}: {}\n", value.as_str().expect("text"))).collect()
}

/// The exit code, and what is said of a capture.
fn said(capture: &str, more: &[&str]) -> (Option<i32>, String) {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("request");
    std::fs::write(&file, capture).expect("a capture");
    let output = doorward()
        .arg("explain")
        .arg(file)
        .args(["--profile", "github", "--secret", SECRET])
        .args(more)
        .output()
        .expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

#[track_caller]
fn assert_accepted(capture: &str) -> String {
    let (code, said) = said(capture, &[]);
    assert!(code == Some(0) && said.contains("accepted: event 1, type ping"), "{capture}\n{said}");
    said
}

/// The words of a proven cause, in one line.
#[track_caller]
fn cause(capture: &str, more: &[&str]) -> Value {
    let (code, said) = said(capture, &[&["--json"], more].concat());
    assert_eq!(code, Some(1), "{said}");
    let json = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{said}"));
    serde_json::from_str::<Value>(json).expect("JSON")["cause"].take()
}

#[test]
fn a_request_of_the_inspector_of_ngrok_is_read_from_its_raw_bytes() {
    let raw = |body: &str| base64(format!("POST /hook HTTP/1.1\r\n{}\r\n{body}", head(body).replace('\n', "\r\n")));
    let request = |raw: String| {
        json!({ "uri": "/api/requests/http/a", "id": "a", "tunnel_name": "t", "remote_addr": "192.0.2.1",
                "start": "2026-01-02T10:00:00.5+02:00", "duration": 1,
                "request": { "method": "POST", "proto": "HTTP/1.1", "headers": { "Accept": ["*/*"] }, "uri": "/hook", "raw": raw },
                "response": { "status": "200 OK", "status_code": 200, "headers": {}, "raw": "" } })
    };
    let one = request(raw(BODY));
    assert!(assert_accepted(&one.to_string()).contains("at 2026-01-02T08:00:00.500Z"));
    let empty = request(base64("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    let all = json!({ "uri": "/api/requests/http", "requests": [empty, one, request(raw(""))] });
    assert!(assert_accepted(&all.to_string()).contains("has 3 requests; this is the first of them that has a body"));
    let (code, description) = said(&request("%".to_owned()).to_string(), &[]);
    assert!(code == Some(2) && description.contains("said to be base64, and is not"), "{description}");
    let (code, description) = said(&request(base64("hello")).to_string(), &[]);
    assert!(code == Some(2) && description.contains("begins with a line such as POST"), "{description}");
}

#[test]
fn events_of_a_load_balancer_have_lists_of_values() {
    let event = |context: Value, more: Value| {
        let mut event = json!({
            "requestContext": context, "httpMethod": "POST", "path": "/hook",
            "multiValueHeaders": lists(&headers(BODY)), "body": base64(BODY), "isBase64Encoded": true,
        });
        event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        event.to_string()
    };
    let balancer =
        || json!({ "elb": { "targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/a/b" } });
    assert_accepted(&event(
        balancer(),
        json!({ "multiValueQueryStringParameters": { "b": ["1", "2"], "a": ["%3a"] } }),
    ));
    assert_accepted(&event(json!({}), json!({ "headers": null, "multiValueQueryStringParameters": null })));
    assert_accepted(&event(json!({}), json!({ "multiValueHeaders": null, "headers": headers(BODY) })));
    let parsed = event(balancer(), json!({ "queryStringParameters": { "a": 1 } }));
    assert_accepted(&parsed);
}

#[test]
fn a_query_in_parts_is_put_together_in_its_order() {
    // Trello signs the address with its query.
    let signed = |url: &str| {
        use hmac::KeyInit as _;
        use hmac::Mac as _;
        let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(b"s").expect("a key");
        mac.update(format!("{{\"a\":1}}{url}").as_bytes());
        base64(mac.finalize().into_bytes())
    };
    for (context, query, url) in [
        (json!({ "elb": {} }), "{\"z\":[\"1\",\"2\"],\"a\":[\"x%3ay\"]}", "https://a.example/t?z=1&z=2&a=x%3ay"),
        (json!({}), "{\"z\":[\"1 2\"],\"a\":[\"x:y\"]}", "https://a.example/t?z=1%202&a=x%3Ay"),
    ] {
        let capture = format!(
            "{{\"requestContext\":{context},\"httpMethod\":\"POST\",\"path\":\"/t\",\"multiValueQueryStringParameters\":{query},\
             \"multiValueHeaders\":{{\"host\":[\"a.example\"],\"x-trello-webhook\":[\"{}\"]}},\"body\":\"{{\\\"a\\\":1}}\"}}",
            signed(url)
        );
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("request");
        std::fs::write(&file, capture).expect("a capture");
        let output = doorward().arg("explain").arg(file).args(["--profile", "trello", "--secret", "s"]).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("signature_mismatch") && said.contains("it is right"), "{said}");
    }
}

#[test]
fn exports_of_request_inspectors_are_read() {
    let at = "2026-01-02 10:00:00";
    let lists = lists(&headers(BODY));
    // webhook.site, Hookdeck, Pipedream, smee.io.
    let site = json!({ "data": [{ "uuid": "u", "type": "web", "method": "POST", "content": BODY, "query": null, "headers": lists,
                                  "url": "https://webhook.site/u", "created_at": at }], "total": 1 });
    assert!(assert_accepted(&site.to_string()).contains("at 2026-01-02T10:00:00.000Z"));
    let hookdeck = json!({ "id": "req_1", "created_at": "2026-01-02T10:00:00.000Z",
                           "data": { "path": "/hook", "query": "", "headers": headers(BODY), "body": BODY } });
    assert_accepted(&hookdeck.to_string());
    let pipedream = json!({ "trigger": { "event": { "method": "POST", "path": "/", "query": {}, "headers": headers(BODY),
                                                    "bodyRaw": BODY, "body": { "zen": 1 } } } });
    assert_accepted(&pipedream.to_string());
    let mut smee = headers(BODY);
    smee["host"] = json!("smee.io");
    smee["body"] = json!(BODY);
    smee["query"] = json!({});
    smee["timestamp"] = json!(1_767_348_000_123_i64);
    assert!(assert_accepted(&smee.to_string()).contains("at 2026-01-02T10:00:00.123Z"));
}

#[test]
fn a_delivery_of_github_shows_the_payload_of_a_form() {
    let payload = "{\"action\":\"opened\",\"title\":\"caf\u{e9} & <more> ~*: +\",\"n\":1.0}";
    let pretty = "{\n  \"action\": \"opened\",\n  \"title\": \"caf\u{e9} & <more> ~*: +\",\n  \"n\": 1.0\n}";
    let ruby = "payload=%7B%22action%22%3A%22opened%22%2C%22title%22%3A%22caf%C3%A9+%26+%3Cmore%3E+~%2A%3A+%2B%22%2C%22n%22%3A1.0%7D";
    let form = "application/x-www-form-urlencoded";
    let page = |kind: &str, body: &str| {
        format!(
            "Headers\nRequest URL: https://hooks.example/github\nRequest method: POST\nAccept: */*\nContent-Type: {kind}\n\
             User-Agent: GitHub-Hookshot/044aadd\n{}\nPayload\n{pretty}\n",
            head(body)
        )
    };
    let api = |kind: &str, body: &str| {
        let mut headers = headers(body);
        headers["Content-Type"] = json!(kind);
        format!(
            "{{\"id\":1,\"guid\":\"g\",\"delivered_at\":\"2026-01-02T10:00:00Z\",\"event\":\"issues\",\"url\":\
             \"https://hooks.example/github\",\"request\":{{\"headers\":{headers},\"payload\":{pretty}}},\"response\":{{}}}}"
        )
    };
    for capture in [page(form, ruby), api(form, ruby), page("application/x-www-form-urlencoded; charset=utf-8", ruby)] {
        let cause = cause(&capture, &[]);
        let description = cause["words"].as_str().expect("words");
        assert!(cause["proven"] == true && description.contains("what was signed is payload=…"), "{description}");
    }
    // With JSON, what is lost is the way in which it was written.
    for capture in [page("application/json", payload), api("application/json", payload)] {
        let cause = cause(&capture, &[]);
        assert!(cause["proven"] == true, "{cause}");
        assert!(
            cause["words"].as_str().is_some_and(|description| description.contains("written in another way")),
            "{cause}"
        );
    }
    for capture in [page(form, "payload=other"), page("application/json", ruby)] {
        assert_eq!(cause(&capture, &[])["proven"], json!(false));
    }
    // Fields that were parsed into an object.
    let fields = "{\"token\":\"a b\",\"command\":\"/weather\"}";
    let mut headers = headers("token=a+b&command=%2fweather");
    headers["content-type"] = json!(form);
    let parsed = format!("{{\"method\":\"POST\",\"url\":\"/\",\"headers\":{headers},\"body\":{fields}}}");
    assert_eq!(cause(&parsed, &[])["proven"], json!(false), "digits in lower case are no form that is tried");
    let parsed =
        parsed.replace(&signature(b"token=a+b&command=%2fweather"), &signature(b"token=a+b&command=%2Fweather"));
    assert!(
        cause(&parsed, &[])["words"]
            .as_str()
            .is_some_and(|description| description.contains("shows its fields as JSON"))
    );
}

#[test]
fn what_curl_says_of_a_request_has_its_head_and_needs_its_body() {
    let verbose = |length: usize| {
        let head: String = head(BODY).lines().map(|line| format!("> {line}\n")).collect();
        format!(
            "Note: Unnecessary use of -X or --request, POST is already inferred.\n*   Trying 127.0.0.1:8080...\n* Connected to \
             localhost (127.0.0.1) port 8080\n}} [5 bytes data]\n> POST /hook HTTP/1.1\n> Host: hooks.example\n{head}> \
             Content-Length: {length}\n> \n}} [{length} bytes data]\n* upload completely sent off: {length} bytes\n< HTTP/1.1 200 \
             OK\n< x-github-event: push\n< \n{{ [2 bytes data]\n"
        )
    };
    let folder = TempDir::new().expect("a folder");
    let body = folder.path().join("body");
    std::fs::write(&body, BODY).expect("a body");
    let (code, description) = said(&verbose(BODY.len()), &[]);
    assert!(code == Some(2) && description.contains("--body FILE"), "{description}");
    for capture in
        [verbose(BODY.len()), verbose(BODY.len()).replace('\n', "\r\n"), verbose(BODY.len()).replace("> \n", ">\n")]
    {
        let (code, description) = said(&capture, &["--body", body.to_str().expect("a path")]);
        assert!(code == Some(0) && description.contains("accepted: event 1, type ping"), "{description}");
    }
    let (code, _) = said(&verbose(0), &[]);
    assert_eq!(code, Some(1), "an empty body is one");
    let (code, description) = said(&verbose(1), &["--body", "/no/such/file"]);
    assert!(code == Some(2) && description.contains("/no/such/file: "), "{description}");
}

#[test]
fn a_body_that_is_named_is_told_to_stand_for_the_captured_one() {
    let folder = TempDir::new().expect("a folder");
    let body = folder.path().join("body");
    std::fs::write(&body, BODY).expect("a body");
    let more = ["--body", body.to_str().expect("a path")];
    let request = format!("POST /hook HTTP/1.1\n{}\n", head(BODY));
    let (code, description) = said(&request, &more);
    assert!(code == Some(0) && !description.contains("not the one in the capture"), "{description}");
    let (code, description) = said(&format!("{request}another"), &more);
    assert!(code == Some(0) && description.contains("not the one in the capture"), "{description}");
}

#[test]
fn a_signature_in_a_header_that_is_dropped_is_told_from_one_that_a_profile_may_name() {
    let request = format!("POST /hook HTTP/1.1\n{}\n{BODY}", head(BODY));
    let description =
        |name: &str| cause(&request.replace("x-hub-signature-256", name), &[])["words"].take().to_string();
    assert!(
        description("x_hub_signature_256").contains("drops headers with _"),
        "{}",
        description("x_hub_signature_256")
    );
    assert!(
        description("x-signature").contains("If the profile is yours, say so there"),
        "{}",
        description("x-signature")
    );
    let (_, none) = said("POST /hook HTTP/1.1\n\n{}", &[]);
    assert!(none.contains("no headers at all"), "{none}");
}

#[test]
fn traces_of_curl_have_the_body() {
    let body = "{\"a\":\"x y\"}\r\n{\"b\":1}\r\n";
    let head = format!("POST /hook HTTP/1.1\r\nHost: hooks.example\r\n{}\r\n", head(body).replace('\n', "\r\n"));
    let block = |title: &str, bytes: &[u8]| format!("=> Send {title}, {0} bytes (0x{0:x})\n", bytes.len());
    let ascii = |title: &str, text: &str| {
        let (mut out, mut at) = (block(title, text.as_bytes()), 0);
        while at < text.len() {
            let rest = &text[at..];
            let end = rest.find("\r\n").unwrap_or(rest.len()).min(64);
            out += &format!("{at:04x}: {}\n", &rest[..end].replace(|other: char| !(' '..='~').contains(&other), "."));
            at += end + if rest[end..].starts_with("\r\n") { 2 } else { 0 };
        }
        out
    };
    let hexadecimal = |title: &str, text: &str| {
        let lines = text.as_bytes().chunks(16).enumerate().map(|(line, bytes)| {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
            let shown: String =
                bytes.iter().map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' }).collect();
            format!("{:04x}: {digits:<48}{shown}\n", line * 16)
        });
        block(title, text.as_bytes()) + &lines.collect::<String>()
    };
    let before = "== Info:   Trying 127.0.0.1:8080...\n";
    let after = "<= Recv header, 17 bytes (0x11)\n0000: HTTP/1.1 200 OK\n=> Send header, 5 bytes (0x5)\n0000: GET /\n";
    let trace = format!("{before}{}{}{after}", ascii("header", &head), ascii("data", body));
    assert!(!assert_accepted(&trace).contains("a point for each byte"));
    assert_accepted(&format!("{before}{}{}{after}", hexadecimal("header", &head), hexadecimal("data", body)));
    assert_accepted(&trace.replace("=> Send", "10:00:00.123456 => Send").replace("== Info", "10:00:00.123456 == Info"));
    // A line feed alone is shown as a point.
    let lost = format!("{before}{}{}", ascii("header", &head), ascii("data", &body.replace("\r\n", "\n\n")));
    let (code, description) = said(&lost, &[]);
    assert!(code == Some(1) && description.contains("capture with --trace"), "{description}");
    for cut in [
        trace.replace("0000: {", "0001: {"),
        trace.replace("x y", "x"),
        trace.replace("=> Send data, 2", "=> Send data, 3"),
    ] {
        let (code, description) = said(&cut, &[]);
        assert!(code == Some(2) && description.contains("a trace of curl that cannot be read"), "{description}");
    }
}
