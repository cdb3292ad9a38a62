//! Power that fails at any moment: what the disk had not flushed is gone.

use std::time::Duration;
use std::time::Instant;

use crate::harness::fault::disk::Disk;
use crate::harness::fault::disk::Format;
use crate::harness::gateway::Gateway;
use crate::harness::load::Load;
use crate::harness::load::Mode;
use crate::harness::load::Sink;
use crate::harness::load::forgotten;
use crate::harness::random::Random;
use crate::harness::random::rounds;
use crate::harness::upstream::Upstream;

/// What is acknowledged longer ago than this is remembered after the power failed.
pub const WINDOW: Duration = Duration::from_millis(1500);
const SENDERS: usize = 3;

#[test]
fn the_disks_of_these_tests_lose_what_was_not_flushed_and_nothing_else() {
    for format in [Format::Ext4, Format::Xfs] {
        let disk = Disk::start(format);
        let write = |name: &str, flush: bool| {
            let path = disk.path().join(name);
            std::fs::write(&path, "text").expect("written");
            if flush {
                std::fs::File::open(path).and_then(|file| file.sync_all()).expect("flushed");
            }
        };
        write("flushed", true);
        write("written", false);
        let folder = tempfile::tempdir().expect("a folder");
        disk.cut(Gateway::spawn(folder.path(), "", &[]), &mut Random::new(0));
        let read = |name| std::fs::read_to_string(disk.path().join(name)).unwrap_or_default();
        assert_eq!((read("flushed").as_str(), read("written").as_str()), ("text", ""), "{format:?}");
    }
}

#[test]
fn a_queue_on_ext4_loses_nothing_that_was_acknowledged_when_the_power_fails() {
    queue(Format::Ext4);
}

#[test]
fn a_queue_on_xfs_loses_nothing_that_was_acknowledged_when_the_power_fails() {
    queue(Format::Xfs);
}

#[test]
fn what_was_delivered_on_ext4_is_remembered_when_the_power_fails_but_for_the_last_moment() {
    upstream(Format::Ext4);
}

#[test]
fn what_was_delivered_on_xfs_is_remembered_when_the_power_fails_but_for_the_last_moment() {
    upstream(Format::Xfs);
}

fn queue(format: Format) {
    let (disk, sink, address) = (Disk::start(format), Sink::start(Mode::Queue), Upstream::nowhere());
    let sections = Mode::Queue.sections(sink.address(), address) + &disk.store("1MiB");
    let folder = tempfile::tempdir().expect("a folder");
    let load = Load::start(address, "", SENDERS);
    let (mut random, mut cuts) = (Random::new(1), Vec::new());
    for _ in 0..rounds(5) {
        let gateway = Gateway::spawn(folder.path(), &sections, &[]);
        // The moment is what is tried here; nothing is waited for.
        std::thread::sleep(Duration::from_millis(20 + random.below(600)));
        cuts.push(disk.cut(gateway, &mut random));
    }
    let acknowledged = load.stop();
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    sink.wait_for(&acknowledged);
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    eprintln!("{format:?}: {} events were acknowledged, {} arrived", acknowledged.len(), sink.count());
    assert_eq!(sink.repeated(&cuts, WINDOW), Vec::<String>::new());
    assert_eq!(forgotten(&gateway, &acknowledged), Vec::<String>::new());
}

fn upstream(format: Format) {
    let (disk, sink, address) = (Disk::start(format), Sink::start(Mode::Upstream), Upstream::nowhere());
    let sections = Mode::Upstream.sections(sink.address(), address) + &disk.store("1MiB");
    let folder = tempfile::tempdir().expect("a folder");
    let (mut random, mut before) = (Random::new(2), Vec::new());
    for round in 0..rounds(3) {
        let gateway = Gateway::spawn(folder.path(), &sections, &[]);
        assert_eq!(forgotten(&gateway, &before), Vec::<String>::new());
        let load = Load::start(address, &format!("{round}-"), SENDERS);
        std::thread::sleep(WINDOW + Duration::from_millis(random.below(400)));
        let cut = Instant::now();
        disk.cut(gateway, &mut random);
        let acknowledged = load.stop();
        eprintln!("{format:?}: {} events were acknowledged", acknowledged.len());
        sink.wait_for(&acknowledged);
        before.extend(acknowledged.into_iter().filter(|event| event.at + WINDOW < cut));
        assert!(before.len() as u64 > 10 * round, "{}", before.len());
    }
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    assert_eq!(forgotten(&gateway, &before), Vec::<String>::new());
}
