//! Sizes, windows, pauses and thresholds of the parts that hold events. `Default` is what the gateway runs with; tests set others,
//! so that they stand on both sides of each.

use std::time::Duration;

/// All limits that no operator sets. Those that an operator sets are in the configuration.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Of supervised tasks and threads.
    pub supervision: Supervision,
    /// Of deduplication, whatever the store.
    pub dedup: Dedup,
    /// Of the dedupe log beside a SQLite file.
    pub dedupe_log: DedupeLog,
    /// Of a SQLite file.
    pub sqlite: Sqlite,
    /// Of queues in Redis.
    pub redis: Redis,
    /// Of the delivery of queued events.
    pub dispatch: Dispatch,
}

/// When a task is given up, and when one that does nothing counts as stuck.
#[derive(Debug, Clone)]
pub struct Supervision {
    /// A task that dies again sooner than this after it was restarted is not restarted any more.
    pub forgiveness: Duration,
    /// A thread that has not shown for so long that it is alive makes the gateway not ready.
    pub late: Duration,
    /// After so long it counts as stuck for good, which only a restart of the process mends. Long enough for a disk that
    /// stalls: restarting would not make it faster.
    pub stuck: Duration,
}

/// Deduplication.
#[derive(Debug, Clone)]
pub struct Dedup {
    /// Requests that wait for the outcome of one event; more are told to come back.
    pub max_waiting: usize,
    /// How long a claim is kept after a delivery that may have succeeded. Long enough for an upstream that is just slow,
    /// short enough for the second retry of a provider that gives up after seconds.
    pub ambiguous: Duration,
}

/// The dedupe log.
#[derive(Debug, Clone)]
pub struct DedupeLog {
    /// Bytes of all files beyond those that are in proportion to the live records.
    pub slack: u64,
    /// How many times as many bytes as the live records take may be appended, besides the slack, before a snapshot replaces
    /// them: all files together have at most `factor + 1` times the live records and the slack.
    pub factor: u64,
    /// How often what was appended is synced to disk.
    pub sync_every: Duration,
    /// How long it waits before it tries again to write a snapshot that failed.
    pub retry_every: Duration,
}

/// Sizes of a SQLite file's log (WAL) are in frames: a page of 4 KiB and 24 bytes each.
#[derive(Debug, Clone)]
pub struct Sqlite {
    /// So many more frames than at the last checkpoint are moved while the writer goes on: 8 MiB.
    pub checkpoint: u32,
    /// From so many on, the writer pauses until all are moved and nobody reads them, so that the log begins anew: 32 MiB.
    pub restart: u32,
    /// From so many on, no more events are taken until the log has begun anew: 44 MiB. Less than 64 MiB, the default of
    /// `store.min_free`, by more than what is in flight may add: recording deliveries must not fill the disk.
    pub refuse: u32,
    /// How long that pause may take because somebody reads. It is tried again after as many frames as in `checkpoint`.
    pub pause: Duration,
    /// Bytes of events that are written in one transaction; one event in any case.
    pub batch: usize,
    /// Outcomes of attempts that wait to be written; from so many on, nothing more is taken.
    pub max_outcomes: usize,
    /// Events that are kept in memory for a queue.
    pub window: usize,
    /// About how many bytes they may take.
    pub window_bytes: usize,
    /// Events of a queue that wait, as numbers in memory, for another one of their lane.
    pub max_behind: usize,
    /// Events that are read at once.
    pub max_load: usize,
    /// Bytes of bodies that are read at once; one event in any case.
    pub max_read: usize,
    /// Rows that a list or a replay looks at before it answers with a cursor.
    pub max_looks: i64,
    /// Rows that a list sorts in memory.
    pub max_sorted: i64,
    /// Events that retention looks at in one transaction.
    pub retention_rows: i64,
    /// About how many bytes of theirs are deleted in one transaction.
    pub retention_bytes: i64,
    /// Bytes of new events after which retention looks again.
    pub retention_written: usize,
    /// How often retention looks at least.
    pub retention_every: Duration,
    /// How long the end of a gateway waits for what is still to be written.
    pub close: Duration,
}

/// Queues in Redis.
#[derive(Debug, Clone)]
pub struct Redis {
    /// Entries that one call takes at a step.
    pub take_step: usize,
    /// Bytes after which a take ends; one entry in any case.
    pub take_bytes: usize,
    /// Entries that a take looks at.
    pub take_looks: usize,
    /// Events that are in hand, or attempted and not recorded; from so many on, nothing more is taken.
    pub max_in_hand: usize,
    /// Outcomes that are recorded by one call.
    pub max_batch: usize,
    /// How often Redis is asked whether others have left something.
    pub look: Duration,
    /// How often deleting begins anew.
    pub trim: Duration,
    /// Events that are deleted by one call.
    pub trim_entries: i64,
    /// Entries that a list, in all queues together, looks at before it answers with a cursor; one call's in any case.
    pub max_looks: usize,
    /// Entries that one call lists.
    pub list_page: usize,
    /// Entries that it reads at a step.
    pub list_step: usize,
    /// Bytes after which it ends; one step in any case.
    pub list_bytes: usize,
}

/// Delivery of queued events.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Failures in a row after which an endpoint is left alone.
    pub breaker_threshold: u32,
    /// How long it is left alone first; doubled after each probe that fails.
    pub breaker_pause: Duration,
    /// How long it is left alone at most.
    pub breaker_max_pause: Duration,
    /// How long it is left alone at most because it asks for that; single events wait as long as it says.
    pub breaker_max_asked: Duration,
    /// Pause after the store did not answer.
    pub store_pause: Duration,
    /// Bytes of an upstream's answer that are read, so that the connection can be used again.
    pub max_answer: usize,
    /// How often the metrics of queues are brought up to date.
    pub metrics_every: Duration,
}

impl Default for Supervision {
    fn default() -> Self {
        Self { forgiveness: Duration::from_mins(1), late: Duration::from_secs(10), stuck: Duration::from_mins(1) }
    }
}

impl Default for Dedup {
    fn default() -> Self {
        Self { max_waiting: 64, ambiguous: Duration::from_secs(2) }
    }
}

impl Default for DedupeLog {
    fn default() -> Self {
        Self {
            slack: 64 * 1024 * 1024,
            factor: 2,
            sync_every: Duration::from_secs(1),
            retry_every: Duration::from_secs(5),
        }
    }
}

impl Default for Sqlite {
    fn default() -> Self {
        Self {
            checkpoint: 2048,
            restart: 8 * 1024,
            refuse: 11 * 1024,
            pause: Duration::from_millis(100),
            batch: 8 * 1024 * 1024,
            max_outcomes: 16 * 1024,
            window: 512,
            window_bytes: 8 * 1024 * 1024,
            max_behind: 100_000,
            max_load: 256,
            max_read: 4 * 1024 * 1024,
            max_looks: 20_000,
            max_sorted: 10_000,
            retention_rows: 500,
            retention_bytes: 8 * 1024 * 1024,
            retention_written: 8 * 1024 * 1024,
            retention_every: Duration::from_secs(30),
            close: Duration::from_secs(5),
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            take_step: 32,
            take_bytes: 4 * 1024 * 1024,
            take_looks: 1024,
            max_in_hand: 16 * 1024,
            max_batch: 128,
            look: Duration::from_secs(2),
            trim: Duration::from_secs(30),
            trim_entries: 500,
            max_looks: 10_000,
            list_page: 250,
            list_step: 32,
            list_bytes: 4 * 1024 * 1024,
        }
    }
}

impl Default for Dispatch {
    fn default() -> Self {
        Self {
            breaker_threshold: 5,
            breaker_pause: Duration::from_secs(1),
            breaker_max_pause: Duration::from_mins(1),
            breaker_max_asked: Duration::from_mins(5),
            store_pause: Duration::from_secs(1),
            max_answer: 64 * 1024,
            metrics_every: Duration::from_secs(1),
        }
    }
}
