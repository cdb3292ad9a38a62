//! How large a store's files get, and who may read them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::doorward;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

/// Bytes of an entry of the dedupe log.
const ENTRY: u64 = 28;

/// What is named by mistake keeps its mode, and a link is followed to where the store is.
#[test]
fn only_a_store_is_made_private_and_a_link_leads_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let notes = folder.path().join("notes.txt");
    std::fs::write(&notes, "remember the milk").expect("a file");
    std::fs::set_permissions(&notes, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let said = Gateway::refused(folder.path(), "[store]\nurl = \"sqlite:notes.txt\"\n");
    assert!(said.contains("notes.txt"), "{said}");
    assert_eq!(mode(&notes), 0o644);

    let elsewhere = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("linked.db");
    std::os::unix::fs::symlink(elsewhere.path().join("store.db"), &link).expect("a link");
    let upstream = Upstream::start();
    let sections = format!("{}[store]\nurl = \"sqlite:linked.db\"\n", Github::source(&upstream.url()));
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    for name in ["store.db", "store.db-wal", "store.db-shm", "store.db-dedupe.1"] {
        assert_eq!(mode(&elsewhere.path().join(name)), 0o600, "{name}");
    }
    assert!(link.is_symlink());
}

#[test]
fn what_is_delivered_while_the_store_takes_nothing_does_not_fill_it() {
    let upstream = Upstream::start();
    // A header, and two records of a GitHub event, whose id is not signed.
    for (min_free, expected) in [("1KiB", 3), ("1PiB", 1)] {
        let gateway = gateway(&upstream, &format!("on_outage = \"accept\"\nmin_free = \"{min_free}\""));
        assert_eq!(Github::delivery(min_free, min_free).send(gateway.address()).status, 200);
        gateway.signal("TERM");
        let folder = gateway.wait().folder.expect("its folder");
        let log = std::fs::metadata(folder.path().join("store.db-dedupe.1")).expect("a log");
        assert_eq!(log.len(), ENTRY * expected, "{min_free}");
    }
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn the_files_are_for_their_owner_alone_whatever_the_umask() {
    let folder = tempfile::tempdir().expect("a folder");
    let sections = "server.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\nstore.url = \"sqlite:store.db\"\n";
    std::fs::write(folder.path().join("doorward.toml"), sections).expect("a configuration");
    for umask in ["022", "000"] {
        let mut gateway = Command::new("sh")
            .args(["-c", &format!("umask {umask} && exec \"$0\" serve"), env!("CARGO_BIN_EXE_doorward")])
            .current_dir(folder.path())
            .spawn()
            .expect("it starts");
        wait_until("its files", || modes(folder.path()).len() == 4);
        assert_eq!(modes(folder.path()), [0o600; 4], "umask {umask}");
        gateway.kill().expect("it runs");
        gateway.wait().expect("it ends");
        for ending in ["", "-wal", "-shm", "-dedupe.1"] {
            std::fs::remove_file(folder.path().join(format!("store.db{ending}"))).expect("a file");
        }
    }
}

#[test]
fn files_that_others_could_read_are_narrowed() {
    let sections = queued_in_sqlite("http://127.0.0.1:1/app", "");
    let gateway = Gateway::start(&sections);
    assert_eq!(Github::delivery("1", "1").send(gateway.address()).text(), QUEUED);
    let folder = gateway.kill().folder.expect("its folder");
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).expect("a mode");
    }
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    assert_eq!(modes(folder.path()), [0o600; 4]);
    gateway.logged("that they could be read", |event| {
        event["level"] == "WARN" && event["mode"] == "666" && event["error"].is_null()
    });
}

#[test]
fn a_queue_is_warned_of_where_it_is_lost_with_the_machine() {
    // In memory on most machines, and on a disk on some.
    for place in [Path::new("/dev/shm"), &std::env::temp_dir()] {
        let Ok(folder) = tempfile::Builder::new().prefix("doorward").tempdir_in(place) else { continue };
        let in_memory = kind_of_file_system(folder.path()) == "tmpfs";
        let source = Github::delivering("queue = { url = \"http://127.0.0.1:1/app\" }");
        let sections = format!("{source}[store]\nurl = \"sqlite:{}/store.db\"\n", folder.path().display());
        let gateway = Gateway::start(&sections);
        if in_memory {
            gateway.logged("a warning", |event| {
                event["level"] == "WARN" && event["key"] == "sources.github.deliver.queue"
            });
        }
        let checked = |sections: &str| {
            std::fs::write(folder.path().join("doorward.toml"), sections).expect("a configuration");
            let output = doorward().arg("check").current_dir(folder.path()).output().expect("it ends");
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (code, said) = checked(&sections);
        assert_eq!((code, said.contains("on memory (tmpfs)")), (Some(0), in_memory), "{}: {said}", place.display());
        // An upstream has the event before it is acknowledged.
        let source = Github::source("http://127.0.0.1:1/app");
        let (code, said) = checked(&format!("{source}[store]\nurl = \"sqlite:store.db\"\n"));
        assert!(code == Some(0) && !said.contains("tmpfs"), "{said}");
    }
}

fn kind_of_file_system(folder: &Path) -> String {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(folder).output().expect("coreutils have it");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// The modes of the store's files.
fn mode(file: &Path) -> u32 {
    std::fs::metadata(file).expect("a file").permissions().mode() & 0o777
}

fn modes(folder: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("store.db"));
    ours.map(|entry| entry.metadata().expect("a file").permissions().mode() & 0o777).collect()
}

fn gateway(upstream: &Upstream, store: &str) -> Gateway {
    let source = Github::delivering(&format!("upstream = {{ url = \"{}\", timeout = \"900ms\" }}", upstream.url()));
    Gateway::start(&format!("{source}[store]\nurl = \"sqlite:store.db\"\n{store}\n"))
}
