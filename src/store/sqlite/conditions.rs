//! Checks the conditions for storing messages: the WAL is short, the file is still at its path, and the disk has room.

use std::sync::PoisonError;

use rusqlite::Connection;

use super::shared::Shared;
use crate::store::owner_only;

/// Restarts a long WAL. While it cannot be restarted, no more messages are stored.
pub(super) fn keep_wal_short(shared: &Shared, connection: &Connection) -> rusqlite::Result<()> {
    let short = shared.housekeeper.restart(connection, &shared.connections)?;
    if shared.mailbox.set_long(!short) {
        if short {
            tracing::info!("the WAL of the store's file has restarted: events are taken again");
        } else {
            tracing::error!(
                path = %shared.path.display(),
                "somebody has been reading the store's file for so long that its WAL cannot restart: no more events are \
                 taken until they have finished"
            );
        }
    }
    Ok(())
}

/// Checks that the file is still at its path: a file that was removed is lost when the gateway ends.
pub(super) fn check_place(shared: &Shared) {
    let is_there = {
        let owned = shared.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owner_only::is_at(&owned, &shared.path)
    };
    if shared.mailbox.set_displaced(!is_there) {
        let path = shared.path.display();
        if is_there {
            tracing::info!(%path, "the store's file is in its place again: events are taken again");
        } else {
            tracing::error!(
                %path,
                "the store's file was removed or replaced: no more events are taken, and what is stored is lost when the \
                 gateway ends; `doorward store backup DIR` copies it before"
            );
        }
    }
}

/// Refuses new messages before the disk is full, so that outcomes of stored ones can be recorded.
pub(super) fn check_free_space(shared: &Shared, min_free: u64) {
    let free = owner_only::free(owner_only::folder(&shared.path));
    let full = free < min_free;
    if shared.mailbox.set_full(full) {
        if full {
            tracing::error!(free, min_free, "the disk is nearly full: no more events are taken");
        } else {
            tracing::info!(free, "there is room on the disk again");
        }
    }
}
