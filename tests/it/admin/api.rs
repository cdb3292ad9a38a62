//! The API of the admin port, held against its own description.

use std::collections::BTreeSet;

use boon::Compiler;
use boon::Schemas;
use serde_json::Value;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::api::queue_with_api;
use crate::harness::http::Answer;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const DESCRIPTION: &str = include_str!("../../../config/openapi.json");
const LIST: &str = "/api/v1/events";
const EVENT: &str = "/api/v1/events/{source}/{number}";
const EVENT_REPLAY: &str = "/api/v1/events/{source}/{number}/replay";
const REPLAY: &str = "/api/v1/events/replay";
const PURGE: &str = "/api/v1/events/purge";
const BACKUP: &str = "/api/v1/store/backup";
const RECOVER: &str = "/api/v1/store/recover";
const RELOAD: &str = "/api/v1/reload";
const GENERATION: &str = "/api/v1/generation";
const SECRETS: &str = "/api/v1/secrets";

/// The description, and which of it has been seen.
struct Contract {
    description: Value,
    seen: BTreeSet<(String, String, String)>,
}

impl Contract {
    fn new() -> Self {
        Self { description: serde_json::from_str(DESCRIPTION).expect("JSON"), seen: BTreeSet::new() }
    }

    /// Asks with the token, and sees whether the answer is one that the description has.
    #[track_caller]
    fn ask(&mut self, gateway: &Gateway, (method, path): (&str, &str), target: &str, body: &str) -> Answer {
        let answer = gateway.api(method, target, body);
        self.check((method, path), &answer);
        answer
    }

    /// Sees whether an answer is one that the description has.
    #[track_caller]
    fn check(&mut self, (method, path): (&str, &str), answer: &Answer) {
        let operation = &self.description["paths"][path][method.to_ascii_lowercase()];
        let status = answer.status.to_string();
        let responses = operation["responses"].as_object().expect("an operation");
        let response = self.resolve(responses.get(&status).unwrap_or_else(|| &responses["default"]));
        let content = response["content"].as_object().expect("content");
        let kind = answer.header("content-type").expect("a type");
        let schema = &content.get(kind).unwrap_or_else(|| panic!("{kind} is none of {content:?}"))["schema"];
        self.validate(schema, &answer.json());
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let value = answer.header(&name.to_ascii_lowercase()).unwrap_or_else(|| panic!("there is no {name}"));
            self.validate(&header["schema"], &Value::from(value));
        }
        self.seen.insert((path.to_owned(), method.to_ascii_lowercase(), status));
    }

    fn resolve<'d>(&'d self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str() {
            Some(to) => self.description.pointer(to.trim_start_matches('#')).expect("it is there"),
            None => value,
        }
    }

    #[track_caller]
    fn validate(&self, schema: &Value, value: &Value) {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        compiler.add_resource("http://test/description", self.description.clone()).expect("a description");
        compiler.add_resource("http://test/schema", schema.clone()).expect("a schema");
        let place = schema["$ref"].as_str().map(|to| format!("http://test/description{to}"));
        let place = place.unwrap_or_else(|| "http://test/schema".to_owned());
        let compiled = compiler.compile(&place, &mut schemas).unwrap_or_else(|error| panic!("{error:#}"));
        schemas.validate(value, compiled).unwrap_or_else(|error| panic!("{error:#}\n{value:#}"));
    }

    /// What nobody has seen yet.
    fn unseen(&self) -> Vec<(String, String, String)> {
        let mut all = Vec::new();
        for (path, methods) in self.description["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                for status in operation["responses"].as_object().into_iter().flat_map(|responses| responses.keys()) {
                    all.push((path.clone(), method.clone(), status.clone()));
                }
            }
        }
        all.retain(|seen| seen.2 != "default" && !self.seen.contains(seen));
        all
    }
}

#[test]
fn every_operation_behaves_as_the_openapi_description_says() {
    let mut contract = Contract::new();
    let upstream = Upstream::deciding_by_id();
    let gateway = Gateway::start(&queue_with_api(&upstream.url()));
    described(&mut contract, &gateway);
    let gateway = conflicts(&mut contract, gateway, &upstream.url());
    drop(gateway);
    out(&mut contract, &upstream.url());
    reloads(&mut contract, &upstream.url());
    switched_off(&mut contract);
    assert_eq!(contract.unseen(), []);
}

/// What a gateway with events answers.
fn described(contract: &mut Contract, gateway: &Gateway) {
    gateway.take(&["dead-1", "fine-1", "dead-2", "later-1"]);
    let binary = b"\xff\xfe";
    assert_eq!(Github::delivery("fine-2", binary).send(gateway.address()).status, 200);
    gateway.wait_for_events("dead", 2);
    gateway.wait_for_events("delivered", 2);
    gateway.wait_for_events("retrying", 1);
    // Anybody may read the description.
    let answer = gateway.api_with("GET", "/api/v1/openapi.json", "", "");
    contract.check(("GET", "/api/v1/openapi.json"), &answer);
    assert_eq!(answer.json(), contract.description);

    let page = contract.ask(gateway, ("GET", LIST), "/api/v1/events?limit=3", "").json();
    assert_eq!(ids(&page), ["fine-2", "later-1", "dead-2"]);
    let next = page["next"].as_str().expect("there are more");
    let rest = contract.ask(gateway, ("GET", LIST), &format!("/api/v1/events?limit=3&cursor={next}"), "").json();
    assert_eq!((ids(&rest), &rest["next"]), (vec!["fine-1", "dead-1"], &Value::Null));
    let dead = contract.ask(gateway, ("GET", LIST), "/api/v1/events?state=dead&type=push&source=github", "").json();
    assert_eq!(ids(&dead), ["dead-2", "dead-1"]);
    assert_eq!(dead["events"][0]["answer"], json!({ "status": 422, "body": "no such order" }));

    shown(contract, gateway, &dead["events"][1], &page["events"][0]);
    let place = |event: &Value| format!("/api/v1/events/github/{}", event["number"].as_str().expect("a number"));
    let replay = format!("{}/replay", place(&dead["events"][0]));
    assert_eq!(contract.ask(gateway, ("POST", EVENT_REPLAY), &replay, "").json(), json!({ "events": 1, "next": null }));
    let elsewhere = contract.ask(gateway, ("POST", EVENT_REPLAY), &replay, r#"{"destination": "elsewhere"}"#);
    assert_eq!(elsewhere.status, 400, "{}", elsewhere.text());
    let retrying = format!("{}/replay", place(&page["events"][1]));
    assert_eq!(contract.ask(gateway, ("POST", EVENT_REPLAY), &retrying, "").status, 409);
    gateway.wait_for_events("dead", 2);
    let body = r#"{"source": "github", "limit": 1}"#;
    let done = contract.ask(gateway, ("POST", REPLAY), REPLAY, body).json();
    assert_eq!((&done["events"], done["next"].is_string()), (&json!(1), true));
    gateway.wait_for_events("dead", 2);
    let done = contract.ask(gateway, ("POST", PURGE), PURGE, r#"{"state": "delivered", "id": "fine-2"}"#).json();
    assert_eq!(done, json!({ "events": 1, "next": null }));
    unauthorized(contract, gateway);
    wrong_filters(contract, gateway);
    wrong_bodies(contract, gateway);
    wrong_destinations(contract, gateway);
    wrong_places(contract, gateway);
    files(contract, gateway);
}

/// A copy of the store's file, which then stands for a damaged one.
fn files(contract: &mut Contract, gateway: &Gateway) {
    let folder = tempfile::tempdir().expect("a folder");
    let body = json!({ "folder": folder.path() }).to_string();
    let copied = contract.ask(gateway, ("POST", BACKUP), BACKUP, &body).json();
    let copy = folder.path().join("store.db");
    assert_eq!(copied["path"].as_str(), copy.to_str());
    std::fs::copy(copy, gateway.folder().join("store.db.damaged-1")).expect("a copy");
    let done = contract.ask(gateway, ("POST", RECOVER), RECOVER, r#"{"file": "store.db.damaged-1"}"#).json();
    assert_eq!(done, json!({ "imported": 0, "present": 4, "record_lost": 0, "lost": 0, "next": null }));
    assert!(gateway.folder().join("store.db.recovered-1").exists());
    for (path, body, words) in [
        (BACKUP, body.as_str(), "is there"),
        (BACKUP, r#"{"folder": "here"}"#, "absolute"),
        (BACKUP, "", "for example"),
        (BACKUP, r#"{"file": "a"}"#, "`folder`"),
        (RECOVER, "", "for example"),
        (RECOVER, r#"{"folder": "/"}"#, "`file`"),
        (RECOVER, r#"{"file": "store.db.damaged-1", "cursor": "x"}"#, "cursor: "),
        (RECOVER, r#"{"file": "store.db.damaged-1"}"#, "No such file"),
        (RECOVER, r#"{"file": "../store.db.damaged-1"}"#, "its name alone"),
    ] {
        let answer = contract.ask(gateway, ("POST", path), path, body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["detail"].as_str().expect("words").contains(words), "{body}: {}", answer.text());
    }
    for path in [BACKUP, RECOVER] {
        assert_eq!(contract.ask(gateway, ("POST", path), path, &" ".repeat(20_000)).status, 413);
        let headers = format!("Authorization: Bearer {TOKEN}\r\nContent-Encoding: gzip\r\n");
        let answer = gateway.api_with("POST", path, &headers, "{}");
        assert_eq!(answer.status, 415);
        contract.check(("POST", path), &answer);
    }
}

/// A dead letter, and an event that was delivered and is no text.
fn shown(contract: &mut Contract, gateway: &Gateway, dead: &Value, binary: &Value) {
    let place = |event: &Value| format!("/api/v1/events/github/{}", event["number"].as_str().expect("a number"));
    let shown = contract.ask(gateway, ("GET", EVENT), &place(dead), "").json();
    assert_eq!((&shown["request"]["body"], &shown["deliveries"][0]["attempts"]), (&json!("dead-1"), &json!(1)));
    assert!(shown["request"]["headers"].as_array().expect("headers").contains(&json!(["x-github-event", "push"])));
    let [delivery] = shown["deliveries"].as_array().expect("an array").as_slice() else { panic!("{shown}") };
    assert_eq!((&delivery["destination"], &delivery["status"]), (&json!("default"), &json!(422)));
    let [failure] = delivery["failures"].as_array().expect("an array").as_slice() else { panic!("{shown}") };
    assert_eq!((&failure["status"], &failure["answer"]), (&json!(422), &json!("no such order")));
    assert_eq!(failure["reason"], "the upstream answered 422 Unprocessable Entity");
    let shown = contract.ask(gateway, ("GET", EVENT), &place(binary), "").json();
    let delivery = &shown["deliveries"][0];
    assert_eq!(
        (&delivery["state"], &delivery["status"], &delivery["failures"]),
        (&json!("delivered"), &json!(200), &json!([]))
    );
    assert!(delivery["last_attempt_at"].is_string(), "{shown}");
    assert_eq!((&shown["request"]["body_base64"], shown["request"].get("body")), (&json!("//4="), None));
}

/// What those are answered who have not the token.
fn unauthorized(contract: &mut Contract, gateway: &Gateway) {
    let places = [("GET", LIST, LIST), ("POST", REPLAY, REPLAY), ("POST", PURGE, PURGE)];
    let places = places.into_iter().chain([
        ("GET", EVENT, "/api/v1/events/github/1-0"),
        ("POST", EVENT_REPLAY, "/api/v1/events/github/1-0/replay"),
        ("POST", BACKUP, BACKUP),
        ("POST", RECOVER, RECOVER),
    ]);
    for (method, path, target) in places {
        for headers in
            ["", "Authorization: Basic YTpi\r\n", "Authorization: Bearer another\r\n", "Authorization: Bearer \r\n"]
        {
            let answer = gateway.api_with(method, target, headers, "");
            assert_eq!(answer.status, 401, "{target} {headers}");
            contract.check((method, path), &answer);
        }
    }
}

fn wrong_filters(contract: &mut Contract, gateway: &Gateway) {
    let filters = [
        ("sources=github", "did you mean source?"),
        ("limit=0", "from 1 to 1000"),
        ("limit=1001", "from 1 to 1000"),
        ("limit=-1", "from 1 to 1000"),
        ("limit=99999999999999999999", "from 1 to 1000"),
        ("state=broken", "blocked, queued, retrying, delivered, dead"),
        ("destination=elsewhere", "destination: "),
        ("destination=", "destination: is empty"),
        ("state=dead&state=dead", "twice"),
        ("source=", "source: is empty"),
        ("source=gihub", "github"),
        ("from=yesterday", "RFC 3339"),
        ("from=2026-01-02T03:04:05+01:00", "%2B"),
        ("from=2026-01-02T00:00:00Z&until=2026-01-02T00:00:00Z", "until: "),
        ("cursor=x", "cursor: "),
        ("cursor=1-+1", "cursor: "),
        ("all=true", "\"all\" is no parameter"),
    ];
    for (query, words) in filters {
        let answer = contract.ask(gateway, ("GET", LIST), &format!("/api/v1/events?{query}"), "");
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().replace("\\\"", "\"").contains(words), "{query}: {}", answer.text());
    }
}

fn wrong_bodies(contract: &mut Contract, gateway: &Gateway) {
    for path in [REPLAY, PURGE] {
        let bodies = [
            ("", "JSON object"),
            ("{}", r#"{"all": true}"#),
            ("[]", "for example"),
            (r#"{"sate": "dead"}"#, "`state`"),
            (r#"{"state": "dead", "state": "dead"}"#, "duplicate"),
            (r#"{"all": true, "state": "dead"}"#, "without a filter"),
            (r#"{"all": "yes"}"#, "boolean"),
            (r#"{"state": "blocked"}"#, "that are blocked"),
            (r#"{"state": "queued"}"#, "that are queued"),
            (r#"{"state": "retrying"}"#, "that are retrying"),
            (r#"{"source": "github", "limit": 1001}"#, "from 1 to 1000"),
            (r#"{"source": "github", "cursor": "next"}"#, "cursor: "),
        ];
        for (body, words) in bodies {
            let answer = contract.ask(gateway, ("POST", path), path, body);
            assert_eq!(answer.status, 400, "{body}");
            assert!(answer.json()["detail"].as_str().expect("words").contains(words), "{body}: {}", answer.text());
        }
        assert_eq!(contract.ask(gateway, ("POST", path), path, &" ".repeat(20_000)).status, 413);
        let headers = format!("Authorization: Bearer {TOKEN}\r\nContent-Encoding: gzip\r\n");
        let answer = gateway.api_with("POST", path, &headers, "{}");
        assert_eq!(answer.status, 415);
        contract.check(("POST", path), &answer);
    }
}

/// The body of the replay of one event.
fn wrong_destinations(contract: &mut Contract, gateway: &Gateway) {
    let target = "/api/v1/events/github/1-0/replay";
    for body in ["[]", r#"{"source": "github"}"#, r#"{"destination": 1}"#] {
        assert_eq!(contract.ask(gateway, ("POST", EVENT_REPLAY), target, body).status, 400, "{body}");
    }
    assert_eq!(contract.ask(gateway, ("POST", EVENT_REPLAY), target, &" ".repeat(20_000)).status, 413);
    let headers = format!("Authorization: Bearer {TOKEN}\r\nContent-Encoding: gzip\r\n");
    let answer = gateway.api_with("POST", target, &headers, "{}");
    assert_eq!(answer.status, 415);
    contract.check(("POST", EVENT_REPLAY), &answer);
}

fn wrong_places(contract: &mut Contract, gateway: &Gateway) {
    for (method, path, after) in [("GET", EVENT, ""), ("POST", EVENT_REPLAY, "/replay")] {
        for (event, status) in [("github/1-0", 404), ("nowhere/1-0", 404), ("github/one", 400), ("github/1-+1", 400)] {
            let answer = contract.ask(gateway, (method, path), &format!("/api/v1/events/{event}{after}"), "");
            assert_eq!(answer.status, status, "{event}");
        }
    }
    for (method, path, allowed) in [("POST", LIST, "GET, HEAD"), ("GET", REPLAY, "POST"), ("DELETE", PURGE, "POST")] {
        let answer = gateway.api(method, path, "");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
    for path in ["/api/", "/api/v1", "/api/v2/events", "/api/v1/events/", "/api/v1/events/a/b/c", "/api/v1/events//1-0"]
    {
        assert!(matches!(gateway.api("GET", path, "").status, 400 | 404), "{path}");
    }
}

/// A source that queues no more.
fn conflicts(contract: &mut Contract, gateway: Gateway, upstream: &str) -> Gateway {
    gateway.signal("TERM");
    let folder = gateway.wait().folder.expect("its folder");
    let gateway = Gateway::start_in(folder, &queue_with_api(upstream).replace("github]", "other]"));
    let answer = contract.ask(&gateway, ("POST", REPLAY), REPLAY, r#"{"source": "github"}"#);
    assert_eq!(answer.status, 409, "{}", answer.text());
    let purged = contract.ask(&gateway, ("POST", PURGE), PURGE, r#"{"source": "github"}"#).json();
    assert_eq!(purged["events"], json!(3));
    gateway.signal("TERM");
    let folder = gateway.wait().folder.expect("its folder");
    Gateway::start_in(folder, &queue_with_api(upstream))
}

/// A store that is out.
fn out(contract: &mut Contract, upstream: &str) {
    let mut redis = Redis::start();
    let gateway = Gateway::start(&queue_with_api(upstream).replace("sqlite:store.db", &redis.url()));
    redis.kill();
    let bulk = r#"{"source": "github"}"#;
    for (method, path, target, body) in [
        ("GET", LIST, LIST, ""),
        ("GET", EVENT, "/api/v1/events/github/1-0", ""),
        ("POST", EVENT_REPLAY, "/api/v1/events/github/1-0/replay", ""),
        ("POST", REPLAY, REPLAY, bulk),
        ("POST", PURGE, PURGE, bulk),
    ] {
        let answer = contract.ask(&gateway, (method, path), target, body);
        assert_eq!(answer.status, 503, "{target}: {}", answer.text());
    }
}

/// The configuration, which whoever is on another machine needs the token for.
fn reloads(contract: &mut Contract, upstream: &str) {
    let sections = queue_with_api(upstream).replace("[admin]", "[admin]\nlisten = \"0.0.0.0:0\"");
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    for (path, method) in [(GENERATION, "GET"), (SECRETS, "GET"), (RELOAD, "POST")] {
        contract.ask(&gateway, (method, path), path, "");
        let from_elsewhere = gateway.asked_from_elsewhere(method, path, "Authorization: Bearer another\r\n");
        assert_eq!(from_elsewhere.status, 401);
        contract.check((method, path), &from_elsewhere);
        assert_eq!(
            gateway.asked_from_elsewhere(method, path, &format!("Authorization: Bearer {TOKEN}\r\n")).status,
            200
        );
    }
    assert_eq!(contract.ask(&gateway, ("GET", GENERATION), GENERATION, "").json()["generation"], json!(3));
    std::fs::write(folder.path().join("doorward.toml"), "[sever]").expect("written");
    let refused = contract.ask(&gateway, ("POST", RELOAD), RELOAD, "").json();
    let problems = refused["problems"].as_array().expect("problems");
    assert!(problems.iter().any(|problem| problem["key"] == "sever" && problem["error"] == true), "{refused}");
    let status = contract.ask(&gateway, ("GET", GENERATION), GENERATION, "").json();
    assert_eq!((&status["generation"], &status["last_reload"]["successful"]), (&json!(3), &json!(false)));
    let folder = tempfile::tempdir().expect("a folder");
    let without_token = Gateway::spawn(folder.path(), "[admin]\nlisten = \"0.0.0.0:0\"\n", &[]);
    for (path, method) in [(GENERATION, "GET"), (SECRETS, "GET"), (RELOAD, "POST")] {
        let answer = without_token.asked_from_elsewhere(method, path, "");
        assert_eq!(answer.status, 403);
        contract.check((method, path), &answer);
        assert_eq!(without_token.api_with(method, path, "", "").status, 200);
    }
}

/// Gateways without a token, and without a store that could have events.
fn switched_off(contract: &mut Contract) {
    let without_token = Gateway::start("");
    let without_events = Gateway::start(&format!("[admin]\ntoken = \"plain:{TOKEN}\"\n"));
    for (method, path, target) in [
        ("GET", LIST, LIST),
        ("GET", EVENT, "/api/v1/events/github/1-0"),
        ("POST", EVENT_REPLAY, "/api/v1/events/github/1-0/replay"),
        ("POST", REPLAY, REPLAY),
        ("POST", PURGE, PURGE),
        ("POST", BACKUP, BACKUP),
        ("POST", RECOVER, RECOVER),
    ] {
        let answer = contract.ask(&without_token, (method, path), target, "");
        assert_eq!(answer.status, 403, "{target}");
        assert!(answer.text().contains("admin.token"), "{}", answer.text());
        let answer = contract.ask(&without_events, (method, path), target, "");
        assert_eq!(answer.status, 404, "{target}");
        assert!(answer.text().contains("deliver.queue"), "{}", answer.text());
    }
}

#[test]
fn replays_and_purges_are_logged() {
    let upstream = Upstream::deciding_by_id();
    let gateway = Gateway::start(&queue_with_api(&upstream.url()));
    gateway.take(&["dead-1", "dead-2"]);
    gateway.wait_for_events("dead", 2);
    let number = gateway.events("id=dead-1")[0]["number"].as_str().expect("a number").to_owned();
    assert_eq!(gateway.api("POST", &format!("/api/v1/events/github/{number}/replay"), "").status, 200);
    let logged = gateway.logged("the replay", |event| event["peer"].is_string() && event["deliveries"].is_u64());
    assert_eq!((&logged["source"], &logged["number"]), (&json!("github"), &json!(number)));
    gateway.wait_for_events("dead", 2);
    let filter = r#"{"state": "dead", "type": "push", "from": "2026-01-02T03:04:05Z"}"#;
    assert_eq!(gateway.api("POST", PURGE, filter).json()["events"], json!(2));
    let logged = gateway.logged("the purge", |event| event["peer"].is_string() && event["events"].is_u64());
    assert_eq!(
        (&logged["events"], &logged["state"], &logged["event_type"]),
        (&json!(2), &json!("dead"), &json!("push"))
    );
    assert!(logged["from"] == "2026-01-02T03:04:05.000Z" && logged["peer"].is_string(), "{logged}");
    gateway.api_with("GET", LIST, "Authorization: Bearer hush-hush\r\n", "");
    gateway.logged("the attempt", |event| event["level"] == "WARN" && event["peer"].is_string());
    assert!(gateway.log().iter().all(|event| !event.to_string().contains("hush-hush")));
}

#[test]
fn dead_letters_of_an_outage_are_replayed_all_at_once() {
    let healed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let heals = std::sync::Arc::clone(&healed);
    let upstream = Upstream::with(move |_, _| {
        crate::harness::upstream::Reply::Status(
            if heals.load(std::sync::atomic::Ordering::Relaxed) { 200 } else { 422 },
            "",
        )
    });
    let gateway = Gateway::start(&queue_with_api(&upstream.url()));
    gateway.take(&["1", "2", "3", "4", "5"]);
    gateway.wait_for_events("dead", 5);
    healed.store(true, std::sync::atomic::Ordering::Relaxed);
    let done = gateway.api("POST", REPLAY, r#"{"all": true}"#).json();
    assert_eq!(done, json!({ "events": 5, "next": null }));
    gateway.wait_for_events("delivered", 5);
    wait_until("the dead letters to be counted off", || {
        gateway.metric(r#"doorward_queue_events{destination="default",source="github",state="dead"}"#) == 0.0
    });
    let ids = upstream.ids();
    assert_eq!(ids.len(), 10);
    let attempts = upstream.received().iter().filter(|it| it.header("doorward-attempt") == Some("2")).count();
    assert_eq!(attempts, 5);
}

fn ids(page: &Value) -> Vec<&str> {
    page["events"].as_array().expect("events").iter().map(|event| event["id"].as_str().expect("an id")).collect()
}
