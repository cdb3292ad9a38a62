//! Classifies SQLite errors by their consequence for the file: retry, damaged, or in doubt.

use rusqlite::ErrorCode;
use rusqlite::ffi;

/// The consequence of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A temporary condition: nothing was written, and the write is retried.
    Passing,
    /// The file is damaged.
    Damage,
    /// Earlier writes may not be on the disk: the file has to be reopened and read from the disk.
    TaskError,
}

impl Fault {
    pub(super) fn of(error: &rusqlite::Error) -> Self {
        // On a full disk, the WAL index (`-shm`) cannot grow.
        if error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_SHMSIZE) {
            return Self::Passing;
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Passing,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damage,
            _ => Self::TaskError,
        }
    }

    /// Whether an error only concerns the statement, and not the file.
    pub(super) fn is_of_statement(error: &rusqlite::Error) -> bool {
        let code = error.sqlite_error_code();
        code.is_none_or(|code| {
            matches!(code, ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::Unknown)
        })
    }
}
