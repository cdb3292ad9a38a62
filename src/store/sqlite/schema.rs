//! The layout of the file, and how an older one becomes the present one.

use rusqlite::Connection;

/// The steps from an empty file to the present layout; a file says how many it has behind it. Never change one that was
/// released: add another.
const STEPS: &[&str] = &[
    // Keys are random, and a random key in a B-tree writes a page of its own; so finished events stand in batches, a row for
    // whatever of one source was finished while the previous batch was written: its keys, and behind them the tag of the
    // source, which earlier versions neither write nor read.
    "CREATE TABLE IF NOT EXISTS finished (
         batch INTEGER PRIMARY KEY,
         until INTEGER NOT NULL,
         keys  BLOB NOT NULL
     );",
    // A row's number is the millisecond in which it was queued, times 4096, and which of that millisecond it is. States
    // are those of `rows::state`; 0 and 1 are not used, so that a change of state never changes the size of a row. Bodies
    // stand apart, so that a change of state does not write them again, with all that belongs to their message: should the
    // row of the event be lost, they say what it was. The indexes are partial, so that an event which is delivered costs
    // one entry.
    "CREATE TABLE sources (
         source INTEGER PRIMARY KEY,
         name   TEXT NOT NULL UNIQUE
     );
     CREATE TABLE events (
         event    INTEGER PRIMARY KEY,
         source   INTEGER NOT NULL,
         state    INTEGER NOT NULL,
         attempts INTEGER NOT NULL,
         spent    INTEGER NOT NULL,
         received INTEGER NOT NULL,
         settled  INTEGER NOT NULL,
         due      INTEGER,
         replayed INTEGER,
         lane     INTEGER,
         checksum INTEGER NOT NULL,
         id       TEXT NOT NULL,
         type     TEXT,
         reason   TEXT,
         answer   TEXT
     );
     CREATE TABLE payloads (
         event       INTEGER PRIMARY KEY,
         source_name TEXT NOT NULL,
         event_id    TEXT NOT NULL,
         event_type  TEXT,
         method      TEXT NOT NULL,
         target      TEXT NOT NULL,
         trace       TEXT,
         verified    INTEGER NOT NULL,
         headers     TEXT NOT NULL,
         body        BLOB NOT NULL
     );
     CREATE INDEX queued   ON events (source, event)      WHERE state = 2;
     CREATE INDEX retrying ON events (source, due, event) WHERE state = 3;
     CREATE INDEX dead     ON events (source, event)      WHERE state = 5;",
];

/// The number of the present layout.
pub(super) const PRESENT: i64 = 3;

/// The layout of a file; 0 when it is empty.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Takes the steps that a file of this version has not taken yet, all or none.
pub(super) fn migrate(connection: &mut Connection, version: i64) -> rusqlite::Result<()> {
    if version >= PRESENT {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", PRESENT)?;
    transaction.commit()
}
