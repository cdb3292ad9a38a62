//! Claims ahead: reads which deliveries of a queue may be attempted next, so that takes find them in memory.

use std::collections::BTreeSet;

use rusqlite::Connection;
use rusqlite::ffi;
use tokio::sync::oneshot;

use super::shared::Shared;
use super::shared::SqliteQueue;
use super::statements;

/// Reads what may be attempted, where somebody waits for it or something has changed, and tells the dispatchers.
pub(super) fn refill_all(
    shared: &Shared,
    connection: &Connection,
    touched: &BTreeSet<usize>,
    refills: Vec<(usize, Option<oneshot::Sender<()>>)>,
) -> rusqlite::Result<()> {
    let asked: BTreeSet<usize> = refills.iter().map(|(index, _)| *index).collect();
    for queue in touched.union(&asked).filter_map(|index| shared.queues.get(*index)) {
        let index = queue.handle.index();
        let refilled = (asked.contains(&index) || queue.claims.is_low()) && refill(shared, connection, &queue)?;
        if refilled || touched.contains(&index) {
            queue.handle.signal().raise();
        }
    }
    for waiting in refills.into_iter().filter_map(|(_, waiting)| waiting) {
        // One that is gone has stopped waiting.
        let _gone = waiting.send(());
    }
    Ok(())
}

/// Claims deliveries that may be attempted: those that are due and those that wait for their first attempt by
/// turns. Whether there were any.
fn refill(shared: &Shared, connection: &Connection, queue: &SqliteQueue) -> rusqlite::Result<bool> {
    let (claims, destination, now) = (&queue.claims, queue.destination(), shared.pauses.now());
    let (wanted, claimed) = claims.wanted();
    let limit = wanted.saturating_add(claimed);
    // All that is read is of the same moment.
    let _moment = connection.unchecked_transaction()?;
    let due = statements::due(connection, destination, now, limit)?;
    let fresh = statements::fresh(connection, destination, limit)?;
    let full = due.len() == limit || fresh.len() == limit;
    let (mut due, mut fresh) = (claims.unclaimed(due).into_iter(), claims.unclaimed(fresh).into_iter());
    let left = due.len() + fresh.len() > wanted;
    let mut entries = Vec::with_capacity(wanted.min(due.len() + fresh.len()));
    while entries.len() < wanted {
        let pair = [due.next(), fresh.next()];
        if pair == [None, None] {
            break;
        }
        for id in pair.into_iter().flatten().take(wanted - entries.len()) {
            entries.push(statements::entry(connection, id, destination)?.ok_or_else(index_is_wrong)?);
        }
    }
    let any = !entries.is_empty();
    claims.refill(entries, full || left, statements::next_due(connection, destination, now)?, now);
    Ok(any)
}

/// An index names a delivery that its row says may not be attempted: it would be attempted again and again.
fn index_is_wrong() -> rusqlite::Error {
    let why = "an index does not agree with its table".to_owned();
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(why))
}
