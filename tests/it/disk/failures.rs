//! Disks that fail, or are full, and files that cannot be used.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::fault::disk::mount;
use crate::harness::fault::system_calls::Faults;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

#[test]
fn nothing_is_acknowledged_after_a_sync_that_failed_and_what_was_is_delivered_later() {
    let (faults, folder) = (Faults::new(), tempfile::tempdir().expect("a folder"));
    let nowhere = Upstream::nowhere();
    let sections = queued_in_sqlite(&format!("http://{nowhere}/app"), "");
    let gateway = faults.start(folder.path(), &sections);
    assert_eq!(Github::delivery("safe", "1").send(gateway.address()).text(), QUEUED);
    faults.fail_syncs("-wal");
    let unsafe_one = Github::delivery("unsafe", "2");
    let answer = unsafe_one.send(gateway.address());
    assert!(answer.asks_to_come_again(), "{answer:?}");
    // The writer opens the file anew once, which does not help.
    wait_until("the writer to be given up", || gateway.admin("/livez").status == 503);
    for probe in ["/readyz", "/livez"] {
        let answer = gateway.admin(probe);
        assert!(answer.status == 503 && answer.text().contains("died twice"), "{probe} {answer:?}");
    }
    gateway.logged("what to do", |event| {
        event["message"].as_str().is_some_and(|it| it.contains("is given up: restart the gateway"))
    });
    // It stays so, although the disk seems to be well again.
    faults.heal();
    assert!(unsafe_one.send(gateway.address()).asks_to_come_again());
    assert!(Github::delivery("third", "3").send(gateway.address()).asks_to_come_again());
    gateway.signal("TERM");
    assert_eq!(gateway.wait().status.code(), Some(0));
    let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    upstream.wait_for(1);
    assert_eq!(Github::delivery("safe", "1").send(gateway.address()).text(), DUPLICATE);
    // What was refused may be in the file nevertheless; then it is no news.
    assert_eq!(unsafe_one.send(gateway.address()).status, 200);
    wait_until("both", || upstream.ids().len() == 2);
    assert!(["safe", "unsafe"].iter().all(|id| upstream.ids().contains(&(*id).to_owned())), "{:?}", upstream.ids());
}

#[test]
fn a_log_that_cannot_be_moved_into_the_file_is_kept() {
    let (faults, folder) = (Faults::new(), tempfile::tempdir().expect("a folder"));
    let nowhere = Upstream::nowhere();
    let sections = queued_in_sqlite(&format!("http://{nowhere}/app"), "");
    let gateway = faults.start(folder.path(), &sections);
    faults.fail_syncs("store.db");
    let body = "x".repeat(200_000);
    let mut acknowledged = Vec::new();
    // The log is moved after 8 MiB, and the writer waits for that after 32 MiB at the latest.
    let refused = (0..300).find(|number| {
        let answer = Github::delivery(&number.to_string(), format!("{number}{body}")).send(gateway.address());
        match answer.text() == QUEUED {
            true => acknowledged.push(number.to_string()),
            false => assert!(answer.asks_to_come_again(), "{answer:?}"),
        }
        answer.status != 200
    });
    assert!(refused.is_some(), "nobody noticed");
    wait_until("it to be given up", || gateway.admin("/livez").status == 503);
    gateway.signal("TERM");
    assert_eq!(gateway.wait().status.code(), Some(0));
    faults.heal();
    let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
    let _gateway = Gateway::spawn(folder.path(), &sections, &[]);
    upstream.wait_for(acknowledged.len());
    let ids = upstream.ids();
    assert!(acknowledged.iter().all(|id| ids.contains(id)), "{ids:?}");
}

#[test]
fn a_nearly_full_disk_takes_no_more_delivers_what_it_has_and_recovers() {
    let disk = SmallDisk::mount("8m");
    let nowhere = Upstream::nowhere();
    let sections = on_disk(&format!("http://{nowhere}/app"), &disk, "4MiB");
    let gateway = Gateway::start(&sections);
    for number in 0..20 {
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).text(), QUEUED);
    }
    disk.fill(5 * 1024 * 1024);
    wait_until("it to be unready", || gateway.admin("/readyz").status == 503);
    assert_eq!(gateway.admin("/livez").status, 200, "a restart would not help");
    let late = Github::delivery("late", "late");
    assert!(late.send(gateway.address()).asks_to_come_again());
    let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
    upstream.wait_for(20);
    wait_until("the deliveries to be recorded", || delivered(&disk.store()) == 20);
    disk.empty();
    wait_until("it to be ready", || gateway.admin("/readyz").status == 200);
    assert_eq!(late.send(gateway.address()).text(), QUEUED);
    upstream.wait_for(21);
    let mut ids = upstream.ids();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 21, "nothing came twice");
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_loses_nothing_that_was_acknowledged() {
    let disk = SmallDisk::mount("4m");
    let nowhere = Upstream::nowhere();
    let sections = on_disk(&format!("http://{nowhere}/app"), &disk, "1KiB");
    let gateway = Gateway::start(&sections);
    let body = "x".repeat(20_000);
    let mut acknowledged = Vec::new();
    let refused = (0..1000).find(|number| {
        let answer = Github::delivery(&number.to_string(), format!("{number}{body}")).send(gateway.address());
        match answer.text() == QUEUED {
            true => acknowledged.push(number.to_string()),
            false => assert!(answer.asks_to_come_again(), "{answer:?}"),
        }
        answer.status != 200
    });
    assert!(refused.is_some(), "4 MiB do not hold 20");
    assert!(acknowledged.len() > 20);
    wait_until("it to be unready", || gateway.admin("/readyz").status == 503);
    drop(gateway.kill());
    disk.enlarge("64m");
    let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
    let _gateway = Gateway::start(&sections);
    upstream.wait_for(acknowledged.len());
    let ids = upstream.ids();
    assert!(acknowledged.iter().all(|id| ids.contains(id)), "{ids:?}");
}

#[test]
fn files_that_cannot_be_used_keep_it_from_starting_with_a_clear_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = |path: &str| format!("[store]\nurl = \"sqlite:{path}\"\n");
    let refused = |path: &str| Gateway::refused(folder.path(), &store(path));
    let directory = refused(".");
    assert!(directory.contains("cannot be opened (Is a directory"), "{directory}");
    let nowhere = refused("no/such/folder/store.db");
    assert!(nowhere.contains("its folder must exist and be writable"), "{nowhere}");
    let owner = Gateway::spawn(folder.path(), &store("owned.db"), &[]);
    let owned = refused("owned.db");
    assert!(owned.contains("is in use by another process; one gateway owns its file"), "{owned}");
    drop(owner);
    let newer = rusqlite::Connection::open(folder.path().join("owned.db")).expect("a file");
    newer.pragma_update(None, "user_version", 99).expect("a version");
    drop(newer);
    let newer = refused("owned.db");
    assert!(newer.contains("newer version of Doorward (layout 99"), "{newer}");
}

#[test]
fn a_read_only_mount_keeps_it_from_starting_with_a_clear_word() {
    let disk = SmallDisk::mount("4m");
    let sections = on_disk("http://127.0.0.1:1/app", &disk, "1KiB");
    drop(Gateway::start(&sections));
    disk.remount("ro");
    let folder = tempfile::tempdir().expect("a folder");
    let said = Gateway::refused(folder.path(), &sections);
    assert!(said.contains("Read-only file system"), "{said}");
}

#[test]
fn a_folder_without_permission_keeps_it_from_starting_with_a_clear_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).expect("a folder");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).expect("closed");
    let said = Gateway::refused_without_privilege(folder.path(), "[store]\nurl = \"sqlite:closed/store.db\"\n");
    assert!(said.contains("Permission denied") && said.contains("must exist and be writable"), "{said}");
}

fn on_disk(upstream: &str, disk: &SmallDisk, min_free: &str) -> String {
    let source = Github::delivering(&format!(
        "queue = {{ url = \"{upstream}\", backoff = \"100ms\", max_backoff = \"100ms\" }}"
    ));
    format!("{source}[store]\nurl = \"sqlite:{}\"\nmin_free = \"{min_free}\"\n", disk.store().display())
}

/// How many deliveries are recorded.
fn delivered(store: &Path) -> u32 {
    rusqlite::Connection::open_with_flags(store, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|file| file.query_row("SELECT count(*) FROM deliveries WHERE state = 5", [], |row| row.get(0)))
        .expect("a store")
}

/// A file system of few bytes.
struct SmallDisk(TempDir);

impl SmallDisk {
    #[track_caller]
    fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &[folder.path()]);
        Self(folder)
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store.db")
    }

    fn fill(&self, bytes: usize) {
        std::fs::write(self.0.path().join("ballast"), vec![0; bytes]).expect("room");
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).expect("ballast");
    }

    fn enlarge(&self, size: &str) {
        self.remount(&format!("size={size}"));
    }

    fn remount(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}")], &[self.0.path()]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}
