//! The files of a dedupe log, `PATH-dedupe.N` with mode 0600: listing, creating, reading and replacing them.

use std::fs;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use super::entry::ENTRY;
use super::entry::Entry;
use super::entry::Kind;
use super::entry::Scanner;
use super::entry::VERSION;
use crate::store::Record;
use crate::store::owner_only;
use crate::store::owner_only::beside;
use crate::store::owner_only::folder;
use crate::store::owner_only::remove_if_there;
use crate::store::owner_only::sync_folder;
use crate::store::page_cache;

/// Bytes that are read or written at once.
const CHUNK: usize = 1024 * 1024;

/// The highest number of a file. A file with a higher number does not belong to the log, so that numbers do not
/// overflow.
const MAX_NUMBER: u64 = u64::MAX / 2;

/// A file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listed {
    pub(super) number: u64,
    pub(super) bytes: u64,
}

/// The path of the file with this number.
pub(super) fn name(path: &Path, number: u64) -> PathBuf {
    beside(path, format!("-dedupe.{number}"))
}

fn unfinished(path: &Path) -> PathBuf {
    beside(path, "-dedupe.new")
}

/// The existing files, in the order of their numbers. An error when one of them is no regular file, such as a pipe,
/// which would block a reader.
pub(super) fn list(path: &Path) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let prefix = beside(Path::new(path.file_name().unwrap_or_default()), "-dedupe.");
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.as_bytes().strip_prefix(prefix.as_os_str().as_bytes()).and_then(|it| str::from_utf8(it).ok());
        // Other spellings of a number, such as `01`, do not belong to the log.
        let is_written = |number: &u64, text: &str| *number <= MAX_NUMBER && number.to_string() == text;
        let number = number.and_then(|text| text.parse().ok().filter(|number| is_written(number, text)));
        if let Some(number) = number {
            let metadata = entry.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::other(format!("{} is not a regular file", entry.path().display())));
            }
            listed.push(Listed { number, bytes: metadata.len() });
        }
    }
    listed.sort_unstable();
    Ok(listed)
}

/// Creates a segment, and syncs it and its folder.
pub(super) fn create(path: &Path, number: u64) -> io::Result<File> {
    let name = name(path, number);
    let mut file = owner_only::options().append(true).create_new(true).open(&name)?;
    let header = Entry::Header { version: VERSION, kind: Kind::Segment }.encode();
    let made = file.write_all(&header).and_then(|()| file.sync_all()).and_then(|()| sync_folder(path));
    if let Err(error) = made {
        // If it cannot be removed, it does no harm.
        drop(fs::remove_file(name));
        return Err(error);
    }
    Ok(file)
}

/// Opens a file to append to it.
pub(super) fn reopen(path: &Path, number: u64) -> io::Result<File> {
    owner_only::options().append(true).open(name(path, number))
}

/// Syncs a file, and drops it from the page cache.
pub(super) fn drop_pages(path: &Path, number: u64) -> io::Result<()> {
    let name = name(path, number);
    page_cache::drop_pages(&name).map_err(|error| named(&name, &error))
}

/// Checks that an open file is still the one with its number, and has at least `length` bytes.
pub(super) fn is_there(path: &Path, number: u64, file: &File, length: u64) -> io::Result<()> {
    let (there, open) = (fs::symlink_metadata(name(path, number))?, file.metadata()?);
    if (there.dev(), there.ino()) == (open.dev(), open.ino()) && open.len() >= length {
        return Ok(());
    }
    Err(io::Error::other("somebody has replaced or shortened its file"))
}

/// Adds the path of the file to an error.
fn named(name: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", name.display()))
}

/// Version and kind in the header of a file; `None` when it is damaged.
pub(super) fn header(path: &Path, number: u64) -> io::Result<Option<(u32, Kind)>> {
    let mut bytes = [0; ENTRY];
    match File::open(name(path, number))?.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    match Entry::decode(&bytes) {
        Some(Entry::Header { version, kind }) => Ok(Some((version, kind))),
        Some(Entry::Record(_) | Entry::Checkpoint(_)) | None => Ok(None),
    }
}

/// Calls `each` with the entries of a file; returns the number of skipped bytes.
pub(super) fn read(path: &Path, number: u64, mut each: impl FnMut(Entry)) -> io::Result<u64> {
    let mut file = File::open(name(path, number))?;
    let (mut buffer, mut scanner, mut left) = (vec![0; CHUNK], Scanner::default(), 0);
    loop {
        let read = match file.read(buffer.get_mut(left..).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            scanner.end(left);
            return Ok(scanner.skipped);
        }
        let filled = buffer.get(..left + read).unwrap_or_default();
        let done = scanner.scan(filled, &mut each);
        buffer.copy_within(done..left + read, 0);
        left = left + read - done;
    }
}

/// A snapshot that is being written. It gets its final name when it is complete and synced.
#[derive(Debug)]
pub(super) struct Snapshot(BufWriter<File>);

impl Snapshot {
    /// Begins it, and truncates an unfinished one.
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
        let file = owner_only::options().write(true).create(true).truncate(true).open(unfinished(path))?;
        let mut snapshot = Self(BufWriter::with_capacity(CHUNK, file));
        snapshot.write(Entry::Header { version: VERSION, kind: Kind::Snapshot })?;
        Ok(snapshot)
    }

    /// Adds records.
    pub(super) fn add(&mut self, records: &[Record]) -> io::Result<()> {
        records.iter().try_for_each(|record| self.write(Entry::Record(*record)))
    }

    fn write(&mut self, entry: Entry) -> io::Result<()> {
        self.0.write_all(&entry.encode())
    }

    /// Completes it with a checkpoint: it has the keys of all messages up to this one.
    pub(super) fn finish(mut self, path: &Path, number: u64, message: i64) -> io::Result<()> {
        self.write(Entry::Checkpoint(message))?;
        self.0.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(unfinished(path), name(path, number))?;
        sync_folder(path)
    }
}

/// Removes an unfinished snapshot, if there is one.
pub(super) fn discard(path: &Path) -> io::Result<()> {
    let name = unfinished(path);
    remove_if_there(&name).map_err(|error| named(&name, &error))
}

/// Removes the files below a number.
pub(super) fn remove_below(path: &Path, number: u64) -> io::Result<()> {
    for old in list(path)?.iter().filter(|old| old.number < number) {
        fs::remove_file(name(path, old.number))?;
    }
    Ok(())
}
