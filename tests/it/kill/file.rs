//! One gateway with a file.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::gateway::queue::QUEUED;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::load::Acknowledged;
use crate::harness::load::LARGE_EVENT;
use crate::harness::load::Load;
use crate::harness::load::Mode;
use crate::harness::load::Sink;
use crate::harness::load::event;
use crate::harness::load::forgotten;
use crate::harness::provider::github::Github;
use crate::harness::random::Random;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;
use crate::kill::MOMENT;
use crate::kill::START;
use crate::kill::assert_none_again;
use crate::kill::kills;

const SENDERS: usize = 4;
/// How long before a kill an event may have arrived that arrives again: as long as its answer may take.
const IN_FLIGHT: Duration = Duration::from_secs(1);
/// How long a checkpoint takes, at most.
const CHECKPOINT: Duration = Duration::from_millis(10);

#[test]
fn killed_again_and_again_a_queue_loses_nothing_and_repeats_nothing_that_was_recorded() {
    kill_again_and_again(Mode::Queue);
}

#[test]
fn killed_again_and_again_a_gateway_delivers_nothing_again_that_it_has_acknowledged() {
    kill_again_and_again(Mode::Upstream);
}

fn kill_again_and_again(mode: Mode) {
    let (kills, begun) = (kills(), Instant::now());
    let (sink, address) = (Sink::start(mode), Upstream::nowhere());
    let sections = mode.sections(sink.address(), address) + "[store]\nurl = \"sqlite:store.db\"\n";
    let folder = tempfile::tempdir().expect("a folder");
    let load = Load::start(address, "", SENDERS);
    let Killed { at, recorded, moments, mut acknowledged } = kill(mode, kills, folder.path(), &sections, &sink);
    acknowledged.extend(load.stop());
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    sink.wait_for(&acknowledged);
    assert_eq!(forgotten(&gateway, &acknowledged), Vec::<String>::new());
    drop(gateway.kill());
    let log = std::fs::metadata(folder.path().join("store.db-wal")).map_or(0, |log| log.len());
    assert!(log < 64 << 20, "the log has {log} bytes: it is never moved into the file");
    let arrivals = sink.arrivals();
    assert_none_again(&arrivals, &recorded);
    assert_eq!(sink.repeated(&at, IN_FLIGHT), Vec::<String>::new(), "far from any kill");
    let mut ids: Vec<_> = arrivals.iter().map(|arrival| &arrival.id).collect();
    ids.sort_unstable();
    ids.dedup();
    eprintln!(
        "{mode:?}: {kills} kills in {:?} ({moments:?}): {} events acknowledged, all of them arrived; {} recorded as \
         delivered before a kill, none of them arrived again; {} arrived twice because a kill came before the record",
        begun.elapsed(),
        acknowledged.len(),
        recorded.len(),
        arrivals.len() - ids.len()
    );
    assert!(acknowledged.len() as u64 > kills && (mode == Mode::Upstream || recorded.len() as u64 > kills / 2));
}

#[test]
fn a_gateway_that_is_stopped_longer_than_an_attempt_may_take_goes_on_as_if_nothing_had_been() {
    let upstream = Upstream::with(|_, _| Reply::After(Duration::from_millis(200), 200));
    let gateway = Gateway::start(&queued_in_sqlite(&upstream.url(), r#", timeout = "1s", concurrency = 4"#));
    for number in 0..12 {
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).text(), QUEUED);
    }
    upstream.wait_for(6);
    gateway.signal("STOP");
    // Longer than the timeout of an attempt: the fault itself.
    std::thread::sleep(Duration::from_millis(1500));
    gateway.signal("CONT");
    wait_until("all deliveries", || {
        gateway.metric(r#"doorward_deliveries_total{destination="default",outcome="delivered",source="github"}"#)
            == 12.0
    });
    let mut ids: Vec<u32> = upstream.ids().iter().map(|id| id.parse().expect("a number")).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..12).collect::<Vec<_>>());
    assert_eq!(Github::delivery("5", "5").send(gateway.address()).text(), DUPLICATE);
}

/// What became of the kills.
struct Killed {
    at: Vec<Instant>,
    /// What was delivered according to the file, with how many events had arrived then.
    recorded: HashMap<String, usize>,
    moments: Moments,
    /// What was sent to have something to move.
    acknowledged: Vec<Acknowledged>,
}

/// How many kills came when.
#[derive(Debug, Default)]
struct Moments {
    start: u32,
    checkpoint: u32,
    any: u32,
}

/// Starts the gateway and kills it, so many times.
fn kill(mode: Mode, kills: u64, folder: &Path, sections: &str, sink: &Sink) -> Killed {
    let (mut random, mut moments) = (Random::new(4), Moments::default());
    let (mut at, mut recorded, mut acknowledged) = (Vec::new(), HashMap::new(), Vec::new());
    for kill in 0..kills {
        if kill % 100 == 99 {
            eprintln!("{mode:?}: {kill} kills, {} events have arrived", sink.count());
        }
        // The moment is what is tried here; nothing is waited for.
        let mut within = |limit: Duration| Duration::from_micros(random.below(limit.as_micros() as u64));
        let gateway = match kill % 8 {
            1 | 5 => {
                let gateway = Gateway::spawn_early(folder, sections);
                std::thread::sleep(within(START));
                moments.start += 1;
                gateway
            }
            // What is delivered at once has no log to speak of.
            3 if mode == Mode::Queue => {
                let gateway = Gateway::spawn(folder, sections, &[]);
                moments.checkpoint += 1;
                acknowledged.extend(wait_for_checkpoint(&gateway, folder, kill));
                std::thread::sleep(within(CHECKPOINT));
                gateway
            }
            _ => {
                let gateway = Gateway::spawn(folder, sections, &[]);
                std::thread::sleep(within(MOMENT));
                moments.any += 1;
                gateway
            }
        };
        drop(gateway.kill());
        at.push(Instant::now());
        if mode == Mode::Queue {
            let arrived = sink.count();
            for id in delivered(folder) {
                recorded.entry(id).or_insert(arrived);
            }
        }
    }
    Killed { at, recorded, moments, acknowledged }
}

/// Sends so much that the log begins to be moved into the file, which is not written otherwise.
fn wait_for_checkpoint(gateway: &Gateway, folder: &Path, kill: u64) -> Vec<Acknowledged> {
    let written = || std::fs::metadata(folder.join("store.db")).and_then(|file| file.modified()).expect("a file");
    let (before, mut acknowledged) = (written(), Vec::new());
    wait_until("a checkpoint", || {
        let id = format!("{LARGE_EVENT}-{kill}-{}", acknowledged.len());
        assert_eq!(event(&id).send(gateway.address()).text(), QUEUED);
        acknowledged.push(Acknowledged { id, at: Instant::now() });
        written() != before
    });
    acknowledged
}

/// The events whose delivery is recorded, read from a copy, so that the gateway finds its file as it left it.
fn delivered(folder: &Path) -> Vec<String> {
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["store.db", "store.db-wal"] {
        drop(std::fs::copy(folder.join(name), copy.path().join(name)));
    }
    let file = rusqlite::Connection::open(copy.path().join("store.db")).expect("a file");
    // One that was killed before it had made its tables has recorded nothing.
    let Ok(mut ids) = file.prepare("SELECT event_id FROM messages JOIN deliveries ON message = id WHERE state = 5")
    else {
        return Vec::new();
    };
    ids.query_map([], |row| row.get(0)).expect("events").map(|id| id.expect("an id")).collect()
}
