//! Upstreams of queues that are down, slow, overloaded or odd.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::log::is_breaker_closed;
use crate::harness::gateway::log::is_breaker_open;
use crate::harness::gateway::log::is_failed_attempt;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::provider::SECRET;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::upstream::raw_upstream;
use crate::harness::wait_until;

/// Writes a `Retry-After`.
type Wait = fn() -> String;

const OPEN: &str = r#"doorward_destination_breaker_open{destination="default",source="github"}"#;
const EAGER: &str = r#", backoff = "1ms", max_backoff = "1ms""#;

#[test]
fn an_upstream_that_is_down_is_probed_and_not_hammered() {
    let tried = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&tried);
    // Takes connections, so that they can be counted, and closes them at once.
    let upstream = raw_upstream(move |_, _| {
        counting.fetch_add(1, Ordering::SeqCst);
    });
    let gateway =
        Gateway::start(&queued_in_sqlite(&format!("http://{upstream}/app"), &format!("{EAGER}, concurrency = 4")));
    for number in 0..30 {
        send(&gateway, "/webhooks/github", &number.to_string());
    }
    gateway.logged("that it is probed", is_breaker_open);
    let begun = Instant::now();
    let before = tried.load(Ordering::SeqCst);
    assert!(before <= 5 + 3, "{before}: five failures, and those that were under way");
    wait_until("two probes", || tried.load(Ordering::SeqCst) >= before + 2);
    assert!(begun.elapsed() > Duration::from_millis(1000), "pauses of half a second at least, and twice that");
    assert!(tried.load(Ordering::SeqCst) <= before + 2 + 3);
}

#[test]
fn an_upstream_that_flaps_gets_every_event() {
    let upstream = Upstream::with(|number, _| Reply::Status(if number % 2 == 0 { 500 } else { 200 }, ""));
    let gateway = Gateway::start(&queued_in_sqlite(&upstream.url(), &format!("{EAGER}, concurrency = 1")));
    for number in 0..20 {
        send(&gateway, "/webhooks/github", &number.to_string());
    }
    delivered(&gateway, "github", 20.0);
    assert_eq!(upstream.received().len(), 40);
}

#[test]
fn an_upstream_that_is_too_slow_gets_the_event_again() {
    let upstream = Upstream::with(|number, _| match number {
        0 => Reply::Hold,
        _ => Reply::Status(200, ""),
    });
    let gateway = Gateway::start(&queued_in_sqlite(&upstream.url(), &format!("{EAGER}, timeout = \"200ms\"")));
    send(&gateway, "/webhooks/github", "one");
    delivered(&gateway, "github", 1.0);
    let failed = gateway.logged("the attempt", is_failed_attempt);
    assert_eq!(failed["cause"], "the upstream did not answer in time");
    let attempts: Vec<_> =
        upstream.received().iter().filter_map(|it| it.header("doorward-attempt").map(str::to_owned)).collect();
    assert_eq!(attempts, ["1", "2"]);
}

#[test]
fn retry_after_of_an_upstream_is_respected() {
    let asks: [(u16, Wait, u64); 3] = [
        (429, || "1".to_owned(), 1000),
        (503, || "2".to_owned(), 2000),
        (503, || httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3)), 1950),
    ];
    for (status, wait, least) in asks {
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let noting = Arc::clone(&times);
        let asked = move || format!("HTTP/1.1 {status} Later\r\nretry-after: {}\r\ncontent-length: 0\r\n\r\n", wait());
        let upstream = Upstream::with(move |number, _| {
            noting.lock().unwrap().push(Instant::now());
            if number == 0 { Reply::Raw(asked().into_bytes()) } else { Reply::Status(200, "") }
        });
        let gateway = Gateway::start(&queued_in_sqlite(&upstream.url(), EAGER));
        send(&gateway, "/webhooks/github", "one");
        gateway.logged("the answer", |event| event["status"] == status);
        // One that was not asked for is not tried either.
        send(&gateway, "/webhooks/github", "two");
        delivered(&gateway, "github", 2.0);
        let times = times.lock().unwrap().clone();
        assert!(times[1] - times[0] >= Duration::from_millis(least), "{status}: {:?}", times[1] - times[0]);
        assert_eq!(times.len(), 3);
    }
}

#[test]
fn an_answer_that_is_none_or_no_success_is_a_failure_and_the_event_comes_again() {
    let elsewhere = Upstream::start();
    let redirect = format!("HTTP/1.1 307 There\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.url());
    let odd = [
        Reply::Close,
        Reply::Status(500, "no"),
        Reply::Raw(redirect.into_bytes()),
        Reply::RawThenClose(b"HTTP/1.1 200 OK\r\ncontent-length: 1".to_vec()),
        Reply::RawThenClose(b"220 mail.example ESMTP\r\n".to_vec()),
        Reply::RawThenClose(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n".to_vec()),
        Reply::RawThenClose(vec![0xff; 100_000]),
        Reply::Raw(format!("HTTP/1.1 500 No\r\ncontent-length: 5000000\r\n\r\n{}", "x".repeat(5_000_000)).into_bytes()),
    ];
    for reply in odd {
        let what = format!("{:.60}", format!("{reply:?}"));
        let upstream =
            Upstream::with(move |number, _| if number == 0 { reply.clone() } else { Reply::Status(200, "") });
        let gateway = Gateway::start(&queued_in_sqlite(&upstream.url(), EAGER));
        send(&gateway, "/webhooks/github", "one");
        delivered(&gateway, "github", 1.0);
        assert_eq!(upstream.ids(), ["one", "one"], "{what}");
        assert_eq!(upstream.received()[1].header("doorward-attempt"), Some("2"), "{what}");
    }
    assert_eq!(elsewhere.received().len(), 0, "redirects are not followed");
}

#[test]
fn an_answer_of_any_size_is_a_success_and_only_its_beginning_is_read() {
    let upstream = Upstream::with(|_, _| {
        Reply::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\n{}", "x".repeat(5_000_000)).into_bytes())
    });
    let gateway = Gateway::start(&queued_in_sqlite(&upstream.url(), EAGER));
    for id in ["one", "two"] {
        send(&gateway, "/webhooks/github", id);
    }
    delivered(&gateway, "github", 2.0);
    assert_eq!(upstream.ids().len(), 2);
}

#[test]
fn sources_of_one_upstream_share_its_breaker_and_others_do_not_wait_for_it() {
    let tried = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&tried);
    let dead = raw_upstream(move |_, _| {
        counting.fetch_add(1, Ordering::SeqCst);
    });
    let upstream = Upstream::start();
    let (first, second) = (format!("http://{dead}/first"), format!("http://{dead}/second"));
    let sections = [("first", first.as_str()), ("second", second.as_str()), ("third", &upstream.url())]
        .map(|(name, url)| {
            format!(
                "[sources.{name}]\nprofile = \"github\"\npath = \"/{name}\"\nsecrets = [\"plain:{SECRET}\"]\n\
                 deliver.queue = {{ url = \"{url}\"{EAGER}, concurrency = 1 }}\n"
            )
        })
        .concat();
    let gateway = Gateway::start(&format!("{sections}[store]\nurl = \"sqlite:store.db\"\n"));
    for number in 0..10 {
        send(&gateway, "/first", &format!("first-{number}"));
    }
    gateway.logged("that it is probed", is_breaker_open);
    let before = tried.load(Ordering::SeqCst);
    for number in 0..10 {
        send(&gateway, "/second", &format!("second-{number}"));
    }
    for number in 0..50 {
        send(&gateway, "/third", &format!("third-{number}"));
    }
    delivered(&gateway, "third", 50.0);
    // Those of the second were no reason to try it: there were but the probes.
    wait_until("a probe", || tried.load(Ordering::SeqCst) > before);
    let probes = tried.load(Ordering::SeqCst) - before;
    assert!(probes <= 4, "{probes}");
}

#[test]
fn an_event_that_is_never_taken_holds_up_no_other() {
    let upstream = Upstream::with(|_, message| match message.header("doorward-event-id") {
        Some("bad") => Reply::Status(500, ""),
        _ => Reply::Status(200, ""),
    });
    let gateway =
        Gateway::start(&queued_in_sqlite(&upstream.url(), &format!("{EAGER}, concurrency = 1, max_attempts = 10000")));
    send(&gateway, "/webhooks/github", "bad");
    // Twice as many as would open the circuit breaker.
    upstream.wait_for(10);
    send(&gateway, "/webhooks/github", "good");
    delivered(&gateway, "github", 1.0);
    assert_eq!(gateway.metric(OPEN), 0.0);
    assert!(gateway.log().iter().all(|event| !is_breaker_open(event) && !is_breaker_closed(event)));
}

#[test]
fn an_open_circuit_breaker_is_seen_with_what_waits_for_it_and_closes_with_the_first_answer() {
    let nowhere = Upstream::nowhere();
    let sections = queued_in_sqlite(&format!("http://{nowhere}/app"), EAGER);
    let gateway = Gateway::start(&format!("{sections}[admin]\ntoken = \"plain:{TOKEN}\"\n"));
    send(&gateway, "/webhooks/github", "one");
    wait_until("the breaker to open", || gateway.metric(OPEN) == 1.0);
    let events = gateway.events("");
    assert!(events[0]["breaker_open_until"].is_string() && events[0]["state"] == "retrying", "{events:?}");
    let listed = crate::cli::events::list(&gateway);
    assert!(listed.contains("circuit breaker open until 2"), "{listed}");
    let _upstream = Upstream::at(nowhere, |_, _| Reply::Status(500, ""));
    wait_until("the breaker to close", || gateway.metric(OPEN) == 0.0);
    assert!(gateway.events("")[0]["breaker_open_until"].is_null());
    gateway.logged("the answer", is_breaker_closed);
}

#[test]
fn what_is_in_hand_is_within_the_limit_but_for_one_event_of_each_source() {
    let under_way: Arc<(AtomicUsize, AtomicUsize)> = Arc::default();
    let counted = Arc::clone(&under_way);
    let nowhere = Upstream::nowhere();
    let slow = move |_: usize, _: &_| {
        let (now, most) = &*counted;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        now.fetch_sub(1, Ordering::SeqCst);
        Reply::Status(200, "")
    };
    let sources = ["first", "second"].map(|name| {
        format!(
            "[sources.{name}]\nprofile = \"github\"\npath = \"/{name}\"\nsecrets = [\"plain:{SECRET}\"]\n\
             deliver.queue = {{ url = \"http://{nowhere}/app\"{EAGER} }}\n",
        )
    });
    let store = "[store]\nurl = \"sqlite:store.db\"\nmax_in_hand = \"3MiB\"\n";
    let gateway = Gateway::start(&(sources.concat() + store));
    let body = "x".repeat(1_000_000);
    for id in 0..12 {
        for path in ["/first", "/second"] {
            let delivery = Github::delivery(&id.to_string(), format!("{id}{body}")).to(path);
            assert_eq!(delivery.send(gateway.address()).text(), QUEUED);
        }
    }
    let _upstream = Upstream::at(nowhere, slow);
    delivered(&gateway, "first", 12.0);
    delivered(&gateway, "second", 12.0);
    let most = under_way.1.load(Ordering::SeqCst);
    assert!((2..=3 + 2).contains(&most), "{most} at one time");
}

#[test]
fn events_that_wait_do_not_wait_in_memory() {
    let gateway = Gateway::start(&queued_in_sqlite("http://127.0.0.1:1/app", ", concurrency = 1"));
    let body = "x".repeat(200_000);
    let send = |range: std::ops::Range<u32>| {
        for number in range {
            let delivery = Github::delivery(&number.to_string(), format!("{number}{body}"));
            assert_eq!(delivery.send(gateway.address()).text(), QUEUED);
        }
    };
    let resident = || gateway.metric("process_resident_memory_bytes") / f64::from(1 << 20);
    send(0..10);
    let before = resident();
    send(10..250);
    let grown = resident() - before;
    // 48 MB are in the file; in memory 8 MiB of them at most, 16 MiB of pages, and what the allocator keeps of
    // requests.
    assert!(grown < 36.0, "{grown} MiB more");
}

fn send(gateway: &Gateway, path: &str, id: &str) {
    assert_eq!(Github::delivery(id, id).to(path).send(gateway.address()).text(), QUEUED);
}

fn delivered(gateway: &Gateway, source: &str, count: f64) {
    let metric =
        format!("doorward_deliveries_total{{destination=\"default\",outcome=\"delivered\",source=\"{source}\"}}");
    wait_until("the deliveries", || gateway.metric(&metric) == count);
}
