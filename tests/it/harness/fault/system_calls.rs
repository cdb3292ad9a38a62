//! Faults of the system under a gateway: a disk that does not take what is written, a clock that is set.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::gateway::Gateway;

/// Switches for the faults of one gateway. What does it is `system_calls.c`.
pub struct Faults(TempDir);

impl Faults {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/harness/fault/system_calls.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(folder.path().join("faults.so"))
            .arg(source)
            .status()
            .expect("cc is installed; tests/run does that");
        assert!(compiled.success());
        Self(folder)
    }

    /// Starts a gateway that has these faults.
    #[track_caller]
    pub fn start(&self, folder: &Path, sections: &str) -> Gateway {
        let [preload, faults] = self.environment();
        Gateway::spawn(folder, sections, &[(preload.0, &preload.1), (faults.0, &faults.1)])
    }

    /// What a process needs to have them.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let path = |path: &Path| path.to_str().expect("text").to_owned();
        [("LD_PRELOAD", path(&self.0.path().join("faults.so"))), ("FAULTS", path(self.0.path()))]
    }

    /// Lets no file whose name ends so reach the disk.
    pub fn fail_syncs(&self, ending: &str) {
        std::fs::write(self.0.path().join("fsync"), ending).expect("a switch");
    }

    /// Lets nothing be read at this offset of a file whose name ends so.
    pub fn fail_reads(&self, ending: &str, offset: u64) {
        self.control("read", &format!("{ending} {offset}"));
    }

    /// Lets everything be read again.
    pub fn heal_reads(&self) {
        std::fs::remove_file(self.0.path().join("read")).expect("a switch");
    }

    /// Lets every file reach the disk again.
    pub fn heal(&self) {
        std::fs::remove_file(self.0.path().join("fsync")).expect("a switch");
    }

    /// Lets nobody come back from the disk.
    pub fn hang_syncs(&self) {
        std::fs::write(self.0.path().join("hang"), "").expect("a switch");
    }

    /// How many wait for the disk in vain.
    pub fn hanging_syncs(&self) -> usize {
        std::fs::read(self.0.path().join("hang")).map_or(0, |tries| tries.len())
    }

    /// Sets the wall clock this many seconds ahead of what it should be.
    pub fn set_clock(&self, seconds: i64) {
        self.control("clock", &seconds.to_string());
    }

    /// Has the wall clock stand still at this millisecond since 1970.
    pub fn stop_clock(&self, millis: i64) {
        self.control("clock", &format!("={millis}"));
    }

    /// Gives nobody as many bytes of memory at once, or more, who asks the C library for them, as SQLite does.
    pub fn refuse_memory(&self, bytes: usize) {
        self.control("memory", &bytes.to_string());
    }

    /// Gives memory to everybody again.
    pub fn give_memory(&self) {
        std::fs::remove_file(self.0.path().join("memory")).expect("a switch");
    }

    fn control(&self, name: &str, text: &str) {
        let (new, control) = (self.0.path().join("new"), self.0.path().join(name));
        std::fs::write(&new, text).and_then(|()| std::fs::rename(new, control)).expect("a switch");
    }
}
