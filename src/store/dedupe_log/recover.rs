//! Reads an existing dedupe log: finds the current files, and loads their records.

use std::fs::File;
use std::io;
use std::path::Path;

use super::Found;
use super::entry::Entry;
use super::entry::Kind;
use super::entry::VERSION;
use super::files;
use super::files::Listed;
use crate::base::time::Moment;
use crate::store::DedupeRecords;
use crate::store::Record;
use crate::store::records::seconds;

/// Records that are inserted into memory together.
const BATCH: usize = 256 * 1024;

/// The files of an earlier process.
#[derive(Debug)]
pub(super) struct Existing {
    /// The files from the newest snapshot on; all files without a snapshot.
    current: Vec<Listed>,
    /// The highest number of a file.
    last: u64,
    /// Whether the file with that number is a segment, which can be appended to.
    is_segment: bool,
    /// The highest version of the format.
    version: u32,
}

impl Existing {
    /// Lists the files, removes an unfinished snapshot, and drops the files from the page cache, so that they are read
    /// from the disk; see [`page_cache`](crate::store::page_cache).
    pub(super) fn find(path: &Path) -> io::Result<Self> {
        files::discard(path)?;
        files::list(path)?.iter().try_for_each(|file| files::drop_pages(path, file.number))?;
        Self::list(path)
    }

    /// Lists the files, and changes nothing.
    pub(super) fn list(path: &Path) -> io::Result<Self> {
        let mut current = files::list(path)?;
        let headers = current.iter().map(|file| files::header(path, file.number));
        let headers = headers.collect::<io::Result<Vec<_>>>()?;
        let is = |header: &Option<(u32, Kind)>, kind| matches!(header, Some((_, known)) if *known == kind);
        let newest = headers.iter().rposition(|header| is(header, Kind::Snapshot)).unwrap_or(0);
        Ok(Self {
            last: current.last().map_or(0, |file| file.number),
            is_segment: headers.last().is_some_and(|header| is(header, Kind::Segment)),
            version: headers.iter().flatten().map(|(version, _)| *version).max().unwrap_or(VERSION),
            current: current.split_off(newest),
        })
    }

    /// Whether this version can read them.
    pub(super) fn is_readable(&self, path: &Path) -> Result<(), String> {
        let version = self.version;
        if version <= VERSION {
            return Ok(());
        }
        Err(format!(
            "the dedupe log beside {} was written by a newer version of Doorward (format {version}, this one knows {VERSION}); \
             run that version, or name another file",
            path.display()
        ))
    }

    /// Reads the files, and changes nothing; calls `each` with the records.
    pub(super) fn read(&self, path: &Path, mut each: impl FnMut(Record)) -> io::Result<Found> {
        let mut found = Found::default();
        for file in self.current.iter().filter(|file| file.bytes > 0) {
            found.files += 1;
            found.skipped += files::read(path, file.number, |entry| match entry {
                Entry::Record(record) => {
                    found.records += 1;
                    each(record);
                }
                Entry::Checkpoint(message) => found.checkpoint = found.checkpoint.max(message),
                Entry::Header { .. } => {}
            })?;
        }
        Ok(found)
    }

    /// Reads the records into memory.
    pub(super) fn load(&self, path: &Path, records: &DedupeRecords, now: Moment) -> io::Result<Found> {
        let (second, mut batch) = (seconds(now), Vec::with_capacity(BATCH));
        let found = self.read(path, |record| {
            if second < record.until {
                batch.push(record);
            }
            if batch.len() == BATCH {
                records.insert_all(&batch, now);
                batch.clear();
            }
        })?;
        records.insert_all(&batch, now);
        Ok(found)
    }

    /// The segment to append to, with its number: the last file, or a new one.
    pub(super) fn segment(&self, path: &Path) -> io::Result<(u64, File)> {
        if self.is_segment {
            return Ok((self.last, files::reopen(path, self.last)?));
        }
        let next = self.last.saturating_add(1);
        Ok((next, files::create(path, next)?))
    }

    /// Removes the files that the newest snapshot replaces; returns the size of the others.
    pub(super) fn remove_replaced(&self, path: &Path) -> io::Result<u64> {
        if let Some(first) = self.current.first() {
            files::remove_below(path, first.number)?;
        }
        Ok(files::list(path)?.iter().map(|file| file.bytes).sum())
    }
}
