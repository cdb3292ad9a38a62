//! Sources that share what a store remembers: a busy one does not crowd out another.

use crate::harness::gateway::Gateway;
use crate::harness::gateway::log::is_store_full;
use crate::harness::http::connect;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;

/// Ids that are remembered; a GitHub event has two.
const MAX: usize = 60;
const EVICTED: &str = "doorward_dedupe_evicted_total";
const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;

#[test]
fn a_flood_of_one_source_leaves_anothers_events_known_in_memory() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&sections(&upstream, "memory:"));
    take(&gateway, "/webhooks/quiet", 0..QUIET);
    take(&gateway, "/webhooks/github", 1000..FLOOD);
    knows_the_quiet_ones(&gateway);
    assert_eq!(upstream.received().len(), QUIET + FLOOD - 1000);
    tells_once_that_it_forgets(&gateway);
}

#[test]
fn a_flood_of_one_source_leaves_anothers_events_known_in_a_file_and_after_a_restart() {
    let upstream = Upstream::start();
    let sections = sections(&upstream, "sqlite:store.db");
    let first = Gateway::start(&sections);
    take(&first, "/webhooks/quiet", 0..QUIET);
    take(&first, "/webhooks/github", 1000..FLOOD);
    knows_the_quiet_ones(&first);
    tells_once_that_it_forgets(&first);
    first.signal("TERM");
    let folder = first.wait().folder.expect("its folder");
    let second = Gateway::start_in(folder, &sections);
    knows_the_quiet_ones(&second);
    take(&second, "/webhooks/github", FLOOD..2 * FLOOD - 1000);
    knows_the_quiet_ones(&second);
}

#[test]
fn a_flood_of_one_source_leaves_anothers_queued_events_known() {
    let upstream = Upstream::start();
    let queue = |source: String| source.replace("deliver.upstream", "deliver.queue");
    let gateway = Gateway::start(&queue(sections(&upstream, "sqlite:store.db")));
    take(&gateway, "/webhooks/quiet", 0..QUIET);
    take(&gateway, "/webhooks/github", 1000..FLOOD);
    knows_the_quiet_ones(&gateway);
}

#[test]
fn a_source_alone_uses_what_the_other_leaves() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&sections(&upstream, "memory:"));
    let all = 0..MAX / 2;
    take(&gateway, "/webhooks/github", all.clone());
    let connection = connect(gateway.address());
    for number in all {
        let again = Github::delivery(&number.to_string(), number.to_string()).send_on(&connection);
        assert_eq!(again.text(), DUPLICATE, "{number}");
    }
    assert_eq!(gateway.metric(EVICTED), 0.0);
}

/// Not once for each time that it does.
#[track_caller]
fn tells_once_that_it_forgets(gateway: &Gateway) {
    gateway.logged("that the store is full", is_store_full);
    assert_eq!(gateway.log().iter().filter(|event| is_store_full(event)).count(), 1);
    // All keys of the flood but those that are left.
    let (keys, evicted) = (2 * (FLOOD - 1000), gateway.metric(EVICTED) as usize);
    assert!((keys - MAX..=keys).contains(&evicted), "{evicted}");
}

/// Seven eighths of a third: there is one more share, of what nobody is known to have.
const QUIET: usize = MAX / 3 * 7 / 8 / 2;
/// Ten times of all that is remembered, counted from 1000.
const FLOOD: usize = 1000 + 10 * MAX / 2;

/// Two sources with a small store.
fn sections(upstream: &Upstream, store: &str) -> String {
    let busy = Github::source(&upstream.url());
    let quiet = busy.replace("sources.github", "sources.quiet").replace("/webhooks/github", "/webhooks/quiet");
    format!("{busy}{quiet}[store]\nurl = \"{store}\"\nmax_events = {MAX}\n")
}

#[track_caller]
fn take(gateway: &Gateway, path: &str, numbers: std::ops::Range<usize>) {
    let connection = connect(gateway.address());
    for number in numbers {
        let taken = Github::delivery(&number.to_string(), number.to_string()).to(path).send_on(&connection);
        assert_eq!(taken.status / 100, 2, "{number}: {taken:?}");
        assert_ne!(taken.text(), DUPLICATE, "{number}");
    }
}

#[track_caller]
fn knows_the_quiet_ones(gateway: &Gateway) {
    let connection = connect(gateway.address());
    for number in 0..QUIET {
        let delivery = Github::delivery(&number.to_string(), number.to_string()).to("/webhooks/quiet");
        assert_eq!(delivery.send_on(&connection).text(), DUPLICATE, "{number}");
    }
}
