//! Files of a dedupe log that others have replaced, removed or emptied, and records that only the page cache has.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use doorward::store::Keyspace;
use doorward::store::Record;
use doorward::store::dedupe_log::Entry;
use doorward::verify::event_key::Key;
use tempfile::TempDir;

use crate::harness::fault::disk::Disk;
use crate::harness::fault::disk::Format;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::log::is_store_full;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::load::event;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::random::Random;
use crate::harness::random::rounds;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

#[test]
fn what_is_no_file_in_the_place_of_the_log_is_named_and_not_waited_for() {
    let folder = folder();
    let name = |number: u64| folder.path().join(format!("store.db-dedupe.{number}"));
    let places: [fn(&Path); 3] = [
        |path| std::fs::create_dir(path).expect("a folder"),
        |path| assert!(Command::new("mkfifo").arg(path).status().expect("it runs").success()),
        |path| symlink("/dev/zero", path).expect("a link"),
    ];
    for (number, place) in (1..).zip(places) {
        place(&name(number));
        let said = Gateway::refused(folder.path(), &sections(NOWHERE));
        assert!(said.contains(&format!("store.db-dedupe.{number} is not a regular file")), "{said}");
        std::fs::remove_dir(name(number)).or_else(|_file| std::fs::remove_file(name(number))).expect("removed");
    }
    assert!(Gateway::try_spawn(folder.path(), &sections(NOWHERE)).is_ok());
}

#[test]
fn a_number_that_no_log_comes_to_is_none_of_its_files() {
    let (folder, upstream) = (folder(), Upstream::start());
    let sections = sections(&upstream.url());
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    assert_eq!(github("1").send(gateway.address()).status, 200);
    drop(gateway.kill());
    let highest = folder.path().join(format!("store.db-dedupe.{}", u64::MAX));
    std::fs::copy(folder.path().join("store.db-dedupe.1"), &highest).expect("copied");
    // A log that is damaged is replaced at once, by one with the next number.
    let log = folder.path().join("store.db-dedupe.1");
    let mut bytes = std::fs::read(&log).expect("a log");
    bytes.push(0);
    std::fs::write(&log, bytes).expect("written");
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    wait_until("a snapshot", || folder.path().join("store.db-dedupe.2").exists() && !log.exists());
    assert_eq!(github("1").send(gateway.address()).text(), DUPLICATE);
    gateway.assert_no_panic("a high number");
    assert_eq!(gateway.admin("/readyz").status, 200);
    assert!(highest.exists());
}

#[test]
fn a_log_that_is_removed_while_the_gateway_runs_is_written_anew() {
    let folder = folder();
    let gateway = Gateway::spawn(folder.path(), &queued_in_sqlite(NOWHERE, ""), &[]);
    assert_eq!(github("1").send(gateway.address()).text(), QUEUED);
    std::fs::remove_file(folder.path().join("store.db-dedupe.1")).expect("a log");
    assert_eq!(github("2").send(gateway.address()).text(), QUEUED);
    heals(gateway, folder.path(), &["1", "2"]);
}

#[test]
fn a_log_that_is_emptied_while_the_gateway_runs_is_written_anew() {
    let folder = folder();
    let gateway = Gateway::spawn(folder.path(), &queued_in_sqlite(NOWHERE, ""), &[]);
    let log = folder.path().join("store.db-dedupe.1");
    assert_eq!(github("1").send(gateway.address()).text(), QUEUED);
    wait_until("a checkpoint", || std::fs::metadata(&log).is_ok_and(|log| log.len() >= 4 * 28));
    // As what rotates logs does that takes it for one of its own.
    std::fs::write(&log, "").expect("emptied");
    assert_eq!(github("2").send(gateway.address()).text(), QUEUED);
    heals(gateway, folder.path(), &["1", "2"]);
}

#[test]
fn an_empty_log_is_told_like_one_that_is_missing() {
    let folder = folder();
    let gateway = Gateway::spawn(folder.path(), &queued_in_sqlite(NOWHERE, ""), &[]);
    assert_eq!(github("1").send(gateway.address()).text(), QUEUED);
    drop(gateway.kill());
    std::fs::write(folder.path().join("store.db-dedupe.1"), "").expect("emptied");
    let gateway = Gateway::spawn(folder.path(), &queued_in_sqlite(NOWHERE, ""), &[]);
    gateway.logged("what is missing", |event| message(event).contains("there is no dedupe log"));
    assert_eq!(github("1").send(gateway.address()).text(), DUPLICATE);
}

#[test]
fn a_log_of_more_records_than_there_is_room_for_is_read_and_told_once() {
    const MAX: u32 = 10_000;
    let (folder, sections) = (folder(), sections(NOWHERE) + &format!("max_events = {MAX}\n"));
    drop(Gateway::spawn(folder.path(), &sections, &[]).kill());
    let entries = |from: u32| {
        let record = |number: u32| Record {
            source: Keyspace::of_source("github").tag(),
            key: Key(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_le_bytes()),
            until: u32::MAX,
        };
        (from..from + MAX).flat_map(move |number| Entry::Record(record(number)).encode()).collect::<Vec<_>>()
    };
    let told = |gateway: &Gateway| gateway.log().iter().filter(|event| is_store_full(event)).count();
    let append = |bytes: &[u8]| {
        let log = std::fs::File::options().append(true).open(folder.path().join("store.db-dedupe.1"));
        log.and_then(|mut log| log.write_all(bytes)).expect("written");
    };
    append(&entries(0)[..28 * 1000]);
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    assert_eq!(told(&gateway), 0);
    drop(gateway.kill());
    (1..6).for_each(|part| append(&entries(part * MAX)));
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    assert_eq!(told(&gateway), 1);
}

/// See the test of queues in `disk_errors`: what a start finds in the log it says to be synced.
#[test]
fn records_that_only_the_memory_of_the_system_has_are_not_taken_for_safe_after_a_restart() {
    for format in [Format::Ext4, Format::Xfs] {
        let (disk, upstream) = (Disk::start(format), Upstream::start());
        let source = Github::source(&upstream.url());
        let sections = format!("{source}{}durability = \"fsync\"\n", disk.store("1MiB"));
        let folder = folder();
        let mut random = Random::new(7);
        for round in 0..rounds(4) {
            let gateway = Gateway::spawn(folder.path(), &sections, &[]);
            let ids: Vec<_> = (0..20).map(|number| format!("{round}-{number}")).collect();
            for id in &ids {
                // Whether it is remembered or not, it was delivered.
                let _answer = event(id).send(gateway.address());
                disk.fail_writes(1);
            }
            drop(gateway.kill());
            disk.heal();
            let Ok(gateway) = Gateway::try_spawn(folder.path(), &sections) else {
                disk.repair();
                continue;
            };
            let mut known: Vec<_> =
                ids.iter().filter(|id| event(id).send(gateway.address()).text() == DUPLICATE).cloned().collect();
            known.extend(ids);
            assert_eq!(gateway.metric("doorward_dedupe_log_failures_total"), 0.0);
            disk.cut(gateway, &mut random);
            let gateway = Gateway::spawn(folder.path(), &sections, &[]);
            known.retain(|id| event(id).send(gateway.address()).text() != DUPLICATE);
            assert_eq!(known, Vec::<String>::new(), "{format:?}, round {round}");
        }
    }
}

const NOWHERE: &str = "http://127.0.0.1:1/app";

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn github(id: &str) -> Delivery {
    Github::delivery(id, id)
}

fn sections(upstream: &str) -> String {
    format!("{}[store]\nurl = \"sqlite:store.db\"\n", Github::source(upstream))
}

fn message(event: &serde_json::Value) -> &str {
    event["message"].as_str().unwrap_or_default()
}

/// Waits until a snapshot has taken the place of a log that was spoilt; these are known after a kill.
#[track_caller]
fn heals(gateway: Gateway, folder: &Path, ids: &[&str]) {
    gateway.logged("what is wrong", |event| message(event).contains("the dedupe log could not be"));
    wait_until("a snapshot", || folder.join("store.db-dedupe.2").exists());
    wait_until("it to be ready", || gateway.admin("/readyz").status == 200);
    drop(gateway.kill());
    let gateway = Gateway::spawn(folder, &queued_in_sqlite(NOWHERE, ""), &[]);
    for id in ids {
        assert_eq!(github(id).send(gateway.address()).text(), DUPLICATE, "{id}");
    }
}
