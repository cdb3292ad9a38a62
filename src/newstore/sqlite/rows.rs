//! Messages as rows: what is written of one, and what is read.

use bytes::Bytes;
use http::Method;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;

use super::statements::limit_of;
use crate::event::Lane;
use crate::message::Message;
use crate::message::codec;
use crate::time::Moment;

/// Why a delivery is given up whose message is not what was written.
pub(super) const DAMAGED: &str = "damaged on disk";

/// What a message is read from.
pub(super) const MESSAGE: &str =
    "received, checksum, source, event_id, type, method, target, trace, verified, headers, body";

/// What is written of a message besides what stands in it as it is. It is made on the thread of the request, to spare the writer.
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

/// About how many bytes of memory a message takes, which is known without reading it; nothing when it is not there.
pub(super) fn size(connection: &Connection, id: i64) -> rusqlite::Result<Option<usize>> {
    let mut statement = connection.prepare_cached("SELECT size FROM messages WHERE id = ?1")?;
    let size = statement.query_row([id], |row| Ok(row.get_ref(0)?.as_i64().unwrap_or_default())).optional()?;
    Ok(size.map(|size| usize::try_from(size).unwrap_or_default()))
}

/// Reads a message; `None` when it is not what was written.
pub(super) fn message(connection: &Connection, id: i64) -> rusqlite::Result<Option<Message>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {MESSAGE} FROM messages WHERE id = ?1"))?;
    statement.query_row([id], |row| decode(row, 0)).optional().map(Option::flatten)
}

/// The message in the columns [`MESSAGE`], which begin here; `None` when it is not what was written: SQLite does not notice a bit
/// that has flipped in a body.
pub(super) fn decode(row: &Row<'_>, begin: usize) -> rusqlite::Result<Option<Message>> {
    let part = |column: usize| Ok::<_, rusqlite::Error>(row.get_ref(begin + column)?.as_str().ok());
    let value = |column: usize| Ok::<_, rusqlite::Error>(part(column)?.and_then(codec::value));
    let number = |column: usize| Ok::<_, rusqlite::Error>(row.get_ref(begin + column)?.as_i64().ok());
    let (Some(received), Some(checksum), Some(source)) = (number(0)?, number(1)?, value(2)?) else { return Ok(None) };
    let (Some(event_id), Some(method), Some(target)) = (value(3)?, part(5)?, part(6)?) else { return Ok(None) };
    let (Some(headers), Ok(body)) = (part(9)?, row.get_ref(begin + 10)?.as_blob()) else { return Ok(None) };
    let (Ok(method), Some(pairs)) = (method.parse::<Method>(), codec::from_json(headers)) else { return Ok(None) };
    let message = Message {
        source,
        event_id,
        kind: value(4)?,
        received_at: Moment::from_millis(received),
        method,
        headers: pairs,
        body: Bytes::copy_from_slice(body),
        target: target.into(),
        trace: value(7)?,
        verified: number(8)? == Some(1),
        keys: None,
        lane: None,
    };
    let is_whole = i64::from(codec::checksum(&message, headers)) == checksum;
    Ok(is_whole.then_some(message))
}

/// A lane as entries have it.
pub(super) fn lane(lane: Option<Lane>) -> Option<u64> {
    lane.map(|lane| lane.0)
}
