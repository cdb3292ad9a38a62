//! Tests of what is left of a dedupe log after failures: of the disk, of its thread, of the process and of the machine.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use super::tests::BYTES;
use super::tests::Bench;
use super::tests::record;
use super::*;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::base::time::Moment;

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
