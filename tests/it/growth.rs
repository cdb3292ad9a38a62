//! How large a store's files get, and who may read them.

use std::path::Path;

use crate::harness::Gateway;
use crate::harness::Github;
use crate::harness::Upstream;
use crate::harness::connect;
use crate::harness::wait_until;

const EVENTS: usize = 30_000;
const SENDERS: usize = 4;
/// Bytes of a record on disk; an event of GitHub's, whose id is not signed, has two.
const RECORD: u64 = 24;
const MIB: u64 = 1024 * 1024;

#[test]
fn the_default_store_moves_its_log_into_its_file_and_keeps_both_small() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "");
    send(&gateway, EVENTS);
    let records = 2 * EVENTS as u64 * RECORD;
    let (file, log) = (bytes(&gateway, ""), bytes(&gateway, "-wal"));
    assert!(file > records / 4, "of {records} bytes, the file has {file}, and the log {log}");
    assert!(file + log + bytes(&gateway, "-shm") < records + 64 * MIB, "the file has {file}, the log {log}");
}

#[test]
fn finished_events_go_from_the_default_store_soon_after_their_time() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "lease = \"1s\"\nttl = \"1s\"");
    send(&gateway, EVENTS / 10);
    wait_until("nothing to be left", || rows(gateway.folder()) == 0);
}

fn gateway(upstream: &Upstream, store: &str) -> Gateway {
    let source = Github::delivering(&format!("upstream = {{ url = \"{}\", timeout = \"900ms\" }}", upstream.url()));
    Gateway::start(&format!("{source}[store]\nurl = \"sqlite:store.db\"\n{store}\n"))
}

/// Sends events on a few connections, so that most of them are written alone.
fn send(gateway: &Gateway, events: usize) {
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            scope.spawn(move || {
                let connection = connect(gateway.address());
                for number in 0..events / SENDERS {
                    let id = format!("{sender}-{number}");
                    let answer = Github::delivery(&id, id.as_str()).send_on(&connection);
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
    });
}

fn bytes(gateway: &Gateway, ending: &str) -> u64 {
    std::fs::metadata(gateway.folder().join(format!("store.db{ending}"))).expect("a file").len()
}

/// How many rows of ids there are.
fn rows(folder: &Path) -> i64 {
    rusqlite::Connection::open_with_flags(folder.join("store.db"), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|file| file.query_row("SELECT count(*) FROM finished", [], |row| row.get(0)))
        .expect("a count")
}
