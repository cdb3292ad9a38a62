//! What is written of a message, and what is known of one without reading it.

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;

use super::statements::limit_of;
use crate::event::Lane;
use crate::message::Message;
use crate::message::codec;

/// Why a delivery is given up whose message is not what was written.
pub(super) const DAMAGED: &str = "damaged on disk";

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

/// A lane as entries have it.
pub(super) fn lane(lane: Option<Lane>) -> Option<u64> {
    lane.map(|lane| lane.0)
}
