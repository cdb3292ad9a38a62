//! Opens, renames, removes and syncs the store's files. Only their owner may read and write them, whatever the umask,
//! because they contain customers' data.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::base::time::Moment;

/// The permission bits of the group and of others.
const GROUP_AND_OTHERS: u32 = 0o077;

/// Opens a file, or creates it with mode 0600. SQLite gives the same mode to `-wal` and `-shm`.
pub(super) fn open(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(false).open(path)
}

/// Options to open a file, or to create it with mode 0600.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o600);
    options
}

/// The path with this text appended, such as `store.db-wal`.
pub(super) fn beside(path: &Path, ending: impl AsRef<OsStr>) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// A moment for names of files, such as `20260102T030405Z`.
pub(super) fn stamp(moment: Moment) -> String {
    moment.rfc3339().to_string().replace(['-', ':', '.'], "")
}

/// Renames a file durably; a missing file is no error.
pub(super) fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _renamed => sync_folder(to),
    }
}

/// Removes a file; a missing file is no error.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _removed => Ok(()),
    }
}

/// Files that are removed on drop, if they exist.
#[derive(Debug)]
pub(super) struct TemporaryFiles(pub(super) Vec<PathBuf>);

impl Drop for TemporaryFiles {
    fn drop(&mut self) {
        self.0.iter().for_each(|file| drop(remove_if_there(file)));
    }
}

/// Free bytes on the disk of a folder; `u64::MAX` when the file system does not tell.
pub(super) fn free(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Syncs the folder of a file, which makes renames and removals in it durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// What follows the name of a file in the names of all files in its folder that begin with it.
pub(super) fn endings(path: &Path) -> Vec<OsString> {
    let (Some(name), Ok(entries)) = (path.file_name(), fs::read_dir(folder(path))) else { return Vec::new() };
    let files = entries.map_while(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let ending = |entry: fs::DirEntry| {
        let ending = entry.file_name().as_bytes().strip_prefix(name.as_bytes())?.to_vec();
        (!ending.is_empty()).then(|| OsString::from_vec(ending))
    };
    files.filter_map(ending).collect()
}

/// Removes the permissions of group and others from the files of a store, which earlier versions, backups and
/// Kubernetes volumes may have left. For a file of another owner, only logs a warning.
pub(super) fn restrict_permissions(path: &Path) {
    for file in files(path) {
        let Ok(permissions) = fs::metadata(&file).map(|known| known.permissions()) else { continue };
        if permissions.mode() & GROUP_AND_OTHERS == 0 {
            continue;
        }
        let (path, mode) = (file.display(), format!("{:03o}", permissions.mode() & 0o777));
        match fs::set_permissions(&file, fs::Permissions::from_mode(permissions.mode() & !GROUP_AND_OTHERS)) {
            Ok(()) => {
                tracing::warn!(%path, mode, "others could read or write this file of the store; now only its owner may");
            }
            Err(error) => {
                tracing::warn!(%error, %path, mode, "others may read or write this file of the store; make it 0600");
            }
        }
    }
}

/// The file, SQLite's `-wal` and `-shm`, the dedupe log, and quarantined files.
fn files(path: &Path) -> Vec<PathBuf> {
    let endings = endings(path).into_iter().filter(|ending| belongs_to_store(ending.as_bytes()));
    std::iter::once(path.to_owned()).chain(endings.map(|ending| beside(path, ending))).collect()
}

fn belongs_to_store(ending: &[u8]) -> bool {
    ending.starts_with(b".damaged-")
        || ending.starts_with(b".recovered-")
        || ending.starts_with(b"-wal.kept-")
        || ending.starts_with(b"-dedupe.")
        || [&b"-wal"[..], b"-shm"].contains(&ending)
}

/// Whether an open file is still the one at this path; true when that cannot be determined.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        (_, Err(error)) => error.kind() != io::ErrorKind::NotFound,
        (Err(_), Ok(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_store_are_narrowed_and_no_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let modes = |names: &[&str]| -> Vec<u32> {
            names.iter().map(|name| fs::metadata(path(name)).expect("a file").permissions().mode() & 0o777).collect()
        };
        let ours = ["s.db", "s.db-wal", "s.db-dedupe.7", "s.db.damaged-1", "s.db.damaged-1-wal"];
        let others = ["s.db2", "s.db-waltz", "s", "s.db.toml"];
        for name in ours.iter().chain(&others) {
            fs::write(path(name), "").expect("a file");
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o664)).expect("a mode");
        }
        std::os::unix::fs::symlink(path("s"), path("s.db-shm")).expect("a link");
        restrict_permissions(&path("s.db"));
        assert_eq!(modes(&ours), [0o600; 5]);
        assert_eq!(modes(&others), [0o664; 4]);
        drop(open(&path("new.db")).expect("a file"));
        assert_eq!(modes(&["new.db"]), [0o600]);
        fs::set_permissions(path("s.db"), fs::Permissions::from_mode(0o400)).expect("a mode");
        restrict_permissions(&path("s.db"));
        assert_eq!(modes(&["s.db"]), [0o400], "what its owner may do stays");
    }
}
