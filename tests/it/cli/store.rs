//! `doorward store`, as somebody at a terminal or a script sees it.

use std::path::Path;
use std::process::Output;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::cli::events::said;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::api::queue_with_api;
use crate::harness::gateway::doorward;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

fn run(arguments: &[&str]) -> Output {
    doorward().arg("store").args(arguments).env("TOKEN", TOKEN).output().expect("it runs")
}

/// Runs a command against a gateway, by its address and token.
fn ask(gateway: &Gateway, command: &str, argument: &str) -> Output {
    let url = format!("http://{}", gateway.admin_address());
    run(&[command, argument, "--url", &url, "--token", "env:TOKEN"])
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[track_caller]
fn complained(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn a_gateway_is_started_on_a_copy_that_was_made_under_load() {
    let upstream = Upstream::deciding_by_id();
    let gateway = Gateway::start(&queue_with_api(&upstream.url()));
    let before: Vec<_> = (0..50).map(|at| format!("dead-before-{at}")).collect();
    gateway.take(&before.iter().map(String::as_str).collect::<Vec<_>>());
    gateway.wait_for_events("dead", before.len());
    let folder = tempfile::tempdir().expect("a folder");
    let over = AtomicBool::new(false);
    let copied = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 0;
            while !over.load(Ordering::Relaxed) {
                gateway.take(&[&format!("fine-during-{at}")]);
                at += 1;
            }
        });
        let copied = ask(&gateway, "backup", shown(folder.path()));
        over.store(true, Ordering::Relaxed);
        copied
    });
    let copy = folder.path().join("store.db");
    assert_eq!(said(&copied), format!("copied to {}\n", copy.display()));
    let again = complained(&ask(&gateway, "backup", shown(folder.path())));
    assert!(again.contains("nothing is overwritten"), "{again}");
    drop(gateway);
    let checked = said(&run(&["check", shown(&copy)]));
    assert!(checked.ends_with(&format!("{}: good\n", copy.display())), "{checked}");
    let restored = Gateway::start_in(folder, &queue_with_api(&upstream.url()));
    restored.wait_for_events("dead", before.len());
    assert_eq!(Github::delivery("dead-before-1", "again").send(restored.address()).status, 200);
    assert_eq!(restored.events("id=dead-before-1").len(), 1, "it is known");
}

#[test]
fn a_damaged_file_is_told_and_recovered() {
    let upstream = Upstream::deciding_by_id();
    let gateway = Gateway::start(&queue_with_api(&upstream.url()));
    gateway.take(&["dead-1", "dead-2", "fine-1"]);
    gateway.wait_for_events("dead", 2);
    gateway.wait_for_events("delivered", 1);
    let path = gateway.folder().join("store.db");
    let used = complained(&run(&["check", shown(&path)]));
    assert!(used.contains("is in use by a gateway"), "{used}");
    gateway.signal("TERM");
    let folder = gateway.wait().folder.expect("its folder");
    let path = folder.path().join("store.db");
    let checked = said(&run(&["check", shown(&path)]));
    assert!(checked.contains("2 deliveries are dead") && checked.contains("3 messages"), "{checked}");

    let damaged = folder.path().join("store.db.damaged-20260102T030405Z");
    std::fs::rename(&path, &damaged).expect("set aside");
    let gateway = Gateway::start_in(folder, &queue_with_api(&upstream.url()));
    assert_eq!(gateway.events("limit=10").len(), 0);
    let wrong = complained(&ask(&gateway, "recover", "store.db.damaged-7"));
    assert!(wrong.contains("No such file"), "{wrong}");
    let done = said(&ask(&gateway, "recover", shown(&damaged)));
    assert!(done.starts_with("messages: 3 imported, 0 there already"), "{done}");
    assert!(done.ends_with("the file is kept as store.db.recovered-20260102T030405Z\n"), "{done}");
    gateway.wait_for_events("dead", 2);
    gateway.wait_for_events("delivered", 1);
    assert_eq!(upstream.ids().len(), 3, "nothing is delivered again");

    gateway.signal("TERM");
    let folder = gateway.wait().folder.expect("its folder");
    let path = folder.path().join("store.db");
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("a file");
    let pages = file.metadata().expect("a length").len() / 4096;
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], (pages - 1) * 4096).expect("damaged");
    let told = complained(&run(&["check", shown(&path)]));
    assert!(told.contains("store.db: damaged, "), "{told}");
}

#[test]
fn a_file_that_is_removed_under_a_gateway_takes_no_more_events_until_it_is_back() {
    let upstream = Upstream::deciding_by_id();
    let gateway = Gateway::start(&queue_with_api(&upstream.url()));
    gateway.take(&["fine-1"]);
    let (file, elsewhere) = (gateway.folder().join("store.db"), gateway.folder().join("elsewhere.db"));
    std::fs::rename(&file, &elsewhere).expect("renamed");
    wait_until("it to be seen", || gateway.admin("/readyz").status == 503);
    let said = gateway.admin("/readyz").text();
    assert!(said.contains("was removed or replaced"), "{said}");
    assert!(Github::delivery("fine-2", "{}").send(gateway.address()).asks_to_come_again());
    std::fs::rename(&elsewhere, &file).expect("renamed");
    wait_until("it to go on", || gateway.admin("/readyz").status == 200);
    gateway.take(&["fine-2"]);
}
