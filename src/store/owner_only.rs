//! Opens, renames, removes and syncs the store's files, which only their owner may read, whatever the umask: they hold
//! customers' data.

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

/// The permissions of the group and of everybody else.
const OTHERS: u32 = 0o077;

/// Opens a file, or makes one that only its owner may read and write. What SQLite makes beside a file gets its mode.
pub(super) fn open(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(false).open(path)
}

/// Options for files that only their owner may read and write.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o600);
    options
}

/// The path of a file that stands beside another one.
pub(super) fn beside(path: &Path, ending: impl AsRef<OsStr>) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// A moment as it stands in names of files: digits and letters.
pub(super) fn stamp(moment: Moment) -> String {
    moment.rfc3339().to_string().replace(['-', ':', '.'], "")
}

/// Renames a file and makes that durable; fine where there is none.
pub(super) fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _renamed => sync_folder(to),
    }
}

/// Removes a file; fine where there is none.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _removed => Ok(()),
    }
}

/// Files that are removed when this is dropped, as far as they are there.
#[derive(Debug)]
pub(super) struct TemporaryFiles(pub(super) Vec<PathBuf>);

impl Drop for TemporaryFiles {
    fn drop(&mut self) {
        self.0.iter().for_each(|file| drop(remove_if_there(file)));
    }
}

/// Bytes that are free on the disk of a folder. A file system that does not say has no limit.
pub(super) fn free(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Makes renames and removals beside a file durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// The endings of the names of all files beside one that begin with its name.
pub(super) fn endings(path: &Path) -> Vec<OsString> {
    let (Some(name), Ok(entries)) = (path.file_name(), fs::read_dir(folder(path))) else { return Vec::new() };
    let files = entries.map_while(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let ending = |entry: fs::DirEntry| {
        let ending = entry.file_name().as_bytes().strip_prefix(name.as_bytes())?.to_vec();
        (!ending.is_empty()).then(|| OsString::from_vec(ending))
    };
    files.filter_map(ending).collect()
}

/// Takes away what others may do with the files of a store, as earlier versions, backups and volumes of Kubernetes
/// leave them. A file that belongs to somebody else is only told of.
pub(super) fn narrow(path: &Path) {
    for file in files(path) {
        let Ok(permissions) = fs::metadata(&file).map(|known| known.permissions()) else { continue };
        if permissions.mode() & OTHERS == 0 {
            continue;
        }
        let (path, mode) = (file.display(), format!("{:03o}", permissions.mode() & 0o777));
        match fs::set_permissions(&file, fs::Permissions::from_mode(permissions.mode() & !OTHERS)) {
            Ok(()) => {
                tracing::warn!(%path, mode, "others could read or write this file of the store; now only its owner may");
            }
            Err(error) => {
                tracing::warn!(%error, %path, mode, "others may read or write this file of the store; make it 0600");
            }
        }
    }
}

/// The file, those that SQLite has beside it, and what was kept of damaged ones.
fn files(path: &Path) -> Vec<PathBuf> {
    let endings = endings(path).into_iter().filter(|ending| is_beside(ending.as_bytes()));
    std::iter::once(path.to_owned()).chain(endings.map(|ending| beside(path, ending))).collect()
}

fn is_beside(ending: &[u8]) -> bool {
    ending.starts_with(b".damaged-")
        || ending.starts_with(b".recovered-")
        || ending.starts_with(b"-wal.kept-")
        || ending.starts_with(b"-dedupe.")
        || [&b"-wal"[..], b"-shm"].contains(&ending)
}

/// Whether a file that is open is still the one of this path. One of which nothing can be said is.
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
        narrow(&path("s.db"));
        assert_eq!(modes(&ours), [0o600; 5]);
        assert_eq!(modes(&others), [0o664; 4]);
        drop(open(&path("new.db")).expect("a file"));
        assert_eq!(modes(&["new.db"]), [0o600]);
        fs::set_permissions(path("s.db"), fs::Permissions::from_mode(0o400)).expect("a mode");
        narrow(&path("s.db"));
        assert_eq!(modes(&["s.db"]), [0o400], "what its owner may do stays");
    }
}
