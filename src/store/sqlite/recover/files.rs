//! Quarantined files in the store's folder: their names, renaming after a recovery, and a copy with a new first page.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;

use crate::store::owner_only;
use crate::store::owner_only::TemporaryFiles;
use crate::store::owner_only::beside;
use crate::store::owner_only::rename_if_there;
use crate::store::owner_only::sync_folder;
use crate::store::sqlite::schema;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// The path of a quarantined file of this name in the store's folder.
pub(super) fn quarantined(store: &Path, name: &str) -> Result<PathBuf, String> {
    let prefix = format!("{}.damaged-", store.file_name().unwrap_or_default().display());
    let whole = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    if !name.strip_prefix(&prefix).is_some_and(whole) {
        return Err(format!(
            "{name:?} is no quarantined file of this store; write its name alone, such as {prefix}20260102T030405Z"
        ));
    }
    let path = store.with_file_name(name);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() => Ok(path),
        Ok(_other) => Err(format!("{} is not a regular file", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Renames a recovered file and its WAL.
pub(super) fn set_recovered(store: &Path, name: &str) -> io::Result<()> {
    let done = store.with_file_name(name.replacen(".damaged-", ".recovered-", 1));
    let path = store.with_file_name(name);
    for ending in ["-wal", "-shm"] {
        rename_if_there(&beside(&path, ending), &beside(&done, ending))?;
    }
    fs::rename(path, done)?;
    sync_folder(store)
}

/// Copies a damaged file with a new first page, and its WAL. Returns the path of the copy, and the files to remove. The
/// page fits, because all files have their tables at the same root pages: they are created at once and never moved.
pub(super) fn repaired_copy(path: &Path) -> io::Result<(PathBuf, TemporaryFiles)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().replacen(".damaged-", ".mended-", 1);
    let recovered = path.with_file_name(name);
    let made = || TemporaryFiles(["", "-wal", "-shm", "-journal"].map(|ending| beside(&recovered, ending)).into());
    // Left by an earlier recovery.
    drop(made());
    let made = made();
    owner_only::open(&recovered)?;
    let fresh = Connection::open(&recovered).and_then(|fresh| schema::create(&fresh));
    fresh.map_err(io::Error::other)?;
    let mut page = [0; PAGE];
    File::open(&recovered)?.read_exact(&mut page)?;
    let pages = fs::metadata(path)?.len().div_ceil(4096);
    // The file format (WAL), the number of pages, and an empty free list.
    page[18..20].fill(2);
    page[28..32].copy_from_slice(&u32::try_from(pages).unwrap_or(u32::MAX).to_be_bytes());
    page[32..40].fill(0);
    copy(path, &recovered)?;
    OpenOptions::new().write(true).open(&recovered)?.write_all_at(&page, 0)?;
    let wal = beside(path, "-wal");
    if wal.exists() {
        copy(&wal, &beside(&recovered, "-wal"))?;
    }
    Ok((recovered, made))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut new = owner_only::open(to)?;
    new.set_len(0)?;
    io::copy(&mut File::open(from)?, &mut new).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::damaged::DamagedFile;
    use super::*;

    #[test]
    fn only_quarantined_files_beside_the_store_are_read_and_then_renamed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["s.db.damaged-1", "s.db.damaged-1-wal", "other", "t.db.damaged-1"] {
            fs::write(path(name), "").expect("a file");
        }
        std::os::unix::fs::symlink(path("other"), path("s.db.damaged-2")).expect("a link");
        fs::create_dir(path("s.db.damaged-3")).expect("a folder");
        let found = |name: &str| quarantined(&path("s.db"), name).is_ok();
        assert!(found("s.db.damaged-1"));
        let absolute = path("s.db.damaged-1").display().to_string();
        for name in [
            "s.db.damaged-1-wal",
            "s.db.damaged-",
            "s.db.damaged-2",
            "s.db.damaged-3",
            "s.db.damaged-4",
            "t.db.damaged-1",
            "other",
            "s.db",
            "./s.db.damaged-1",
            "s.db.damaged-/../other",
            &absolute,
            "",
        ] {
            assert!(!found(name), "{name}");
        }
        set_recovered(&path("s.db"), "s.db.damaged-1").expect("renamed");
        assert!(path("s.db.recovered-1").exists() && path("s.db.recovered-1-wal").exists() && !found("s.db.damaged-1"));
        let owned = Connection::open(path("s.db.damaged-5")).expect("a file");
        owned.execute_batch("CREATE TABLE messages (id)").expect("a table");
        assert!(DamagedFile::open(&path("s.db.damaged-5")).is_err(), "it is of another program");
    }
}
