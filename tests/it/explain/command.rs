//! `doorward explain` as a command: the forms of captured requests that it reads, what it prints, and what it refuses.

use std::process::Command;
use std::process::Output;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::gateway::doorward;

/// GitHub's published secret, body and signature.
const SECRET: &str = "It's a Secret to Everybody";
const BODY: &str = "Hello, World!";
const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

const HEAD: &str = "Host: hooks.example\nX-GitHub-Event: ping\nX-GitHub-Delivery: 1\nX-Hub-Signature-256: \
                    sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\n";

fn headers() -> Value {
    json!({ "x-github-event": "ping", "x-github-delivery": "1", "x-hub-signature-256": SIGNATURE })
}

/// What is said of a captured request.
fn explain(capture: &[u8], more: &[&str]) -> Output {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("request");
    std::fs::write(&file, capture).expect("a capture");
    let mut command = doorward();
    command.arg("explain").arg(file).args(["--profile", "github"]).args(more);
    if !more.contains(&"--secret") {
        command.args(["--secret", SECRET]);
    }
    command.output().expect("it runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[track_caller]
fn assert_accepted(capture: &[u8]) -> String {
    let output = explain(capture, &[]);
    let said = text(&output.stdout);
    assert!(said.contains("accepted: event 1, type ping"), "{}{said}{}", text(capture), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    said.to_owned()
}

#[test]
fn requests_are_read_as_they_go_over_the_wire() {
    let lines = format!("POST /webhooks HTTP/1.1\n{HEAD}\n{BODY}");
    assert_accepted(lines.as_bytes());
    assert_accepted(lines.replace('\n', "\r\n").as_bytes());
    assert_accepted(lines.replace("HTTP/1.1", "HTTP/2").as_bytes());
    assert_accepted(lines.replace(" HTTP/1.1", "").as_bytes());
    assert_accepted(lines.replace("POST /webhooks", "POST https://hooks.example/webhooks?x=1").as_bytes());
    let chunked = format!(
        "POST / HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n8;x=y\r\n, World!\r\n0\r\n\r\n"
    );
    assert!(assert_accepted(chunked.as_bytes()).contains("chunks were joined"));
    // An editor adds a line feed that was never sent.
    let counted = format!("POST / HTTP/1.1\n{HEAD}Content-Length: 13\n\n{BODY}\n");
    assert!(assert_accepted(counted.as_bytes()).contains("1 bytes after the 13"));
}

#[test]
fn requests_are_read_as_tools_export_them() {
    let base64 = "SGVsbG8sIFdvcmxkIQ==";
    let pairs = json!([["X-GitHub-Delivery", "1"], ["X-GitHub-Event", "ping"], ["X-Hub-Signature-256", SIGNATURE]]);
    let named: Vec<_> = headers()
        .as_object()
        .expect("an object")
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    let lists: serde_json::Map<_, _> =
        headers().as_object().expect("an object").iter().map(|(name, value)| (name.clone(), json!([value]))).collect();
    let har = |body: Value| {
        json!({ "log": { "version": "1.2", "entries": [
            { "request": { "method": "GET", "url": "https://a.example/", "headers": [] } },
            { "startedDateTime": "2026-01-02T10:00:00.000Z",
              "request": { "method": "POST", "url": "https://a.example/webhooks", "headers": named, "postData": body } },
        ] } })
    };
    for capture in [
        json!({ "method": "POST", "url": "https://a.example/webhooks", "headers": headers(), "body": BODY }),
        json!({ "method": "POST", "url": "/webhooks?x=1", "headers": pairs, "body_base64": base64 }),
        json!({ "method": "POST", "query": "x=1", "headers": lists, "content": BODY }),
        json!([{ "method": "POST", "url": "/", "headers": headers(), "body": BODY }]),
        json!({ "data": [{ "method": "POST", "url": "/", "headers": headers(), "content": BODY }] }),
        // AWS Lambda: REST and HTTP APIs.
        json!({ "httpMethod": "POST", "path": "/w", "headers": headers(), "isBase64Encoded": true, "body": base64 }),
        json!({ "rawPath": "/w", "rawQueryString": "", "requestContext": { "http": { "method": "POST" } },
                "headers": headers(), "isBase64Encoded": false, "body": BODY }),
        har(json!({ "mimeType": "text/plain", "text": BODY })),
        har(json!({ "mimeType": "text/plain", "text": base64, "encoding": "base64" })),
    ] {
        assert_accepted(capture.to_string().as_bytes());
        assert_accepted(format!("\u{feff}{capture:#}").as_bytes());
    }
    assert!(assert_accepted(har(json!({ "text": BODY })).to_string().as_bytes()).contains("2026-01-02T10:00:00.000Z"));
    let several = assert_accepted(har(json!({ "text": BODY })).to_string().as_bytes());
    assert!(several.contains("has 2 requests; this is the first of them that has a body"), "{several}");
    let empty = json!({ "method": "GET", "url": "/", "headers": {} });
    let list = json!([empty, { "method": "POST", "url": "/", "headers": headers(), "body": BODY }, empty]);
    assert!(assert_accepted(list.to_string().as_bytes()).contains("has 3 requests"));
    let large = format!("POST / HTTP/1.1\n{HEAD}\n{}", "x".repeat(1024 * 1024 + 1));
    assert!(text(&explain(large.as_bytes(), &[]).stdout).contains("unless server.max_body is set"));
    let parsed = json!({ "method": "POST", "url": "/", "headers": headers(), "body": { "a": 1 } });
    let output = explain(parsed.to_string().as_bytes(), &[]);
    assert!(text(&output.stdout).contains("as a JSON value and not as text"), "{}", text(&output.stdout));
}

#[test]
fn what_is_signed_can_be_explained_from_a_pipe() {
    let options = ["--profile", "trello", "--secret", "s", "--param", "url=https://a.example/trello"];
    let signed = doorward().arg("sign").args(options).arg("--json").output().expect("it runs");
    let mut explain = doorward().arg("explain").args(options).arg("-").pipe();
    std::io::Write::write_all(explain.stdin.as_mut().expect("a pipe"), &signed.stdout).expect("written");
    let output = explain.wait_with_output().expect("it ends");
    assert!(text(&output.stdout).contains("accepted: event"), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// A command whose standard streams are pipes.
trait Pipe {
    fn pipe(&mut self) -> std::process::Child;
}

impl Pipe for Command {
    fn pipe(&mut self) -> std::process::Child {
        use std::process::Stdio;
        self.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    }
}

#[test]
fn a_refusal_ends_with_one_and_names_reason_and_cause() {
    let capture = format!("POST / HTTP/1.1\n{HEAD}\n{BODY}\n");
    let output = explain(capture.as_bytes(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(
        said.contains("refused: signature_mismatch") && said.contains("  cause ") && !said.contains(SECRET),
        "{said}"
    );

    let output = explain(capture.as_bytes(), &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&said["outcome"], &said["reason"]), (&json!("refused"), &json!("signature_mismatch")));
    assert_eq!(said["cause"]["proven"], json!(true));
    let failed: Vec<_> = said["steps"].as_array().expect("steps").iter().map(|step| step["failed"] == true).collect();
    assert_eq!(failed.iter().filter(|failed| **failed).count(), 1);

    let output = explain(capture.as_bytes(), &["--json", "--secret", "another", "--old-secret", SECRET]);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(
        said["cause"]["words"].as_str().is_some_and(|description| description.starts_with("two mistakes at once")),
        "{said}"
    );
}

#[test]
fn the_address_is_taken_from_the_capture_when_it_is_signed_and_not_given() {
    let options = ["--profile", "trello", "--secret", "s", "--param", "url=https://a.example/trello", "--json"];
    let signed = doorward().arg("sign").args(options).output().expect("it runs");
    let signed: Value = serde_json::from_slice(&signed.stdout).expect("JSON");
    let signature = signed["headers"]["x-trello-webhook"].as_str().expect("a signature");
    let body = signed["body"].as_str().expect("a body");
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("request");
    let capture = format!("POST /trello HTTP/1.1\nHost: a.example\nX-Trello-Webhook: {signature}\n\n{body}");
    std::fs::write(&file, capture).expect("a capture");
    let output = doorward().arg("explain").args(&options[..4]).arg(file).output().expect("it runs");
    let said = text(&output.stdout);
    assert!(said.contains("url is taken to be https://a.example/trello") && said.contains("accepted"), "{said}");
}

#[test]
fn what_cannot_be_read_ends_with_two_and_says_what_would_be_right() {
    for (capture, says) in [
        ("", "is empty"),
        ("hello", "is neither JSON nor an HTTP request, which begins with a line such as POST"),
        ("POST / HTTP/1.1\nHost: x\n", "ends before the empty line"),
        ("{\"a\": 1}", "no captured request: an object with \"method\""),
        ("{\"a\": ", "is not JSON as it should be"),
        ("[]", "no captured request"),
        ("{\"method\": \"PO ST\", \"headers\": {}}", "a method that is none: \"PO ST\""),
        ("{\"url\": \"http://[\", \"headers\": {}}", "an address that is none"),
        ("{\"headers\": 1}", "neither an object such as"),
        ("{\"headers\": {\"a b\": \"c\"}}", "a header that is none: \"a b\""),
        ("{\"headers\": {}, \"body_base64\": \"%\"}", "said to be base64, and is not"),
    ] {
        let output = explain(capture.as_bytes(), &[]);
        assert_eq!(output.status.code(), Some(2), "{capture}: {}", text(&output.stdout));
        let said = text(&output.stderr);
        assert!(said.contains(says) && said.contains("request: "), "{capture}: {said}");
    }
    let capture = format!("POST / HTTP/1.1\n{HEAD}\n{BODY}");
    for (options, says) in [
        (&["--profile", "nobody"][..], "cannot be used multiple times"),
        (&["--at", "yesterday"], "write Unix seconds, or RFC 3339"),
        (&["--param", "a=b"], "is not a parameter of this profile"),
        (&["--secret", "env:DOORWARD_TESTS_NO_SUCH"], "is not set"),
        (&["--old-secret", "file:/no/such/file"], "--old-secret: cannot read"),
    ] {
        let output = explain(capture.as_bytes(), options);
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        assert!(text(&output.stderr).contains(says), "{options:?}: {}", text(&output.stderr));
    }
    let output = doorward().args(["explain", "--profile", "github", "/dev/null"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let output = doorward()
        .args(["explain", "--profile", "githab", "--secret", "s", "/no/such/file"])
        .output()
        .expect("it runs");
    assert!(text(&output.stderr).contains("did you mean github?"), "{}", text(&output.stderr));
}
