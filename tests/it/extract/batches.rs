//! Events that come several in one request: a batch is known by all of its items.

use serde_json::Value;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::upstream::Upstream;

const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;
const DELIVERED: &str = r#"{"ok":true}"#;
const SIGNED: &str =
    "[auth.hmac]\nsignature = { header = \"X-Mac\", encoding = \"hex\" }\nsigned = \"{body}\"\n[event]\n";

/// A gateway whose events have this id, and which sends one.
struct Own(Gateway, Upstream);

impl Own {
    fn with(id: &str) -> Self {
        let (gateway, upstream) =
            start_with_profile(&format!("{SIGNED}id = {id}\n"), &format!("secrets = [\"plain:{SECRET}\"]"));
        Self(gateway, upstream)
    }

    fn send(&self, body: &Value) -> (u16, String) {
        let body = body.to_string();
        let mac = hmac_hex(SECRET, &[body.as_bytes()]);
        let answer = request("POST", "/own", &[("X-Mac", &mac)], body).send(self.0.address());
        (answer.status, answer.text())
    }

    #[track_caller]
    fn assert_new(&self, body: &Value) {
        assert_eq!(self.send(body), (200, DELIVERED.to_owned()), "{body}");
    }

    #[track_caller]
    fn assert_known(&self, body: &Value) {
        assert_eq!(self.send(body), (200, DUPLICATE.to_owned()), "{body}");
    }
}

#[test]
fn a_batch_with_a_new_event_beside_a_known_one_is_delivered() {
    let gateway = Own::with("{ each = \"/*/id\" }");
    let (a, b, c) = (json!({ "id": "a" }), json!({ "id": "b" }), json!({ "id": "c" }));
    for batch in [json!([a]), json!([a, b]), json!([b]), json!([b, c, a]), json!([a, a])] {
        gateway.assert_new(&batch);
    }
    // Items in another order, and with what grows with every attempt.
    for batch in [json!([a]), json!([b, a]), json!([a, b, c]), json!([{ "id": "a", "attempt": 2 }, b])] {
        gateway.assert_known(&batch);
    }
    let ids = gateway.1.ids();
    assert!(ids.iter().all(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{ids:?}");
    assert_eq!(ids.len(), 5);
}

#[test]
fn ids_of_several_items_do_not_run_into_each_other() {
    let gateway = Own::with("{ each = [\"/items/*/a\", \"/items/*/b\"] }");
    let items = |pairs: &[(&str, &str)]| json!({ "items": pairs.iter().map(|(a, b)| json!({ "a": a, "b": b })).collect::<Vec<_>>() });
    for different in [
        &[("a", "b"), ("c", "d")][..],
        &[("a", "bc"), ("d", "e")],
        &[("ab", "c"), ("d", "e")],
        &[("a", "b"), ("cd", "e")],
        &[("a", "d"), ("c", "b")],
        &[("a", "b"), ("a", "b"), ("c", "d")],
        &[("a\u{0}", "b")],
        &[("a", "\u{0}b")],
        &[("a,b", "c")],
        &[("a", "b,c")],
    ] {
        gateway.assert_new(&items(different));
    }
    gateway.assert_known(&items(&[("c", "d"), ("a", "b")]));
}

#[test]
fn numbers_and_texts_are_ids_and_other_things_are_none() {
    let gateway = Own::with("{ each = \"/*/id\" }");
    gateway.assert_new(&json!([{ "id": 1 }, { "id": "x" }]));
    gateway.assert_known(&json!([{ "id": "x" }, { "id": "1" }]));
    for (reason, body) in [
        ("event_id_missing", json!([])),
        ("event_id_missing", json!({})),
        ("event_id_missing", json!({ "id": "x" })),
        ("event_id_missing", json!({ "0": { "id": "x" } })),
        ("event_id_missing", json!({ "*": { "id": "x" } })),
        ("event_id_missing", json!([{ "id": "x" }, {}])),
        ("event_id_missing", json!([{ "id": "x" }, { "id": null }])),
        ("event_id_missing", json!([{ "id": "" }, { "id": "x" }])),
        ("event_id_missing", json!([{ "id": "x" }, 1])),
        ("event_id_invalid", json!([{ "id": "x" }, { "id": ["y"] }])),
        ("event_id_invalid", json!([{ "id": "x" }, { "id": true }])),
    ] {
        let before = gateway.0.refusals("own", reason);
        assert_eq!(gateway.send(&body).0, 400, "{body}");
        assert_eq!(gateway.0.refusals("own", reason), before + 1.0, "{reason}: {body}");
    }
    assert_eq!(gateway.1.received().len(), 1);
}

#[test]
fn items_without_an_id_are_known_as_the_profile_says_besides() {
    let gateway = Own::with("{ first = [{ each = \"/*/id\" }, { digest = \"body\" }] }");
    let (named, nameless) = (json!([{ "id": "a", "n": 1 }]), json!([{ "id": "a", "n": 1 }, { "n": 2 }]));
    for batch in [&named, &nameless, &json!([{ "id": "a", "n": 3 }, { "n": 2 }])] {
        gateway.assert_new(batch);
    }
    gateway.assert_known(&nameless);
    gateway.assert_known(&json!([{ "id": "a", "n": 4 }]));
    let gateway = Own::with("{ all = [{ json = \"/account\" }, { each = \"/ids/*\" }] }");
    gateway.assert_new(&json!({ "account": 1, "ids": ["a", "b"] }));
    gateway.assert_new(&json!({ "account": 2, "ids": ["a", "b"] }));
    gateway.assert_known(&json!({ "account": 1, "ids": ["b", "a"] }));
}

#[test]
fn batches_of_providers_are_known_by_all_items() {
    let item = |id: &str| json!({ "id": id, "eventType": "t", "type": "t", "source": "s", "clientState": SECRET, "changeType": "created" });
    let [a, b] = ["a", "b"].map(item);
    for (name, more, target, wrapped) in [
        ("azure-event-grid", "", "?code=It%27s+a+Secret+to+Everybody", false),
        ("cloudevents", "params = { origin = \"o\" }", "?access_token=It%27s+a+Secret+to+Everybody", false),
        ("microsoft-graph", "", "", true),
    ] {
        let (gateway, upstream) = start_shipped(name, &format!("secrets = [\"plain:{SECRET}\"]\n{more}"));
        let send = |items: Value| {
            let body = if wrapped { json!({ "value": items }) } else { items };
            let answer = request("POST", &format!("/{name}{target}"), &[], body.to_string()).send(gateway.address());
            assert!(answer.status < 300, "{name}: {}", answer.text());
            upstream.received().len()
        };
        let counts = [json!([a]), json!([a, b]), json!([b, a]), json!([a]), json!([b])].map(send);
        assert_eq!(counts, [1, 2, 2, 2, 3], "{name}");
    }
}
