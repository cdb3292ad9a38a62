//! Tests of the dedupe log alone, with limits of a few records: what it remembers, and how large it gets.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::base::clock::Manual;
use crate::base::time::Moment;
use crate::store::Keyspace;
use crate::verify::event_key::Key;

const START: i64 = 1_700_000_000;
const TTL: u32 = 1000;

/// A log in a folder of its own, whose thread runs when a test says so.
pub(super) struct Bench {
    pub(super) folder: TempDir,
    pub(super) limits: limits::DedupeLog,
    pub(super) clock: Clock,
    pub(super) hand: Arc<Manual>,
    pub(super) log: Option<DedupeLog>,
    pub(super) found: Found,
}

impl Bench {
    pub(super) fn new(slack: u64) -> Self {
        let (clock, hand) = Clock::manual(Moment::from_unix(START));
        let limits = limits::DedupeLog { slack, factor: 2, ..limits::DedupeLog::default() };
        let folder = tempfile::tempdir().expect("a folder");
        let mut bench = Self { folder, limits, clock, hand, log: None, found: Found::default() };
        bench.restart();
        bench
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    /// As after a kill: nothing is done by the one that ends.
    pub(super) fn restart(&mut self) {
        self.log = None;
        let spaces = [Keyspace::of_source("a"), Keyspace::of_source("b")];
        let records = Arc::new(DedupeRecords::new(1000, spaces, self.clock.clone()));
        let (log, found) =
            DedupeLog::open(&self.path(), records, self.limits.clone(), self.clock.clone()).expect("a log");
        (self.log, self.found) = (Some(log), found);
    }

    pub(super) fn log(&self) -> &DedupeLog {
        self.log.as_ref().expect("it is open")
    }

    pub(super) fn remember(&self, number: u64) {
        self.log().append([record(number, self.clock.now())], None).expect("written");
    }

    pub(super) fn knows(&self, number: u64) -> bool {
        let Record { source, key, .. } = record(number, self.clock.now());
        self.log().records().contains(source, key)
    }

    /// What the thread does when it wakes now.
    pub(super) fn maintain(&self) {
        self.log().maintain(false, || ());
    }

    pub(super) fn files(&self) -> Vec<u64> {
        files::list(&self.path()).expect("files").iter().map(|file| file.number).collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        files::list(&self.path()).expect("files").iter().map(|file| file.bytes).sum()
    }
}

pub(super) fn record(number: u64, now: Moment) -> Record {
    let mut key = [0x5a; 16];
    key[..8].copy_from_slice(&number.to_le_bytes());
    let name = if number.is_multiple_of(2) { "a" } else { "b" };
    let until = u32::try_from(now.unix()).expect("small") + TTL;
    Record { source: Keyspace::of_source(name).tag(), key: Key(key), until }
}

pub(super) const BYTES: u64 = ENTRY_BYTES;

#[test]
fn what_was_appended_is_known_after_a_kill_until_its_time() {
    let mut bench = Bench::new(10_000);
    (0..100).for_each(|number| bench.remember(number));
    bench.restart();
    assert!((0..100).all(|number| bench.knows(number)) && !bench.knows(100));
    assert_eq!((bench.found.files, bench.found.skipped), (1, 0));
    bench.hand.advance(Duration::from_secs(u64::from(TTL)));
    assert!(!bench.knows(1));
    bench.restart();
    assert_eq!(bench.log().records().remove_expired(bench.clock.now()), 0, "it is not even read");
}

#[test]
fn a_snapshot_is_written_when_the_files_are_larger_than_the_limits_say_and_not_before() {
    let mut bench = Bench::new(100 * BYTES);
    bench.maintain();
    // The same records again and again: ten live ones make 30, and the slack 100; the header is one more.
    let append = |many| (0..many).for_each(|number| bench.remember(number % 10));
    append(129);
    bench.maintain();
    assert_eq!((bench.files(), bench.bytes()), (vec![1], 130 * BYTES));
    append(1);
    bench.maintain();
    // Ten records between a header and a checkpoint, and the header of the segment behind it.
    assert_eq!((bench.files(), bench.bytes()), (vec![2, 3], 13 * BYTES));
    bench.remember(10);
    bench.restart();
    assert!((0..11).all(|number| bench.knows(number)));
    assert_eq!(bench.files(), [2, 3]);
}

#[test]
fn records_that_are_past_their_time_go_with_the_next_snapshot() {
    let bench = Bench::new(100 * BYTES);
    (0..90).for_each(|number| bench.remember(number));
    bench.hand.advance(Duration::from_secs(u64::from(TTL)));
    (0..40).for_each(|number| bench.remember(number % 10));
    bench.maintain();
    assert_eq!(bench.bytes(), 13 * BYTES, "ten of them, in a snapshot");
}

#[test]
fn the_thread_is_woken_when_there_is_enough_for_a_snapshot() {
    let bench = Bench::new(100 * BYTES);
    bench.maintain();
    (0..99).for_each(|number| bench.remember(number));
    let is_due = || bench.log().lock().is_due(bench.log().clock.instant());
    assert!(!is_due());
    bench.remember(99);
    assert!(is_due());
}

#[test]
fn it_is_synced_as_often_as_the_limit_says_and_then_says_which_messages_are_safe() {
    let bench = Bench::new(10_000);
    bench.log().append([record(1, bench.clock.now())], Some(77)).expect("written");
    bench.hand.advance(Duration::from_millis(999));
    bench.maintain();
    assert!(bench.log().lock().unsynced.is_some());
    assert_eq!(bench.log().checkpoint(), 0);
    bench.hand.advance(Duration::from_millis(1));
    bench.maintain();
    assert!(bench.log().lock().unsynced.is_none());
    assert_eq!(bench.log().checkpoint(), 77);
}

#[test]
fn whoever_waits_for_a_sync_does_not_wait_for_its_time() {
    let bench = Bench::new(10_000);
    bench.remember(1);
    let (mut one, mut other) = (bench.log().sync(), bench.log().sync());
    assert!(one.try_recv().is_err());
    bench.maintain();
    assert_eq!((one.try_recv(), other.try_recv()), (Ok(()), Ok(())));
}

#[test]
fn whoever_gives_up_waiting_for_a_sync_leaves_nothing_behind() {
    let bench = Bench::new(10_000);
    let mut patient = bench.log().sync();
    (0..10_000).for_each(|_| drop(bench.log().sync()));
    assert!(bench.log().lock().waiting.capacity() < 10, "while nothing can be synced");
    bench.maintain();
    assert_eq!(patient.try_recv(), Ok(()));
}

#[test]
fn checkpoints_outlive_kills_and_snapshots() {
    let mut bench = Bench::new(10 * BYTES);
    bench.log().append([record(1, bench.clock.now())], Some(42)).expect("written");
    bench.hand.advance(Duration::from_secs(1));
    bench.maintain();
    bench.restart();
    assert_eq!((bench.found.checkpoint, bench.log().checkpoint()), (42, 42));
    bench.log().append([], Some(43)).expect("a message without keys");
    (0..50).for_each(|number| bench.remember(number % 3));
    bench.maintain();
    assert_eq!(bench.files(), [2, 3]);
    bench.restart();
    assert_eq!(bench.found.checkpoint, 43, "the snapshot has everything up to it");
}

#[test]
fn a_start_removes_what_a_snapshot_has_replaced_and_what_was_not_finished() {
    let mut bench = Bench::new(10 * BYTES);
    let name = |number| files::name(&bench.path(), number);
    bench.remember(7);
    let old = fs::read(name(1)).expect("a file");
    (0..50).for_each(|number| bench.remember(number % 5));
    bench.maintain();
    fs::write(name(1), old).expect("as if it had been killed before it removed it");
    let unfinished = bench.folder.path().join("store.db-dedupe.new");
    fs::write(&unfinished, "half").expect("written");
    for other in ["store.db-dedupe.01", "store.db-dedupe.x", "store.db2-dedupe.1"] {
        fs::write(bench.folder.path().join(other), "").expect("written");
    }
    bench.restart();
    assert_eq!(bench.files(), [2, 3]);
    assert!(!unfinished.exists() && bench.folder.path().join("store.db-dedupe.01").exists());
    assert_eq!(bench.found.files, 2);
}

#[test]
fn a_log_of_a_newer_version_is_left_alone() {
    let mut bench = Bench::new(10_000);
    let newer = Entry::Header { version: VERSION + 1, kind: Kind::Segment }.encode();
    fs::write(files::name(&bench.path(), 1), newer).expect("written");
    bench.log = None;
    let records = Arc::new(DedupeRecords::new(10, [], Clock::System));
    let refused =
        DedupeLog::open(&bench.path(), records, limits::DedupeLog::default(), Clock::System).expect_err("it is newer");
    assert!(refused.contains("newer version of Doorward (format 2"), "{refused}");
}
