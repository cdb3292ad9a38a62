//! Queues that come, change and go, with events on them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use doorward::base::supervisor::Task;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::in_process::InProcessGateway;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_events;
use crate::harness::gateway::reload::exchange_file;
use crate::harness::gateway::reload::quick_looks;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

/// A store with queues, and an API.
fn common(store: &str) -> String {
    format!("[store]\nurl = \"{store}\"\nlease = \"15s\"\n[admin]\ntoken = \"plain:{TOKEN}\"\n")
}

/// A GitHub source with a queue, whose table has these keys besides `url`.
fn queue(upstream: &str, more: &str) -> String {
    Github::delivering(&format!(
        "queue = {{ url = \"{upstream}\", timeout = \"1s\", backoff = \"10ms\", max_backoff = \"20ms\"{more} }}"
    ))
}

#[test]
fn events_of_a_queue_that_is_removed_wait_and_go_on_when_it_is_back_in_a_file() {
    removed_and_back("sqlite:store.db");
}

#[test]
fn events_of_a_queue_that_is_removed_wait_and_go_on_when_it_is_back_in_redis() {
    let redis = Redis::start();
    removed_and_back(&redis.url());
}

fn removed_and_back(store: &str) {
    let nowhere = Upstream::nowhere();
    let with = format!("{}{}", queue(&format!("http://{nowhere}/"), ""), common(store));
    let other = Github::source("http://127.0.0.1:9/").replace("github]", "other]");
    let gateway = Gateway::start(&with);
    for id in ["1", "2", "3"] {
        assert_eq!(Github::delivery(id, id).send(gateway.address()).text(), QUEUED);
    }
    wait_until("an attempt", || {
        gateway.metric("doorward_deliveries_total{destination=\"default\",outcome=\"retried\",source=\"github\"}") > 0.0
    });
    gateway.reconfigure(&(other.replace("/webhooks/github", "/other") + &common(store)));
    let warned = gateway.logged("a warning", |line| line["events"].is_u64() && line["level"] == "WARN");
    assert_eq!(warned["source"], json!("github"));
    assert_eq!(Github::delivery("4", "4").send(gateway.address()).status, 404);
    let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
    wait_until("them to be counted", || queued_events(&gateway, "queued") + queued_events(&gateway, "retrying") == 3.0);
    assert_eq!(gateway.events("source=github&limit=10").len(), 3, "they are listed");
    // Nobody takes them, however long the app is there: the circuit breaker probes after a second.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(upstream.received().len(), 0);
    gateway.reconfigure(&with);
    gateway.wait_for_events("delivered", 3);
    let mut ids = upstream.ids();
    ids.sort();
    assert_eq!(ids, ["1", "2", "3"], "each once");
    assert_eq!(Github::delivery("1", "1").send(gateway.address()).text(), DUPLICATE);
}

#[test]
fn the_first_queue_of_a_gateway_may_come_later() {
    let redis = Redis::start();
    for store in ["sqlite:store.db", &redis.url()] {
        let upstream = Upstream::start();
        let gateway = Gateway::start(&common(store));
        assert_eq!(Github::delivery("1", "1").send(gateway.address()).status, 404);
        gateway.reconfigure(&(queue(&upstream.url(), "") + &common(store)));
        wait_until("it to be ready", || gateway.admin("/readyz").status == 200);
        assert_eq!(Github::delivery("1", "1").send(gateway.address()).text(), QUEUED);
        gateway.wait_for_events("delivered", 1);
        assert_eq!(upstream.ids(), ["1"]);
    }
}

#[test]
fn a_source_changes_from_an_upstream_to_a_queue_and_back() {
    let upstream = Upstream::start();
    let (direct, queued) = (Github::source(&upstream.url()), queue(&upstream.url(), ""));
    let store = common("sqlite:store.db");
    let gateway = Gateway::start(&(direct.clone() + &store));
    assert_ne!(Github::delivery("1", "1").send(gateway.address()).text(), QUEUED);
    gateway.reconfigure(&(queued + &store));
    assert_eq!(Github::delivery("2", "2").send(gateway.address()).text(), QUEUED);
    assert_eq!(Github::delivery("1", "1").send(gateway.address()).text(), DUPLICATE);
    gateway.wait_for_events("delivered", 1);
    gateway.reconfigure(&(direct + &store));
    assert_eq!(Github::delivery("2", "2").send(gateway.address()).text(), DUPLICATE);
    assert_ne!(Github::delivery("3", "3").send(gateway.address()).text(), QUEUED);
    assert_eq!(upstream.ids(), ["1", "2", "3"]);
}

#[test]
fn an_attempt_ends_on_its_terms_and_the_next_one_goes_by_the_new_ones() {
    let old = Upstream::with(|_, _| Reply::HoldThen(500));
    let new = Upstream::start();
    let store = common("sqlite:store.db");
    let terms = |url: &str, more: &str| {
        Github::delivering(&format!("queue = {{ url = \"{url}\", timeout = \"20s\", backoff = \"10ms\"{more} }}"))
            + &store
    };
    let lease = |sections: String| sections.replace("lease = \"15s\"", "lease = \"60s\"");
    let gateway = Gateway::start(&lease(terms(&old.url(), ", max_attempts = 2, concurrency = 1")));
    assert_eq!(Github::delivery("1", "1").send(gateway.address()).text(), QUEUED);
    assert_eq!(Github::delivery("2", "2").send(gateway.address()).text(), QUEUED);
    old.wait_for(1);
    // By these, the attempt under way would be the last one.
    gateway.reconfigure(&lease(terms(&new.url(), ", max_attempts = 1, concurrency = 4")));
    gateway.wait_for_events("delivered", 1);
    assert_eq!(
        (old.ids(), new.ids()),
        (vec!["1".to_owned()], vec!["2".to_owned()]),
        "the next take is on the new terms"
    );
    old.release();
    gateway.wait_for_events("delivered", 2);
    assert_eq!(new.ids(), ["2", "1"], "it was not given up");
    assert_eq!(old.ids().len(), 1);
}

#[test]
fn fewer_attempts_at_a_time_are_made_when_the_configuration_says_so() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (Arc::clone(&running), Arc::clone(&most));
    let upstream = Upstream::with(move |_, _| {
        let now = counted.0.fetch_add(1, Ordering::SeqCst) + 1;
        counted.1.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        counted.0.fetch_sub(1, Ordering::SeqCst);
        Reply::Status(200, "")
    });
    let store = common("sqlite:store.db");
    let gateway = Gateway::start(&(queue(&upstream.url(), ", concurrency = 8") + &store));
    let send = |name: &str| {
        for number in 0..40 {
            let id = format!("{name}-{number}");
            assert_eq!(Github::delivery(&id, id.as_str()).send(gateway.address()).text(), QUEUED);
        }
    };
    send("first");
    gateway.wait_for_events("delivered", 40);
    assert!(most.load(Ordering::SeqCst) > 1);
    gateway.reconfigure(&(queue(&upstream.url(), ", concurrency = 1") + &store));
    most.store(0, Ordering::SeqCst);
    send("second");
    gateway.wait_for_events("delivered", 80);
    assert_eq!(most.load(Ordering::SeqCst), 1);
    gateway.reconfigure(&(queue(&upstream.url(), ", concurrency = 8") + &store));
    send("third");
    gateway.wait_for_events("delivered", 120);
    assert!(most.load(Ordering::SeqCst) > 1);
}

#[test]
fn what_dies_of_a_fault_comes_back_with_the_present_configuration() {
    let (old, new) = (Upstream::start(), Upstream::start());
    let store = common("sqlite:FOLDER/store.db");
    let gateway = InProcessGateway::start(&(queue(&old.url(), "") + &store), quick_looks());
    let config = gateway.folder().join("doorward.toml");
    let before = std::fs::read_to_string(&config).expect("a configuration");
    let after = before.replace(&old.url(), &new.url()).replace("/webhooks/github", "/moved");
    let use_configuration = |text: &str, path: &str, id: &str| {
        exchange_file(&config, text);
        wait_until("it to be in use", || Github::delivery(id, id).to(path).send(gateway.address()).status == 200);
    };
    use_configuration(&after, "/moved", "0");
    for task in [Task::Worker, Task::Dispatcher, Task::DispatchThread, Task::Reload] {
        gateway.restart_by_panic(task);
        let delivery = Github::delivery(task.name(), task.name());
        wait_until("it to be taken", || delivery.clone().to("/moved").send(gateway.address()).status == 200);
        assert_eq!(delivery.send(gateway.address()).status, 404, "{}", task.name());
        wait_until("it to be delivered", || new.ids().iter().any(|id| id == task.name()));
    }
    assert_eq!(old.ids(), Vec::<String>::new());
    use_configuration(&before, "/webhooks/github", "1");
    old.wait_for(1);
    assert_eq!(old.ids(), ["1"]);
}

#[test]
fn events_of_a_source_that_is_removed_are_not_replayed() {
    let redis = Redis::start();
    for store in ["sqlite:store.db", &redis.url()] {
        let upstream = Upstream::start();
        let with = format!("{}{}", queue(&upstream.url(), ""), common(store));
        let gateway = Gateway::start(&with);
        assert_eq!(Github::delivery("1", "1").send(gateway.address()).text(), QUEUED);
        gateway.wait_for_events("delivered", 1);
        gateway.reconfigure(&common(store));
        let replay = |body: &str| gateway.api("POST", "/api/v1/events/replay", body);
        let answer = replay("{\"source\":\"github\",\"state\":\"delivered\"}");
        assert_eq!(answer.status, 409, "{store}: {}", answer.text());
        assert_eq!(replay("{\"state\":\"delivered\"}").json()["events"], 0, "{store}");
        let number = gateway.events("source=github&limit=10")[0]["number"].clone();
        let one = format!("/api/v1/events/github/{}/replay", number.as_str().expect("a number"));
        let answer = gateway.api("POST", &one, "{}");
        assert_eq!(answer.status, 409, "{store}: {}", answer.text());
        gateway.reconfigure(&with);
        let answer = replay("{\"source\":\"github\",\"state\":\"delivered\"}");
        assert_eq!(answer.json()["events"], 1, "{store}: {}", answer.text());
        upstream.wait_for(2);
    }
}
