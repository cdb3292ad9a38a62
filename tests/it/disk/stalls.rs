//! Disks that stall: the gateway waits, and goes on when they do.

use std::time::Duration;
use std::time::Instant;

use crate::harness::fault::disk::Disk;
use crate::harness::fault::disk::Format;
use crate::harness::fault::system_calls::Faults;
use crate::harness::gateway::Gateway;
use crate::harness::load::Load;
use crate::harness::load::Mode;
use crate::harness::load::Sink;
use crate::harness::load::event;
use crate::harness::load::forgotten;
use crate::harness::upstream::Upstream;
use crate::harness::wait_until;

const STALL: Duration = Duration::from_secs(10);

#[test]
fn a_disk_that_stalls_for_ten_seconds_costs_time_and_nothing_else() {
    std::thread::scope(|scope| {
        for mode in [Mode::Queue, Mode::Upstream] {
            scope.spawn(move || stall(mode));
        }
    });
}

#[test]
fn a_disk_that_hangs_does_not_keep_a_gateway_from_ending() {
    std::thread::scope(|scope| {
        for mode in [Mode::Queue, Mode::Upstream] {
            scope.spawn(move || end_on_a_disk_that_hangs(mode));
        }
    });
}

fn end_on_a_disk_that_hangs(mode: Mode) {
    let (faults, sink, folder) = (Faults::new(), Sink::start(mode), tempfile::tempdir().expect("a folder"));
    let sections = mode.sections(sink.address(), Upstream::nowhere());
    let store = "drain_timeout = \"100ms\"\n[store]\nurl = \"sqlite:store.db\"\n";
    let gateway = faults.start(folder.path(), &(sections + store));
    assert_eq!(event("1").send(gateway.address()).status, 200);
    faults.hang_syncs();
    if mode == Mode::Upstream {
        assert_eq!(event("2").send(gateway.address()).status, 200, "it waits for no disk");
    }
    let load = Load::start(gateway.address(), "hung-", 1);
    wait_until("a sync that hangs", || faults.hanging_syncs() > 0);
    let begun = Instant::now();
    gateway.signal("TERM");
    drop(gateway.wait());
    assert!(begun.elapsed() < Duration::from_secs(12), "{mode:?} took {:?}", begun.elapsed());
    drop(load);
}

fn stall(mode: Mode) {
    let (disk, sink, address) = (Disk::start(Format::Ext4), Sink::start(mode), Upstream::nowhere());
    let gateway = Gateway::start(&(mode.sections(sink.address(), address) + &disk.store("1MiB")));
    let load = Load::start(address, "", 3);
    wait_until("some events", || load.count() > 20);
    disk.stall(STALL);
    let begun = Instant::now();
    let mut probes = 0;
    while begun.elapsed() < STALL {
        let asked = Instant::now();
        assert_eq!(gateway.admin("/livez").status, 200, "{mode:?}: a restart would not help");
        assert!(asked.elapsed() < Duration::from_secs(1), "{mode:?}: a probe took {:?}", asked.elapsed());
        probes += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(probes > 20);
    let before = load.count();
    wait_until("it to go on", || load.count() > before + 20);
    wait_until("it to be ready", || gateway.admin("/readyz").status == 200);
    gateway.assert_no_panic("a stall");
    let acknowledged = load.stop();
    sink.wait_for(&acknowledged);
    assert_eq!(forgotten(&gateway, &acknowledged), Vec::<String>::new());
    eprintln!("{mode:?}: {} events were acknowledged, {before} of them before the stall was over", acknowledged.len());
}
