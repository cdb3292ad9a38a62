//! Replays and events that only look like one: what of a request tells it from others, over every store and every kind
//! of delivery.

use std::time::SystemTime;

use serde_json::Value;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::folder_with_profile;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::gateway::one_source::start_with_profile;
use crate::harness::http::receive;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::github::Github;
use crate::harness::provider::offergrid::offergrid;
use crate::harness::provider::offergrid::offergrid_source;
use crate::harness::provider::signing;
use crate::harness::provider::signing::hmac_hex;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

macro_rules! over_every_store_and_delivery {
    ($($test:ident)*) => {
        mod memory {
            $(#[test] fn $test() { super::$test(&super::Way::upstream("memory:")); })*
        }
        mod sqlite {
            $(#[test] fn $test() { super::$test(&super::Way::upstream("sqlite:store.db")); })*
        }
        mod redis {
            $(#[test] fn $test() { super::$test(&super::Way::redis("upstream")); })*
        }
        mod sqlite_queue {
            $(#[test] fn $test() { super::$test(&super::Way::queue("sqlite:store.db")); })*
        }
        mod redis_queue {
            $(#[test] fn $test() { super::$test(&super::Way::redis("queue")); })*
        }
        mod redis_stream {
            $(#[test] fn $test() { super::$test(&super::Way::redis("stream")); })*
        }
    };
}

over_every_store_and_delivery! {
    the_same_content_under_another_id_is_a_duplicate_that_says_so
    with_the_type_in_the_guard_the_same_content_is_another_event_as_another_type
    without_a_guard_the_id_alone_counts
    what_was_ignored_cannot_come_again_as_another_type
    what_was_ignored_is_judged_by_the_filter_of_today
    an_event_whose_type_cannot_be_read_is_not_delivered_where_types_are_chosen
    what_is_forged_is_not_remembered_as_ignored
    after_a_restart_nothing_is_said_of_the_first_that_nobody_knows
    a_signed_time_is_refused_before_its_event_is_forgotten
}

const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;
const BY_CONTENT: &str = r#"{"received":true,"duplicate":true,"replay_guard":"content"}"#;
const BY_CONTENT_AND_TYPE: &str = r#"{"received":true,"duplicate":true,"replay_guard":"content+type"}"#;
const IGNORED: &str = r#"{"received":true,"ignored":true}"#;

fn the_same_content_under_another_id_is_a_duplicate_that_says_so(way: &Way) {
    let gateway = way.gateway("");
    let send = |id: &str| Github::delivery(id, "{}").send(gateway.address()).text();
    assert_eq!([send("one"), send("one"), send("two")], [way.taken, DUPLICATE, BY_CONTENT]);
    assert_eq!(Github::delivery("three", "[]").send(gateway.address()).text(), way.taken);
    let known =
        gateway.logged("the duplicate by id", |event| event["event_id"] == "one" && event["outcome"] == "duplicate");
    assert_eq!((&known["level"], known.get("first_event_id")), (&Value::from("INFO"), None));
    let warned = gateway.logged("the duplicate by content", |event| event["event_id"] == "two");
    assert_eq!((&warned["level"], &warned["outcome"]), (&Value::from("WARN"), &Value::from("duplicate")));
    assert_eq!((&warned["first_event_id"], &warned["first_event_type"]), (&Value::from("one"), &Value::from("push")));
    assert_eq!(warned["replay_guard"], "content");
    let first = gateway.logged("the first one", |event| event["event_id"] == "one");
    let time = |text: &Value| humantime::parse_rfc3339(text.as_str().expect("a time")).expect("a time");
    assert!(time(&warned["first_at"]) <= time(&first["timestamp"]), "when it came is before its log line: {warned}");
    assert_eq!(send("four"), BY_CONTENT);
    let warned_again = gateway.logged("the next duplicate by content", |event| event["event_id"] == "four");
    assert_eq!(warned_again["first_event_id"], "one", "it is no duplicate of the duplicate");
    assert_eq!(warned_again["first_at"], warned["first_at"]);
    assert_eq!(gateway.outcomes("github", "duplicate"), 3.0);
    assert_eq!(gateway.metric(GUARDED), 2.0);
}

fn with_the_type_in_the_guard_the_same_content_is_another_event_as_another_type(way: &Way) {
    let gateway = way.gateway("replay_guard = \"content+type\"");
    let send = |id: &str, kind: &str| typed(id, kind).send(gateway.address()).text();
    assert_eq!([send("one", "push"), send("two", "push")], [way.taken, BY_CONTENT_AND_TYPE]);
    assert_eq!([send("three", "issues"), send("four", "issues")], [way.taken, BY_CONTENT_AND_TYPE]);
    assert_eq!([send("one", "ping"), send("three", "ping")], [DUPLICATE; 2], "the id counts as ever");
    let untyped = |id: &str| Github::delivery(id, "{}").without("X-GitHub-Event").send(gateway.address()).text();
    assert_eq!([untyped("five"), untyped("six")], [way.taken, BY_CONTENT_AND_TYPE], "none is a type too");
    assert_eq!(gateway.metric(GUARDED), 3.0);
}

fn without_a_guard_the_id_alone_counts(way: &Way) {
    let gateway = way.gateway("replay_guard = \"off\"");
    let send = |id: &str| Github::delivery(id, "{}").send(gateway.address()).text();
    assert_eq!([send("one"), send("two"), send("one"), send("two")], [way.taken, way.taken, DUPLICATE, DUPLICATE]);
    assert_eq!(gateway.metric(GUARDED), 0.0);
}

fn what_was_ignored_cannot_come_again_as_another_type(way: &Way) {
    let gateway = way.gateway("events = [\"issues\", \"pull_*\"]");
    let send = |id: &str, kind: &str| typed(id, kind).send(gateway.address()).text();
    assert_eq!([send("one", "push"), send("one", "push")], [IGNORED; 2]);
    assert_eq!([send("one", "issues"), send("two", "pull_request")], [BY_CONTENT; 2], "it was no such event");
    assert_eq!([send("one", "ping"), send("three", "push")], [BY_CONTENT, IGNORED]);
    assert_eq!(Github::delivery("one", "{}").without("X-GitHub-Event").send(gateway.address()).text(), BY_CONTENT);
    assert_eq!(gateway.outcomes("github", "ignored"), 3.0);
    assert_eq!((gateway.outcomes("github", "duplicate"), gateway.metric(GUARDED)), (4.0, 4.0));
    let warned = gateway.logged("the other type", |event| event["event_type"] == "issues");
    assert_eq!((&warned["level"], &warned["first_event_id"]), (&Value::from("WARN"), &Value::from("one")));
    assert_eq!(warned["first_event_type"], "push");
    // An event of its own is delivered as ever.
    let wanted = Github::delivery("four", "[]").set("X-GitHub-Event", "issues");
    assert_eq!(wanted.send(gateway.address()).text(), way.taken);
    assert_eq!(wanted.set("X-GitHub-Event", "push").send(gateway.address()).text(), IGNORED);
}

fn what_was_ignored_is_judged_by_the_filter_of_today(way: &Way) {
    let gateway = way.gateway("events = [\"issues\"]");
    assert_eq!(typed("one", "push").send(gateway.address()).text(), IGNORED);
    if !way.outlives() {
        return;
    }
    let gateway = way.again(gateway, "events = [\"issues\", \"push\"]");
    let send = |id: &str, kind: &str| typed(id, kind).send(gateway.address()).text();
    assert_eq!([send("one", "issues"), send("two", "issues")], [BY_CONTENT; 2], "the type is remembered with it");
    assert_eq!([send("one", "push"), send("one", "push")], [way.taken, DUPLICATE]);
    assert_eq!([send("two", "push"), send("two", "issues")], [BY_CONTENT; 2]);
}

fn an_event_whose_type_cannot_be_read_is_not_delivered_where_types_are_chosen(way: &Way) {
    let gateway = way.gateway("events = [\"*\"]");
    let untyped = Github::delivery("one", "{}").without("X-GitHub-Event");
    assert_eq!(untyped.send(gateway.address()).text(), IGNORED);
    assert_eq!(typed("one", "push").send(gateway.address()).text(), BY_CONTENT, "it was no push");
    let long = Github::delivery("two", "[]").set("X-GitHub-Event", &"x".repeat(257));
    assert_eq!(long.send(gateway.address()).text(), IGNORED);
    let longest = Github::delivery("three", "[3]").set("X-GitHub-Event", &"x".repeat(256));
    assert_eq!(longest.send(gateway.address()).text(), way.taken);
    assert_eq!(gateway.metric("doorward_untyped_total{source=\"github\"}"), 2.0);
    assert_eq!(gateway.outcomes("github", "ignored"), 2.0);
    let warned = gateway.logged("the one without a type", |event| event["outcome"] == "ignored");
    assert_eq!((&warned["level"], &warned["event_id"]), (&Value::from("WARN"), &Value::from("one")));
}

fn what_is_forged_is_not_remembered_as_ignored(way: &Way) {
    let gateway = way.gateway("events = [\"issues\"]");
    let genuine = typed("one", "issues");
    let forged = genuine.clone().set("X-Hub-Signature-256", &format!("sha256={}", "0".repeat(64)));
    assert_eq!(forged.set("X-GitHub-Event", "push").send(gateway.address()).status, 401);
    assert_eq!(genuine.send(gateway.address()).text(), way.taken);
}

fn after_a_restart_nothing_is_said_of_the_first_that_nobody_knows(way: &Way) {
    let gateway = way.gateway("");
    assert_eq!(Github::delivery("one", "{}").send(gateway.address()).text(), way.taken);
    if !way.outlives() {
        return;
    }
    let gateway = way.again(gateway, "");
    for id in ["two", "three"] {
        assert_eq!(Github::delivery(id, "{}").send(gateway.address()).text(), BY_CONTENT);
        let warned = gateway.logged("the duplicate", |event| event["event_id"] == id);
        assert_eq!((&warned["level"], &warned["replay_guard"]), (&Value::from("WARN"), &Value::from("content")));
        assert_eq!((warned.get("first_event_id"), warned.get("first_at")), (None, None), "{warned}");
    }
}

/// Whatever the provider's clock says: there is no moment at which it would be taken a second time.
fn a_signed_time_is_refused_before_its_event_is_forgotten(way: &Way) {
    for ahead in [0, 2] {
        let gateway = way.forgetful(RECORDED);
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() + ahead;
        let (time, id) = (time.to_string(), format!("one-{ahead}"));
        let mac = hmac_hex(SECRET, &[time.as_bytes(), b".{}"]);
        let delivery = request("POST", "/own", &[("X-Mac", &mac), ("X-Time", &time), ("X-Id", &id)], "{}");
        assert_eq!(delivery.send(gateway.address()).text(), way.taken);
        wait_until("the event to be too old", || {
            let answer = delivery.send(gateway.address());
            assert!(answer.status == 401 || answer.text() == DUPLICATE, "{answer:?}");
            answer.status == 401
        });
        assert!(gateway.refusals("own", "timestamp_stale") >= 1.0);
    }
}

#[test]
fn a_copy_under_another_id_that_waits_for_the_first_is_told_so() {
    let upstream = Upstream::with(|_, _| Reply::Hold);
    let gateway = Gateway::start(&Github::source(&upstream.url()));
    let first = Github::delivery("one", "{}").begin(gateway.address());
    upstream.wait_for(1);
    let copies = ["one", "two"].map(|id| Github::delivery(id, "{}").begin(gateway.address()));
    wait_until("the copies to be in flight", || gateway.metric("doorward_in_flight_requests") == 3.0);
    upstream.release();
    assert_eq!(receive(&first).status, 200);
    assert_eq!(copies.map(|copy| receive(&copy).text()), [DUPLICATE, BY_CONTENT]);
    let warned = gateway.logged("the copy", |event| event["event_id"] == "two");
    assert_eq!(warned["first_event_id"], "one");
}

#[test]
fn only_a_type_that_is_not_signed_has_an_ignored_event_remembered() {
    let steps = |gateway: &Gateway| gateway.metric("doorward_store_duration_seconds_count{operation=\"ignore\"}");
    let upstream = Upstream::start();
    let gateway = Gateway::start(&(offergrid_source(&upstream.url()) + "events = [\"order.paid\"]\n"));
    assert_eq!(offergrid("1", SystemTime::now()).send(gateway.address()).text(), IGNORED);
    assert_eq!(steps(&gateway), 0.0);
    for (more, remembered) in
        [("events = [\"issues\"]\n", 1.0), ("events = [\"issues\"]\nreplay_guard = \"off\"\n", 0.0)]
    {
        let gateway = Gateway::start(&(Github::source(&upstream.url()) + more));
        assert_eq!(typed("one", "push").send(gateway.address()).text(), IGNORED);
        assert_eq!(steps(&gateway), remembered, "{more}");
    }
}

/// An id that is signed says as well what was ignored, and so does a nonce.
#[test]
fn what_was_ignored_is_known_by_whatever_is_signed_of_it() {
    let signed = "signature = { header = \"X-Mac\", encoding = \"hex\" }\nsigned = \"{header:X-Id}.{body}\"\n\
                  [[require]]\nheader = \"X-Id\"\nwithout = \".\"";
    let event = "type = { header = \"X-Type\" }\n";
    for (id, more, guard) in [
        ("id = { header = \"X-Id\" }", "", "content"),
        ("id = { header = \"X-Id\" }", "replay_guard = \"off\"", "content"),
        ("id = { header = \"X-Other\" }\nnonce = { header = \"X-Id\" }", "", "nonce"),
    ] {
        let profile = format!("[auth.hmac]\n{signed}\n[event]\n{id}\n{event}");
        let lines = format!("secrets = [\"plain:{SECRET}\"]\nevents = [\"wanted\"]\n{more}");
        let (gateway, _upstream) = start_with_profile(&profile, &lines);
        let send = |kind: &str, body: &str| {
            let mac = hmac_hex(SECRET, &[b"one.", body.as_bytes()]);
            let headers = [("X-Mac", mac.as_str()), ("X-Id", "one"), ("X-Other", kind), ("X-Type", kind)];
            request("POST", "/own", &headers, body).send(gateway.address()).text()
        };
        let duplicate = BY_CONTENT.replace("content", guard);
        assert_eq!(
            [send("other", "{}"), send("wanted", "{}"), send("other", "{}")],
            [IGNORED, &duplicate, IGNORED],
            "{guard}"
        );
        let warned = gateway.logged("the other type", |event| event["event_type"] == "wanted");
        assert_eq!((&warned["level"], &warned["first_event_type"]), (&Value::from("WARN"), &Value::from("other")));
    }
}

#[test]
fn while_the_store_is_out_an_event_that_is_not_wanted_comes_again_or_goes() {
    for (on_outage, status) in [("reject", 503), ("accept", 200)] {
        let (mut redis, upstream) = (Redis::start(), Upstream::start());
        let store = format!("events = [\"issues\"]\n[store]\nurl = \"{}\"\non_outage = \"{on_outage}\"\n", redis.url());
        let gateway = Gateway::start(&(Github::source(&upstream.url()) + &store));
        assert_eq!(typed("one", "push").send_until_taken(gateway.address()).text(), IGNORED);
        redis.kill();
        assert_eq!(typed("one", "push").send(gateway.address()).status, status, "{on_outage}");
        assert_eq!(upstream.connections(), 0);
    }
}

#[test]
fn events_of_shopify_and_woocommerce_may_have_the_same_body_under_different_topics() {
    for (profile, proof, topic, id) in [
        ("shopify", "X-Shopify-Hmac-Sha256", "X-Shopify-Topic", "X-Shopify-Webhook-Id"),
        ("woocommerce", "X-WC-Webhook-Signature", "X-WC-Webhook-Topic", "X-WC-Webhook-Delivery-ID"),
    ] {
        let (gateway, upstream) = start_shipped(profile, &format!("secrets = [\"plain:{SECRET}\"]"));
        let body = r#"{"id":788032119674292922}"#;
        let mac = signing::base64(signing::hmac_sha256(SECRET.as_bytes(), body.as_bytes()));
        let send = |number: &str, kind: &str| {
            let headers = [(proof, mac.as_str()), (topic, kind), (id, number)];
            request("POST", &format!("/{profile}"), &headers, body).send(gateway.address()).text()
        };
        let taken = r#"{"ok":true}"#;
        assert_eq!([send("1", "products/update"), send("2", "products/delete")], [taken; 2], "{profile}");
        assert_eq!([send("1", "products/update"), send("2", "products/delete")], [DUPLICATE; 2], "{profile}");
        // WooCommerce has no other id than the topic and the body.
        let again = if profile == "shopify" { BY_CONTENT_AND_TYPE } else { DUPLICATE };
        assert_eq!(send("3", "products/update"), again, "{profile}");
        assert_eq!(upstream.received().len(), 2, "{profile}");
    }
}

const GUARDED: &str = "doorward_guarded_total{source=\"github\"}";
/// A time that is signed and decides nothing.
const RECORDED: &str = "[auth.hmac]\nsignature = { header = \"X-Mac\", encoding = \"hex\" }\nsigned = \"{timestamp}.{body}\"\n\
                        [timestamp]\nfrom = { header = \"X-Time\" }\nformat = \"unix\"\npolicy = \"record\"\n\
                        [event]\nid = { header = \"X-Id\" }\n";

/// The same body as this type.
fn typed(id: &str, kind: &str) -> Delivery {
    Github::delivery(id, "{}").set("X-GitHub-Event", kind)
}

/// A store with a kind of delivery.
struct Way {
    url: String,
    deliver: String,
    /// The answer to an event that is taken.
    taken: &'static str,
    /// The shortest lease that it allows, in seconds.
    lease: u64,
    _upstream: Upstream,
    _server: Option<Redis>,
}

impl Way {
    fn upstream(url: &str) -> Self {
        let upstream = Upstream::start();
        let deliver = format!("upstream = {{ url = \"{}\", timeout = \"1s\" }}", upstream.url());
        Self { url: url.to_owned(), deliver, taken: r#"{"ok":true}"#, lease: 2, _upstream: upstream, _server: None }
    }

    fn queue(url: &str) -> Self {
        let way = Self::upstream(url);
        let deliver = way.deliver.replace("upstream = ", "queue = ");
        Self { deliver, taken: r#"{"received":true}"#, ..way }
    }

    fn redis(delivery: &str) -> Self {
        let server = Redis::start();
        let way = match delivery {
            // 5 s longer than an attempt may take.
            "queue" => Self { lease: 6, ..Self::queue(&server.url()) },
            "stream" => {
                let deliver = "redis-stream = { key = \"events\" }".to_owned();
                Self { deliver, taken: r#"{"received":true}"#, ..Self::upstream(&server.url()) }
            }
            _ => Self::upstream(&server.url()),
        };
        Self { _server: Some(server), ..way }
    }

    /// Whether it remembers more than a process does.
    fn outlives(&self) -> bool {
        self.url != "memory:"
    }

    /// Patient enough for a machine that is busy.
    fn sections(&self, source: &str) -> String {
        format!("{source}\n[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", self.url)
    }

    #[track_caller]
    fn gateway(&self, more: &str) -> Gateway {
        Gateway::start(&self.sections(&format!("{}{more}", Github::delivering(&self.deliver))))
    }

    /// The next gateway after this one, with other lines.
    #[track_caller]
    fn again(&self, gateway: Gateway, more: &str) -> Gateway {
        gateway.signal("TERM");
        let folder = gateway.wait().folder.expect("its folder");
        Gateway::start_in(folder, &self.sections(&format!("{}{more}", Github::delivering(&self.deliver))))
    }

    /// One with a profile of its own that remembers events for as short as it can.
    #[track_caller]
    fn forgetful(&self, profile: &str) -> Gateway {
        let source = format!(
            "profiles = \"profiles\"\n[sources.own]\nprofile = \"own\"\npath = \"/own\"\nsecrets = [\"plain:{SECRET}\"]\n\
             deliver.{}",
            self.deliver
        );
        let store = format!("ttl = \"{}s\"\nlease = \"{}s\"\n", self.lease + 2, self.lease);
        Gateway::start_in(folder_with_profile(profile), &(self.sections(&source) + &store))
    }
}
