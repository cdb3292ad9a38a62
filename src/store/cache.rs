//! What the system has in memory of a file, which is not always what the disk has.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::Advice;

/// Has a file of a store read from the disk from now on. After a write or an fsync that failed, the system may have pages in
/// memory that never reached the disk, and take them for written: what stands in them is not safe, and an fsync says that it
/// is. ext4 even loses what is written over them where the file had just become longer. What is in memory alone because
/// nobody has asked for it to be written, as after a kill, is written before. A file that is not there is fine.
///
/// # Errors
/// The file cannot be written to the disk.
pub(super) fn forget(path: &Path) -> io::Result<()> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    file.sync_all()?;
    if let Err(error) = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed) {
        tracing::debug!(%error, path = %path.display(), "this file system cannot be asked to read the file anew");
    }
    Ok(())
}
