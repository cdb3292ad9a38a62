//! Disks that fail as they are told, with a real file system on them.

mod image;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use fuser::BackgroundSession;
use fuser::MountOption;
use tempfile::TempDir;

use self::image::Folder;
use self::image::Image;
use crate::harness::PATIENCE;
use crate::harness::gateway::Gateway;
use crate::harness::random::Random;
use crate::harness::wait_until;

/// The file systems that most disks of servers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Ext4,
    Xfs,
}

/// Nothing is left for the kernel to write in the background.
const EAGER: &str = "-Enodiscard,lazy_itable_init=0,lazy_journal_init=0";

/// A disk, mounted; it is unmounted when dropped. A gateway that uses it has to be dropped before.
pub struct Disk {
    image: Arc<Image>,
    /// Where the image is, as a file of the test process.
    image_folder: TempDir,
    serving: Option<BackgroundSession>,
    mounted: TempDir,
}

impl Disk {
    /// Makes a disk for these tests.
    pub fn start(format: Format) -> Self {
        // XFS takes no less.
        let mib = if format == Format::Ext4 { 128 } else { 320 };
        Self::of(format, mib)
    }

    /// Makes a disk of so many MiB.
    pub fn of(format: Format, mib: usize) -> Self {
        require_root();
        sweep();
        let image = Image::new(mib << 20);
        let image_folder = folder();
        let mut options = fuser::Config::default();
        options.mount_options = vec![MountOption::FSName("doorward-tests".to_owned())];
        let serving = fuser::spawn_mount(Folder(Arc::clone(&image)), image_folder.path(), &options)
            .expect("FUSE: it takes root, /dev/fuse and a kernel that has it");
        let mounted = folder();
        let disk = Self { image, image_folder, serving: Some(serving), mounted };
        let file = disk.file();
        match format {
            Format::Ext4 => run(Command::new("mkfs.ext4").args(["-q", "-F", "-m0", EAGER]).arg(file)),
            Format::Xfs => run(Command::new("mkfs.xfs").args(["-q", "-f", "-K"]).arg(file)),
        }
        disk.mount();
        disk
    }

    /// The folder in which the file system is.
    pub fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// The section of a store on it, which leaves so much free.
    pub fn store(&self, min_free: &str) -> String {
        let path = self.path().join("store.db");
        format!("[store]\nurl = \"sqlite:{}\"\nmin_free = \"{min_free}\"\n", path.display())
    }

    /// So many writes from now on fail with EIO.
    pub fn fail_writes(&self, number: u64) {
        self.image.fail_writes(number);
    }

    /// All flushes from now on fail with EIO, and what was written since the last one is lost, as when a disk drops its
    /// cache.
    pub fn fail_flushes(&self) {
        self.image.fail_flushes();
    }

    /// Everything succeeds again. What the file system has given up, it has.
    pub fn heal(&self) {
        self.image.heal();
    }

    /// Nothing is read or written for so long.
    pub fn stall(&self, time: Duration) {
        self.image.stall(time);
    }

    /// Repairs the disk, and mounts what is on it again.
    #[track_caller]
    pub fn repair(&self) {
        // What the system could not write it must not write now: the fault lasts until it has given up.
        self.unmount();
        self.image.heal();
        self.mount();
    }

    /// Cuts the power: the gateway ends, and of what was not flushed the disk has any blocks, or none. Then it is on
    /// again; when the gateway had ended.
    #[track_caller]
    pub fn cut(&self, gateway: Gateway, random: &mut Random) -> Instant {
        self.image.power_off();
        drop(gateway.kill());
        let ended = Instant::now();
        self.unmount();
        // Nothing but what was flushed; all; any half.
        let any = random.below(4);
        self.image.power_on(|| any == 1 || any > 1 && random.below(2) == 0);
        self.mount();
        ended
    }

    fn file(&self) -> PathBuf {
        self.image_folder.path().join("image")
    }

    #[track_caller]
    fn mount(&self) {
        mount(&["-o", "loop,noatime"], &[&self.file(), self.mounted.path()]);
    }

    #[track_caller]
    fn unmount(&self) {
        let output = |command: &mut Command| command.output().expect("it runs");
        wait_until("the disk to be unmounted", || output(Command::new("umount").arg(self.path())).status.success());
        assert!(self.image.wait_until_closed(PATIENCE), "the loop device is still there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.image.stall(Duration::ZERO);
        drop(Command::new("umount").arg("--lazy").arg(self.path()).status());
        // Whoever still uses it, it ends.
        if !self.image.wait_until_closed(Duration::from_secs(5)) {
            drop(Command::new("umount").arg("--lazy").arg(self.image_folder.path()).status());
        }
        if let Some(serving) = self.serving.take() {
            drop(serving.umount_and_join());
        }
    }
}

/// What the folders of disks are called, whose process follows.
const NAME: &str = "doorward-disk-";

fn folder() -> TempDir {
    tempfile::Builder::new().prefix(&format!("{NAME}{}-", std::process::id())).tempdir().expect("a folder")
}

/// Unmounts the disks of test processes that were killed.
fn sweep() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("Linux");
    for mounted in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let process = mounted.split_once(NAME).and_then(|(_, named)| named.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            drop(Command::new("umount").arg("--lazy").arg(mounted).status());
            drop(std::fs::remove_dir(mounted));
        }
    }
}

/// Mounts a file system with these options.
#[track_caller]
pub fn mount(options: &[&str], what: &[&Path]) {
    require_root();
    run(Command::new("mount").args(options).args(what));
}

#[track_caller]
fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts a file system, which root alone may do; tests/run sees to that"
    );
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
