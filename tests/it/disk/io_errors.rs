//! Disks that fail to write or to flush under load: what users see until it is repaired, and afterwards.

use std::time::Duration;
use std::time::Instant;

use crate::disk::power_loss::WINDOW;
use crate::harness::fault::disk::Disk;
use crate::harness::fault::disk::Format;
use crate::harness::gateway::Gateway;
use crate::harness::load::Load;
use crate::harness::load::Mode;
use crate::harness::load::Sink;
use crate::harness::load::event;
use crate::harness::load::forgotten;
use crate::harness::provider::github::Github;
use crate::harness::random::Random;
use crate::harness::random::rounds;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;
use crate::harness::wait_until;

const SENDERS: usize = 3;
/// How soon a fault that nobody noticed comes again.
const AGAIN: Duration = Duration::from_secs(1);
/// What breaks, and how.
type Fault = (&'static str, fn(&Disk));
const FAULTS: [Fault; 3] = [
    ("one write fails", |disk| disk.fail_writes(1)),
    ("all writes fail", |disk| disk.fail_writes(u64::MAX)),
    ("all flushes fail", Disk::fail_flushes),
];

#[test]
fn a_queue_on_ext4_acknowledges_nothing_that_a_failing_disk_could_lose() {
    check(Format::Ext4, Mode::Queue);
}

#[test]
fn a_queue_on_xfs_acknowledges_nothing_that_a_failing_disk_could_lose() {
    check(Format::Xfs, Mode::Queue);
}

#[test]
fn events_are_not_delivered_when_a_failing_ext4_could_not_remember_them() {
    check(Format::Ext4, Mode::Upstream);
}

#[test]
fn events_are_not_delivered_when_a_failing_xfs_could_not_remember_them() {
    check(Format::Xfs, Mode::Upstream);
}

/// After a write that failed, the system has in memory what the disk has not, and takes it for written. ext4 does not
/// even write it when it is written over: the extent stays one that was never written.
#[test]
fn what_only_the_memory_of_the_system_has_is_not_taken_for_safe_after_a_restart() {
    for format in [Format::Ext4, Format::Xfs] {
        let (disk, nowhere) = (Disk::start(format), Upstream::nowhere());
        let so = format!(
            "queue = {{ url = \"http://{nowhere}/app\", backoff = \"50ms\", max_backoff = \"50ms\", max_attempts = 1000 }}"
        );
        let sections = Github::delivering(&so) + &disk.store("1MiB");
        let folder = tempfile::tempdir().expect("a folder");
        let start = || Gateway::spawn(folder.path(), &sections, &[]);
        let (mut random, mut acknowledged) = (Random::new(5), Vec::new());
        for round in 0..rounds(6) {
            let gateway = start();
            let refused = (0..).map(|number| format!("{round}-{number}")).find(|id| {
                let answer = event(id).send(gateway.address());
                acknowledged.extend((answer.status == 200).then(|| id.clone()));
                disk.fail_writes(1);
                answer.status != 200
            });
            // ext4 may say that something is safe in the moment in which it gives up.
            let gave_up = || gateway.log().iter().any(|event| event.to_string().contains("Read-only file system"));
            wait_until("it to go on or to give up", || {
                gave_up() || gateway.admin("/readyz").status == 200 || gateway.admin("/livez").status != 200
            });
            if gave_up() {
                acknowledged.pop();
            }
            drop(gateway.kill());
            disk.heal();
            // Nothing is unmounted, so the memory stays what it is. Where the file system has given up, the gateway
            // says so.
            let Ok(gateway) = Gateway::try_spawn(folder.path(), &sections) else {
                disk.repair();
                continue;
            };
            let refused = refused.expect("one that fails");
            let answer = event(&refused).send(gateway.address());
            acknowledged.extend((answer.status == 200).then_some(refused));
            disk.cut(gateway, &mut random);
        }
        let gateway = start();
        let upstream = Upstream::at(nowhere, |_, _| Reply::Status(200, ""));
        acknowledged.iter().for_each(|id| wait_until(&format!("{id} on {format:?}"), || upstream.ids().contains(id)));
        assert!(acknowledged.len() > 4);
        drop(gateway);
    }
}

fn check(format: Format, mode: Mode) {
    let (disk, sink, address) = (Disk::start(format), Sink::start(mode), Upstream::nowhere());
    let sections = mode.sections(sink.address(), address) + &disk.store("1MiB");
    // The configuration is elsewhere: what fails is a write of the store.
    let folder = tempfile::tempdir().expect("a folder");
    let mut all = Vec::new();
    for round in 0..rounds(FAULTS.len() as u64) {
        let (what, fail) = FAULTS[round as usize % FAULTS.len()];
        let gateway = Gateway::spawn(folder.path(), &sections, &[]);
        let load = Load::start(address, &format!("{round}-"), SENDERS);
        let certain =
            || load.acknowledged().into_iter().filter(|event| mode == Mode::Queue || event.at.elapsed() > WINDOW);
        wait_until("some events", || certain().count() > 20);
        let certain: Vec<_> = certain().collect();
        fail_until_refused(&load, || fail(&disk));
        see_what_follows(&gateway, &load, what);
        let acknowledged = load.stop();
        gateway.assert_no_panic(what);
        gateway.signal("TERM");
        assert_eq!(gateway.wait().status.code(), Some(0), "{what}");
        disk.repair();
        let gateway = Gateway::spawn(folder.path(), &sections, &[]);
        sink.wait_for(&acknowledged);
        let known = if mode == Mode::Queue { &acknowledged } else { &certain };
        assert_eq!(forgotten(&gateway, known), Vec::<String>::new(), "{what}");
        all.extend(acknowledged);
        // A provider whose event was refused comes again.
        for sender in 0..SENDERS {
            let own = format!("{round}-{sender}-");
            let next = all.iter().filter(|event| event.id.starts_with(&own)).count();
            let id = format!("{own}{next}");
            assert_eq!(event(&id).send(gateway.address()).status, 200, "{what}: {id}");
            wait_until("what was refused", || sink.arrivals().iter().any(|arrival| arrival.id == id));
        }
        gateway.signal("TERM");
        assert_eq!(gateway.wait().status.code(), Some(0));
    }
    eprintln!("{format:?}, {mode:?}: {} events were acknowledged, {} arrived", all.len(), sink.count());
}

fn fail_until_refused(load: &Load, fail: impl Fn()) {
    let mut failed = None;
    wait_until("a refusal", || {
        // One write may be one of the file system's own, which nobody waits for.
        if failed.is_none_or(|at: Instant| at.elapsed() > AGAIN) {
            fail();
            failed = Some(Instant::now());
        }
        load.refused() > 0
    });
}

/// The gateway goes on when it can; or it is not ready and refuses everything, until it has room to write what it
/// knows, or until it is started again where it says so.
fn see_what_follows(gateway: &Gateway, load: &Load, what: &str) {
    let before = load.count() + 2 * SENDERS;
    let goes_on = wait_for(&format!("it to go on or not to be ready: {what}"), || {
        let (lives, ready) = (gateway.admin("/livez"), gateway.admin("/readyz"));
        assert!(lives.status == 200 || lives.text().contains("died twice"), "{what}: {}", lives.text());
        (ready.status != 200 || load.count() > before).then_some(load.count() > before)
    });
    if !goes_on && (gateway.admin("/livez").status != 200 || what.starts_with("all")) {
        assert_eq!(gateway.admin("/readyz").status, 503, "{what}");
        load.wait_until_refused();
        let before = load.count();
        load.wait_until_refused();
        assert_eq!(load.count(), before, "{what}: an event was acknowledged after the store had failed");
    }
}
