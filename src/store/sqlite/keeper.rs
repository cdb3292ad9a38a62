//! Keeps the WAL short: checkpoints move its frames into the file, on a thread and a connection of their own while the writer
//! goes on; where that is not enough, the writer waits for one that lets the WAL restart.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::InterruptHandle;

use super::inbox::Inbox;
use super::salvage;
use crate::limits::Sqlite as Limits;
use crate::supervisor::Heartbeat;

/// SQLite's busy timeout of the writer, but for the checkpoint that restarts the WAL.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the WAL is, and when the next checkpoint is due.
#[derive(Debug)]
pub(super) struct Keeper {
    limits: Limits,
    state: Mutex<State>,
    more: Condvar,
    /// Held during a checkpoint: SQLite refuses a second one at the same time.
    alone: Mutex<()>,
    long_reads: Mutex<Vec<LongRead>>,
}

/// A read that may take long, and can be given up.
struct LongRead(InterruptHandle);

impl std::fmt::Debug for LongRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LongRead")
    }
}

#[derive(Debug, Default)]
struct State {
    /// Frames in the WAL.
    frames: u32,
    /// How many there were at the last checkpoint, and when a restart was last tried.
    moved: u32,
    tried: u32,
    closed: bool,
}

impl Keeper {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            more: Condvar::new(),
            alone: Mutex::default(),
            long_reads: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the log of the writer's connection.
    pub(super) fn watch(self: &Arc<Self>, writer: &mut Connection) -> rusqlite::Result<()> {
        // The file of a WAL that was longer is cut to this when it restarts.
        writer.pragma_update(None, "journal_size_limit", i64::from(self.limits.restart_frames) * 4096)?;
        let keeper = Arc::clone(self);
        writer.wal_hook(Some(move |_log: &mut rusqlite::hooks::Wal, frames| {
            keeper.committed(u32::try_from(frames).unwrap_or(0));
            Ok(())
        }))
    }

    /// What this connection reads is given up when it keeps the log from beginning anew.
    pub(super) fn may_interrupt(&self, reader: &Connection) {
        let read = LongRead(reader.get_interrupt_handle());
        self.long_reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
    }

    fn committed(&self, frames: u32) {
        let mut state = self.lock();
        if frames < state.frames {
            // It has begun anew.
            (state.moved, state.tried) = (0, 0);
        }
        state.frames = frames;
        if frames.saturating_sub(state.moved) >= self.limits.checkpoint_frames {
            self.more.notify_one();
        }
    }

    /// Moves pages until it is closed.
    pub(super) fn run(&self, connection: &Connection, inbox: &Inbox, beat: &Heartbeat) {
        loop {
            beat.idle();
            {
                let idle = |state: &mut State| {
                    state.frames.saturating_sub(state.moved) < self.limits.checkpoint_frames && !state.closed
                };
                let mut state = self.more.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
                if state.closed {
                    return;
                }
                state.moved = state.frames;
            }
            beat.beat();
            let _alone = self.alone();
            if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_moved| Ok(())) {
                return inbox.fail(&error, salvage::is_damage(&error));
            }
        }
    }

    /// The writer's part: restarts the WAL when it is long. Returns whether more events may be queued.
    pub(super) fn restart(&self, writer: &Connection, inbox: &Inbox) -> rusqlite::Result<bool> {
        let frames = {
            let state = self.lock();
            let due = state.frames >= self.limits.restart_frames
                && state.frames - state.tried >= self.limits.checkpoint_frames;
            if !due && state.frames < self.limits.refuse_frames {
                return Ok(true);
            }
            state.frames
        };
        let _alone = self.alone();
        if inbox.sound().is_err() {
            // The other checkpoint failed; a second one could succeed without what the first one lost.
            return Ok(true);
        }
        writer.busy_timeout(self.limits.restart_timeout)?;
        let busy = writer.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, bool>(0));
        writer.busy_timeout(PATIENCE)?;
        let busy = busy?;
        if busy {
            // They are done by the next time.
            let reads = self.long_reads.lock().unwrap_or_else(PoisonError::into_inner);
            reads.iter().for_each(|LongRead(read)| read.interrupt());
        }
        let mut state = self.lock();
        (state.frames, state.moved, state.tried) = if busy { (frames, frames, frames) } else { (0, 0, 0) };
        Ok(state.frames < self.limits.refuse_frames)
    }

    /// Ends it.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::path::PathBuf;

    use bytes::Bytes;
    use tempfile::TempDir;

    use super::super::Options;
    use super::super::Sqlite;
    use super::*;
    use crate::message::Message;
    use crate::store::queued::Queue;
    use crate::time::Moment;

    const HOUR: Duration = Duration::from_secs(3600);
    const NEVER: u32 = u32::MAX;
    /// Bytes of a frame, and of what stands before the first one.
    const FRAME: u64 = 4096 + 24;
    const HEADER: u64 = 32;

    fn open(folder: &TempDir, limits: Limits) -> (Arc<Sqlite>, PathBuf) {
        let path = folder.path().join("store.db");
        let queues = [Queue { source: "shop".to_owned(), ordered: false, keep: HOUR }];
        let limits = crate::limits::Limits { sqlite: limits, ..crate::limits::Limits::default() };
        let options = Options { queues: &queues, limits, ..Options::for_tests(&path) };
        (Arc::new(Sqlite::open(&options).expect("a store")), path)
    }

    fn limits(checkpoint_frames: u32, restart_frames: u32, refuse_frames: u32) -> Limits {
        let restart_timeout = Duration::from_millis(1);
        Limits { checkpoint_frames, restart_frames, refuse_frames, restart_timeout, ..Limits::default() }
    }

    /// Writes something, which is a frame; however long that takes.
    async fn commit(sqlite: &Sqlite, number: u32) {
        let something = 0x25a5_a5a5_0000_0000 | i64::from(number);
        let write = move |file: &Connection| file.execute("UPDATE deleted SET event = ?1", [something]).map(drop);
        sqlite.order(write).await.expect("written");
    }

    fn event(bytes: usize) -> Arc<Message> {
        let body = Bytes::from(vec![b'x'; bytes]);
        Arc::new(Message { received_at: Moment::now(), body, ..Message::example() })
    }

    fn log(path: &Path) -> u64 {
        std::fs::metadata(path.with_extension("db-wal")).expect("a log").len()
    }

    fn frames(path: &Path) -> u64 {
        (log(path) - HEADER) / FRAME
    }

    /// Whether the file itself has what was written.
    fn is_moved(path: &Path) -> bool {
        std::fs::read(path).expect("a file").windows(4).any(|bytes| bytes == [0x25, 0xa5, 0xa5, 0xa5])
    }

    async fn wait_until(what: &str, condition: impl Fn() -> bool) {
        for _ in 0..1000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain for {what}");
    }

    #[tokio::test]
    async fn as_many_frames_as_the_limit_says_are_moved_into_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sqlite, path) = open(&folder, limits(50, NEVER, NEVER));
        for number in 0..45 {
            commit(&sqlite, number).await;
        }
        assert!(!is_moved(&path));
        for number in 45..55 {
            commit(&sqlite, number).await;
        }
        wait_until("a checkpoint", || is_moved(&path)).await;
    }

    #[tokio::test]
    async fn a_log_that_is_never_idle_begins_anew_when_it_is_as_long_as_the_limit_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sqlite, path) = open(&folder, limits(10, 100, NEVER));
        for number in 0..1000 {
            commit(&sqlite, number).await;
        }
        let frames = frames(&path);
        assert!((10..=110).contains(&frames), "{frames} frames");
        let folder = tempfile::tempdir().expect("a folder");
        let (sqlite, path) = open(&folder, limits(NEVER, NEVER, NEVER));
        for number in 0..300 {
            commit(&sqlite, number).await;
        }
        assert!(self::frames(&path) >= 300, "nobody else does it");
    }

    #[tokio::test]
    async fn a_log_that_somebody_keeps_from_beginning_anew_takes_no_more_events_until_they_are_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sqlite, path) = open(&folder, limits(10, 20, 100));
        let reader = Connection::open(&path).expect("a file");
        reader.execute_batch("BEGIN; SELECT count(*) FROM deleted").expect("read");
        for number in 0..90 {
            commit(&sqlite, number).await;
        }
        sqlite.enqueue(0, event(10), HOUR).await.expect("the log has room");
        for number in 90..110 {
            // What was delivered meanwhile is written nevertheless.
            commit(&sqlite, number).await;
        }
        wait_until("the log to be too long", || sqlite.healthy().is_err()).await;
        let refused = sqlite.enqueue(0, event(10), HOUR).await.expect_err("no room");
        assert!(refused.to_string().contains("its log gets too long"), "{refused}");
        assert_eq!(sqlite.sound().map_err(|error| error.to_string()), Ok(()), "a restart is not needed");
        reader.execute_batch("COMMIT").expect("done");
        wait_until("the log to begin anew", || sqlite.healthy().is_ok()).await;
        sqlite.enqueue(0, event(10), HOUR).await.expect("there is room again");
    }

    #[tokio::test]
    async fn a_long_read_of_the_gateway_itself_is_given_up_for_the_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sqlite, path) = open(&folder, limits(10, 20, 100));
        // Counts for ever.
        let endless =
            "WITH RECURSIVE n(i) AS (SELECT count(*) FROM deleted UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        let reader = Connection::open(&path).expect("a file");
        sqlite.keeper.may_interrupt(&reader);
        #[expect(clippy::disallowed_methods, reason = "it is joined")]
        let reading = std::thread::spawn(move || reader.query_row(endless, [], |_row| Ok(())));
        for number in 0..10_000 {
            if reading.is_finished() {
                break;
            }
            commit(&sqlite, number).await;
        }
        assert!(reading.join().expect("no panic").is_err(), "it was given up");
        assert!(frames(&path) < 100, "{} frames", frames(&path));
    }

    #[tokio::test]
    async fn under_load_that_never_ceases_the_log_stays_within_64_mib() {
        // All sizes are a 64th of what they are outside of tests.
        const SCALE: u32 = 64;
        const BODY: usize = 2 * 1024;
        const SENDERS: usize = 64;
        const EACH: usize = 25;
        let usual = Limits::default();
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits {
            batch_bytes: usual.batch_bytes / usize::try_from(SCALE).expect("small"),
            restart_timeout: usual.restart_timeout,
            ..limits(usual.checkpoint_frames / SCALE, usual.restart_frames / SCALE, usual.refuse_frames / SCALE)
        };
        let (sqlite, path) = open(&folder, limits);
        let mut senders = tokio::task::JoinSet::new();
        for _ in 0..SENDERS {
            let (sqlite, event) = (Arc::clone(&sqlite), event(BODY));
            let _sender = senders.spawn(async move {
                for _ in 0..EACH {
                    sqlite.enqueue(0, Arc::clone(&event), HOUR).await.expect("queued");
                }
            });
        }
        drop(senders.join_all().await);
        let (most, log) = (64 * 1024 * 1024 / u64::from(SCALE), log(&path));
        assert!(log < most, "of 3 MiB that were written, the log has {log} bytes, more than {most}");
    }
}
