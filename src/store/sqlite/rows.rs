//! Rows of queued events: their numbers and states, and the queries that read them.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use rusqlite::CachedStatement;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;

use super::line::Loaded;
use super::line::Standing;
use crate::event::Key;
use crate::event::Lane;
use crate::message::Message;
use crate::message::codec;
use crate::store::queued::Counts;
use crate::store::queued::Number;
use crate::store::queued::State;
use crate::store::queued::Tries;
use crate::time::Moment;

/// Rows of one millisecond.
const PER_MILLISECOND: i64 = 4096;

/// How a state is written.
pub(super) fn state(state: State) -> i64 {
    match state {
        State::Queued => 2,
        State::Retrying => 3,
        State::Delivered => 4,
        State::Dead => 5,
    }
}

/// The state that is written like this.
pub(super) fn state_of(written: i64) -> Option<State> {
    State::ALL.into_iter().find(|known| state(*known) == written)
}

/// The row of the first event that is queued at this moment.
pub(super) fn first_of(moment: Moment) -> i64 {
    moment.millis().clamp(0, i64::MAX / PER_MILLISECOND) * PER_MILLISECOND
}

/// About when the event of a row was received.
pub(super) fn received(row: i64) -> i64 {
    row.div_euclid(PER_MILLISECOND)
}

/// The number of a row's event.
pub(super) fn number(row: i64) -> Number {
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    Number { millis: part(received(row)), sequence: part(row.rem_euclid(PER_MILLISECOND)) }
}

/// The row of a number; `None` when no row can have it.
pub(super) fn row(number: Number) -> Option<i64> {
    let sequence = i64::try_from(number.sequence).ok().filter(|sequence| *sequence < PER_MILLISECOND)?;
    i64::try_from(number.millis).ok()?.checked_mul(PER_MILLISECOND)?.checked_add(sequence)
}

/// An event that cannot be delivered because its row was damaged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Damaged {
    pub(super) row: i64,
    pub(super) lane: Option<Lane>,
    pub(super) tries: Tries,
}

/// Why such an event is given up.
pub(super) const DAMAGED: &str = "damaged on disk";

/// Most that is read at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    /// Events.
    pub(super) events: usize,
    /// About so many bytes of bodies; one event in any case.
    pub(super) bytes: usize,
}

/// The columns of a message.
pub(super) const PAYLOAD: &str = "source_name, event_id, event_type, method, target, trace, verified, headers, body";

/// The columns of an event before those of its message.
const EVENT: &str = "events.event, attempts, spent, received, replayed, lane, checksum";
/// How many they are.
const BEFORE: usize = 7;

/// Reads events that wait for their first attempt, from this row on.
pub(super) fn next(
    connection: &Connection,
    source: i64,
    from: i64,
    most: Most,
) -> rusqlite::Result<(Loaded, Vec<Damaged>)> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {EVENT}, {PAYLOAD}, 0 FROM events INDEXED BY queued LEFT JOIN payloads ON payloads.event = events.event
         WHERE source = ?1 AND state = 2 AND events.event >= ?2 ORDER BY events.event LIMIT ?3"
    ))?;
    read(&mut statement, params![source, from, limit_of(most.events)], most)
}

/// Reads events that are due until `now`, behind this time and row.
pub(super) fn due(
    connection: &Connection,
    source: i64,
    behind: (i64, i64),
    now: i64,
    most: Most,
) -> rusqlite::Result<(Loaded, Vec<Damaged>)> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {EVENT}, {PAYLOAD}, due FROM events INDEXED BY retrying LEFT JOIN payloads ON payloads.event = events.event
         WHERE source = ?1 AND state = 3 AND (due, events.event) > (?2, ?3) AND due <= ?4
         ORDER BY due, events.event LIMIT ?5"
    ))?;
    let (mut loaded, damaged) =
        read(&mut statement, params![source, behind.0, behind.1, now, limit_of(most.events)], most)?;
    loaded.next_due = connection
        .prepare_cached(
            "SELECT due FROM events INDEXED BY retrying WHERE source = ?1 AND state = 3 AND due > ?2 ORDER BY due LIMIT 1",
        )?
        .query_row([source, now], |row| Ok(row.get_ref(0)?.as_i64().ok()))
        .optional()?
        .flatten();
    Ok((loaded, damaged))
}

/// Reads one event, if it waits for an attempt.
pub(super) fn one(connection: &Connection, row: i64) -> rusqlite::Result<(Loaded, Vec<Damaged>)> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {EVENT}, {PAYLOAD}, 0 FROM events LEFT JOIN payloads ON payloads.event = events.event
         WHERE events.event = ?1 AND state IN (2, 3)"
    ))?;
    read(&mut statement, [row], Most { events: 1, bytes: usize::MAX })
}

/// A limit as SQLite takes it.
pub(super) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn read(
    statement: &mut CachedStatement<'_>,
    parameters: impl rusqlite::Params,
    most: Most,
) -> rusqlite::Result<(Loaded, Vec<Damaged>)> {
    let mut loaded = Loaded { events: Vec::new(), scanned: None, complete: true, next_due: None };
    let mut damaged = Vec::new();
    let mut bytes = 0;
    let mut count = 0;
    let mut rows = statement.query(parameters)?;
    while let Some(row) = rows.next()? {
        count += 1;
        // Of a damaged row, nothing has to be what it was.
        let tries = Tries {
            attempts: row.get(1).unwrap_or_default(),
            spent: row.get(2).unwrap_or_default(),
            replayed_at: row.get(4).ok().map(Moment::from_millis),
        };
        let (number, lane) = (row.get(0)?, lane(row, 5));
        loaded.scanned = Some((row.get(BEFORE + 9)?, number));
        match whole_message(row, number, lane)? {
            Some(event) => {
                bytes += event.weight();
                loaded.events.push(Standing { row: number, event: Arc::new(event), tries });
            }
            None => damaged.push(Damaged { row: number, lane, tries }),
        }
        if bytes >= most.bytes {
            loaded.complete = false;
            break;
        }
    }
    loaded.complete &= count < most.events;
    Ok((loaded, damaged))
}

/// The lane in a column; nothing when it is damaged.
fn lane(row: &Row<'_>, column: usize) -> Option<Lane> {
    row.get(column).ok().map(|lane: i64| Lane(lane.cast_unsigned()))
}

/// The message of a row with [`EVENT`] and [`PAYLOAD`]; `None` when it is not what was written.
fn whole_message(row: &Row<'_>, at: i64, lane: Option<Lane>) -> rusqlite::Result<Option<Message>> {
    let Some((message, headers)) = message(row, BEFORE)? else { return Ok(None) };
    if row.get_ref(6)?.as_i64() != Ok(checksum(&message, headers)) {
        return Ok(None);
    }
    let received_at = Moment::from_millis(row.get(3).unwrap_or_else(|_damaged| received(at)));
    Ok(Some(Message { received_at, lane, ..message }))
}

/// The message in the columns [`PAYLOAD`], which begin here, and how its headers are written; `None` when it is none.
pub(super) fn message<'r>(row: &'r Row<'_>, begin: usize) -> rusqlite::Result<Option<(Message, &'r str)>> {
    let part = |column: usize| text(row, begin + column);
    let value = |column: usize| Ok::<_, rusqlite::Error>(part(column)?.and_then(codec::value));
    let (Some(source), Some(event_id), Some(method)) = (value(0)?, value(1)?, part(3)?) else { return Ok(None) };
    let (Some(target), Some(headers)) = (part(4)?, part(7)?) else { return Ok(None) };
    let Ok(body) = row.get_ref(begin + 8)?.as_blob() else { return Ok(None) };
    let (Ok(method), Some(pairs)) = (method.parse::<Method>(), codec::from_json(headers)) else { return Ok(None) };
    let message = Message {
        source,
        event_id,
        kind: value(2)?,
        received_at: Moment::from_millis(0),
        method,
        headers: pairs,
        body: Bytes::copy_from_slice(body),
        target: target.into(),
        trace: value(5)?,
        verified: row.get_ref(begin + 6)?.as_i64() == Ok(1),
        keys: None,
        lane: None,
    };
    Ok(Some((message, headers)))
}

/// The text in a column, if it is one.
pub(super) fn text<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<Option<&'r str>> {
    Ok(row.get_ref(column)?.as_str().ok())
}

/// Tells whether what is read is what was written: SQLite does not notice a bit that has flipped in a body.
pub(super) fn checksum(message: &Message, headers: &str) -> i64 {
    i64::from(codec::checksum(message, headers))
}

/// Reads what is delivered of an event; `None` when it is not what was written.
pub(super) fn whole(connection: &Connection, row: i64) -> rusqlite::Result<Option<Message>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {EVENT}, {PAYLOAD} FROM events LEFT JOIN payloads ON payloads.event = events.event WHERE events.event = ?1"
    ))?;
    statement.query_row([row], |columns| whole_message(columns, row, None)).optional().map(Option::flatten)
}

/// How far the file has come: the last event that is or was in it.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT max(coalesce((SELECT max(event) FROM events), 0), coalesce((SELECT max(event) FROM deleted), 0))",
        [],
        |row| row.get(0),
    )
}

/// What the events behind a row are finished under, with the number of their source, as far as that is not over at `now`, a
/// second since 1970.
pub(super) fn keys_behind(
    connection: &Connection,
    behind: i64,
    now: i64,
    mut each: impl FnMut(i64, Key, u32),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT source, keys, until FROM events WHERE event > ?1 AND until > ?2")?;
    let mut rows = statement.query([behind, now])?;
    while let Some(row) = rows.next()? {
        // What is damaged is not believed.
        let (Ok(source), Ok(until)) = (row.get_ref(0)?.as_i64(), row.get(2)) else { continue };
        let (keys, _rest) = row.get_ref(1)?.as_blob().unwrap_or_default().as_chunks();
        keys.iter().for_each(|key| each(source, Key(*key), until));
    }
    Ok(())
}

/// How many events of a source there are.
pub(super) fn counts(connection: &Connection, source: i64) -> rusqlite::Result<Counts> {
    let count = |sql: &str| connection.prepare_cached(sql)?.query_row([source], |row| row.get::<_, i64>(0));
    let queued = count("SELECT count(*) FROM events INDEXED BY queued WHERE source = ?1 AND state = 2")?;
    let retrying = count("SELECT count(*) FROM events INDEXED BY retrying WHERE source = ?1 AND state = 3")?;
    let dead = count("SELECT count(*) FROM events INDEXED BY dead WHERE source = ?1 AND state = 5")?;
    Ok(Counts {
        queued: queued.cast_unsigned(),
        retrying: retrying.cast_unsigned(),
        dead: dead.cast_unsigned(),
        oldest: None,
    })
}

/// When the oldest event of a source that is not finished was received.
pub(super) fn oldest(connection: &Connection, source: i64) -> rusqlite::Result<Option<Moment>> {
    let mut statement = connection.prepare_cached(
        "SELECT received FROM events WHERE event = min(
             coalesce((SELECT min(event) FROM events INDEXED BY queued WHERE source = ?1 AND state = 2), 9e18),
             coalesce((SELECT min(event) FROM events INDEXED BY retrying WHERE source = ?1 AND state = 3), 9e18))",
    )?;
    let received = statement.query_row([source], |row| Ok(row.get_ref(0)?.as_i64().ok())).optional()?;
    Ok(received.flatten().map(Moment::from_millis))
}

/// The retrying events of a source in their order, those that were replayed behind the others, with their lanes.
pub(super) fn retrying(connection: &Connection, source: i64) -> rusqlite::Result<Vec<(i64, Option<Lane>)>> {
    let mut statement = connection.prepare(
        "SELECT event, lane FROM events INDEXED BY retrying WHERE source = ?1 AND state = 3
         ORDER BY replayed IS NOT NULL, event",
    )?;
    let rows = statement.query_map([source], |row| Ok((row.get(0)?, lane(row, 1))))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::types::Value;

    use super::super::inbox::Arrival;
    use super::super::inbox::Reply;
    use super::super::schema;
    use super::super::writes::Columns;
    use super::super::writes::Writing;
    use super::*;

    const MOST: Most = Most { events: 10, bytes: usize::MAX };

    fn file() -> Connection {
        let mut file = Connection::open_in_memory().expect("a file");
        schema::create(&mut file).expect("a layout");
        file
    }

    /// A file with this message alone.
    fn written(message: Message) -> Connection {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _on_it = runtime.enter();
        let (columns, (reply, _written)) = (Columns::of(&message), Reply::new());
        let arrival = Arrival { queue: 0, keys: None, until: 0, event: Arc::new(message), columns, reply };
        let file = file();
        Writing::new(&file).and_then(|mut writing| writing.insert(1, 1, &arrival)).expect("written");
        file
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_map(Value::Real),
            ".{0,20}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Blob),
        ]
    }

    #[test]
    fn as_many_events_and_bytes_as_the_limits_say_are_read_at_once() {
        let file = written(Message::example());
        file.execute_batch(
            "INSERT INTO events SELECT 2, source, state, attempts, spent, received, settled, due, replayed, lane, checksum, keys,
                 until, id, type, reason, answer FROM events;
             INSERT INTO payloads SELECT 2, source_name, event_id, event_type, method, target, trace, verified, headers, body
                 FROM payloads",
        )
        .expect("another one");
        let weight = Message::example().weight();
        for (events, bytes, read, complete) in [
            (3, usize::MAX, 2, true),
            (2, usize::MAX, 2, false),
            (1, usize::MAX, 1, false),
            (3, 2 * weight + 1, 2, true),
            (3, weight + 1, 2, false),
            (3, weight, 1, false),
            (3, 1, 1, false),
        ] {
            let (loaded, _) = next(&file, 1, 1, Most { events, bytes }).expect("it can be read");
            assert_eq!((loaded.events.len(), loaded.complete), (read, complete), "{events} events of {bytes} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_message_comes_back_as_it_was(message in Message::any()) {
            let (loaded, damaged) = next(&written(message.clone()), 1, 1, MOST).expect("it can be read");
            prop_assert!(damaged.is_empty());
            let read: Vec<_> = loaded.events.iter().map(|standing| &*standing.event).collect();
            prop_assert_eq!(read, [&message]);
        }

        #[test]
        fn whatever_stands_in_a_row_it_is_a_message_or_damaged(column in 0..20_usize, value in any_value()) {
            let file = written(Message { lane: Some(Lane(7)), ..Message::example() });
            let columns = "attempts spent received settled replayed lane checksum id type reason answer";
            let of_events = columns.split(' ').map(|name| ("events", name));
            let of_payloads = PAYLOAD.split(", ").map(|name| ("payloads", name));
            let (table, name) = of_events.chain(of_payloads).nth(column).expect("a column");
            // What must not be nothing cannot be.
            let _refused = file.execute(&format!("UPDATE {table} SET {name} = ?1"), [value]);
            let (loaded, damaged) = next(&file, 1, 1, MOST).expect("it can be read");
            prop_assert_eq!(loaded.events.len() + damaged.len(), 1);
            prop_assert!(one(&file, 1).is_ok() && whole(&file, 1).is_ok() && oldest(&file, 1).is_ok());
            file.execute_batch("UPDATE events SET state = 3, due = 0").expect("it retries");
            prop_assert!(due(&file, 1, (0, 0), 10, MOST).is_ok() && retrying(&file, 1).is_ok());
        }
    }
}
