//! Many reloads under load, and kills in the middle of them.

use std::collections::HashSet;
use std::time::Duration;
use std::time::Instant;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::reload::exchange_file;
use crate::harness::load::Load;
use crate::harness::load::Mode;
use crate::harness::load::Sink;
use crate::harness::load::forgotten;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const RELOADS: usize = 100;

#[test]
fn many_reloads_under_load_lose_and_repeat_nothing_of_a_queue() {
    reload_under_load(Mode::Queue);
}

#[test]
fn many_reloads_under_load_lose_and_repeat_nothing_that_goes_to_an_app() {
    reload_under_load(Mode::Upstream);
}

/// Configurations, one after the other: the source changes, others come and go, and now and then one has a problem.
fn variants(sections: &str, number: usize) -> String {
    let changed = sections.replace("secrets = [", &format!("secrets = [\"plain:more {number}\", "));
    let other =
        Github::source("http://127.0.0.1:9/").replace("github]", "other]").replace("/webhooks/github", "/other");
    match number % 5 {
        0 => sections.to_owned(),
        1 => changed,
        2 => format!("{other}{sections}"),
        3 => format!("{other}{changed}"),
        _ => changed.replace("profile", "profle"),
    }
}

fn reload_under_load(mode: Mode) {
    let (sink, address) = (Sink::start(mode), Upstream::nowhere());
    let sections = mode.sections(sink.address(), address) + "[store]\nurl = \"sqlite:store.db\"\n";
    let gateway = Gateway::start(&sections);
    let load = Load::start(address, "", 8);
    for number in 0..RELOADS {
        let before = load.count();
        gateway.configure(&variants(&sections, number));
        assert_eq!(gateway.ask_to_reload().status, if number % 5 == 4 { 422 } else { 200 });
        wait_until("more events", || load.count() > before + 4);
    }
    let acknowledged = load.stop();
    sink.wait_for(&acknowledged);
    assert_eq!(forgotten(&gateway, &acknowledged), Vec::<String>::new());
    let arrivals = sink.arrivals();
    let ids: HashSet<_> = arrivals.iter().map(|arrival| &arrival.id).collect();
    assert_eq!(ids.len(), arrivals.len(), "each arrived once");
    assert_eq!(ids.len(), acknowledged.len());
    assert!(gateway.reloads("success") >= 80.0 && gateway.reloads("failure") >= 20.0);
    gateway.assert_no_panic("after the reloads");
}

#[test]
fn a_kill_in_the_middle_of_reloads_loses_nothing() {
    let (sink, address) = (Sink::start(Mode::Queue), Upstream::nowhere());
    let sections = Mode::Queue.sections(sink.address(), address) + "[store]\nurl = \"sqlite:store.db\"\n";
    let mut folder = tempfile::tempdir().expect("a folder");
    let load = Load::start(address, "", 4);
    let mut kills = Vec::new();
    for round in 0..10_usize {
        let gateway = Gateway::start_in(folder, &sections);
        let before = load.count();
        for number in 0..5 {
            exchange_file(&gateway.folder().join("doorward.toml"), &variants(&sections, number));
            gateway.signal("HUP");
        }
        wait_until("more events", || load.count() > before + 20);
        for number in 0..round {
            exchange_file(&gateway.folder().join("doorward.toml"), &variants(&sections, number));
            gateway.signal("HUP");
        }
        kills.push(Instant::now());
        folder = gateway.kill().folder.expect("its folder");
    }
    let gateway = Gateway::start_in(folder, &sections);
    let acknowledged = load.stop();
    sink.wait_for(&acknowledged);
    assert_eq!(forgotten(&gateway, &acknowledged), Vec::<String>::new());
    assert_eq!(sink.repeated(&kills, Duration::from_secs(1)), Vec::<String>::new());
}
