//! Compares the file with the dedupe log beside it when both are opened, and adds to the log what it has lost.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::Connection;

use super::rows;
use super::writes;
use crate::store::Keyspace;
use crate::store::SourceTag;
use crate::store::dedupe_log::DedupeLog;
use crate::store::dedupe_log::Found;
use crate::store::dedupe_log::Record;
use crate::time::Moment;

/// Keys that are appended to the log with one write.
const PART: usize = 64 * 1024;

/// Logs what the file or its log has lost according to the other; returns the row of the last event that was ever queued, behind
/// which new ones are numbered.
pub(super) fn compare(connection: &Connection, path: &Path, found: &Found, is_new: bool) -> rusqlite::Result<i64> {
    let (path, last, checkpoint) = (path.display(), rows::last(connection)?, found.checkpoint);
    if last < checkpoint {
        tracing::error!(
            %path,
            last = %rows::number(last),
            logged = %rows::number(checkpoint),
            "the store's file is older than the dedupe log beside it: events that were acknowledged are missing. If there is a \
             later copy of the file, stop the gateway and put it back"
        );
        // It is said once: what is queued from now on stands behind it.
        writes::mark_deleted(connection, checkpoint)?;
    }
    if found.files == 0 && !is_new {
        tracing::warn!(
            %path,
            "there is no dedupe log beside the store's file: of finished events only those are known that are in the file; \
             others are delivered again when their providers send them again"
        );
    }
    if found.skipped > 0 {
        tracing::warn!(
            %path,
            bytes = found.skipped,
            "in the dedupe log there are bytes that make no sense, as a power failure leaves them at its end; what is around \
             them was read"
        );
    }
    Ok(last.max(checkpoint))
}

/// Adds the keys of events that the log may have lost: those behind its checkpoint, or all where it is damaged.
pub(super) fn repair(
    connection: &Connection,
    log: &DedupeLog,
    found: &Found,
    (sources, last, now): (&HashMap<String, i64>, i64, Moment),
) -> rusqlite::Result<()> {
    let tags: HashMap<i64, SourceTag> =
        sources.iter().map(|(name, source)| (*source, Keyspace::of_source(name).tag())).collect();
    let behind = if found.skipped > 0 { 0 } else { found.checkpoint };
    // A log that cannot be written has logged that, and is repaired by a snapshot.
    let append = |records, last| drop(log.append(records, last));
    let mut records = Vec::new();
    rows::keys_behind(connection, behind, now.unix(), |source, key, until| {
        let source = tags.get(&source).copied().unwrap_or(SourceTag::NOBODY);
        records.push(Record { source, key, until });
        if records.len() == PART {
            append(std::mem::take(&mut records), None);
        }
    })?;
    append(records, Some(last));
    Ok(())
}
