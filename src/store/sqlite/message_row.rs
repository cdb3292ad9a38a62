//! A message as it is read from its row.

use bytes::Bytes;
use http::Method;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;

use super::ids;
use crate::message::Message;
use crate::message::codec;
use crate::time::Moment;

/// The columns from which a message is read.
pub(super) const COLUMNS: &str =
    "source, event_id, type, received, checksum, method, target, trace, verified, headers, body";

/// Reads one message; `None` when there is none, or it is not what was written.
pub(super) fn whole(file: &Connection, id: i64) -> rusqlite::Result<Option<Message>> {
    let mut statement = file.prepare_cached(&format!("SELECT {COLUMNS} FROM messages WHERE id = ?1"))?;
    Ok(statement.query_row([id], |row| read(row, id, 0)).optional()?.flatten())
}

/// The message in [`COLUMNS`], which begin at this column; `None` when it is not what was written.
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
