//! Sizes, intervals, timeouts and thresholds that are not configurable. The gateway runs with `Default`. Tests set
//! smaller ones, to reach both sides of each.

use std::time::Duration;

/// All limits that are not configurable. Those that an operator sets are in [`crate::config`].
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Limits of connections of senders.
    pub edge: Edge,
    /// Limits of supervised tasks and threads.
    pub supervision: Supervision,
    /// Limits of deduplication, whatever the store.
    pub dedup: Dedup,
    /// Limits of the dedupe log beside a SQLite file.
    pub dedupe_log: DedupeLog,
    /// Limits of a SQLite file.
    pub sqlite: Sqlite,
    /// Limits of queues in Redis.
    pub redis: Redis,
    /// Limits of the delivery of queued events.
    pub dispatch: Dispatch,
    /// How the files of the configuration are watched.
    pub reload: Reload,
}

/// Connections of senders, before their requests.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The most bytes of a header of the PROXY protocol, version 2. Real ones have less than 1 KiB.
    pub max_proxy_header: usize,
    /// HTTP/2: the most requests of a connection at one time.
    pub http2_streams: u32,
    /// HTTP/2: the most bytes of a head, as RFC 9113 section 6.5.2 counts them.
    pub http2_header_list: u32,
    /// HTTP/2: bytes that a client may send ahead on one stream.
    pub http2_stream_window: u32,
    /// HTTP/2: the same on all streams of a connection together.
    pub http2_connection_window: u32,
    /// HTTP/2: how often a client is asked whether it is there.
    pub http2_ping_every: Duration,
    /// HTTP/2: how long it may take to answer that.
    pub http2_ping_timeout: Duration,
    /// How long a connection that shall end may stay without a request of its client.
    pub http2_goaway_grace: Duration,
}

/// When a task is no longer restarted, and when a thread without a heartbeat counts as stuck.
#[derive(Debug, Clone)]
pub struct Supervision {
    /// A task that dies again within this time after a restart is not restarted any more.
    pub min_uptime: Duration,
    /// The interval of heartbeats of a thread that runs tasks.
    pub beat_every: Duration,
    /// Without a heartbeat of a thread for this long, `/readyz` fails.
    pub late: Duration,
    /// Without a heartbeat for this long, the thread counts as stuck and `/livez` fails. Long enough for a disk that
    /// stalls: a restart would not make it faster.
    pub stuck: Duration,
}

/// Deduplication.
#[derive(Debug, Clone)]
pub struct Dedup {
    /// The most requests that wait for the outcome of one event. Further ones are refused, so that their provider tries
    /// again.
    pub max_waiting: usize,
    /// How long a claim is kept after an attempt whose outcome is unknown. Long enough for an upstream that is merely
    /// slow, short enough for the second retry of a provider that gives up after seconds.
    pub ambiguous: Duration,
}

/// The dedupe log. A snapshot replaces its files when they have more than `(factor + 1) * live + slack` bytes, where
/// `live` is the size of the live records.
#[derive(Debug, Clone)]
pub struct DedupeLog {
    /// Bytes that the files may have in any case, however few records are live.
    pub slack: u64,
    /// Bytes that the files may have in addition, for each byte of the live records.
    pub factor: u64,
    /// The pause before a failed snapshot is tried again.
    pub retry_every: Duration,
}

/// A SQLite file. Sizes of its write-ahead log (WAL) are in frames: a page of 4 KiB and 24 bytes each.
#[derive(Debug, Clone)]
pub struct Sqlite {
    /// When the WAL has grown by this since the last checkpoint, another one moves frames into the file while the
    /// writer goes on: 8 MiB.
    pub checkpoint_frames: u32,
    /// From this size on, the writer waits for a checkpoint of all frames, after which the WAL is written from its
    /// beginning: 32 MiB.
    pub restart_frames: u32,
    /// From this size on, no more events are queued until the WAL has restarted: 44 MiB. It is less than 64 MiB, the
    /// default of `store.min_free`, by more than the deliveries in flight may add: recording them must not fill the
    /// disk.
    pub refuse_frames: u32,
    /// How long the writer waits for readers that keep the WAL from restarting. It tries again after
    /// `checkpoint_frames`.
    pub restart_timeout: Duration,
    /// The most bytes of events in one transaction; one event in any case.
    pub batch_bytes: usize,
    /// The most outcomes of attempts that wait to be written; beyond it, no more deliveries are taken.
    pub max_outcomes: usize,
    /// The most deliveries of a queue that are claimed ahead, as ids, so that a take need not wait for the writer.
    pub claimed_ahead: usize,
    /// The most bytes of messages, of all queues together, that are cached after they were written.
    pub cached_bytes: usize,
    /// The longest that one read of messages lasts, one message in any case: a read keeps the WAL from restarting.
    pub max_read: Duration,
    /// Messages of a recovered file that are imported in one transaction.
    pub recover_rows: usize,
    /// Pages of 4 KiB that a backup copies between two batches.
    pub backup_pages: i32,
    /// Rows that a list or a replay scans before it answers with a cursor.
    pub max_scanned: i64,
    /// Events that retention scans in one transaction.
    pub retention_rows: i64,
    /// About how many bytes retention deletes in one transaction.
    pub retention_bytes: i64,
    /// Bytes of new events after which retention begins another round.
    pub retention_written: usize,
    /// How often retention begins a round when less is written.
    pub retention_every: Duration,
}

/// Queues in Redis.
#[derive(Debug, Clone)]
pub struct Redis {
    /// Bytes after which a take ends; one entry in any case.
    pub take_bytes: usize,
    /// The most deliveries that are taken, or attempted and not recorded; beyond it, no more are taken.
    pub max_in_hand: usize,
    /// The most outcomes that one call records.
    pub max_batch: usize,
    /// How often Redis is polled for deliveries that other gateways enqueued, or took and did not finish.
    pub poll_every: Duration,
    /// How often retention begins a round.
    pub trim_every: Duration,
    /// Entries that a list scans, in all queues together, before it answers with a cursor; those of one call in any
    /// case.
    pub max_scanned: usize,
    /// The most entries that one call of the list script scans.
    pub list_page: usize,
    /// The entries that the script reads at a step.
    pub list_step: usize,
    /// Bytes after which the script ends; one step in any case.
    pub list_bytes: usize,
}

/// Circuit breakers of the endpoints of queued events.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Failures in a row after which the circuit breaker of an endpoint opens.
    pub breaker_threshold: u32,
    /// How long it stays open before the first probe; doubled after each probe that fails.
    pub breaker_pause: Duration,
    /// The longest pause between two probes.
    pub breaker_max_pause: Duration,
    /// The longest pause of an endpoint that its `Retry-After` may cause. The delivery that got the answer waits as
    /// long as it says.
    pub breaker_max_requested: Duration,
}

/// The files of the configuration.
#[derive(Debug, Clone)]
pub struct Reload {
    /// The interval at which they are looked at. One that has changed is believed when it held the same twice.
    pub look_every: Duration,
    /// How long files are waited for that never hold the same twice; then what is there is judged.
    pub settle_within: Duration,
    /// How long it may take to read them.
    pub read_within: Duration,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            max_proxy_header: 4096,
            http2_streams: 100,
            http2_header_list: 16 * 1024,
            http2_stream_window: 1024 * 1024,
            http2_connection_window: 1024 * 1024,
            http2_ping_every: Duration::from_secs(20),
            http2_ping_timeout: Duration::from_secs(10),
            http2_goaway_grace: Duration::from_secs(1),
        }
    }
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            min_uptime: Duration::from_mins(1),
            beat_every: Duration::from_secs(1),
            late: Duration::from_secs(10),
            stuck: Duration::from_mins(1),
        }
    }
}

impl Default for Dedup {
    fn default() -> Self {
        Self { max_waiting: 64, ambiguous: Duration::from_secs(2) }
    }
}

impl Default for DedupeLog {
    fn default() -> Self {
        Self { slack: 64 * 1024 * 1024, factor: 2, retry_every: Duration::from_secs(5) }
    }
}

impl Default for Sqlite {
    fn default() -> Self {
        Self {
            checkpoint_frames: 2048,
            restart_frames: 8 * 1024,
            refuse_frames: 11 * 1024,
            restart_timeout: Duration::from_millis(100),
            batch_bytes: 8 * 1024 * 1024,
            max_outcomes: 16 * 1024,
            claimed_ahead: 1024,
            cached_bytes: 8 * 1024 * 1024,
            max_read: Duration::from_millis(100),
            recover_rows: 200,
            backup_pages: 256,
            max_scanned: 20_000,
            retention_rows: 500,
            retention_bytes: 8 * 1024 * 1024,
            retention_written: 8 * 1024 * 1024,
            retention_every: Duration::from_secs(30),
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            take_bytes: 256 * 1024,
            max_in_hand: 16 * 1024,
            max_batch: 128,
            poll_every: Duration::from_secs(2),
            trim_every: Duration::from_secs(30),
            max_scanned: 10_000,
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
            breaker_max_requested: Duration::from_mins(5),
        }
    }
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(2),
            settle_within: Duration::from_secs(30),
            read_within: Duration::from_secs(30),
        }
    }
}
