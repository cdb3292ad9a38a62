//! The dedupe log beside a SQLite store: what it knows after a kill, what becomes of it when the disk fails, and what
//! files that do not belong together say.

use std::path::Path;

use rusqlite::config::DbConfig;
use tempfile::TempDir;

use crate::harness::fault::system_calls::Faults;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::log::is_older_than_dedupe_log;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::http::connect;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const DELIVERED: &str = r#"{"ok":true}"#;
/// Bytes of an entry; a GitHub event has two, since its id is not signed.
const ENTRY: u64 = 28;

#[test]
fn while_the_log_cannot_be_synced_nothing_is_taken_and_what_was_is_known_when_it_can() {
    let (upstream, faults, folder) = (Upstream::start(), Faults::new(), folder());
    let sections = sections(&upstream, "");
    let gateway = faults.start(folder.path(), &sections);
    faults.fail_syncs("");
    // Nobody knows yet; the upstream has the event, so the sender is told so.
    assert_eq!(github("1").send(gateway.address()).text(), DELIVERED);
    wait_until("the failure to be seen", || gateway.admin("/readyz").status == 503);
    assert_eq!(gateway.admin("/livez").status, 200, "a restart would not help");
    let second = github("2");
    assert!(second.send(gateway.address()).asks_to_come_again());
    assert_eq!(github("1").send(gateway.address()).text(), DUPLICATE, "what is known is known");
    gateway.logged("what it means", |event| message(event).contains("may be delivered again after a crash"));
    assert!(gateway.metric("doorward_dedupe_log_failures_total") >= 1.0);
    faults.heal();
    wait_until("a snapshot to make up for it", || gateway.admin("/readyz").status == 200);
    assert_eq!(second.send(gateway.address()).text(), DELIVERED);
    drop(gateway.kill());
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    for id in ["1", "2"] {
        assert_eq!(github(id).send(gateway.address()).text(), DUPLICATE);
    }
    assert_eq!(upstream.ids(), ["1", "2"]);
}

#[test]
fn while_the_log_cannot_be_synced_events_are_taken_and_marked_when_the_settings_say_so() {
    let (upstream, faults, folder) = (Upstream::start(), Faults::new(), folder());
    let gateway = faults.start(folder.path(), &sections(&upstream, "on_outage = \"accept\""));
    faults.fail_syncs("");
    assert_eq!(github("1").send(gateway.address()).text(), DELIVERED);
    wait_until("the failure to be seen", || gateway.metric("doorward_dedupe_log_failures_total") >= 1.0);
    assert_eq!(gateway.admin("/readyz").status, 200);
    assert_eq!(github("2").send(gateway.address()).text(), DELIVERED);
    assert_eq!(upstream.received()[1].header("doorward-deduplicated"), Some("false"));
    assert_eq!(gateway.metric(r#"doorward_undeduplicated_total{source="github"}"#), 1.0);
    assert_eq!(github("2").send(gateway.address()).text(), DUPLICATE, "in memory it is known");
}

#[test]
fn when_the_file_cannot_be_synced_only_queues_take_nothing_more() {
    let (upstream, faults, folder) = (Upstream::start(), Faults::new(), folder());
    let source = Github::source(&upstream.url());
    let queue = Github::source(&upstream.url()).replace("github]", "queued]").replace("/github\"", "/queued\"");
    let queue = queue.replace("deliver.upstream", "deliver.queue");
    let gateway = faults.start(folder.path(), &format!("{source}{queue}[store]\nurl = \"sqlite:store.db\"\n"));
    faults.fail_syncs("store.db-wal");
    assert!(github("1").to("/webhooks/queued").send(gateway.address()).asks_to_come_again());
    // The writer opens the file anew once, which does not help.
    wait_until("the writer to be given up", || gateway.admin("/livez").status == 503);
    for probe in ["/readyz", "/livez"] {
        let answer = gateway.admin(probe);
        assert!(answer.status == 503 && answer.text().contains("died twice"), "{probe}: {}", answer.text());
    }
    assert_eq!(github("2").send(gateway.address()).text(), DELIVERED, "it is remembered in the log");
    drop(gateway.kill());
    let gateway = Gateway::spawn(folder.path(), &format!("{source}[store]\nurl = \"sqlite:store.db\"\n"), &[]);
    assert_eq!(github("2").send(gateway.address()).text(), DUPLICATE);
}

#[test]
fn with_fsync_an_answer_waits_for_the_log_and_without_it_does_not() {
    let upstream = Upstream::start();
    for (durability, waits) in [("fsync", true), ("none", false)] {
        let (faults, folder) = (Faults::new(), folder());
        let gateway = faults.start(folder.path(), &sections(&upstream, &format!("durability = \"{durability}\"")));
        faults.fail_syncs("store.db-dedupe.1");
        // It was delivered, and is acknowledged all the same.
        assert_eq!(github(durability).send(gateway.address()).text(), DELIVERED);
        let said = |event: &serde_json::Value| message(event).contains("was delivered but could not be remembered");
        if waits {
            gateway.logged("that it is not safe", said);
        }
        wait_until("a snapshot to make up for it", || folder.path().join("store.db-dedupe.2").exists());
        assert_eq!(gateway.log().iter().any(said), waits, "{durability}");
    }
}

#[test]
fn a_disk_that_is_full_loses_no_record_of_what_was_acknowledged() {
    let disk = tmpfs("4m");
    let upstream = Upstream::start();
    let source = Github::source(&upstream.url());
    let path = disk.0.path().join("store.db");
    let sections = format!("{source}[store]\nurl = \"sqlite:{}\"\nmin_free = \"1KiB\"\n", path.display());
    let gateway = Gateway::start(&sections);
    disk.fill();
    let acknowledged: Vec<_> = (0..20_000)
        .map(|id| id.to_string())
        .take_while(|id| github(id).send(gateway.address()).status == 200)
        .collect();
    assert!(acknowledged.len() < 20_000, "nobody noticed");
    assert_eq!(gateway.admin("/livez").status, 200);
    disk.empty();
    wait_until("it to be ready", || gateway.admin("/readyz").status == 200);
    assert_eq!(github("late").send(gateway.address()).text(), DELIVERED);
    let folder = gateway.kill().folder.expect("its folder");
    let gateway = Gateway::start_in(folder, &sections);
    for id in &acknowledged {
        assert_eq!(github(id).send(gateway.address()).text(), DUPLICATE, "{id}");
    }
}

#[test]
fn sync_delivery_writes_nothing_to_the_file_and_two_entries_an_event_to_the_log() {
    const EVENTS: u64 = 20_000;
    const SENDERS: u64 = 4;
    let upstream = Upstream::start();
    let gateway = Gateway::start(&sections(&upstream, ""));
    let bytes = |ending: &str| {
        std::fs::metadata(gateway.folder().join(format!("store.db{ending}"))).map_or(0, |file| file.len())
    };
    let before = (bytes(""), bytes("-wal"));
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let gateway = &gateway;
            scope.spawn(move || {
                let connection = connect(gateway.address());
                for number in 0..EVENTS / SENDERS {
                    let answer = github(&format!("{sender}-{number}")).send_on(&connection);
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
    });
    assert_eq!((bytes(""), bytes("-wal")), before);
    assert_eq!(bytes("-dedupe.1"), ENTRY * (1 + 2 * EVENTS));
    assert_eq!(gateway.metric("doorward_dedupe_log_bytes"), (ENTRY * (1 + 2 * EVENTS)) as f64);
    wait_until("all to be safe", || gateway.metric("doorward_dedupe_log_unsynced_seconds") == 0.0);
}

#[test]
fn without_its_log_a_file_knows_what_is_queued_in_it_and_says_that_it_knows_no_more() {
    let folder = queue_and_kill(&["1", "2"]);
    std::fs::remove_file(folder.path().join("store.db-dedupe.1")).expect("a log");
    let gateway = Gateway::start_in(folder, &queued_in_sqlite("http://127.0.0.1:1/app", ""));
    gateway.logged("what is missing", |event| message(event).contains("there is no dedupe log"));
    assert_eq!(github("1").send(gateway.address()).text(), DUPLICATE);
    assert_eq!(github("2").send(gateway.address()).text(), DUPLICATE);
    // They are in a new log before anything else is.
    let folder = gateway.kill().folder.expect("its folder");
    let length = std::fs::metadata(folder.path().join("store.db-dedupe.1")).expect("a log").len();
    assert!(length >= ENTRY * 5, "{length}");
}

#[test]
fn a_log_without_its_file_says_that_acknowledged_events_are_missing_and_new_ones_stand_behind_them() {
    let folder = queue_and_kill(&["1"]);
    let last = last_row(folder.path());
    // Whoever has just looked has moved its log into it.
    std::fs::remove_file(folder.path().join("store.db")).expect("a file");
    let gateway = Gateway::start_in(folder, &queued_in_sqlite("http://127.0.0.1:1/app", ""));
    gateway.logged("what is missing", is_older_than_dedupe_log);
    assert_eq!(github("1").send(gateway.address()).text(), DUPLICATE, "it was taken");
    assert_eq!(github("2").send(gateway.address()).text(), QUEUED);
    let folder = gateway.kill().folder.expect("its folder");
    assert!(last_row(folder.path()) > last);
    let gateway = Gateway::start_in(folder, &queued_in_sqlite("http://127.0.0.1:1/app", ""));
    assert!(!gateway.log().iter().any(is_older_than_dedupe_log), "it is said once");
}

#[test]
fn an_older_copy_of_the_file_is_told_by_the_log_and_nothing_is_taken_twice() {
    let folder = queue_and_kill(&["1"]);
    let kept = tempfile::tempdir().expect("a folder");
    let copy = |from: &Path, to: &Path| {
        for ending in ["", "-wal"] {
            let name = format!("store.db{ending}");
            std::fs::copy(from.join(&name), to.join(&name)).expect("copied");
        }
    };
    copy(folder.path(), kept.path());
    let gateway = Gateway::start_in(folder, &queued_in_sqlite("http://127.0.0.1:1/app", ""));
    assert_eq!(github("2").send(gateway.address()).text(), QUEUED);
    wait_until("it to be safe", || gateway.metric("doorward_dedupe_log_unsynced_seconds") == 0.0);
    let folder = gateway.kill().folder.expect("its folder");
    copy(kept.path(), folder.path());
    let gateway = Gateway::start_in(folder, &queued_in_sqlite("http://127.0.0.1:1/app", ""));
    gateway.logged("what is missing", is_older_than_dedupe_log);
    assert_eq!(github("2").send(gateway.address()).text(), DUPLICATE);
}

#[test]
fn a_log_that_is_damaged_costs_what_stood_there_and_no_queued_event_is_taken_twice() {
    let ids: Vec<_> = (0..50).map(|id| id.to_string()).collect();
    let folder = queue_and_kill(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let log = folder.path().join("store.db-dedupe.1");
    let mut bytes = std::fs::read(&log).expect("a log");
    for at in (3..bytes.len()).step_by(97) {
        bytes[at] ^= 0x10;
    }
    std::fs::write(&log, bytes).expect("written");
    let gateway = Gateway::start_in(folder, &queued_in_sqlite("http://127.0.0.1:1/app", ""));
    gateway.logged("how much was passed", |event| {
        event["level"] == "WARN" && event["bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    for id in &ids {
        assert_eq!(github(id).send(gateway.address()).text(), DUPLICATE, "{id}");
    }
}

#[test]
fn files_of_an_earlier_version_and_of_another_program_are_left_alone() {
    let folder = folder();
    for (sql, expected) in [
        (
            "CREATE TABLE finished (batch INTEGER PRIMARY KEY); PRAGMA user_version = 2",
            "earlier version of Doorward (layout 2)",
        ),
        ("CREATE TABLE letters (text TEXT)", "SQLite file of another program"),
    ] {
        let path = |ending: &str| folder.path().join(format!("store.db{ending}"));
        // As a program that was killed leaves it: with everything in the file's own log.
        let file = rusqlite::Connection::open(path("")).expect("a file");
        file.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("an option");
        file.execute_batch(&format!("PRAGMA journal_mode = WAL; {sql}")).expect("a table");
        drop(file);
        let bytes = || ["", "-wal"].map(|ending| std::fs::read(path(ending)).expect("a file"));
        let before = bytes();
        let said = Gateway::refused(folder.path(), "[store]\nurl = \"sqlite:store.db\"\n");
        assert!(said.contains(expected), "{said}");
        assert!(before == bytes(), "it was changed");
        assert!(!path("-dedupe.1").exists());
        for ending in ["", "-wal", "-shm"] {
            std::fs::remove_file(path(ending)).expect("a file");
        }
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn github(id: &str) -> crate::harness::provider::delivery::Delivery {
    Github::delivery(id, id)
}

fn sections(upstream: &Upstream, store: &str) -> String {
    format!("{}[store]\nurl = \"sqlite:store.db\"\n{store}\n", Github::source(&upstream.url()))
}

fn message(event: &serde_json::Value) -> &str {
    event["message"].as_str().unwrap_or_default()
}

/// The folder of a gateway that was killed after it had queued these, and had synced its log.
fn queue_and_kill(ids: &[&str]) -> TempDir {
    let gateway = Gateway::start(&queued_in_sqlite("http://127.0.0.1:1/app", ""));
    for id in ids {
        assert_eq!(github(id).send(gateway.address()).text(), QUEUED);
    }
    let log = gateway.folder().join("store.db-dedupe.1");
    // A header, two records for each, and a checkpoint or more.
    let least = ENTRY * (2 + 2 * ids.len() as u64);
    wait_until("a checkpoint", || std::fs::metadata(&log).is_ok_and(|log| log.len() >= least));
    gateway.kill().folder.expect("its folder")
}

fn last_row(folder: &Path) -> i64 {
    rusqlite::Connection::open(folder.join("store.db"))
        .and_then(|file| file.query_row("SELECT max(id) FROM messages", [], |row| row.get(0)))
        .expect("a row")
}

/// A file system of few bytes, in memory.
struct Small(TempDir);

fn tmpfs(size: &str) -> Small {
    let folder = folder();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
        .arg(folder.path())
        .status();
    assert!(mounted.is_ok_and(|mounted| mounted.success()), "only root can mount a file system");
    Small(folder)
}

impl Small {
    /// Takes all room but for a few pages.
    fn fill(&self) {
        use std::io::Write as _;
        let mut ballast = std::fs::File::create(self.0.path().join("ballast")).expect("a file");
        while ballast.write_all(&[0; 4096]).is_ok() {}
        let length = ballast.metadata().expect("a file").len();
        ballast.set_len(length - 4 * 4096).expect("room");
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).expect("ballast");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}
