//! Opens the file: locks it for this process, checks or creates its schema, and quarantines a damaged file.

use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::io::Read as _;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;

use super::connections::keep_plans;
use super::fault::Fault;
use super::housekeeper::MAX_WAIT;
use super::schema;
use super::schema::Owner;
use crate::base::time::Moment;
use crate::store::owner_only;
use crate::store::owner_only::beside;
use crate::store::owner_only::remove_if_there;
use crate::store::owner_only::rename_if_there;
use crate::store::page_cache;

/// The size of the writer's page cache, in KiB: large, because lanes are random and their index has no locality.
const CACHE: i64 = 16 * 1024;
/// The capacity of the writer's statement cache: more than it has statements.
const STATEMENTS: usize = 64;

const IN_USE: &str = "is in use by another process; one gateway owns its file, several share a Redis";

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    /// It has a schema of another version.
    Layout(i64),
    /// It is a SQLite file of another program.
    Foreign,
    /// Any other reason, for the operator.
    Other(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Opens the file for the writer, and creates the schema of a new one. Returns whether it is new.
pub(super) fn connect(path: &Path) -> Result<(Connection, bool), Failure> {
    let (connection, is_new) = open(path)?;
    if is_new {
        schema::create(&connection)?;
    }
    Ok((connection, is_new))
}

/// Opens the file, if it is empty or has the current schema. Returns whether it is empty.
pub(super) fn open(path: &Path) -> Result<(Connection, bool), Failure> {
    let connection = Connection::open(path)?;
    // Whoever closes a file last moves what is in its WAL, unless told not to: that of somebody else stays as it is,
    // and that of one that is damaged.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    keep_plans(&connection)?;
    connection.busy_timeout(MAX_WAIT)?;
    let owner = schema::owner(&connection)?;
    match owner {
        Owner::Nobody | Owner::Doorward(schema::PRESENT) => {}
        Owner::Doorward(version) => return Err(Failure::Layout(version)),
        Owner::Other => return Err(Failure::Foreign),
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Also for what nobody waits for: a page of the WAL that the system cannot write by itself, between two syncs,
    // would be lost unseen, and what is acknowledged behind it with it.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok((connection, owner == Owner::Nobody))
}

/// Opens a file that is not in use, read-only.
pub(super) fn read_only(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    match schema::owner(&connection)? {
        Owner::Doorward(schema::PRESENT) => Ok(connection),
        Owner::Doorward(version) => Err(Failure::Layout(version)),
        Owner::Nobody | Owner::Other => Err(Failure::Foreign),
    }
}

/// Locks the file for this process, until the returned handle is closed.
pub(super) fn own(path: &Path) -> Result<File, String> {
    let file = owner_only::open(path).map_err(|error| {
        format!("{} cannot be opened ({error}); its folder must exist and be writable", path.display())
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!("{} {IN_USE}", path.display())),
        Err(TryLockError::Error(error)) => {
            Err(format!("{} cannot be locked ({error}); name a file on a file system of this machine", path.display()))
        }
    }
}

/// Drops the file and its WAL from the page cache, so that they are read from the disk. No connection may be open.
pub(super) fn drop_cached_pages(path: &Path) -> Result<(), Failure> {
    for file in [path, beside(path, "-wal").as_path()] {
        let failed = |error| Failure::Other(format!("{} cannot be written: {error}", file.display()));
        page_cache::drop_pages(file).map_err(failed)?;
    }
    Ok(())
}

/// Whether a file that SQLite cannot read is a store's.
pub(super) fn is_ours(path: &Path) -> bool {
    let mut header = [0; 72];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    let named = read.is_ok() && header.ends_with(&schema::APPLICATION.to_be_bytes());
    named || owner_only::endings(path).iter().any(|ending| ending.as_encoded_bytes().starts_with(b"-dedupe."))
}

/// Quarantines a damaged file and its WAL, and creates an empty file in its place. Returns the lock of the new file. No
/// connection may be open.
pub(super) fn quarantine(path: &Path, now: Moment) -> Result<File, Failure> {
    let aside = beside(path, format!(".damaged-{}", owner_only::stamp(now)));
    let replace = || {
        if aside.exists() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        fs::rename(path, &aside)?;
        owner_only::sync_folder(path)?;
        rename_if_there(&beside(path, "-wal"), &beside(&aside, "-wal"))?;
        remove_if_there(&beside(path, "-shm"))?;
        let new = owner_only::open(path)?;
        new.try_lock()?;
        owner_only::sync_folder(path)?;
        Ok(new)
    };
    let new: io::Result<File> = replace();
    let failed = |error| Failure::Other(format!("{} is damaged and cannot be set aside ({error})", path.display()));
    let new = new.map_err(failed)?;
    tracing::error!(
        path = %path.display(),
        aside = %aside.display(),
        "the store's file is damaged and was set aside: a fresh one takes its place. Of the events in the damaged one none is \
         delivered until they are recovered: doorward store recover {}",
        aside.file_name().unwrap_or_default().display()
    );
    Ok(new)
}

/// Quarantines the WAL of a file that was quarantined without it, so that SQLite does not apply it to the new file.
pub(super) fn set_lone_wal_aside(path: &Path, now: Moment) -> Result<(), String> {
    let wal = beside(path, "-wal");
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    if bytes(path) > 0 || bytes(&wal) == 0 {
        return Ok(());
    }
    let names = owner_only::endings(path).into_iter().filter_map(|ending| ending.into_string().ok());
    let last = names.filter(|ending| is_quarantined(ending)).max();
    let aside = beside(path, last.unwrap_or_else(|| format!(".damaged-{}", owner_only::stamp(now))));
    let moved = rename_if_there(&wal, &beside(&aside, "-wal")).and_then(|()| remove_if_there(&beside(path, "-shm")));
    moved.map_err(|error| format!("{} cannot be set aside: {error}", wal.display()))
}

/// The number of quarantined files that are not recovered yet.
pub(super) fn quarantined(path: &Path) -> usize {
    owner_only::endings(path).iter().filter(|ending| ending.to_str().is_some_and(is_quarantined)).count()
}

pub(super) fn is_quarantined(ending: &str) -> bool {
    ending.starts_with(".damaged-") && !ending.ends_with("-wal") && !ending.ends_with("-shm")
}

/// Moves the WAL of an earlier process into the file. A process that is killed repeatedly never does so itself, and
/// each start would read a longer WAL.
pub(super) fn truncate_wal(connection: &Connection) -> rusqlite::Result<()> {
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_row| Ok(())) {
        // Not fatal: messages can also be read from the WAL.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(()),
        moved => moved,
    }
}

/// After the clock was set back, pauses that began later than now begin now.
pub(super) fn rebase_due(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE deliveries INDEXED BY due SET due = due - settled + ?1, settled = ?1 WHERE state = 4 AND due > ?1 AND settled > ?1",
        [now],
    )?;
    Ok(())
}

impl Failure {
    /// Whether the file is damaged. SQL errors count as damage, because the statements are correct for an undamaged
    /// schema.
    pub(super) fn is_damage(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        Fault::of(error) == Fault::Damage || error.sqlite_error_code() == Some(ErrorCode::Unknown)
    }

    pub(super) fn explain(&self, path: &Path) -> String {
        let path = path.display();
        let error = match self {
            Self::Sqlite(error) => error,
            Self::Layout(version) if *version > schema::PRESENT => {
                return format!(
                    "{path} was written by a newer version of Doorward (layout {version}, this one knows {}); run that \
                     version, or name another file",
                    schema::PRESENT
                );
            }
            Self::Layout(version) => {
                return format!(
                    "{path} was written by an earlier version of Doorward (layout {version}): let that version deliver what \
                     it has queued, then name another file"
                );
            }
            Self::Foreign => return format!("{path} is a SQLite file of another program; name another file"),
            Self::Other(why) => return why.clone(),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!("{path} {IN_USE}")
            }
            Some(ErrorCode::CannotOpen) => format!("{path} cannot be opened; its folder must exist and be writable"),
            Some(ErrorCode::ReadOnly) => format!("{path} cannot be written; name a file on a writable volume"),
            Some(ErrorCode::NotADatabase) => format!("{path} is not a SQLite file; name another, or move it away"),
            _ => format!("{path} cannot be used: {error}"),
        }
    }
}
