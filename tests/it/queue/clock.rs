//! Clocks that are set while events wait.

use std::time::Duration;
use std::time::Instant;

use crate::harness::fault::system_calls::Faults;
use crate::harness::gateway::log::is_failed_attempt;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::load::LARGE_EVENT;
use crate::harness::load::event;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const HOUR: i64 = 60 * 60;

#[test]
fn events_are_retried_in_time_whatever_becomes_of_the_clock() {
    let (faults, folder) = (Faults::new(), tempfile::tempdir().expect("a folder"));
    // Each event is taken at its third attempt, and the clock is set between them.
    let upstream = Upstream::with(|_, message| match message.header("doorward-attempt") {
        Some("1" | "2") => Reply::Status(503, ""),
        _ => Reply::Status(200, ""),
    });
    let backoff = r#", backoff = "400ms", max_backoff = "400ms""#;
    let gateway = faults.start(folder.path(), &queued_in_sqlite(&upstream.url(), backoff));
    let delivery = |id: &str| Github::delivery(id, id);
    for (count, (id, clock)) in
        [("now", -HOUR), ("back", 24 * HOUR), ("forth", 0), ("again", 0)].into_iter().enumerate()
    {
        let begun = Instant::now();
        assert_eq!(delivery(id).send(gateway.address()).text(), QUEUED);
        upstream.wait_for(3 * count + 1);
        faults.set_clock(clock);
        wait_until("the delivery", || upstream.ids().len() == 3 * (count + 1));
        // Two pauses of at most 400 ms, or of a second while the upstream is left alone.
        assert!(begun.elapsed() < Duration::from_secs(8), "{id} took {:?}", begun.elapsed());
    }
    for clock in [0, -HOUR, 24 * HOUR] {
        faults.set_clock(clock);
        for id in ["now", "back", "forth", "again"] {
            assert_eq!(delivery(id).send(gateway.address()).text(), DUPLICATE, "{id} at {clock}");
        }
    }
    // What is remembered for four days is forgotten when the clock says that five have passed.
    faults.set_clock(5 * 24 * HOUR);
    assert_eq!(delivery("now").send(gateway.address()).text(), QUEUED);
    assert_eq!(gateway.admin("/readyz").status, 200);
}

#[test]
fn a_clock_that_is_set_back_while_the_gateway_is_down_neither_loses_nor_doubles() {
    let (faults, folder) = (Faults::new(), tempfile::tempdir().expect("a folder"));
    let nowhere = Upstream::nowhere();
    let sections = queued_in_sqlite(&format!("http://{nowhere}/app"), "");
    faults.set_clock(HOUR);
    let gateway = faults.start(folder.path(), &sections);
    let send = |gateway: &crate::harness::gateway::Gateway, range: std::ops::Range<u32>| {
        for number in range {
            assert_eq!(
                Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).text(),
                QUEUED
            );
        }
    };
    send(&gateway, 0..10);
    gateway.logged("a failed attempt", is_failed_attempt);
    drop(gateway.kill());
    faults.set_clock(0);
    let gateway = faults.start(folder.path(), &sections);
    send(&gateway, 10..20);
    assert_eq!(Github::delivery("3", "3").send(gateway.address()).text(), DUPLICATE);
    let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
    upstream.wait_for(20);
    let mut ids: Vec<u32> = upstream.ids().iter().map(|id| id.parse().expect("a number")).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<_>>());
}

#[test]
fn delivered_events_go_after_their_time_although_the_clock_was_ahead_when_others_came() {
    let (faults, folder, upstream) = (Faults::new(), tempfile::tempdir().expect("a folder"), Upstream::start());
    faults.set_clock(10 * 365 * 24 * HOUR);
    let gateway = faults.start(folder.path(), &queued_in_sqlite(&upstream.url(), ", keep = \"1s\""));
    assert_eq!(event("ahead").send(gateway.address()).text(), QUEUED);
    faults.set_clock(0);
    for number in 0..10 {
        assert_eq!(event(&format!("small-{number}")).send(gateway.address()).text(), QUEUED);
    }
    let left = || {
        let file = rusqlite::Connection::open(folder.path().join("store.db")).expect("a file");
        let count = "SELECT count(*) FROM messages WHERE event_id LIKE 'small-%'";
        file.query_row(count, [], |row| row.get::<_, i64>(0)).expect("a count")
    };
    assert_eq!(left(), 10);
    // It looks for what is past its time as often as much is written.
    let mut count = 11;
    wait_until("the events to be deleted", || {
        count += 1;
        assert_eq!(event(&format!("{LARGE_EVENT}-{count}")).send(gateway.address()).text(), QUEUED);
        upstream.wait_for(count);
        left() == 0
    });
}
