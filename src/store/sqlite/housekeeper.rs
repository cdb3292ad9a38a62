//! Keeps the WAL short. Checkpoints on a thread and a connection of their own move frames into the file while the
//! writer goes on; if that is not enough, the writer waits for a checkpoint after which the WAL restarts.
//! <https://sqlite.org/wal.html>

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;

use super::connections::Connections;
use super::fault::Fault;
use super::mailbox::Mailbox;
use crate::base::limits::Sqlite as Limits;
use crate::base::supervisor::Heartbeat;

/// SQLite's busy timeout of the writer, except for the checkpoint that restarts the WAL.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(5);
/// After this time without a commit, a checkpoint is due, however short the WAL is.
const IDLE: Duration = Duration::from_secs(1);

/// The length of the WAL, and the schedule of checkpoints.
#[derive(Debug)]
pub(super) struct Housekeeper {
    limits: Limits,
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug)]
struct State {
    /// Frames in the WAL.
    frames: u32,
    /// Frames that a checkpoint has moved into the file.
    moved: u32,
    /// Frames in the WAL at the last checkpoint.
    seen: u32,
    /// Frames in the WAL when a restart was last tried.
    tried: u32,
    /// The time of the last commit or checkpoint.
    last: Instant,
    closed: bool,
}

impl Housekeeper {
    pub(super) fn new(limits: Limits) -> Self {
        let state = State { frames: 0, moved: 0, seen: 0, tried: 0, last: Instant::now(), closed: false };
        Self { limits, state: Mutex::new(state), more: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches to the writer's connection, whose WAL is empty.
    pub(super) fn attach(self: &Arc<Self>, writer: &mut Connection) -> rusqlite::Result<()> {
        // When the WAL restarts, its file is truncated to this size.
        writer.pragma_update(None, "journal_size_limit", i64::from(self.limits.restart_frames) * 4096)?;
        self.committed(0);
        let housekeeper = Arc::clone(self);
        writer.wal_hook(Some(move |_wal: &mut rusqlite::hooks::Wal, frames| {
            housekeeper.committed(u32::try_from(frames).unwrap_or(0));
            Ok(())
        }))
    }

    fn committed(&self, frames: u32) {
        let mut state = self.lock();
        if frames < state.frames {
            // It has restarted.
            (state.moved, state.seen, state.tried) = (0, 0, 0);
        }
        let first = state.frames <= state.moved;
        state.frames = frames;
        state.last = Instant::now();
        if first || frames.saturating_sub(state.seen) >= self.limits.checkpoint_frames {
            self.more.notify_one();
        }
    }

    /// Waits until a checkpoint is due. Returns false when the housekeeper is closed.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.closed {
                return false;
            }
            let idle = state.last.elapsed();
            let long = state.frames.saturating_sub(state.seen) >= self.limits.checkpoint_frames;
            let left = state.frames > state.moved;
            if long || left && idle >= IDLE {
                state.seen = state.frames;
                return true;
            }
            state = if left {
                self.more.wait_timeout(state, IDLE.saturating_sub(idle)).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.more.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Runs checkpoints until it is closed.
    pub(super) fn run(&self, connections: &Connections, mailbox: &Mailbox, beat: &Heartbeat) {
        loop {
            beat.idle();
            if !self.wait() {
                return;
            }
            beat.beat();
            let moved = connections.housekeeper.with(|connection| {
                connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(2))
            });
            let mut state = self.lock();
            state.last = Instant::now();
            match moved {
                Some(Ok(moved)) => state.moved = u32::try_from(moved).unwrap_or(0).min(state.frames),
                // Retried later. Without a connection, the file is being reopened.
                None => {}
                Some(Err(error)) if Fault::of(&error) == Fault::Passing => {}
                Some(Err(error)) => {
                    drop(state);
                    // The writer handles the error.
                    drop(mailbox.submit(|batch| batch.trouble = Some(error)));
                }
            }
        }
    }

    /// Called by the writer: restarts a long WAL. Returns whether more messages may be stored.
    pub(super) fn restart(&self, writer: &Connection, connections: &Connections) -> rusqlite::Result<bool> {
        let frames = {
            let state = self.lock();
            let due = state.frames >= self.limits.restart_frames
                && state.frames - state.tried >= self.limits.checkpoint_frames;
            if !due && state.frames < self.limits.refuse_frames {
                return Ok(true);
            }
            state.frames
        };
        // SQLite allows one checkpoint at a time.
        let alone = connections.housekeeper.lock();
        writer.busy_timeout(self.limits.restart_timeout)?;
        let busy = writer.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, bool>(0));
        writer.busy_timeout(MAX_WAIT)?;
        let busy = busy?;
        drop(alone);
        if busy {
            // They are done by the next time.
            connections.interrupt(self.limits.max_read);
        }
        let mut state = self.lock();
        (state.moved, state.seen, state.tried) = if busy { (state.moved, frames, frames) } else { (0, 0, 0) };
        state.frames = if busy { frames } else { 0 };
        Ok(state.frames < self.limits.refuse_frames)
    }

    /// Ends [`Self::run`].
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::super::Sqlite;
    use super::super::tests_world::World;
    use super::super::tests_world::wait_until;
    use super::*;
    use crate::message::Message;
    use crate::store::Route;
    use crate::store::Unavailable;

    const NEVER: u32 = u32::MAX;
    /// Bytes of a frame, and of what stands before the first one.
    const FRAME: u64 = 4096 + 24;
    const HEADER: u64 = 32;

    fn limits(checkpoint_frames: u32, restart_frames: u32, refuse_frames: u32) -> Limits {
        let restart_timeout = Duration::from_millis(1);
        Limits { checkpoint_frames, restart_frames, refuse_frames, restart_timeout, ..Limits::default() }
    }

    /// Writes something, which is a frame; however long that takes.
    async fn commit(sqlite: &Sqlite, number: u32) {
        let something = 0x25a5_a5a5_0000_0000 | i64::from(number);
        let write =
            move |file: &Connection, _: &mut _| file.execute("UPDATE deleted SET message = ?1", [something]).map(drop);
        sqlite.command(write).await.expect("written");
    }

    fn wal(path: &Path) -> u64 {
        std::fs::metadata(path.with_extension("db-wal")).expect("a WAL").len()
    }

    fn frames(path: &Path) -> u64 {
        (wal(path) - HEADER) / FRAME
    }

    /// Whether the file itself has what was written.
    fn is_moved(path: &Path) -> bool {
        std::fs::read(path).expect("a file").windows(4).any(|bytes| bytes == [0x25, 0xa5, 0xa5, 0xa5])
    }

    #[tokio::test]
    async fn as_many_frames_as_the_limit_says_are_moved_into_the_file() {
        let world = World::new(limits(50, NEVER, NEVER));
        let began = Instant::now();
        for number in 0..45 {
            commit(world.sqlite(), number).await;
        }
        assert!(!is_moved(&world.path()) || began.elapsed() >= IDLE);
        for number in 45..55 {
            commit(world.sqlite(), number).await;
        }
        wait_until("a checkpoint", || is_moved(&world.path())).await;
    }

    #[tokio::test]
    async fn however_few_frames_there_are_they_are_moved_when_nothing_is_written_any_more() {
        let world = World::new(limits(NEVER, NEVER, NEVER));
        commit(world.sqlite(), 1).await;
        wait_until("a checkpoint", || is_moved(&world.path())).await;
    }

    #[tokio::test]
    async fn a_wal_that_is_never_idle_restarts_when_it_is_as_long_as_the_limit_says() {
        let world = World::new(limits(10, 100, NEVER));
        for number in 0..1000 {
            commit(world.sqlite(), number).await;
        }
        let count = frames(&world.path());
        assert!((10..=110).contains(&count), "{count} frames");
        let world = World::new(limits(NEVER, NEVER, NEVER));
        let began = Instant::now();
        for number in 0..300 {
            commit(world.sqlite(), number).await;
        }
        assert!(frames(&world.path()) >= 300 || began.elapsed() >= IDLE, "nobody else does it");
    }

    #[tokio::test]
    async fn a_wal_that_somebody_keeps_from_restarting_takes_no_more_messages_until_they_are_done() {
        let world = World::new(limits(10, 20, 100));
        let (sqlite, queue) = (world.sqlite(), world.queue("shop").await);
        let reader = Connection::open(world.path()).expect("a file");
        reader.execute_batch("BEGIN; SELECT count(*) FROM deleted").expect("read");
        for number in 0..80 {
            commit(sqlite, number).await;
        }
        world.enqueue(&queue, "a", None).await;
        for number in 80..110 {
            // What was delivered meanwhile is written nevertheless.
            commit(sqlite, number).await;
        }
        wait_until("the WAL to be too long", || sqlite.healthy().is_err()).await;
        let route = [Route { queue: queue.clone(), lane: None }];
        let refused = world.store.enqueue(Arc::new(Message::example()), &route, None).await;
        let refused = refused.expect_err("no room");
        assert!(refused.to_string().contains("its WAL gets too long"), "{refused}");
        assert_eq!(sqlite.sound().map_err(|error| error.to_string()), Ok(()), "a restart is not needed");
        reader.execute_batch("COMMIT").expect("done");
        wait_until("the WAL to restart", || sqlite.healthy().is_ok()).await;
        world.enqueue(&queue, "b", None).await;
    }

    #[tokio::test]
    async fn a_long_read_of_the_gateway_itself_is_given_up_for_the_wal() {
        let world = World::new(Limits { max_read: Duration::from_millis(1), ..limits(10, 20, 100) });
        // Counts for ever.
        let endless =
            "WITH RECURSIVE n(i) AS (SELECT count(*) FROM deleted UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        let reader = Arc::clone(world.sqlite());
        let mut reading = tokio::task::JoinSet::new();
        let read =
            async move { reader.view(|file| Ok::<_, Unavailable>(file.query_row(endless, [], |_row| Ok(()))?)).await };
        let _reading = reading.spawn(read);
        let mut read = None;
        for number in 0..10_000 {
            read = reading.try_join_next();
            if read.is_some() {
                break;
            }
            commit(world.sqlite(), number).await;
        }
        assert!(read.expect("it ended").expect("no panic").is_err(), "it was given up");
        assert!(frames(&world.path()) < 200, "{} frames", frames(&world.path()));
    }

    #[tokio::test]
    async fn under_load_that_never_ceases_the_wal_stays_within_64_mib() {
        // All sizes are a 64th of what they are outside of tests.
        const SCALE: u32 = 64;
        const SENDERS: usize = 64;
        const EACH: usize = 25;
        let usual = Limits::default();
        let world = World::new(Limits {
            batch_bytes: usual.batch_bytes / usize::try_from(SCALE).expect("small"),
            restart_timeout: usual.restart_timeout,
            ..limits(usual.checkpoint_frames / SCALE, usual.restart_frames / SCALE, usual.refuse_frames / SCALE)
        });
        let queue = world.queue("shop").await;
        let body = Bytes::from(vec![b'x'; 2 * 1024]);
        let message = Arc::new(Message { body, ..Message::example() });
        let mut senders = tokio::task::JoinSet::new();
        for _ in 0..SENDERS {
            let (store, queue, message) = (world.store.clone(), queue.clone(), Arc::clone(&message));
            let _sender = senders.spawn(async move {
                let route = [Route { queue, lane: None }];
                for _ in 0..EACH {
                    store.enqueue(Arc::clone(&message), &route, None).await.expect("stored");
                }
            });
        }
        drop(senders.join_all().await);
        let (most, length) = (64 * 1024 * 1024 / u64::from(SCALE), wal(&world.path()));
        assert!(length < most, "of 3 MiB that were written, the WAL has {length} bytes, more than {most}");
    }
}
