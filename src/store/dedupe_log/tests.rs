//! Tests of the dedupe log alone, with limits of a few records: what it remembers, how large it gets, what is left
//! after failures.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::base::clock::Manual;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::base::time::Moment;
use crate::store::Keyspace;
use crate::verify::event_key::Key;

const START: i64 = 1_700_000_000;
const TTL: u32 = 1000;

/// A log in a folder of its own, whose thread runs when a test says so.
struct Bench {
    folder: TempDir,
    limits: limits::DedupeLog,
    clock: Clock,
    hand: Arc<Manual>,
    log: Option<DedupeLog>,
    found: Found,
}

impl Bench {
    fn new(slack: u64) -> Self {
        let (clock, hand) = Clock::manual(Moment::from_unix(START));
        let limits = limits::DedupeLog { slack, factor: 2, ..limits::DedupeLog::default() };
        let folder = tempfile::tempdir().expect("a folder");
        let mut bench = Self { folder, limits, clock, hand, log: None, found: Found::default() };
        bench.restart();
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    /// As after a kill: nothing is done by the one that ends.
    fn restart(&mut self) {
        self.log = None;
        let spaces = [Keyspace::of_source("a"), Keyspace::of_source("b")];
        let records = Arc::new(DedupeRecords::new(1000, spaces, self.clock.clone()));
        let (log, found) =
            DedupeLog::open(&self.path(), records, self.limits.clone(), self.clock.clone()).expect("a log");
        (self.log, self.found) = (Some(log), found);
    }

    fn log(&self) -> &DedupeLog {
        self.log.as_ref().expect("it is open")
    }

    fn remember(&self, number: u64) {
        self.log().append([record(number, self.clock.now())], None).expect("written");
    }

    fn knows(&self, number: u64) -> bool {
        let Record { source, key, .. } = record(number, self.clock.now());
        self.log().records().contains(source, key)
    }

    /// What the thread does when it wakes now.
    fn maintain(&self) {
        self.log().maintain(false, || ());
    }

    fn files(&self) -> Vec<u64> {
        files::list(&self.path()).expect("files").iter().map(|file| file.number).collect()
    }

    fn bytes(&self) -> u64 {
        files::list(&self.path()).expect("files").iter().map(|file| file.bytes).sum()
    }
}

fn record(number: u64, now: Moment) -> Record {
    let mut key = [0x5a; 16];
    key[..8].copy_from_slice(&number.to_le_bytes());
    let name = if number.is_multiple_of(2) { "a" } else { "b" };
    let until = u32::try_from(now.unix()).expect("small") + TTL;
    Record { source: Keyspace::of_source(name).tag(), key: Key(key), until }
}

const BYTES: u64 = ENTRY_BYTES;

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
fn a_segment_that_a_failed_snapshot_had_begun_is_not_synced_again_after_a_failed_sync() {
    let bench = Bench::new(10 * BYTES);
    (0..50).for_each(|number| bench.remember(number % 5));
    let unfinished = bench.folder.path().join("store.db-dedupe.new");
    fs::create_dir(&unfinished).expect("a folder");
    bench.maintain();
    assert_eq!(bench.files(), [1, 3]);
    fs::remove_dir(&unfinished).expect("a folder");
    // As when the disk fails: what was appended is not there.
    bench.remember(6);
    File::options().write(true).open(files::name(&bench.path(), 3)).and_then(|file| file.set_len(BYTES)).expect("cut");
    bench.log().sync_now();
    assert!(bench.log().healthy().is_err());
    bench.hand.advance(bench.limits.retry_every);
    bench.maintain();
    assert!(bench.log().healthy().is_ok());
    assert_eq!(bench.files(), [4, 5]);
}

#[tokio::test]
async fn a_panic_of_its_thread_costs_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let records = Arc::new(DedupeRecords::new(10, [], Clock::System));
    let limits = limits::DedupeLog::default();
    let log = DedupeLog::open(&folder.path().join("store.db"), records, limits, Clock::System).expect("a log").0;
    let log = Arc::new(log);
    let tasks = Supervisor::new(limits::Supervision::default(), Clock::System);
    let running = Arc::clone(&log);
    let thread = tasks.thread(Task::DedupeLog, move |beat| running.run(beat)).expect("a thread");
    assert_eq!(log.sync().await, Ok(()), "it runs");
    tasks.inject_panic(Task::DedupeLog);
    log.append([record(1, Moment::now())], Some(3)).expect("written");
    assert_eq!(log.sync().await, Ok(()));
    assert_eq!(tasks.restarts(Task::DedupeLog), 1);
    log.close();
    thread.join().expect("it ends");
    assert_eq!(log.checkpoint(), 3);
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
fn a_file_that_cannot_be_written_is_replaced_by_a_snapshot_of_what_is_in_memory() {
    let mut bench = Bench::new(10_000);
    bench.remember(1);
    // A file that only reads refuses what is appended, as a full disk does.
    bench.log().lock().file = Arc::new(File::open(files::name(&bench.path(), 1)).expect("a file"));
    let failed = bench.log().append([record(2, bench.clock.now())], Some(5)).expect_err("it cannot be written");
    assert!(failed.to_string().contains("could not be written"), "{failed}");
    assert!(bench.knows(2), "in memory all the same");
    assert!(bench.log().healthy().is_err());
    let (mut waiter, since) = (bench.log().sync(), bench.clock.instant());
    bench.hand.advance(Duration::from_secs(3));
    bench.log().sync_now();
    assert_eq!(bench.log().checkpoint(), 0, "it stands still");
    drop(bench.log().append([record(4, bench.clock.now())], None));
    assert_eq!(bench.log().lock().syncing, Some(since), "neither was made safe, and the first of them is the oldest");
    assert_eq!(waiter.try_recv(), Err(oneshot::error::TryRecvError::Closed), "nobody is told that it is safe");
    bench.maintain();
    assert!(bench.log().healthy().is_ok());
    assert_eq!(bench.log().lock().syncing, None);
    assert_eq!((bench.files(), bench.log().checkpoint()), (vec![2, 3], 5));
    bench.remember(3);
    bench.restart();
    assert!((1..4).all(|number| bench.knows(number)));
}

#[test]
fn a_snapshot_that_fails_is_tried_again_after_a_while() {
    let mut bench = Bench::new(10 * BYTES);
    (0..50).for_each(|number| bench.remember(number % 5));
    // In the way of what is written first.
    fs::create_dir(bench.folder.path().join("store.db-dedupe.new")).expect("a folder");
    bench.maintain();
    assert_eq!(bench.files(), [1, 3]);
    assert!(bench.log().healthy().is_ok(), "nothing is lost");
    bench.remember(5);
    fs::remove_dir(bench.folder.path().join("store.db-dedupe.new")).expect("a folder");
    bench.hand.advance(bench.limits.retry_every - Duration::from_millis(1));
    bench.maintain();
    assert_eq!(bench.files(), [1, 3]);
    bench.hand.advance(Duration::from_millis(1));
    bench.maintain();
    assert_eq!(bench.files(), [2, 3]);
    bench.restart();
    assert!((0..6).all(|number| bench.knows(number)));
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
fn what_is_damaged_is_skipped_and_replaced_at_once() {
    let mut bench = Bench::new(10_000);
    (0..10).for_each(|number| bench.remember(number));
    let name = files::name(&bench.path(), 1);
    let mut bytes = fs::read(&name).expect("a file");
    // One byte of the fourth record; and the last one is torn.
    bytes[28 * 4 + 5] ^= 1;
    bytes.truncate(28 * 11 - 3);
    fs::write(&name, bytes).expect("written");
    bench.restart();
    assert_eq!(bench.found.skipped, 28 + 25);
    bench.remember(20);
    let known: Vec<_> = (0..21).filter(|number| bench.knows(*number)).collect();
    assert_eq!(known, [0, 1, 2, 4, 5, 6, 7, 8, 20]);
    bench.maintain();
    assert_eq!(bench.files(), [2, 3]);
    bench.restart();
    assert_eq!(bench.found.skipped, 0);
    assert_eq!((0..21).filter(|number| bench.knows(*number)).collect::<Vec<_>>(), known);
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

/// What happens to a log.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<u64>),
    Sync,
    Snapshot,
    Kill,
    /// The machine stops: so many bytes of what was not synced are gone.
    Cut(u64),
    /// A bit of a file changes.
    Flip(u64),
    /// Bytes that nobody wrote stand at the end.
    Garbage(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(0..60_u64, 1..5).prop_map(Step::Append),
        2 => Just(Step::Sync),
        1 => Just(Step::Snapshot),
        2 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::Cut),
        1 => any::<u64>().prop_map(Step::Flip),
        1 => proptest::collection::vec(any::<u8>(), 0..60).prop_map(Step::Garbage),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_was_synced_is_lost_and_nothing_is_invented(steps in proptest::collection::vec(step(), 1..40)) {
        let mut bench = Bench::new(20 * BYTES);
        // Whether each key has to be known, of those that may be.
        let mut model: HashMap<u64, bool> = HashMap::new();
        let mut synced = bench.bytes();
        for step in steps {
            match step {
                Step::Append(numbers) => {
                    let now = bench.clock.now();
                    bench.log().append(numbers.iter().map(|number| record(*number, now)), None).expect("written");
                    model.extend(numbers.into_iter().map(|number| (number, true)));
                }
                Step::Sync => {
                    bench.log().sync_now();
                    synced = last(&bench).1;
                }
                Step::Snapshot => {
                    bench.log().replace(|| ()).expect("written");
                    synced = last(&bench).1;
                }
                Step::Kill => bench.restart(),
                Step::Cut(by) => {
                    let (name, bytes) = last(&bench);
                    let left = bytes - by % (bytes.saturating_sub(synced) + 1);
                    File::options().write(true).open(name).and_then(|file| file.set_len(left)).expect("cut");
                    let lost = (bytes - left).div_ceil(BYTES);
                    bench.restart();
                    prop_assert!(forget(&bench, &mut model) <= lost);
                }
                Step::Flip(at) => {
                    let (name, bytes) = last(&bench);
                    let mut content = fs::read(&name).expect("a file");
                    content[usize::try_from(at / 8 % bytes).expect("small")] ^= 1 << (at % 8);
                    fs::write(&name, content).expect("written");
                    bench.restart();
                    prop_assert!(forget(&bench, &mut model) <= 1);
                }
                Step::Garbage(bytes) => {
                    let (name, _) = last(&bench);
                    let file = File::options().append(true).open(name);
                    file.and_then(|mut file| file.write_all(&bytes)).expect("written");
                    bench.restart();
                }
            }
            // A restart syncs what it finds.
            if bench.log().lock().unsynced.is_none() {
                synced = last(&bench).1;
            }
            prop_assert_eq!(forget(&bench, &mut model), 0);
            prop_assert!((0..60).all(|number| model.contains_key(&number) || !bench.knows(number)), "invented");
        }
    }
}

/// How many keys have to be known and are not; they need not from now on.
fn forget(bench: &Bench, model: &mut HashMap<u64, bool>) -> u64 {
    let missing: Vec<u64> = model.keys().copied().filter(|number| model[number] && !bench.knows(*number)).collect();
    model.extend(missing.iter().map(|number| (*number, false)));
    u64::try_from(missing.len()).expect("small")
}

/// The last file and its size.
fn last(bench: &Bench) -> (PathBuf, u64) {
    let last = *files::list(&bench.path()).expect("files").last().expect("one");
    (files::name(&bench.path(), last.number), last.bytes)
}
