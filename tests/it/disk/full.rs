//! Disks that are full at any write.

use std::path::Path;

use crate::harness::fault::disk::Disk;
use crate::harness::fault::disk::Format;
use crate::harness::gateway::Gateway;
use crate::harness::load::Acknowledged;
use crate::harness::load::Load;
use crate::harness::load::Mode;
use crate::harness::load::Sink;
use crate::harness::random::rounds;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;
use crate::harness::wait_until;

const BLOCK: u64 = 4096;

#[test]
fn a_queue_whose_disk_is_full_at_any_write_loses_nothing_and_goes_on_when_there_is_room() {
    check(Mode::Queue);
}

#[test]
fn events_whose_disk_is_full_at_any_write_are_not_lost_and_come_through_when_there_is_room() {
    check(Mode::Upstream);
}

fn check(mode: Mode) {
    let (disk, sink, address) = (Disk::of(Format::Ext4, 64), Sink::start(mode), Upstream::nowhere());
    // The configuration is elsewhere: there is no room for it.
    let folder = tempfile::tempdir().expect("a folder");
    let sections = mode.sections(sink.address(), address) + &disk.store("1KiB");
    let (mut acknowledged, mut restarts): (Vec<Acknowledged>, _) = (Vec::new(), 0);
    for round in 0..rounds(10) {
        // So many blocks are left, for a gateway that runs, and for one that starts.
        // An event that is queued takes blocks of its own; one that is only remembered, a small part of one.
        let blocks = if mode == Mode::Queue { round * 2 } else { round / 2 };
        let runs = round % 2 == 0;
        let what = format!("{mode:?}, {blocks} blocks, running: {runs}");
        let load = Load::start(address, &format!("{round}-"), 2);
        let running = runs.then(|| Gateway::spawn(folder.path(), &sections, &[]));
        if runs {
            wait_until("some events", || load.count() > 5);
        }
        leave(disk.path(), blocks);
        let gateway = running.map_or_else(|| Gateway::try_spawn(folder.path(), &sections), Ok);
        match &gateway {
            Ok(gateway) => wait_until(&format!("a refusal: {what}"), || {
                load.refused() > 0 || gateway.admin("/readyz").status == 503
            }),
            Err(said) => assert!(said.contains("exit status: 1") && said.contains("full"), "{what}: {said}"),
        }
        std::fs::remove_file(disk.path().join("ballast")).expect("ballast");
        // It goes on, or says that it has to be started again.
        let well = gateway.ok().and_then(|gateway| {
            gateway.assert_no_panic(&what);
            let lives = wait_for(&format!("it to be ready or to want a restart: {what}"), || {
                let (ready, lives) = (gateway.admin("/readyz"), gateway.admin("/livez"));
                assert!(lives.status == 200 || lives.text().contains("restart"), "{what}: {}", lives.text());
                (ready.status == 200 || lives.status != 200).then_some(lives.status == 200)
            });
            lives.then_some(gateway)
        });
        let gateway = well.unwrap_or_else(|| {
            restarts += 1;
            Gateway::spawn(folder.path(), &sections, &[])
        });
        let before = load.count();
        wait_until(&format!("it to go on: {what}"), || load.count() > before + 5);
        acknowledged.extend(load.stop());
        sink.wait_for(&acknowledged);
        gateway.assert_no_panic(&what);
        drop(gateway.kill());
    }
    eprintln!("{mode:?}: {} events were acknowledged; a restart was needed {restarts} times", acknowledged.len());
}

/// Fills a file system but for so many blocks.
fn leave(folder: &Path, blocks: u64) {
    let ballast = std::fs::File::create(folder.join("ballast")).expect("a file");
    let disk = rustix::fs::statvfs(folder).expect("a disk");
    let bytes = (disk.f_bavail * disk.f_frsize).saturating_sub(blocks * BLOCK);
    // Somebody else may have been faster.
    if rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, bytes).is_err() {
        let left = bytes.saturating_sub(64 * BLOCK);
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, left).expect("room");
    }
}
