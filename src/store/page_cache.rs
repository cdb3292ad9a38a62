//! Drops a file from the kernel's page cache, which may differ from the disk after a failed write or fsync.
//! <https://wiki.postgresql.org/wiki/Fsync_Errors>

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::Advice;

/// Writes dirty pages of a file to the disk and drops it from the page cache, so that it is read from the disk. After a
/// failed write or fsync, the kernel may mark pages clean that never reached the disk: a later fsync succeeds without
/// them. ext4 even loses what is written over them where the file had just grown. A missing file is no error.
///
/// # Errors
/// The file cannot be written to the disk.
pub(crate) fn drop_pages(path: &Path) -> io::Result<()> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    file.sync_all()?;
    if let Err(error) = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed) {
        tracing::debug!(%error, path = %path.display(), "this file system cannot drop the file from the page cache");
    }
    Ok(())
}
