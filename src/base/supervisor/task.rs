//! The kinds of supervised tasks and threads, and their names in metrics, the log and `/livez`.

/// A kind of supervised task or thread. Its name is a value of the label `task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A thread that serves requests.
    Worker,
    /// The admin port.
    Admin,
    /// Ends the drain of a shutdown when its timeout is over.
    Drain,
    /// Watches the files of the configuration.
    Reload,
    /// Fetches the key set of an issuer.
    KeySet,
    /// The thread on which queued events are delivered.
    DispatchThread,
    /// Takes the queued deliveries of one destination and attempts them.
    Dispatcher,
    /// Updates the metrics of a queue.
    QueueMetrics,
    /// The thread that writes the SQLite file.
    SqliteWriter,
    /// The thread that moves the WAL into the SQLite file.
    SqliteCheckpointer,
    /// The thread that syncs the dedupe log and replaces it by snapshots.
    DedupeLog,
    /// Keeps a connection to Redis open.
    RedisConnection,
    /// Writes to Redis, and waits until the writes are as durable as configured.
    RedisWriter,
    /// Records the outcomes of attempts in Redis.
    RedisRecorder,
    /// Polls Redis for deliveries of other gateways, and deletes what is past its retention.
    RedisWatcher,
    /// Serves one connection; not restarted.
    Connection,
    /// One attempt to deliver a queued event; a panic is a failed attempt.
    Attempt,
}

impl Task {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::Worker,
        Self::Admin,
        Self::Drain,
        Self::Reload,
        Self::KeySet,
        Self::DispatchThread,
        Self::Dispatcher,
        Self::QueueMetrics,
        Self::SqliteWriter,
        Self::SqliteCheckpointer,
        Self::DedupeLog,
        Self::RedisConnection,
        Self::RedisWriter,
        Self::RedisRecorder,
        Self::RedisWatcher,
        Self::Connection,
        Self::Attempt,
    ];

    /// Its name in metrics, in the log and, with the prefix `dw-`, as the name of a thread.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Admin => "admin",
            Self::Drain => "drain",
            Self::Reload => "reload",
            Self::KeySet => "key-set",
            Self::DispatchThread => "dispatch",
            Self::Dispatcher => "dispatcher",
            Self::QueueMetrics => "queue-metrics",
            Self::SqliteWriter => "sqlite-writer",
            Self::SqliteCheckpointer => "sqlite-ckpt",
            Self::DedupeLog => "dedupe-log",
            Self::RedisConnection => "redis-conn",
            Self::RedisWriter => "redis-writer",
            Self::RedisRecorder => "redis-recorder",
            Self::RedisWatcher => "redis-watcher",
            Self::Connection => "connection",
            Self::Attempt => "attempt",
        }
    }

    /// The bit of this kind in a set of kinds.
    pub(super) fn bit(self) -> u32 {
        Self::ALL
            .iter()
            .position(|task| *task == self)
            .and_then(|at| 1_u32.checked_shl(u32::try_from(at).ok()?))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_task_has_a_name_and_a_bit_of_its_own() {
        let bits = Task::ALL.iter().fold(0, |bits, task| {
            assert_eq!(bits & task.bit(), 0, "{task:?}");
            // The system shows fifteen characters of a thread's name.
            assert!(task.name().len() + 3 <= 17, "{task:?}");
            bits | task.bit()
        });
        assert_eq!(usize::try_from(bits.count_ones()).expect("small"), Task::ALL.len());
    }
}
