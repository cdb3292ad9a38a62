//! Secrets that providers send along reach the app that is asked at once, and nothing that is kept or shown.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::doorward;
use crate::harness::gateway::one_source::folder_with_profile;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;

/// The secret of every source; each request has it where its provider puts it.
const HUSH: &str = "hush-4711-hush-4711-hush";
/// What an unverified request has there.
const FALSE: &str = "false-0815-false-0815-no";

/// A bearer token whose claims are not about the body.
const JWT: &str =
    "[auth.jwt]\nalgorithm = \"HS256\"\nissuer = \"i\"\naudience = \"a\"\n[event]\nid = { json = \"/id\" }\n";

/// One source of each way to send a secret along, observing or not, which delivers so.
fn sources(deliver: &str) -> String {
    let source = |name: &str, more: &str| {
        format!(
            "[sources.{name}]\nprofile = \"{name}\"\npath = \"/{name}\"\n{more}\nverify = \"observe\"\n\
             deliver.{}\n",
            deliver.replace("NAME", name)
        )
    };
    let secret = "secrets = [\"env:HUSH\"]";
    let mut all = "profiles = \"profiles\"\n".to_owned();
    for name in ["gitlab", "telegram", "azure-event-grid", "own"] {
        all += &source(name, secret);
    }
    all += &source("cloudevents", &format!("{secret}\nparams = {{ origin = \"o\" }}"));
    all += &source("azure-devops", "secrets = [\"env:USER_AND_HUSH\"]");
    all
}

fn start(folder: &Path, sections: &str) -> Gateway {
    let sections = format!("{sections}[admin]\ntoken = \"plain:{TOKEN}\"\n[log]\nlevel = \"debug\"\n");
    Gateway::spawn(folder, &sections, &[("HUSH", HUSH), ("USER_AND_HUSH", &format!("user:{HUSH}"))])
}

fn basic(secret: &str) -> String {
    signing::base64(format!("user:{secret}"))
}

/// A token that this secret signs; its text has nothing of the secret, and is one itself.
fn jwt(secret: &str) -> String {
    let claims = r#"{"iss":"i","aud":"a","exp":4102444800}"#;
    let said = [r#"{"alg":"HS256"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(signing::hmac_sha256(secret.as_bytes(), said.as_bytes())))
}

/// A request of each source with this secret, and the header in which it has it.
fn requests(secret: &str, id: u32) -> Vec<(Delivery, &'static str, String)> {
    let all = [
        ("/gitlab", "X-Gitlab-Token", secret.to_owned(), "{}"),
        ("/telegram", "X-Telegram-Bot-Api-Secret-Token", secret.to_owned(), r#"{"update_id":ID}"#),
        (
            "/azure-event-grid?code=SECRET",
            "X-Original-URI",
            "/azure-event-grid?code=SECRET".to_owned(),
            r#"[{"id":"ID"}]"#,
        ),
        ("/own", "Authorization", format!("Bearer {}", jwt(secret)), r#"{"id":"ID"}"#),
        ("/cloudevents", "Authorization", format!("Bearer {secret}"), r#"{"source":"s","id":"ID"}"#),
        ("/azure-devops", "Authorization", format!("Basic {}", basic(secret)), r#"{"id":"ID","eventType":"t"}"#),
    ];
    let made = all.into_iter().map(|(target, name, value, body)| {
        let (target, value) = (target.replace("SECRET", secret), value.replace("SECRET", secret));
        let headers = [("X-Kept", "kept-0001"), ("Cookie", secret), (name, value.as_str())];
        let request = request("POST", &target, &headers, body.replace("ID", &id.to_string()));
        let request = if target == "/gitlab" { request.with("Idempotency-Key", &id.to_string()) } else { request };
        (request, name, value)
    });
    made.collect()
}

/// Sends a genuine request to each source, and one with another secret, which they take too.
#[track_caller]
fn send_all(gateway: &Gateway) {
    for (request, ..) in requests(HUSH, 1).into_iter().chain(requests(FALSE, 2)) {
        let answer = request.send(gateway.address());
        assert_eq!(answer.status, 200, "{}: {}", request.path, answer.text());
    }
    let genuine = gateway.log().iter().filter(|event| event["secret"] == 1).count();
    assert_eq!(genuine, 6, "one of each source is verified: {:#?}", gateway.log());
}

/// Asserts that none of the secrets is among the bytes, which are those of what was sent.
#[track_caller]
fn assert_silent(what: &str, kept: &str, bytes: &[u8]) {
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has(kept), "{what} has nothing of what was sent: {}", String::from_utf8_lossy(bytes));
    for secret in [HUSH, FALSE] {
        for told in [secret, &basic(secret), &jwt(secret)] {
            assert!(!has(told), "{what} tells {told}: {}", String::from_utf8_lossy(bytes));
        }
    }
}

/// Asserts that the log, the metrics, the API and `doorward events` tell none either.
#[track_caller]
fn assert_tells_nothing(gateway: &Gateway) {
    let log = gateway.log().iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    assert_silent("the log", "gitlab", log.as_bytes());
    assert_silent("the metrics", "env:HUSH", gateway.admin("/metrics").text().as_bytes());
}

#[track_caller]
fn assert_shows_nothing(gateway: &Gateway) {
    let list = gateway.api("GET", "/api/v1/events?limit=1000", "");
    assert_silent("the list", "azure-devops", list.text().as_bytes());
    let events = list.json()["events"].as_array().expect("an array").clone();
    assert_eq!(events.len(), 12);
    for event in events {
        let name = ["source", "number"].map(|key| event[key].as_str().expect("text").to_owned()).join("/");
        let shown = gateway.api("GET", &format!("/api/v1/events/{name}"), "");
        assert_silent(&name, "kept-0001", shown.text().as_bytes());
        let url = format!("http://{}", gateway.admin_address());
        let mut command = doorward();
        command.args(["events", "show", &name, "--url", &url, "--token", "env:TOKEN"]).env("TOKEN", TOKEN);
        assert_silent(&name, "kept-0001", &command.output().expect("it runs").stdout);
    }
}

/// An app that refuses for good, so that everything stays as a dead letter.
fn refusing() -> (Upstream, String) {
    let upstream = Upstream::with(|_, _| Reply::Status(422, "never"));
    let deliver = format!("queue = {{ url = \"{}\" }}", upstream.url());
    (upstream, deliver)
}

#[track_caller]
fn assert_attempts_have_none(upstream: &Upstream) {
    upstream.wait_for(12);
    for message in upstream.received() {
        assert_eq!(message.header("x-kept"), Some("kept-0001"));
        for name in ["authorization", "cookie", "x-gitlab-token", "x-telegram-bot-api-secret-token", "x-original-uri"] {
            assert_eq!(message.header(name), None, "{name}");
        }
    }
}

#[test]
fn an_app_that_is_asked_at_once_gets_them() {
    let (folder, upstream) = (folder_with_profile(JWT), Upstream::start());
    let gateway = start(folder.path(), &sources(&format!("upstream = {{ url = \"{}\" }}", upstream.url())));
    for (number, (request, name, value)) in requests(HUSH, 1).into_iter().enumerate() {
        assert_eq!(request.send(gateway.address()).status, 200, "{name}");
        assert_eq!(upstream.received()[number].header(&name.to_lowercase()), Some(value.as_str()));
        assert_eq!(upstream.received()[number].header("cookie"), Some(HUSH));
    }
    assert_tells_nothing(&gateway);
}

#[test]
fn no_file_of_a_queue_has_them() {
    let (folder, (upstream, deliver)) = (folder_with_profile(JWT), refusing());
    let gateway = start(folder.path(), &format!("{}[store]\nurl = \"sqlite:store.db\"\n", sources(&deliver)));
    send_all(&gateway);
    assert_attempts_have_none(&upstream);
    gateway.wait_for_events("dead", 12);
    assert_tells_nothing(&gateway);
    assert_shows_nothing(&gateway);
    assert_silent("the store", "kept-0001", &store(&folder));
    // Stopped in order, the log is in the file.
    gateway.signal("TERM");
    gateway.wait();
    assert_silent("the store", "kept-0001", &store(&folder));
}

/// All bytes of the store's files.
fn store(folder: &TempDir) -> Vec<u8> {
    let files = std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let files: Vec<_> = files
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("store.db")))
        .collect();
    assert!(!files.is_empty());
    files.iter().flat_map(|path| std::fs::read(path).expect("a file")).collect()
}

#[test]
fn no_queue_and_no_stream_in_redis_has_them() {
    let redis = Redis::with(&["--rdbcompression", "no"]);
    let (folder, (upstream, deliver)) = (folder_with_profile(JWT), refusing());
    let url = redis.url();
    let gateway = start(folder.path(), &format!("{}[store]\nurl = \"{url}\"\n", sources(&deliver)));
    send_all(&gateway);
    assert_attempts_have_none(&upstream);
    gateway.wait_for_events("dead", 12);
    assert_tells_nothing(&gateway);
    assert_shows_nothing(&gateway);
    assert_silent("the queues", "kept-0001", &dump(&redis));
    drop(gateway);
    redis.command::<()>(&["FLUSHALL"]);
    let gateway =
        start(folder.path(), &format!("{}[store]\nurl = \"{url}\"\n", sources("redis-stream = { key = \"NAME\" }")));
    send_all(&gateway);
    assert_tells_nothing(&gateway);
    assert_silent("the streams", "kept-0001", &dump(&redis));
}

/// All keys and values, as Redis writes them.
fn dump(redis: &Redis) -> Vec<u8> {
    let keys: Vec<String> = redis.command(&["KEYS", "*"]);
    assert!(!keys.is_empty());
    let value = |key: String| [key.clone().into_bytes(), redis.command::<Vec<u8>>(&["DUMP", &key])].concat();
    keys.into_iter().flat_map(value).collect()
}

/// It is part of what was signed, or at least sent, and the app needs it to read the rest.
#[test]
fn one_in_the_body_is_kept_and_not_shown() {
    let (_upstream, deliver) = refusing();
    let folder = tempfile::tempdir().expect("a folder");
    let graph = format!(
        "[sources.graph]\nprofile = \"microsoft-graph\"\npath = \"/graph\"\nsecrets = [\"env:HUSH\"]\ndeliver.{deliver}\n\
         [store]\nurl = \"sqlite:store.db\"\n"
    );
    let gateway = start(folder.path(), &graph);
    let body = format!(r#"{{"value":[{{"id":"kept-0001","clientState":"{HUSH}","changeType":"created"}}]}}"#);
    assert_eq!(request("POST", "/graph", &[], body.clone()).send(gateway.address()).status, 202);
    gateway.wait_for_events("dead", 1);
    let number = gateway.events("")[0]["number"].as_str().expect("a number").to_owned();
    let shown = gateway.api("GET", &format!("/api/v1/events/graph/{number}"), "");
    assert_eq!(shown.json()["request"]["body"], body.replace(HUSH, "***"));
    assert_silent("the event", "kept-0001", shown.text().as_bytes());
    // Under another name, nobody knows any more where the secret stands in what is left of the old one.
    drop(gateway.kill());
    let gateway = start(folder.path(), &graph.replace("sources.graph", "sources.renamed"));
    let shown = gateway.api("GET", &format!("/api/v1/events/graph/{number}"), "");
    assert!(shown.json()["request"]["body"].is_null() && shown.status == 200, "{}", shown.text());
    assert!(!shown.text().contains(HUSH));
}

#[test]
fn commands_that_play_or_judge_a_provider_do_not_print_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::start();
    for (name, needle) in [("gitlab", "accepted"), ("azure-event-grid", "accepted"), ("telegram", "accepted")] {
        for (secret, needle) in [(HUSH, needle), ("another-secret-of-the-source", "credential_mismatch")] {
            let path = format!("/{name}");
            let (request, ..) =
                requests(HUSH, 1).into_iter().find(|(request, ..)| request.path.starts_with(&path)).expect("a request");
            let file = folder.path().join("request.txt");
            std::fs::write(&file, request.bytes()).expect("written");
            for more in [&[][..], &["--json"]] {
                let mut command = doorward();
                command.args(["explain", "--profile", name, "--secret", "env:SECRET"]).env("SECRET", secret);
                let output = command.args(more).arg(&file).output().expect("it runs");
                assert_silent("explain", needle, &[output.stdout, output.stderr].concat());
            }
        }
    }
    let to = upstream.url().replace("http://", "http://user:password@");
    for more in [&[][..], &["--json"]] {
        let mut command = doorward();
        command.args(["send", "--profile", "azure-event-grid", "--secret", "env:HUSH", "--to", &to]).env("HUSH", HUSH);
        let output = command.args(more).output().expect("it runs");
        let printed = [output.stdout, output.stderr].concat();
        assert_silent("send", "code=***", &printed);
        assert!(!String::from_utf8_lossy(&printed).contains("password"), "{}", String::from_utf8_lossy(&printed));
    }
}
