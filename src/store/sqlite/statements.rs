//! The SQL that runs for each message and delivery. Every query names its index (`INDEXED BY`) and repeats the
//! condition of a partial index, so that a query that would scan a table cannot be prepared. A test checks the plans.

use rusqlite::CachedStatement;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;

use super::ids;
use super::mailbox::Finished;
use super::mailbox::Settled;
use super::queue::Counts;
use super::queue::Entry;
use super::rows::Columns;
use crate::base::time::Moment;
use crate::message::Message;
use crate::store::DestinationId;
use crate::store::Failures;
use crate::store::Outcome;
use crate::store::State;
use crate::verify::event_key::Key;

const INSERT_MESSAGE: &str = "INSERT INTO messages
    (id, source, received, size, checksum, keys, until, event_id, type, method, target, trace, verified, headers, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
const INSERT_DELIVERY: &str =
    "INSERT INTO deliveries (message, destination, state, attempts, before_replay, settled, lane)
    VALUES (?1, ?2, ?3, 0, 0, ?4, ?5)";
const LANE_BUSY: &str = "SELECT 1 FROM deliveries INDEXED BY lanes
    WHERE destination = ?1 AND lane = ?2 AND lane IS NOT NULL AND state < 5 LIMIT 1";
const LANE_FIRST: &str = "SELECT message, state FROM deliveries INDEXED BY lanes
    WHERE destination = ?1 AND lane = ?2 AND lane IS NOT NULL AND state < 5 ORDER BY message LIMIT 1";
const PROMOTE: &str = "UPDATE deliveries SET state = CASE WHEN replayed IS NULL THEN 3 ELSE 4 END,
    due = CASE WHEN replayed IS NULL THEN NULL ELSE ?3 END WHERE message = ?1 AND destination = ?2 AND state = 2
    RETURNING state";
const FAILURES: &str = "SELECT failures FROM deliveries WHERE message = ?1 AND destination = ?2";
// `typeof` guards against damaged values.
const SETTLE: &str = "UPDATE deliveries
    SET state = ?4, attempts = ?5, settled = ?6, due = ?7, status = ?8, failures = coalesce(?9, failures), before_replay = ?3
    WHERE message = ?1 AND destination = ?2 AND state < 5
        AND (before_replay = ?3 OR typeof(before_replay) <> 'integer')";
const FRESH: &str = "SELECT message FROM deliveries INDEXED BY by_state
    WHERE destination = ?1 AND state = 3 AND state <> 5 ORDER BY message LIMIT ?2";
const DUE: &str = "SELECT message FROM deliveries INDEXED BY due
    WHERE destination = ?1 AND state = 4 AND due <= ?2 ORDER BY due, message LIMIT ?3";
const NEXT_DUE: &str = "SELECT due FROM deliveries INDEXED BY due
    WHERE destination = ?1 AND state = 4 AND due > ?2 ORDER BY due, message LIMIT 1";
const ENTRY: &str = "SELECT lane, attempts, before_replay, replayed FROM deliveries
    WHERE message = ?1 AND destination = ?2 AND state IN (3, 4)";
const COUNT: &str = "SELECT count(*) FROM deliveries INDEXED BY by_state
    WHERE destination = ?1 AND state = ?2 AND state <> 5";
const FIRST: &str = "SELECT message FROM deliveries INDEXED BY by_state
    WHERE destination = ?1 AND state = ?2 AND state <> 5 ORDER BY message LIMIT 1";
const RECEIVED: &str = "SELECT received FROM messages WHERE id = ?1";
const KEYS_BEHIND: &str = "SELECT source, keys, until FROM messages WHERE id > ?1 AND until > ?2";
const LAST: [&str; 2] = ["SELECT max(id) FROM messages", "SELECT max(message) FROM deleted"];
const MARK_DELETED: &str = "UPDATE deleted SET message = ?1 WHERE message < ?1";
const DELETE_MESSAGE: &str = "DELETE FROM messages WHERE id = ?1";
const DELETE_DELIVERIES: &str = "DELETE FROM deliveries WHERE message = ?1";

/// The statements for each arrival and each outcome of a batch.
pub(super) struct WriteStatements<'c> {
    message: CachedStatement<'c>,
    delivery: CachedStatement<'c>,
    failures: CachedStatement<'c>,
    settle: CachedStatement<'c>,
    pub(super) connection: &'c Connection,
}

impl<'c> WriteStatements<'c> {
    pub(super) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            message: connection.prepare_cached(INSERT_MESSAGE)?,
            delivery: connection.prepare_cached(INSERT_DELIVERY)?,
            failures: connection.prepare_cached(FAILURES)?,
            settle: connection.prepare_cached(SETTLE)?,
            connection,
        })
    }

    /// Writes a message.
    pub(super) fn message(
        &mut self,
        id: i64,
        (message, columns, once): (&Message, &Columns, Option<&Finished>),
    ) -> rusqlite::Result<()> {
        let keys = once.map(|once| once.keys.iter().flat_map(|key| key.0).collect::<Vec<u8>>());
        self.message.execute(params![
            id,
            columns.source,
            message.received_at.millis(),
            columns.size,
            columns.checksum,
            keys,
            once.map(|once| once.until),
            columns.event_id,
            columns.kind,
            message.method.as_str(),
            &*message.target,
            columns.trace,
            message.verified,
            columns.headers,
            &message.body[..],
        ])?;
        Ok(())
    }

    /// Writes a delivery of a message: blocked if its lane has an open one, otherwise queued. Returns its state.
    pub(super) fn delivery(
        &mut self,
        (id, destination): (i64, i64),
        lane: Option<u64>,
        now: Moment,
    ) -> rusqlite::Result<State> {
        let busy = match lane {
            Some(lane) => is_busy(self.connection, destination, lane)?,
            None => false,
        };
        let state = if busy { State::Blocked } else { State::Queued };
        let lane = lane.map(u64::cast_signed);
        self.delivery.execute(params![id, destination, ids::state(state), now.millis(), lane])?;
        Ok(state)
    }

    /// Writes an outcome. Returns whether the delivery was open, and not replayed since it was taken.
    pub(super) fn settle(&mut self, destination: i64, settled: &Settled) -> rusqlite::Result<bool> {
        let (at, due, status, failed) = match &settled.outcome {
            Outcome::Delivered { at, status } => (at.millis(), None, *status, None),
            Outcome::Retry { failed, .. } => (settled.at, Some(settled.due), None, Some(failed)),
            Outcome::Dead { failed } => (failed.at.millis(), None, None, Some(failed)),
        };
        let failures = match failed {
            Some(failed) => {
                let earlier =
                    self.failures.query_row([settled.entry.id, destination], |row| Ok(failures(row, 0))).optional()?;
                Some(earlier.unwrap_or_default().with(failed.clone()))
            }
            None => None,
        };
        let failures = failures.as_ref().and_then(Failures::as_json);
        let status = status.map(|status| i64::from(status) - STATUS);
        let (attempts, before_replay) = (settled.attempts, settled.entry.before_replay);
        let (id, state) = (settled.entry.id, ids::state(settled.outcome.state()));
        let parameters = params![id, destination, before_replay, state, attempts, at, due, status, failures];
        Ok(self.settle.execute(parameters)? > 0)
    }
}

/// The status that is stored as 0.
pub(super) const STATUS: i64 = 200;

/// The failures in a column; none when they are damaged.
pub(super) fn failures(row: &Row<'_>, column: usize) -> Failures {
    Failures::stored(row.get_ref(column).ok().and_then(|value| value.as_str().ok()))
}

/// Whether a lane has an open delivery.
pub(super) fn is_busy(connection: &Connection, destination: i64, lane: u64) -> rusqlite::Result<bool> {
    connection.prepare_cached(LANE_BUSY)?.exists(params![destination, lane.cast_signed()])
}

/// Unblocks the first open delivery of a lane, if it is blocked, and returns its new state. A replayed one is due at
/// `due`. To be called when a delivery of the lane has ended.
pub(super) fn promote(
    connection: &Connection,
    destination: i64,
    lane: u64,
    due: i64,
) -> rusqlite::Result<Option<State>> {
    let number = |row: &Row<'_>, column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_i64().ok());
    let first = connection
        .prepare_cached(LANE_FIRST)?
        .query_row(params![destination, lane.cast_signed()], |row| Ok((number(row, 0)?, number(row, 1)?)))
        .optional()?;
    let Some((Some(first), Some(state))) = first else { return Ok(None) };
    if state != ids::state(State::Blocked) {
        return Ok(None);
    }
    let state = connection
        .prepare_cached(PROMOTE)?
        .query_row([first, destination, due], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(state.and_then(ids::state_of))
}

/// At most `limit` deliveries that wait for their first attempt, the oldest first.
pub(super) fn fresh(connection: &Connection, destination: i64, limit: usize) -> rusqlite::Result<Vec<i64>> {
    numbers(&mut connection.prepare_cached(FRESH)?, params![destination, ids::limit_of(limit)])
}

/// At most `limit` deliveries that are due for another attempt, by due time.
pub(super) fn due(connection: &Connection, destination: i64, now: i64, limit: usize) -> rusqlite::Result<Vec<i64>> {
    numbers(&mut connection.prepare_cached(DUE)?, params![destination, now, ids::limit_of(limit)])
}

fn numbers(statement: &mut CachedStatement<'_>, parameters: impl rusqlite::Params) -> rusqlite::Result<Vec<i64>> {
    // Skips damaged values.
    let numbers = statement.query_map(parameters, |row| Ok(row.get_ref(0)?.as_i64().ok()))?;
    numbers.filter_map(Result::transpose).collect()
}

/// When the next delivery will be due.
pub(super) fn next_due(connection: &Connection, destination: i64, now: i64) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached(NEXT_DUE)?;
    let due = statement.query_row([destination, now], |row| Ok(row.get_ref(0)?.as_i64().ok())).optional()?;
    Ok(due.flatten())
}

/// A delivery that may be attempted. Damaged columns count as NULL.
pub(super) fn entry(connection: &Connection, id: i64, destination: i64) -> rusqlite::Result<Option<Entry>> {
    let mut statement = connection.prepare_cached(ENTRY)?;
    let entry = |row: &Row<'_>| Entry {
        id,
        lane: row.get(0).ok().map(i64::cast_unsigned),
        attempts: row.get(1).unwrap_or_default(),
        before_replay: row.get(2).unwrap_or_default(),
        replayed: row.get(3).ok(),
    };
    statement.query_row([id, destination], |row| Ok(entry(row))).optional()
}

/// The failed attempts of a delivery.
pub(super) fn failures_of(connection: &Connection, id: i64, destination: i64) -> rusqlite::Result<Failures> {
    let mut statement = connection.prepare_cached(FAILURES)?;
    Ok(statement.query_row([id, destination], |row| Ok(failures(row, 0))).optional()?.unwrap_or_default())
}

/// The numbers of a destination's deliveries.
pub(super) fn counts(connection: &Connection, destination: i64) -> rusqlite::Result<Counts> {
    let mut statement = connection.prepare_cached(COUNT)?;
    let mut count = |state| statement.query_row([destination, ids::state(state)], |row| row.get::<_, i64>(0));
    Ok(Counts {
        blocked: count(State::Blocked)?.cast_unsigned(),
        queued: count(State::Queued)?.cast_unsigned(),
        retrying: count(State::Retrying)?.cast_unsigned(),
        dead: count(State::Dead)?.cast_unsigned(),
    })
}

/// When the oldest message with an open delivery to a destination was received.
pub(super) fn oldest(connection: &Connection, destination: i64) -> rusqlite::Result<Option<Moment>> {
    let mut statement = connection.prepare_cached(FIRST)?;
    let mut first = None;
    for state in [State::Blocked, State::Queued, State::Retrying] {
        let found = numbers(&mut statement, [destination, ids::state(state)])?;
        first = first.into_iter().chain(found).min();
    }
    let Some(first) = first else { return Ok(None) };
    let received = connection.prepare_cached(RECEIVED)?.query_row([first], |row| Ok(row.get(0).ok())).optional()?;
    Ok(received.flatten().map(Moment::from_millis))
}

/// The row id of a destination, inserted if needed.
pub(super) fn destination(connection: &Connection, id: &DestinationId) -> rusqlite::Result<i64> {
    connection.execute("INSERT OR IGNORE INTO destinations (source, name) VALUES (?1, ?2)", [&id.source, &id.name])?;
    connection.query_row("SELECT id FROM destinations WHERE source = ?1 AND name = ?2", [&id.source, &id.name], |row| {
        row.get(0)
    })
}

/// The highest id of a message that is or was in the file.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<i64> {
    // What is damaged is not believed.
    let last = |sql| connection.query_row(sql, [], |row| Ok(row.get_ref(0)?.as_i64().unwrap_or_default()));
    let [stored, deleted] = LAST.map(last);
    Ok(stored?.max(deleted?))
}

/// Records that messages up to this one were in the file, so that ids keep growing after their deletion.
pub(super) fn mark_deleted(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached(MARK_DELETED)?.execute([id]).map(drop)
}

/// Writes a page of the file without changing its content.
pub(super) fn touch(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("INSERT INTO deleted VALUES (0); DELETE FROM deleted WHERE rowid = last_insert_rowid()")
}

/// Deletes messages with their deliveries.
pub(super) fn delete(connection: &Connection, messages: &[i64]) -> rusqlite::Result<()> {
    if let Some(last) = messages.iter().max() {
        mark_deleted(connection, *last)?;
    }
    let mut deliveries = connection.prepare_cached(DELETE_DELIVERIES)?;
    let mut message = connection.prepare_cached(DELETE_MESSAGE)?;
    for id in messages {
        deliveries.execute([id])?;
        message.execute([id])?;
    }
    Ok(())
}

/// The dedupe keys of the messages after `behind` that have not expired at `now` (seconds since 1970), with the names
/// of their sources.
pub(super) fn keys_behind(
    connection: &Connection,
    behind: i64,
    now: i64,
    mut each: impl FnMut(&str, Key, u32),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(KEYS_BEHIND)?;
    let mut rows = statement.query([behind, now])?;
    while let Some(row) = rows.next()? {
        // What is damaged is not believed.
        let (Ok(source), Ok(until)) = (row.get_ref(0)?.as_str(), row.get(2)) else { continue };
        let (keys, _rest) = row.get_ref(1)?.as_blob().unwrap_or_default().as_chunks();
        keys.iter().for_each(|key| each(source, Key(*key), until));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    #[test]
    fn every_query_finds_its_rows_by_an_index() {
        let file = Connection::open_in_memory().expect("a file");
        schema::create(&file).expect("a layout");
        let plan = |sql: &str| -> String {
            let mut statement = file.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
            // What parameters are does not matter, but they have to be there.
            (1..=statement.parameter_count()).for_each(|at| statement.raw_bind_parameter(at, 1).expect("a parameter"));
            let mut rows = statement.raw_query();
            let mut lines = Vec::new();
            while let Some(row) = rows.next().expect("a line") {
                lines.push(row.get::<_, String>(3).expect("a plan"));
            }
            lines.join("; ")
        };
        let by_key = "SEARCH deliveries USING PRIMARY KEY (message=? AND destination=?)";
        for (sql, expected) in [
            (LANE_BUSY, "SEARCH deliveries USING INDEX lanes (destination=? AND lane=?)"),
            (LANE_FIRST, "SEARCH deliveries USING INDEX lanes (destination=? AND lane=?)"),
            (PROMOTE, by_key),
            (FAILURES, by_key),
            (SETTLE, by_key),
            (ENTRY, by_key),
            (FRESH, "SEARCH deliveries USING COVERING INDEX by_state (destination=? AND state=?)"),
            (DUE, "SEARCH deliveries USING COVERING INDEX due (destination=? AND due<?)"),
            (NEXT_DUE, "SEARCH deliveries USING COVERING INDEX due (destination=? AND due>?)"),
            (COUNT, "SEARCH deliveries USING COVERING INDEX by_state (destination=? AND state=?)"),
            (FIRST, "SEARCH deliveries USING COVERING INDEX by_state (destination=? AND state=?)"),
            (RECEIVED, "SEARCH messages USING INTEGER PRIMARY KEY (rowid=?)"),
            (KEYS_BEHIND, "SEARCH messages USING INTEGER PRIMARY KEY (rowid>?)"),
            (DELETE_MESSAGE, "SEARCH messages USING INTEGER PRIMARY KEY (rowid=?)"),
            (DELETE_DELIVERIES, "SEARCH deliveries USING PRIMARY KEY (message=?)"),
        ] {
            assert_eq!(plan(sql), expected, "{sql}");
        }
    }
}
