//! Tasks and threads that die: the gateway goes on, says so, and loses nothing.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::Duration;

use doorward::base::limits::Limits;
use doorward::base::supervisor::Task;

use crate::harness::gateway::in_process::InProcessGateway;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::http::connect;
use crate::harness::provider::github::Github;
use crate::harness::provider::issuer::Issuer;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const SYNC: &str = "/webhooks/sync";

/// A GitHub source that delivers at once and one with a queue, over a SQLite store.
fn sections(upstream: &Upstream) -> String {
    let url = upstream.url();
    let queued = Github::delivering(&format!("queue = {{ url = \"{url}\", backoff = \"10ms\" }}"));
    let sync = Github::source(&url).replace("[sources.github]", "[sources.sync]").replace("/webhooks/github", SYNC);
    format!("{queued}{sync}[server]\nworkers = 1\n[store]\nurl = \"sqlite:FOLDER/store.db\"\n")
}

/// Sends an event to each source, and waits until the upstream has both.
#[track_caller]
fn assert_delivers(gateway: &InProcessGateway, upstream: &Upstream, name: &str) {
    let (queued, sync) = (format!("queued-{name}"), format!("sync-{name}"));
    assert_eq!(Github::delivery(&queued, queued.as_str()).send(gateway.address()).text(), QUEUED, "{name}");
    assert_eq!(Github::delivery(&sync, sync.as_str()).to(SYNC).send(gateway.address()).status, 200, "{name}");
    wait_until("both events", || {
        let ids: BTreeSet<_> = upstream.ids().into_iter().collect();
        ids.contains(&queued) && ids.contains(&sync)
    });
    assert_eq!(gateway.admin("/livez").status, 200, "{name}: {}", gateway.admin("/livez").text());
}

#[test]
fn each_kind_of_task_that_panics_is_started_again_and_the_gateway_goes_on() {
    let upstream = Upstream::start();
    let issuer = Issuer::publishing(&Issuer::fixture_keys());
    let tokens = format!(
        "[sources.pitchpoint]\nprofile = \"pitchpoint\"\npath = \"/p\"\nparams = {{ issuer = \"{}\", audience = \"a\" }}\n\
         deliver.upstream = {{ url = \"{}\" }}\n",
        issuer.url(),
        upstream.url()
    );
    // Each frame of the log is moved into the file, so that the thread that does it runs.
    let mut limits = Limits::default();
    limits.sqlite.checkpoint_frames = 1;
    let gateway = InProcessGateway::start(&format!("{tokens}{}", sections(&upstream)), limits);
    assert_delivers(&gateway, &upstream, "before");
    for task in [
        Task::Worker,
        Task::Admin,
        Task::Drain,
        Task::Reload,
        Task::KeySet,
        Task::Dispatcher,
        Task::DispatchThread,
        Task::QueueMetrics,
        Task::SqliteWriter,
    ] {
        gateway.restart_by_panic(task);
        assert_delivers(&gateway, &upstream, task.name());
        assert_eq!(gateway.restarts(task), 1.0, "{}", task.name());
    }
    // These run when there is something to do for them.
    for task in [Task::SqliteCheckpointer, Task::DedupeLog] {
        gateway.inject_panic(task);
        assert_delivers(&gateway, &upstream, task.name());
        wait_until(task.name(), || gateway.restarts(task) == 1.0);
        assert_delivers(&gateway, &upstream, &format!("after-{}", task.name()));
    }
    assert_eq!(gateway.admin("/readyz").status, 200);
}

#[test]
fn each_kind_of_task_on_redis_that_panics_is_started_again_and_the_gateway_goes_on() {
    let (upstream, redis) = (Upstream::start(), Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]));
    let store = format!("url = \"{}\"\ndurability = \"aof\"\ntimeout = \"5s\"", redis.url());
    let sections = sections(&upstream).replace("url = \"sqlite:FOLDER/store.db\"", &store);
    let gateway = InProcessGateway::start(&sections, Limits::default());
    assert_delivers(&gateway, &upstream, "before");
    for task in [
        Task::RedisConnection,
        Task::RedisWriter,
        Task::RedisRecorder,
        Task::RedisWatcher,
        Task::Dispatcher,
        Task::DispatchThread,
        Task::Worker,
    ] {
        gateway.restart_by_panic(task);
        assert_delivers(&gateway, &upstream, task.name());
        assert_eq!(gateway.restarts(task), 1.0, "{}", task.name());
    }
}

#[test]
fn a_thread_without_a_heartbeat_makes_the_gateway_not_ready_and_then_not_live() {
    let upstream = Upstream::start();
    for (late, stuck, failing) in [(10, 60_000, "/readyz"), (10, 10, "/livez")] {
        let mut limits = Limits::default();
        limits.supervision.beat_every = Duration::from_secs(3600);
        limits.supervision.late = Duration::from_millis(late);
        limits.supervision.stuck = Duration::from_millis(stuck);
        let gateway = InProcessGateway::start(&sections(&upstream), limits);
        wait_until(failing, || gateway.admin(failing).status == 503);
        let text = gateway.admin(failing).text();
        assert!(text.contains("has not moved"), "{text}");
        assert_eq!(gateway.admin("/livez").status == 200, failing == "/readyz");
    }
}

#[test]
fn a_connection_whose_task_panics_is_closed_and_others_are_served() {
    let upstream = Upstream::start();
    let gateway = InProcessGateway::start(&sections(&upstream), Limits::default());
    let _open = connect(gateway.address());
    wait_until("the connection", || gateway.metric("doorward_open_connections") == 1.0);
    gateway.inject_panic(Task::Connection);
    let mut answer = Vec::new();
    let _reset = connect(gateway.address()).read_to_end(&mut answer);
    assert_eq!(answer, b"", "nothing is answered");
    wait_until("it to be gone", || gateway.metric("doorward_open_connections") == 1.0);
    assert_delivers(&gateway, &upstream, "after");
}

#[test]
fn an_attempt_that_panics_is_one_that_failed_and_its_event_is_delivered_by_the_next() {
    let upstream = Upstream::start();
    let gateway = InProcessGateway::start(&sections(&upstream), Limits::default());
    gateway.inject_panic(Task::Attempt);
    assert_eq!(Github::delivery("one", "1").send(gateway.address()).text(), QUEUED);
    upstream.wait_for(1);
    assert_eq!(upstream.received()[0].header("doorward-attempt"), Some("2"));
    wait_until("both attempts to be counted", || {
        let count = |outcome: &str| {
            gateway.metric(&format!(
                "doorward_deliveries_total{{destination=\"default\",outcome=\"{outcome}\",source=\"github\"}}"
            ))
        };
        (count("retried"), count("delivered")) == (1.0, 1.0)
    });
}

#[test]
fn what_a_dispatcher_that_dies_has_in_hand_is_delivered_once_and_what_its_thread_had_is_delivered_again() {
    let upstream = Upstream::with(|number, _| if number < 2 { Reply::Hold } else { Reply::Status(200, "") });
    let gateway = InProcessGateway::start(&sections(&upstream), Limits::default());
    for id in ["one", "two"] {
        assert_eq!(Github::delivery(id, id).send(gateway.address()).text(), QUEUED);
    }
    upstream.wait_for(2);
    gateway.restart_by_panic(Task::Dispatcher);
    assert_eq!(Github::delivery("three", "3").send(gateway.address()).text(), QUEUED);
    upstream.wait_for(3);
    assert_eq!(upstream.ids()[2], "three", "attempts under way go on");
    gateway.restart_by_panic(Task::DispatchThread);
    upstream.wait_for(5);
    let again: BTreeSet<_> = upstream.ids()[3..].iter().cloned().collect();
    assert_eq!(again, BTreeSet::from(["one".to_owned(), "two".to_owned()]), "its attempts were cut off");
    upstream.release();
}

#[test]
fn a_task_that_dies_again_within_a_minute_stays_dead_and_livez_says_which() {
    let upstream = Upstream::start();
    let gateway = InProcessGateway::start(&sections(&upstream), Limits::default());
    gateway.restart_by_panic(Task::SqliteWriter);
    assert_delivers(&gateway, &upstream, "between");
    gateway.inject_panic(Task::SqliteWriter);
    wait_until("the gateway not to be alive", || gateway.admin("/livez").status == 503);
    let said = gateway.admin("/livez").text();
    assert!(said.contains("sqlite-writer died twice within 60 s"), "{said}");
    let refused = Github::delivery("late", "late").send(gateway.address());
    assert!(refused.asks_to_come_again(), "nobody waits for ever: {refused:?}");
    assert_eq!(gateway.admin("/readyz").status, 503);
}
