//! The layout of the file, and whose a file is that is there already.

use rusqlite::Connection;

/// The number of the present layout.
pub(super) const PRESENT: i64 = 3;

/// What a file of Doorward has as `application_id`: "DWRD".
pub(super) const APPLICATION: u32 = 0x4457_5244;

/// `event` is the millisecond in which the event was queued, times 4096, plus a sequence number within that millisecond. `state`
/// is that of [`rows::state`](super::rows::state); 0 and 1 are not used, so that a change of state never changes the size of a
/// row. `keys` are the event's dedupe keys, 16 bytes each, which expire at `until`, in seconds since 1970; other times are in
/// milliseconds. Messages are in a table of their own, so that a change of state does not write their bodies again; with their
/// metadata, so that they can be salvaged without the row in `events`. The indexes are partial: a delivered event has no entry in
/// any. The one row of `deleted` is the highest `event` that was ever deleted, so that numbers keep growing.
const LAYOUT: &str = "
    CREATE TABLE sources (
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
        keys     BLOB,
        until    INTEGER,
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
    CREATE TABLE deleted (
        event INTEGER NOT NULL
    );
    INSERT INTO deleted VALUES (0);
    CREATE INDEX queued   ON events (source, event)      WHERE state = 2;
    CREATE INDEX retrying ON events (source, due, event) WHERE state = 3;
    CREATE INDEX dead     ON events (source, event)      WHERE state = 5;";

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody's: it is empty.
    Nobody,
    /// Of a gateway, with a layout of this number.
    Doorward(i64),
    /// Of another program.
    Other,
}

/// Says whose a file is.
pub(super) fn owner(connection: &Connection) -> rusqlite::Result<Owner> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let (application, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    if application == i64::from(APPLICATION) {
        return Ok(Owner::Doorward(version));
    }
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let first_layouts = number("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'finished'")?;
    // The first two had no application_id.
    Ok(match (application, version) {
        (0, 1 | 2) if first_layouts == 1 => Owner::Doorward(version),
        (0, 0) if tables == 0 => Owner::Nobody,
        _ => Owner::Other,
    })
}

/// Gives an empty file the present layout, wholly or not at all.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(LAYOUT)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", PRESENT)?;
    transaction.commit()
}
