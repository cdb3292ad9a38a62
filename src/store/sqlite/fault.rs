//! Classifies SQLite errors by what they mean for the file: try again, damaged, or in doubt.

use rusqlite::ErrorCode;
use rusqlite::ffi;

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something keeps the file from being written that may pass by itself: nothing was written, and it is tried again.
    Passing,
    /// The file is damaged: what is in it is not what was written.
    Damage,
    /// What was written may not be on the disk: the file is read anew.
    TaskError,
}

impl Fault {
    pub(super) fn of(error: &rusqlite::Error) -> Self {
        // The index of a WAL grows where the disk is full.
        if error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_SHMSIZE) {
            return Self::Passing;
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Passing,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damage,
            _ => Self::TaskError,
        }
    }

    /// Whether an error is of the statement alone, and the file as good as before.
    pub(super) fn is_of_statement(error: &rusqlite::Error) -> bool {
        let code = error.sqlite_error_code();
        code.is_none_or(|code| {
            matches!(code, ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::Unknown)
        })
    }
}
