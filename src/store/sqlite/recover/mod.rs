//! Imports what is readable of a quarantined file into the current one, step by step, while the gateway serves.

mod damaged;
mod files;
mod import;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;

use self::damaged::DamagedFile;
use self::damaged::MORE;
use self::files::quarantined;
use self::files::set_recovered;
use self::import::ExistingKeys;
use self::import::import;
use super::Sqlite;
use super::changes::Changes;
use super::execute::blocking;
use super::ids;
use crate::store::AdminError;
use crate::store::MessageId;
use crate::store::Recovered;
use crate::store::Unavailable;

/// About how long one call takes.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// A recovery between two calls.
#[derive(Debug)]
pub(super) struct Recovery {
    path: PathBuf,
    damaged: DamagedFile,
    present: ExistingKeys,
}

impl Recovery {
    fn open(path: PathBuf) -> Result<Self, String> {
        Ok(Self { damaged: DamagedFile::open(&path)?, path, present: ExistingKeys::default() })
    }
}

impl Sqlite {
    /// Imports parts of a quarantined file for about a second, behind the message `after`. `file` is the name of a
    /// regular file beside the store's, such as `store.db.damaged-20260102T030405Z`; it is renamed when all of it is
    /// done.
    ///
    /// # Errors
    /// [`AdminError`] when there is no such file, or it or the present one cannot be used.
    pub(in crate::store) async fn recover(
        self: &Arc<Self>,
        file: &str,
        after: Option<MessageId>,
    ) -> Result<Recovered, AdminError> {
        let began = Instant::now();
        let path = quarantined(&self.shared.path, file).map_err(AdminError::BadPath)?;
        // One call at a time.
        let mut unfinished = self.recovery.lock().await;
        let mut recovery = match unfinished.take().filter(|recovery| recovery.path == path) {
            Some(recovery) => recovery,
            None => blocking(move || Recovery::open(path)).await?.map_err(AdminError::BadPath)?,
        };
        let limits = self.shared.limits.clone();
        let (max_rows, max_bytes, scanned) = (limits.recover_rows, limits.batch_bytes, limits.retention_rows.max(1));
        let mut after = after.map_or(0, |after| ids::written(after).unwrap_or(i64::MAX));
        let mut done = Recovered::default();
        while began.elapsed() < MAX_WAIT {
            recovery.present = self.scan(recovery.present, scanned).await?;
            let (back, part) = blocking(move || {
                let part = recovery.damaged.part(after, max_rows, max_bytes);
                (recovery, part)
            })
            .await?;
            recovery = back;
            let part = part.map_err(|error| AdminError::BadPath(format!("{file} cannot be read: {error}")))?;
            let Some(last) = part.last().map(|stored| stored.id) else {
                if after == 0 && !blocking(move || recovery.damaged.is_empty()).await? {
                    return Err(AdminError::BadPath(format!("{file}: none of its events can be read; {MORE}")));
                }
                set_recovered(&self.shared.path, file)
                    .map_err(|error| AdminError::BadPath(format!("{file}: {error}")))?;
                return Ok(done);
            };
            let (present, shared) = (recovery.present, Arc::clone(&self.shared));
            let import = move |file: &Connection, changes: &mut Changes| {
                import(file, changes, &part, (present, scanned, &shared.forgotten))
            };
            let (imported, present) = self.command(import).await?;
            recovery.present = present;
            done = done.and(imported);
            after = last;
        }
        *unfinished = Some(recovery);
        Ok(Recovered { next: Some(ids::public(after)), ..done })
    }

    /// Reads the keys of messages that came since.
    async fn scan(self: &Arc<Self>, mut present: ExistingKeys, rows: i64) -> Result<ExistingKeys, Unavailable> {
        loop {
            let (more, read) =
                self.view(move |file| Ok::<_, Unavailable>((present.scan(file, rows)?, present))).await?;
            if !more {
                return Ok(read);
            }
            present = read;
        }
    }
}
