//! Refills the claims of queues: reads which deliveries may be attempted next, so that takes find them in memory.

use std::collections::BTreeSet;

use rusqlite::Connection;
use rusqlite::ffi;
use tokio::sync::oneshot;

use super::shared::Shared;
use super::shared::SqliteQueue;
use super::statements;

/// Refills the queues that have changed or for which calls wait, and raises their signals.
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

/// Claims deliveries that may be attempted, alternating between due ones and new ones. Returns whether there were any.
fn refill(shared: &Shared, connection: &Connection, queue: &SqliteQueue) -> rusqlite::Result<bool> {
    let (claims, destination, now) = (&queue.claims, queue.destination(), shared.pauses.now());
    let (wanted, claimed) = claims.wanted();
    let limit = wanted.saturating_add(claimed);
    // One transaction, so that all reads see the same state.
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

/// The error for an index entry that contradicts its row: the delivery would be attempted again and again.
fn index_is_wrong() -> rusqlite::Error {
    let why = "an index does not agree with its table".to_owned();
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(why))
}
