//! Probes that nobody signs: nothing else gets in with them, and nothing that is signed gets lost in them.

use std::time::SystemTime;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing;
use crate::harness::upstream::Upstream;

const CHECK: &str = "ssl_check=1&token=Xdyb2LdSvq5eQhUOcM6WjSzk";
const COMMAND: &str = "token=Xdyb2LdSvq5eQhUOcM6WjSzk&command=%2Fdeploy&text=now";
const PING: &str = r#"{"test": true}"#;

#[test]
fn what_is_not_quite_slacks_check_is_refused() {
    let (gateway, upstream) = start_shipped("slack", &with_secret(""));
    let changed = [
        "ssl_check=0&token=T",
        "ssl_check=11&token=T",
        "ssl_check=&token=T",
        "ssl_check=true&token=T",
        "ssl_check=1+&token=T",
        "ssl_check=1%zz&token=T",
        "ssl_check=1&%zz=T",
        "SSL_CHECK=1&token=T",
        "ssl_check=1&ssl_check=1&token=T",
        "ssl_check=1&ssl_check=0&token=T",
        "ssl_check=1&command=%2Fdeploy",
        "ssl_check=1&command=",
        "ssl_check=1&command=a&command=b",
        "ssl_check=1&%63ommand=%2Fdeploy",
        "ssl_check=1&payload=%7B%22type%22%3A%22event_callback%22%7D",
        "ssl_check=1&payload",
        r#"{"ssl_check":1,"token":"T"}"#,
        r#" {"a":"&ssl_check=1&"}"#,
        COMMAND,
        "",
    ];
    for body in changed {
        assert_eq!(request("POST", "/slack", &[], body).send(gateway.address()).status, 401, "{body}");
    }
    let in_query = request("POST", &format!("/slack?{CHECK}"), &[], COMMAND);
    assert_eq!(in_query.send(gateway.address()).status, 401);
    assert_refused(&gateway, &upstream, "slack", changed.len() + 1);
    assert_eq!(request("GET", &format!("/slack?{CHECK}"), &[], "").send(gateway.address()).status, 405);
    assert_eq!((gateway.outcomes("slack", "handshake"), upstream.connections()), (0.0, 0));
}

#[test]
fn what_is_not_quite_bitbuckets_test_is_refused() {
    let (gateway, upstream) = start_shipped("bitbucket", &with_secret(""));
    let id = ("X-Request-Id", "d872ad25-24fe-4278-a73a-2a10ed6b653d");
    let keys = ["repo:refs_changed", "diagnostics:pings", "diagnostics", "Diagnostics:ping", "diagnostics:ping,a", ""];
    for key in keys {
        let test = request("POST", "/bitbucket", &[id, ("X-Event-Key", key)], PING);
        assert_eq!(test.send(gateway.address()).status, 401, "{key}");
    }
    assert_eq!(request("POST", "/bitbucket", &[id], PING).send(gateway.address()).status, 401);
    assert_refused(&gateway, &upstream, "bitbucket", keys.len() + 1);
    let twice = request("POST", "/bitbucket", &[id, ("X-Event-Key", "diagnostics:ping")], PING);
    let twice = twice.with("X-Event-Key", "repo:refs_changed").send(gateway.address());
    assert_eq!((twice.status, upstream.connections()), (400, 0));
}

#[test]
fn a_probe_with_a_signature_stands_or_falls_with_it() {
    for (name, probe) in [("slack", slack(CHECK)), ("bitbucket", bitbucket("diagnostics:ping", PING))] {
        let (gateway, upstream) = start_shipped(name, &with_secret(""));
        let header = if name == "slack" { "X-Slack-Signature" } else { "X-Hub-Signature" };
        let other = format!("{}{}", if name == "slack" { "v0=" } else { "sha256=" }, "0".repeat(64));
        for signature in [other.as_str(), "none", ""] {
            let answer = probe.clone().set(header, signature).send(gateway.address());
            assert_eq!(answer.status, 401, "{name} {signature}");
        }
        assert_eq!((gateway.outcomes(name, "handshake"), upstream.connections()), (0.0, 0), "{name}");
    }
}

#[test]
fn what_is_signed_is_delivered_even_where_it_looks_like_a_probe() {
    let (gateway, upstream) = start_shipped("slack", &with_secret(""));
    let events = [
        CHECK.to_owned(),
        format!("{COMMAND}&ssl_check=1"),
        format!("ssl_check=1&{COMMAND}"),
        COMMAND.replace("now", "ssl_check%3D1"),
        "payload=%7B%22type%22%3A%22block_actions%22%7D&ssl_check=1".to_owned(),
    ];
    for body in &events {
        assert_eq!(slack(body).send(gateway.address()).status, 200, "{body}");
    }
    let received: Vec<_> = upstream.received().iter().map(|message| message.body.clone()).collect();
    assert_eq!(received, events.map(String::into_bytes));
    assert_eq!(gateway.outcomes("slack", "handshake"), 0.0);

    let (gateway, upstream) = start_shipped("bitbucket", &with_secret(""));
    assert_eq!(bitbucket("diagnostics:ping", PING).send(gateway.address()).status, 200);
    assert_eq!(bitbucket("repo:refs_changed", r#"{"test":true}"#).send(gateway.address()).status, 200);
    assert_eq!((gateway.outcomes("bitbucket", "handshake"), upstream.received().len()), (0.0, 2));
}

#[test]
fn a_probe_is_not_delivered_where_all_else_is() {
    let (gateway, upstream) = start_shipped("slack", &with_secret("verify = \"observe\""));
    assert_eq!(request("POST", "/slack", &[], CHECK).send(gateway.address()).status, 200);
    assert_eq!((gateway.outcomes("slack", "handshake"), upstream.connections()), (1.0, 0));
    assert_eq!(request("POST", "/slack", &[], COMMAND).send(gateway.address()).status, 200);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn an_allowlist_holds_for_unsigned_probes_too() {
    let (gateway, upstream) = start_shipped("slack", &with_secret("allow = [\"192.0.2.1\"]"));
    assert_eq!(request("POST", "/slack", &[], CHECK).send(gateway.address()).status, 403);
    assert_eq!((gateway.outcomes("slack", "handshake"), upstream.connections()), (0.0, 0));
}

#[test]
fn headers_are_compared_with_what_the_body_says_too() {
    let profile = r#"
[auth.hmac]
signature = { header = "X-Sig", encoding = "hex" }
signed = "{body}"
[event]
id = { digest = "body" }
[[handshake]]
signed = false
when = [{ form = "a", present = true }, { header = "X-Sum", equals = "{sorted_form}" }, { header = "X-Sig", absent = true }]
reply = { status = 202 }
[[handshake]]
signed = false
when = [{ header = "X-Token", equals = "{json:/token}" }]
reply = { status = 203 }
"#;
    let (gateway, upstream) = start_with_profile(profile, &with_secret(""));
    let ask = |name: &str, value: &str, body: &str| {
        request("POST", "/own", &[(name, value)], body).send(gateway.address()).status
    };
    assert_eq!((ask("X-Sum", "a1b2", "b=2&a=1"), ask("X-Sum", "b2a1", "b=2&a=1")), (202, 401));
    let token = r#"{"token":"t"}"#;
    assert_eq!((ask("X-Token", "t", token), ask("X-Token", "u", token)), (203, 401));
    assert_eq!((gateway.outcomes("own", "handshake"), upstream.connections()), (2.0, 0));
}

/// So many were refused as what they are, events without a signature.
#[track_caller]
fn assert_refused(gateway: &Gateway, upstream: &Upstream, source: &str, count: usize) {
    assert_eq!(gateway.refusals(source, "signature_missing"), f64::from(u32::try_from(count).expect("few")));
    assert_eq!((gateway.outcomes(source, "handshake"), upstream.connections()), (0.0, 0));
}

fn with_secret(lines: &str) -> String {
    format!("secrets = [\"plain:{SECRET}\"]\n{lines}")
}

/// A genuine request of Slack.
fn slack(body: &str) -> Delivery {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs().to_string();
    let mac = signing::hmac_sha256(SECRET.as_bytes(), format!("v0:{time}:{body}").as_bytes());
    let signature = format!("v0={}", const_hex::encode(mac));
    request("POST", "/slack", &[("X-Slack-Request-Timestamp", &time), ("X-Slack-Signature", &signature)], body)
}

/// A genuine request of Bitbucket.
fn bitbucket(key: &str, body: &str) -> Delivery {
    let signature = format!("sha256={}", const_hex::encode(signing::hmac_sha256(SECRET.as_bytes(), body.as_bytes())));
    let headers = [("X-Request-Id", key), ("X-Event-Key", key), ("X-Hub-Signature", signature.as_str())];
    request("POST", "/bitbucket", &headers, body)
}
