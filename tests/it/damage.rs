//! Store files in which bytes have changed.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::Gateway;
use crate::harness::Github;
use crate::harness::Upstream;
use crate::harness::wait_for;
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
    for page in [0, 1, 2].into_iter().chain((0..5).map(|seed| base.random(seed) % pages)) {
        base.check(&format!("page {page}"), |folder| wipe(folder, page));
    }
}

#[test]
fn a_log_in_which_a_byte_changes_is_read_past_it() {
    let base = Base::in_the_log();
    for at in [0, 17, 33, 50].into_iter().chain((0..4).map(|seed| base.random(seed) % base.bytes("-wal"))) {
        base.check(&format!("byte {at} of the log"), |folder| flip(folder, "-wal", at));
    }
}

#[test]
fn an_event_that_an_index_has_lost_is_found_and_delivered() {
    let base = Base::in_the_file();
    let index = root_of(base.0.path(), "queued");
    // The last byte of the page is that of a row's number.
    assert_eq!(base.check("the index", |folder| flip(folder, "", (index + 1) * PAGE - 1)), EVENTS);
}

#[test]
fn what_was_saved_is_told_and_the_damaged_file_is_kept() {
    let base = Base::in_the_file();
    let folder = base.copy();
    wipe(folder.path(), root_of(folder.path(), "events"));
    let before = std::fs::read(folder.path().join("store.db")).expect("a file");
    let upstream = Upstream::start();
    let gateway = Gateway::start_in(folder, &queued(&upstream.url(), ""));
    let saved = gateway.logged("what was saved", |event| message(event).contains("was saved into a new one"));
    let (waiting, lost) = (&saved["waiting"], &saved["lost"]);
    assert_eq!(
        waiting.as_u64().zip(lost.as_u64()).map(|(waiting, lost)| waiting + lost),
        Some(EVENTS as u64),
        "{saved}"
    );
    let kept = gateway.logged("where the old file is", |event| message(event).contains("are kept"));
    let folder = gateway.kill().folder.expect("its folder");
    assert!(std::fs::read(folder.path().join(kept["kept"].as_str().expect("a path"))).expect("a file") == before);
    assert!(!folder.path().join("store.db-suspect").exists());
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
        let mut folder = self.copy();
        damage(folder.path());
        let upstream = Upstream::start();
        let sections = queued(&upstream.url(), "");
        let mut gateway = Gateway::start_in(folder, &sections);
        // Where the damage is met only later, a restart helps.
        while !settled(&gateway, || upstream.ids().len() + dead(&gateway) + 1 >= EVENTS) {
            folder = gateway.kill().folder.expect("its folder");
            gateway = Gateway::start_in(folder, &sections);
        }
        let mut delivered = BTreeMap::new();
        for message in upstream.received() {
            let id = message.header("doorward-event-id").expect("an id").to_owned();
            let number: usize = id.parse().unwrap_or_else(|_| panic!("{what}: {id}"));
            assert_eq!(message.body, body(number), "{what}: {id} was altered");
            assert!(delivered.insert(number, message).is_none(), "{what}: {id} came twice");
        }
        // What could not be delivered is a dead letter; only the last of a log may be taken for incomplete.
        let (came, dead) = (delivered.len(), dead(&gateway));
        assert!(came + dead + 1 >= EVENTS, "{what}: {came} came, {dead} are dead: {:#?}", gateway.log());
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

/// Whether a gateway has delivered what it could, which `accounted` says, and not met damage.
pub fn settled(gateway: &Gateway, accounted: impl Fn() -> bool) -> bool {
    wait_for("the queue to be empty", || {
        if gateway.admin("/readyz").status != 200 {
            return Some(false);
        }
        let metrics = gateway.metrics();
        let events = |state| {
            metrics
                .get(&format!("doorward_queue_events{{destination=\"default\",source=\"github\",state=\"{state}\"}}"))
        };
        // They are told once a second, and nothing at first.
        let empty = events("queued") == Some(&0.0) && events("retrying") == Some(&0.0);
        (empty && accounted()).then_some(true)
    })
}

/// How many dead letters there are.
pub fn dead(gateway: &Gateway) -> usize {
    gateway.metric(r#"doorward_queue_events{destination="default",source="github",state="dead"}"#) as usize
}

fn message(event: &serde_json::Value) -> &str {
    event["message"].as_str().unwrap_or_default()
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

/// The page with which a table or index begins.
fn root_of(folder: &Path, name: &str) -> u64 {
    let file = rusqlite::Connection::open(folder.join("store.db")).expect("a file");
    let root: i64 = file
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0))
        .expect("its first page");
    u64::try_from(root).expect("a page") - 1
}
