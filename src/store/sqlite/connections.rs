//! The connections besides the writer's: for takes, administrative reads and checkpoints. They are closed and reopened
//! when the writer has failed.

use std::path::Path;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::InterruptHandle;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;

/// Lets statements keep their plans. SQLite would replan some for each bound value, which takes longer than to run
/// them.
pub(super) fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// The connections besides the writer's.
#[derive(Default)]
pub(super) struct Connections {
    /// Reads deliveries to be attempted.
    pub(super) reader: Slot,
    /// Administrative reads, which may take longer.
    pub(super) admin: Slot,
    /// Moves frames of the WAL into the file.
    pub(super) housekeeper: Slot,
}

/// A connection; empty while the file is being reopened.
#[derive(Default)]
pub(super) struct Slot {
    connection: Mutex<Option<Connection>>,
    using: Mutex<Using>,
}

#[derive(Default)]
struct Using {
    /// Since when the connection is in use.
    since: Option<Instant>,
    interrupt: Option<InterruptHandle>,
}

impl Slot {
    /// Locks the connection.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn using(&self) -> MutexGuard<'_, Using> {
        self.using.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `act` with the connection; `None` when there is none.
    pub(super) fn with<T>(&self, act: impl FnOnce(&Connection) -> T) -> Option<T> {
        let connection = self.lock();
        let connection = connection.as_ref()?;
        self.using().since = Some(Instant::now());
        let done = act(connection);
        self.using().since = None;
        Some(done)
    }

    fn set(&self, connection: Option<Connection>) {
        self.using().interrupt = connection.as_ref().map(Connection::get_interrupt_handle);
        *self.lock() = connection;
    }

    /// Interrupts a use that has lasted for `longest`, and no later one.
    fn interrupt(&self, longest: Duration) {
        let using = self.using();
        if let (Some(since), Some(interrupt)) = (using.since, &using.interrupt)
            && since.elapsed() >= longest
        {
            interrupt.interrupt();
        }
    }
}

impl Connections {
    /// Opens all of them.
    pub(super) fn open(&self, path: &Path) -> rusqlite::Result<()> {
        let read = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            keep_plans(&connection).map(|()| connection)
        };
        self.reader.set(Some(read()?));
        self.admin.set(Some(read()?));
        let housekeeper = Connection::open(path)?;
        housekeeper.pragma_update(None, "journal_mode", "WAL")?;
        // The last connection that closes would checkpoint the WAL; the writer decides about that.
        housekeeper.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        self.housekeeper.set(Some(housekeeper));
        Ok(())
    }

    /// Interrupts reads that have taken at least this long.
    pub(super) fn interrupt(&self, longest: Duration) {
        [&self.reader, &self.admin].iter().for_each(|slot| slot.interrupt(longest));
    }

    /// Closes all of them.
    pub(super) fn close(&self) {
        self.interrupt(Duration::ZERO);
        [&self.reader, &self.admin, &self.housekeeper].iter().for_each(|slot| slot.set(None));
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::super::schema;
    use super::*;

    #[test]
    fn a_statement_is_not_planned_anew_for_another_destination() {
        let file = Connection::open_in_memory().expect("a file");
        schema::create(&file).expect("a layout");
        keep_plans(&file).expect("configured");
        let sql = "SELECT message FROM deliveries INDEXED BY by_state
                   WHERE destination = ?1 AND state = 3 AND state <> 5 AND message > ?2 ORDER BY message LIMIT 1";
        let mut statement = file.prepare(sql).expect("a statement");
        for destination in 1..10 {
            assert!(!statement.exists([destination, 7]).expect("read"));
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
