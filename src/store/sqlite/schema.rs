//! The schema of the file and its version, and whether an existing file is Doorward's.

use rusqlite::Connection;

/// The current version of the schema.
pub(super) const PRESENT: i64 = 4;

/// The `application_id` of Doorward's files: "DWRD".
pub(super) const APPLICATION: u32 = 0x4457_5244;

/// A message's `id` is the millisecond in which it was stored, times 4096, plus a number within that millisecond; ids
/// only grow. `keys` are its dedupe keys, 16 bytes each, which expire at `until`, in seconds since 1970; other times
/// are in milliseconds. `headers` is JSON, see `message::codec`; `size` is about what the message takes in memory;
/// `checksum` covers what is delivered.
///
/// A delivery's `state` is 2 blocked, 3 queued, 4 retrying, 5 delivered, 6 dead: all encoded in one byte, so that a
/// change of state does not change the size of the row. `before_replay` is the number of attempts before the last
/// replay, at `replayed`. `settled` is when the last attempt ended, or when the delivery was stored. `status` is that
/// of the answer with which the destination took the message, minus 200, so that 200 takes no room. `failures` is JSON,
/// see `delivery::Failures`.
///
/// `by_state` has every delivery that is not delivered, `due` those that wait for another attempt, `lanes` the open
/// ones with an ordering key. The one row of `deleted` is the highest message that was ever deleted, so that ids keep
/// growing.
const LAYOUT: &str = "
    CREATE TABLE destinations (
        id     INTEGER PRIMARY KEY,
        source TEXT NOT NULL,
        name   TEXT NOT NULL,
        paused INTEGER NOT NULL DEFAULT 0,
        UNIQUE (source, name)
    );
    CREATE TABLE messages (
        id       INTEGER PRIMARY KEY,
        source   TEXT NOT NULL,
        received INTEGER NOT NULL,
        size     INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        keys     BLOB,
        until    INTEGER,
        event_id TEXT NOT NULL,
        type     TEXT,
        method   TEXT NOT NULL,
        target   TEXT NOT NULL,
        trace    TEXT,
        verified INTEGER NOT NULL,
        headers  TEXT NOT NULL,
        body     BLOB NOT NULL
    );
    CREATE TABLE deliveries (
        message       INTEGER NOT NULL,
        destination   INTEGER NOT NULL,
        state         INTEGER NOT NULL,
        attempts      INTEGER NOT NULL,
        before_replay INTEGER NOT NULL,
        settled       INTEGER NOT NULL,
        due           INTEGER,
        replayed      INTEGER,
        lane          INTEGER,
        status        INTEGER,
        failures      TEXT,
        PRIMARY KEY (message, destination)
    ) WITHOUT ROWID;
    CREATE TABLE deleted (
        message INTEGER NOT NULL
    );
    INSERT INTO deleted VALUES (0);
    CREATE INDEX by_state ON deliveries (destination, state, message) WHERE state <> 5;
    CREATE INDEX due      ON deliveries (destination, due, message)   WHERE state = 4;
    CREATE INDEX lanes    ON deliveries (destination, lane, message)  WHERE lane IS NOT NULL AND state < 5;";

/// The owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The file is empty.
    Nobody,
    /// Doorward, with a schema of this version.
    Doorward(i64),
    /// The file is another program's.
    Other,
}

/// Determines the owner of a file.
pub(super) fn owner(connection: &Connection) -> rusqlite::Result<Owner> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let (application, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    if application == i64::from(APPLICATION) {
        return Ok(Owner::Doorward(version));
    }
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let first_layouts = number("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'finished'")?;
    // The first two versions had no application_id.
    Ok(match (application, version) {
        (0, 1 | 2) if first_layouts == 1 => Owner::Doorward(version),
        (0, 0) if tables == 0 => Owner::Nobody,
        _ => Owner::Other,
    })
}

/// Creates the schema in an empty file, atomically.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(LAYOUT)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", PRESENT)?;
    transaction.commit()
}
