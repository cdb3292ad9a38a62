//! Compares the file with its dedupe log when both are opened: reports losses of either, and restores keys of the log
//! from the file.

use std::path::Path;

use rusqlite::Connection;

use super::ids;
use super::statements;
use crate::base::time::Moment;
use crate::store::Keyspace;
use crate::store::Record;
use crate::store::dedupe_log::DedupeLog;
use crate::store::dedupe_log::Found;
use crate::store::owner_only;

/// Keys that are appended to the log with one write.
const BATCH: usize = 64 * 1024;

/// Logs an error when the file has lost acknowledged messages: all up to the log's `checkpoint` were acknowledged.
/// Keeps a copy of the WAL then, because SQLite reads it up to a damaged frame and overwrites the rest. Returns the
/// last message that was ever stored; new ones get higher numbers.
pub(super) fn compare(connection: &Connection, path: &Path, checkpoint: i64, now: Moment) -> rusqlite::Result<i64> {
    let last = statements::last(connection)?;
    if last < checkpoint {
        let kept = owner_only::beside(path, format!("-wal.kept-{}", owner_only::stamp(now)));
        let copied = std::fs::copy(owner_only::beside(path, "-wal"), &kept);
        tracing::error!(
            path = %path.display(),
            last = %ids::public(last),
            logged = %ids::public(checkpoint),
            wal = copied.is_ok().then(|| kept.display().to_string()),
            "the store's file is older than the dedupe log beside it: events that were acknowledged are missing. If there is a \
             later copy of the file, stop the gateway and put it back"
        );
        // Logged once: later messages have higher numbers.
        statements::mark_deleted(connection, checkpoint)?;
    }
    Ok(last.max(checkpoint))
}

/// Logs losses of the log, and appends the keys of messages that it may have lost: those after its checkpoint, or all
/// if it is damaged.
pub(super) fn repair(
    connection: &Connection,
    log: &DedupeLog,
    found: &Found,
    (path, is_new, last, now): (&Path, bool, i64, Moment),
) -> rusqlite::Result<()> {
    let path = path.display();
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
    let behind = if found.skipped > 0 { 0 } else { found.checkpoint };
    // A log that cannot be written has logged that, and is repaired by a snapshot.
    let append = |records, last| drop(log.append(records, last));
    let mut records = Vec::new();
    statements::keys_behind(connection, behind, now.unix(), |source, key, until| {
        records.push(Record { source: Keyspace::of_source(source).tag(), key, until });
        if records.len() == BATCH {
            append(std::mem::take(&mut records), None);
        }
    })?;
    append(records, Some(last));
    Ok(())
}
