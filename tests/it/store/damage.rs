//! Store files in which bytes have changed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::fault::system_calls::Faults;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::api::TOKEN;
use crate::harness::gateway::log::is_older_than_dedupe_log;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;
use crate::harness::wait_until;

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
    // The last one may be on its way.
    assert!(base.check("the first page", |folder| wipe(folder, 0)) + 1 >= EVENTS);
    for page in (0..5).map(|seed| base.random(seed) % (base.bytes("") / PAGE)) {
        base.check(&format!("page {page}"), |folder| wipe(folder, page));
    }
}

/// SQLite reads a WAL up to a frame that is damaged, and says nothing.
#[test]
fn what_stood_behind_a_byte_that_changes_in_a_wal_is_missed_and_the_wal_is_kept() {
    let base = Base::in_the_log();
    for at in [0, 17, 33, 50].into_iter().chain((0..4).map(|seed| base.random(seed) % base.bytes("-wal"))) {
        let folder = base.copy();
        flip(folder.path(), "-wal", at);
        let damaged = std::fs::read(folder.path().join("store.db-wal")).expect("a WAL");
        let upstream = Upstream::start();
        let gateway = Gateway::start_in(folder, &sections(&upstream.url()));
        let told = gateway.log().into_iter().find(is_older_than_dedupe_log);
        // What was stored in the last second before the kill may be behind what the dedupe log vouches for.
        if let Some(told) = told {
            let kept = gateway.folder().join(told["wal"].as_str().expect("a path"));
            assert!(std::fs::read(kept).expect("a file") == damaged, "byte {at}");
        }
        assert_eq!(Github::delivery("new", "new").send(gateway.address()).text(), QUEUED, "byte {at}");
        wait_until("what is new", || upstream.ids().iter().any(|id| id == "new"));
    }
}

#[test]
fn a_damaged_page_makes_dead_letters_of_the_events_on_it_which_are_listed_and_holds_up_no_other() {
    let base = Base::of_one_that_ended();
    let folder = base.copy();
    let leaves = leaves_of_messages(folder.path());
    wipe(folder.path(), leaves[leaves.len() / 2]);
    let upstream = Upstream::start();
    let gateway = Gateway::start_in(folder, &sections(&upstream.url()));
    wait_until("all others", || dead(&gateway) > 0 && upstream.ids().len() + dead(&gateway) == EVENTS);
    assert_eq!(gateway.metric("doorward_store_quarantined"), 0.0);
    let listed = gateway.events("state=dead&limit=1000");
    assert_eq!(listed.len(), dead(&gateway));
    let (number, reason) = (listed[0]["number"].as_str().expect("a number"), &listed[0]["reason"]);
    assert_eq!(reason, "damaged on disk", "{listed:?}");
    let shown = gateway.api("GET", &format!("/api/v1/events/github/{number}"), "");
    assert_eq!(shown.status, 200, "{}", shown.text());
    // What has to read the page is refused, and nothing else happens.
    let searched = gateway.api("GET", "/api/v1/events?type=none", "");
    assert!(searched.status >= 500, "{}", searched.text());
    assert_eq!(Github::delivery("new", "new").send(gateway.address()).text(), QUEUED);
    wait_until("what is new", || upstream.ids().iter().any(|id| id == "new"));
    assert_eq!(gateway.metric("doorward_store_quarantined"), 0.0);
    assert_eq!(gateway.metric("doorward_task_restarts_total{task=\"sqlite-writer\"}"), 0.0);
}

#[test]
fn events_that_the_disk_cannot_read_hold_up_no_other_and_are_replayed_when_it_can() {
    let (base, faults, upstream) = (Base::of_one_that_ended(), Faults::new(), Upstream::start());
    let folder = base.copy();
    let leaves = leaves_of_messages(folder.path());
    faults.fail_reads("store.db", leaves[leaves.len() / 2] * PAGE);
    let gateway = faults.start(folder.path(), &sections(&upstream.url()));
    wait_until("all others", || dead(&gateway) > 0 && upstream.ids().len() + dead(&gateway) == EVENTS);
    faults.heal_reads();
    let replayed = gateway.api("POST", "/api/v1/events/replay", r#"{"source": "github"}"#);
    assert_eq!(replayed.status, 200, "{}", replayed.text());
    upstream.wait_for(EVENTS);
    assert_eq!(gateway.metric("doorward_store_quarantined"), 0.0);
}

/// Otherwise it would be attempted for ever.
#[test]
fn an_index_that_names_events_which_must_not_be_attempted_is_damage_and_nothing_comes_twice() {
    let base = Base::in_the_file();
    let index = root_of(base.0.path(), "by_state");
    // The last byte of the page is that of a row's number.
    assert!(base.check("the index", |folder| flip(folder, "", (index + 1) * PAGE - 1)) + 1 >= EVENTS);
}

#[test]
fn a_gateway_starts_whatever_is_damaged_and_keeps_the_damaged_file_as_it_is() {
    let base = Base::in_the_file();
    for (what, page) in ["destinations", "messages", "deliveries", "deleted", "by_state", "due"]
        .map(|name| (name, root_of(base.0.path(), name)))
        .into_iter()
        .chain([("the header", 0)])
    {
        let folder = base.copy();
        wipe(folder.path(), page);
        let before = std::fs::read(folder.path().join("store.db")).expect("a file");
        let upstream = Upstream::start();
        let gateway = Gateway::start_in(folder, &sections(&upstream.url()));
        assert_eq!(Github::delivery("new", "new").send(gateway.address()).text(), QUEUED, "{what}");
        wait_until(&format!("what is new: {what}"), || upstream.ids().iter().any(|id| id == "new"));
        if let Some(name) = quarantined(gateway.folder()).first() {
            let said = gateway.logged("what was set aside", |event| event["aside"].is_string());
            assert!(said["aside"].as_str().is_some_and(|aside| aside.ends_with(name.as_str())), "{what}: {said}");
            let kept = std::fs::read(gateway.folder().join(name)).expect("a file");
            assert!(kept == before || what == "due" || what == "by_state", "{what}");
        }
    }
}

#[test]
fn a_file_that_is_no_store_is_not_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "somebody's letters, which are longer than a page\n".repeat(200);
    std::fs::write(folder.path().join("store.db"), &text).expect("a file");
    let complaint = Gateway::refused(folder.path(), &queued_in_sqlite("http://127.0.0.1:1/app", ""));
    assert!(complaint.contains("is not a SQLite file"), "{complaint}");
    assert_eq!(std::fs::read_to_string(folder.path().join("store.db")).expect("a file"), text);
}

/// A GitHub source with a queue, a SQLite store, and an API.
fn sections(upstream: &str) -> String {
    format!("{}[admin]\ntoken = \"plain:{TOKEN}\"\n", queued_in_sqlite(upstream, ""))
}

/// The file of a gateway that could deliver nothing.
struct Base(TempDir);

impl Base {
    fn in_the_log() -> Self {
        Self::of("KILL")
    }

    fn of_one_that_ended() -> Self {
        Self::of("TERM")
    }

    fn of(signal: &str) -> Self {
        let gateway = Gateway::start(&queued_in_sqlite("http://127.0.0.1:1/app", ""));
        for number in 0..EVENTS {
            assert_eq!(Github::delivery(&number.to_string(), body(number)).send(gateway.address()).text(), QUEUED);
        }
        gateway.signal(signal);
        Self(gateway.wait().folder.expect("its folder"))
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

    /// Damages a copy and sees what becomes of its events, with what is recovered; how many came.
    fn check(&self, what: &str, damage: impl Fn(&Path)) -> usize {
        let folder = self.copy();
        damage(folder.path());
        let upstream = Upstream::start();
        let gateway = Gateway::start_in(folder, &sections(&upstream.url()));
        // The last of a WAL may be taken for incomplete.
        let lost =
            settled(&gateway, gateway.folder(), |lost| upstream.ids().len() + dead(&gateway) + lost + 1 >= EVENTS);
        let mut delivered = BTreeMap::new();
        for message in upstream.received() {
            let id = message.header("doorward-event-id").expect("an id").to_owned();
            let number: usize = id.parse().unwrap_or_else(|_| panic!("{what}: {id}"));
            assert_eq!(message.body, body(number), "{what}: {id} was altered");
            assert!(delivered.insert(number, message).is_none(), "{what}: {id} came twice");
        }
        let came = delivered.len();
        assert!(came + ON_A_PAGE >= EVENTS || lost >= EVENTS, "{what}: only {came} came: {:#?}", gateway.log());
        for number in delivered.keys().step_by(10) {
            let answer = Github::delivery(&number.to_string(), body(*number)).send(gateway.address());
            assert_eq!(answer.text(), DUPLICATE, "{what}: {:#?}", gateway.log());
        }
        came
    }
}

/// Waits until a gateway has delivered what it could, which `accounted` says of how many are lost, and recovers what it
/// sets aside meanwhile. How many are lost: all of a file whose first page is.
pub fn settled(gateway: &Gateway, folder: &Path, accounted: impl Fn(usize) -> bool) -> usize {
    let mut lost = 0;
    let mut given_up = BTreeSet::new();
    wait_for("the queue to be empty", || {
        if gateway.admin("/readyz").status != 200 {
            return None;
        }
        for name in quarantined(folder).into_iter().filter(|name| !given_up.contains(name)).collect::<Vec<_>>() {
            match recover(gateway, &name) {
                Some(of_file) => lost += of_file,
                None => {
                    lost += EVENTS;
                    given_up.insert(name);
                }
            }
        }
        let metrics = gateway.metrics();
        let events = |state| {
            metrics
                .get(&format!("doorward_queue_events{{destination=\"default\",source=\"github\",state=\"{state}\"}}"))
        };
        // They are told once a second, and nothing at first.
        let empty = events("queued") == Some(&0.0) && events("retrying") == Some(&0.0);
        (empty && accounted(lost)).then_some(lost)
    })
}

/// The names of files that were set aside and not recovered.
fn quarantined(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names = entries.map(|name| name.into_string().expect("text"));
    names.filter(|name| name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")).collect()
}

/// Recovers a file; how many messages were lost, or nothing when none of it can be read.
fn recover(gateway: &Gateway, name: &str) -> Option<usize> {
    let (mut lost, mut asked) = (0, json!({ "file": name }));
    loop {
        let answer = gateway.api("POST", "/api/v1/store/recover", &asked.to_string());
        if answer.status == 400 {
            return None;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        let done = answer.json();
        lost += done["lost"].as_u64().expect("a number") as usize;
        match done["next"].as_str() {
            Some(next) => asked["cursor"] = json!(next),
            None => return Some(lost),
        }
    }
}

/// How many dead letters there are.
pub fn dead(gateway: &Gateway) -> usize {
    gateway.metric(r#"doorward_queue_events{destination="default",source="github",state="dead"}"#) as usize
}

/// The pages, counted from 0, on which whole messages stand.
fn leaves_of_messages(folder: &Path) -> Vec<u64> {
    let (root, bytes) = (root_of(folder, "messages"), std::fs::read(folder.join("store.db")).expect("a file"));
    let page = &bytes[(root * PAGE) as usize..][..PAGE as usize];
    // An interior page of a table: a header of 12 bytes, then where its cells are, each of which begins with a page.
    assert_eq!(page[0], 5, "there are many messages");
    let number = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    let child = |at: usize| u64::from(u32::from_be_bytes(page[at..at + 4].try_into().expect("4 bytes"))) - 1;
    (0..number(3)).map(|cell| child(number(12 + 2 * cell))).collect()
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
