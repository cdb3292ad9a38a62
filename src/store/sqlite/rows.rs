//! Writes messages to rows and reads them back.

use bytes::Bytes;
use http::Method;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;

use super::ids;
use super::ids::limit_of;
use crate::base::time::Moment;
use crate::message::Message;
use crate::message::codec;

/// The reason of a dead letter whose message is damaged.
pub(super) const DAMAGED: &str = "damaged on disk";

/// The columns of a message that have to be encoded. This is done on the thread of the request, to relieve the writer.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) source: String,
    pub(super) event_id: String,
    pub(super) kind: Option<String>,
    pub(super) trace: Option<String>,
    pub(super) headers: String,
    pub(super) checksum: i64,
    pub(super) size: i64,
}

impl Columns {
    pub(super) fn of(message: &Message) -> Self {
        let headers = codec::to_json(codec::pairs(&message.headers));
        Self {
            source: codec::text(&message.source),
            event_id: codec::text(&message.event_id),
            kind: message.kind.as_ref().map(codec::text),
            trace: message.trace.as_ref().map(codec::text),
            checksum: i64::from(codec::checksum(message, &headers)),
            size: limit_of(message.weight()),
            headers,
        }
    }

    /// About how many bytes they take on disk.
    pub(super) fn bytes(&self) -> usize {
        self.event_id.len() + self.headers.len() + 350
    }
}

/// About how many bytes of memory a message takes, without reading it; `None` when there is none.
pub(super) fn size(connection: &Connection, id: i64) -> rusqlite::Result<Option<usize>> {
    let mut statement = connection.prepare_cached("SELECT size FROM messages WHERE id = ?1")?;
    let size = statement.query_row([id], |row| Ok(row.get_ref(0)?.as_i64().unwrap_or_default())).optional()?;
    Ok(size.map(|size| usize::try_from(size).unwrap_or_default()))
}

/// The columns from which a message is read.
pub(super) const COLUMNS: &str =
    "source, event_id, type, received, checksum, method, target, trace, verified, headers, body";

/// Reads one message; `None` when there is none, or it is damaged.
pub(super) fn whole(file: &Connection, id: i64) -> rusqlite::Result<Option<Message>> {
    let mut statement = file.prepare_cached(&format!("SELECT {COLUMNS} FROM messages WHERE id = ?1"))?;
    Ok(statement.query_row([id], |row| read(row, id, 0)).optional()?.flatten())
}

/// The message in [`COLUMNS`], which begin at this column; `None` when its checksum is wrong.
pub(super) fn read(row: &Row<'_>, id: i64, begin: usize) -> rusqlite::Result<Option<Message>> {
    let text = |column: usize| Ok::<_, rusqlite::Error>(row.get_ref(begin + column)?.as_str().ok());
    let value = |column: usize| Ok::<_, rusqlite::Error>(text(column)?.and_then(codec::value));
    let number = |column: usize| Ok::<_, rusqlite::Error>(row.get_ref(begin + column)?.as_i64().ok());
    let (Some(source), Some(event_id), Some(method)) = (value(0)?, value(1)?, text(5)?) else { return Ok(None) };
    let (Some(target), Some(json)) = (text(6)?, text(9)?) else { return Ok(None) };
    let Ok(body) = row.get_ref(begin + 10)?.as_blob() else { return Ok(None) };
    let (Ok(method), Some(headers)) = (method.parse::<Method>(), codec::from_json(json)) else { return Ok(None) };
    let message = Message {
        source,
        event_id,
        kind: value(2)?,
        received_at: number(3)?.map_or_else(|| ids::stored(id), Moment::from_millis),
        method,
        headers,
        body: Bytes::copy_from_slice(body),
        target: target.into(),
        trace: value(7)?,
        verified: number(8)? == Some(1),
        keys: None,
    };
    Ok((number(4)? == Some(i64::from(codec::checksum(&message, json)))).then_some(message))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use rusqlite::types::Value;

    use super::super::schema;
    use super::super::statements;
    use super::super::statements::WriteStatements;
    use super::*;

    /// A file with this message alone, and a delivery of it.
    fn written(message: &Message) -> Connection {
        let file = Connection::open_in_memory().expect("a file");
        schema::create(&file).expect("a layout");
        let mut writing = WriteStatements::new(&file).expect("statements");
        writing.message(1, (message, &Columns::of(message), None)).expect("a message");
        writing.delivery((1, 1), Some(7), Moment::from_unix(0)).expect("a delivery");
        drop(writing);
        file
    }

    pub(in crate::store::sqlite) fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_map(Value::Real),
            ".{0,20}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Blob),
        ]
    }

    proptest! {
        #[test]
        fn any_message_comes_back_as_it_was(message in Message::any()) {
            let file = written(&message);
            prop_assert_eq!(size(&file, 1), Ok(Some(message.weight())));
            prop_assert_eq!(whole(&file, 1), Ok(Some(message)));
        }

        #[test]
        fn whatever_stands_in_a_row_nothing_fails_that_reads_it(column in 0..24_usize, value in any_value()) {
            let file = written(&Message::example());
            let of_messages = "source received size checksum keys until event_id type method target trace verified headers body";
            let of_deliveries = "message destination state attempts before_replay settled due replayed lane status failures";
            let of_messages = of_messages.split(' ').map(|name| ("messages", name));
            let of_deliveries = of_deliveries.split(' ').map(|name| ("deliveries", name));
            let Some((table, name)) = of_messages.chain(of_deliveries).nth(column) else { return Ok(()) };
            // What must not be nothing cannot be.
            let _refused = file.execute(&format!("UPDATE {table} SET {name} = ?1"), [value]);
            for state in [3, 4] {
                prop_assert!(whole(&file, 1).is_ok() && size(&file, 1).is_ok());
                prop_assert!(statements::entry(&file, 1, 1).is_ok() && statements::oldest(&file, 1).is_ok());
                prop_assert!(statements::fresh(&file, 1, 9).is_ok() && statements::due(&file, 1, 10, 9).is_ok());
                prop_assert!(statements::next_due(&file, 1, 0).is_ok() && statements::counts(&file, 1).is_ok());
                prop_assert!(statements::failures_of(&file, 1, 1).is_ok() && statements::last(&file).is_ok());
                prop_assert!(statements::promote(&file, 1, 7, 0).is_ok());
                let keys = statements::keys_behind(&file, 0, 0, |_, _, _| {});
                prop_assert!(keys.is_ok());
                file.execute("UPDATE deliveries SET state = ?1", [state]).expect("another state");
            }
        }
    }
}
