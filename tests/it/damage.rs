//! Store files in which bytes have changed.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::Gateway;
use crate::harness::Github;
use crate::harness::Upstream;
use crate::harness::wait_until;
use crate::queue::DUPLICATE;
use crate::queue::QUEUED;
use crate::queue::queued;

const EVENTS: usize = 200;
const PAGE: u64 = 4096;
/// More than the records on any page.
const ON_A_PAGE: usize = 100;

#[test]
fn a_byte_that_changes_costs_no_more_than_a_page() {
    let base = Base::in_the_file();
    for seed in 0..8 {
        let at = base.random(seed) % base.bytes("");
        base.check(&format!("byte {at}"), |folder| flip(folder, "", at));
    }
}

#[test]
fn a_page_that_is_wiped_costs_no_more_than_what_stood_on_it() {
    let base = Base::in_the_file();
    let pages = base.bytes("") / PAGE;
    // The first say where everything stands.
    for page in (0..5).map(|seed| 3 + base.random(seed) % (pages - 3)) {
        base.check(&format!("page {page}"), |folder| wipe(folder, page));
    }
}

#[test]
fn a_file_that_is_no_store_is_not_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "somebody's letters, which are longer than a page\n".repeat(200);
    std::fs::write(folder.path().join("store.db"), &text).expect("a file");
    let complaint = Gateway::refused(folder.path(), &queued("http://127.0.0.1:1/app", ""));
    assert!(complaint.contains("is not a SQLite file"), "{complaint}");
    assert_eq!(std::fs::read_to_string(folder.path().join("store.db")).expect("a file"), text);
}

/// The file of a gateway that could deliver nothing.
struct Base(TempDir);

impl Base {
    fn in_the_log() -> Self {
        let gateway = Gateway::start(&queued("http://127.0.0.1:1/app", ""));
        for number in 0..EVENTS {
            assert_eq!(Github::delivery(&number.to_string(), body(number)).send(gateway.address()).text(), QUEUED);
        }
        Self(gateway.kill().folder.expect("its folder"))
    }

    fn in_the_file() -> Self {
        let base = Self::in_the_log();
        let moved = rusqlite::Connection::open(base.0.path().join("store.db"))
            .and_then(|file| file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)));
        assert_eq!(moved, Ok(0));
        base
    }

    fn bytes(&self, ending: &str) -> u64 {
        std::fs::metadata(self.0.path().join(format!("store.db{ending}"))).expect("a file").len()
    }

    fn random(&self, seed: u64) -> u64 {
        (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 8
    }

    fn copy(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for ending in ["", "-wal", "-dedupe.1"] {
            let name = format!("store.db{ending}");
            if self.0.path().join(&name).exists() {
                std::fs::copy(self.0.path().join(&name), folder.path().join(&name)).expect("copied");
            }
        }
        folder
    }

    /// Damages a copy and sees what becomes of its events; how many came.
    fn check(&self, what: &str, damage: impl Fn(&Path)) -> usize {
        let folder = self.copy();
        damage(folder.path());
        let upstream = Upstream::start();
        let gateway = Gateway::start_in(folder, &(queued(&upstream.url(), "") + ADMIN));
        settled(&gateway, gateway.folder(), || upstream.ids().len() + dead(&gateway) + ON_A_PAGE >= EVENTS);
        let mut delivered = BTreeMap::new();
        for message in upstream.received() {
            let id = message.header("doorward-event-id").expect("an id").to_owned();
            let number: usize = id.parse().unwrap_or_else(|_| panic!("{what}: {id}"));
            assert_eq!(message.body, body(number), "{what}: {id} was altered");
            assert!(delivered.insert(number, message).is_none(), "{what}: {id} came twice");
        }
        let came = delivered.len();
        assert!(came + ON_A_PAGE >= EVENTS, "{what}: only {came} came: {:#?}", gateway.log());
        // One at most whose mark was changed, which nobody can see.
        let again = delivered.keys().step_by(10);
        let fresh = again
            .filter(|number| {
                let answer = Github::delivery(&number.to_string(), body(**number)).send(gateway.address());
                assert_eq!(answer.status, 200, "{what}: {answer:?}");
                answer.text() != DUPLICATE
            })
            .count();
        assert!(fresh <= 1, "{what}: {fresh} were forgotten: {:#?}", gateway.log());
        came
    }
}

/// A token for the API.
pub const ADMIN: &str = "[admin]\ntoken = \"plain:a-token-for-the-operators\"\n";

/// Waits until a gateway has delivered what it could, which `accounted` says; what it sets aside as damaged is recovered.
pub fn settled(gateway: &Gateway, folder: &Path, accounted: impl Fn() -> bool) {
    wait_until("the queue to be empty", || {
        recover(gateway, folder);
        let metrics = gateway.metrics();
        let events = |state| {
            metrics
                .get(&format!("doorward_queue_events{{destination=\"default\",source=\"github\",state=\"{state}\"}}"))
        };
        // They are told once a second, and nothing at first.
        let empty = events("queued") == Some(&0.0) && events("retrying") == Some(&0.0);
        empty && accounted()
    });
}

/// Imports what damaged files still say that were set aside.
fn recover(gateway: &Gateway, folder: &Path) {
    let names = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
    for name in names.iter().filter(|name| name.contains(".damaged-") && !name.ends_with("-wal")) {
        let mut body = serde_json::json!({ "file": name });
        loop {
            let done = gateway.api("POST", "/api/v1/store/recover", &body.to_string());
            // While the writer begins anew, it is asked again; of what nobody can read, nothing is left.
            match done.status {
                503 => continue,
                400 if done.text().contains("cannot be read") => break,
                status => assert_eq!(status, 200, "{name}: {}", done.text()),
            }
            match done.json().get("next").and_then(|next| next.as_str()) {
                Some(next) => body["after"] = next.into(),
                None => break,
            }
        }
    }
}

/// How many dead letters there are.
pub fn dead(gateway: &Gateway) -> usize {
    gateway.metric(r#"doorward_queue_events{destination="default",source="github",state="dead"}"#) as usize
}

pub fn body(number: usize) -> Vec<u8> {
    format!("{{\"number\": {number}, \"text\": \"{}\"}}", "abc".repeat(number * 7 % 900)).into_bytes()
}

fn file(folder: &Path, ending: &str) -> std::fs::File {
    let path = folder.join(format!("store.db{ending}"));
    std::fs::File::options().read(true).write(true).open(path).expect("a file")
}

fn flip(folder: &Path, ending: &str, at: u64) {
    let (file, mut byte) = (file(folder, ending), [0]);
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x55], at).expect("written");
}

fn wipe(folder: &Path, page: u64) {
    file(folder, "").write_all_at(&[0; 4096], page * PAGE).expect("written");
}
