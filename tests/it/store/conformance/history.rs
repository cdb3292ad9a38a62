//! Histories: what users, dispatchers, clocks and faults do to a store, one step after the other.

use std::time::Duration;

use doorward::base::limits;
use doorward::base::limits::Limits;
use proptest::prelude::*;

use super::model::Outcome;
use super::process::QUEUES;

/// Bodies are about as large as this, which is what limits of bytes are.
pub const BYTES: usize = 1000;

/// One thing that happens. Numbers choose among what there is; `by` is one of the processes.
#[derive(Debug, Clone)]
pub enum Step {
    /// A message for these queues (a bit each). Of two of a source with the same `key`, the second is a duplicate;
    /// without, it is new.
    Enqueue {
        by: usize,
        queues: u8,
        lane: Option<u64>,
        key: Option<u32>,
        size: usize,
    },
    /// Of at most about so many bytes.
    Take {
        by: usize,
        queue: usize,
        max: usize,
        bytes: usize,
    },
    /// It is said what came of an attempt in hand, or nobody says it.
    Settle {
        by: usize,
        which: usize,
        outcome: Outcome,
    },
    List {
        by: usize,
        queue: usize,
        limit: usize,
    },
    /// Of one queue, or of all that are dead or else all.
    Replay {
        by: usize,
        which: usize,
        all: bool,
    },
    /// All that are dead or delivered.
    ReplayAll {
        by: usize,
        queue: usize,
        dead: bool,
        limit: usize,
    },
    Purge {
        by: usize,
        queue: usize,
        dead: bool,
        limit: usize,
    },
    /// A process ends in order, and starts with so many queues.
    Restart {
        by: usize,
        queues: usize,
    },
    /// It is killed. In a file, what it said of so many attempts was not written yet.
    Crash {
        by: usize,
        queues: usize,
        unwritten: usize,
    },
    Around(Around),
}

/// What happens around the processes.
#[derive(Debug, Clone, Copy)]
pub enum Around {
    /// Time goes on by so many milliseconds.
    Advance(i64),
    /// Somebody sets the wall clock, by so many milliseconds.
    SetClock(i64),
    /// After so many answers of the server, one is lost.
    LoseAnswer {
        after: u8,
    },
    /// No server answers, from now on; and it does again.
    Away,
    Back,
}

#[derive(Debug, Clone)]
pub struct History {
    /// So many lanes; none when 0.
    pub lanes: u64,
    /// Small limits of numbers of things.
    pub few: usize,
    /// Bytes that are read, kept, taken or listed at once.
    pub bytes: usize,
    pub steps: Vec<Step>,
}

pub fn histories() -> impl Strategy<Value = History> {
    (0..4_u64, 1..4_usize, prop::sample::select(vec![1, BYTES, 3 * BYTES]), prop::collection::vec(steps(), 1..60))
        .prop_map(|(lanes, few, bytes, steps)| History { lanes, few, bytes, steps })
}

fn steps() -> impl Strategy<Value = Step> {
    let (by, queue, which) = (0..2_usize, 0..QUEUES, 0..8_usize);
    let size = prop::sample::select(vec![0, 1, BYTES - 1, BYTES, BYTES + 1]);
    let bytes = prop::sample::select(vec![1, BYTES, 3 * BYTES, 1_000_000]);
    let outcome = prop_oneof![
        4 => Just(Outcome::Delivered),
        3 => prop::sample::select(vec![0, 1, 1000, 40_000]).prop_map(Outcome::Retry),
        1 => Just(Outcome::Dead),
        1 => Just(Outcome::Dropped),
    ];
    let few = 1..4_usize;
    let key = prop_oneof![6 => Just(None), 1 => (0..3_u32).prop_map(Some)];
    prop_oneof![
        12 => (by.clone(), 1..8_u8, prop::option::of(0..3_u64), key, size)
            .prop_map(|(by, queues, lane, key, size)| Step::Enqueue { by, queues, lane, key, size }),
        14 => (by.clone(), queue.clone(), few.clone(), bytes)
            .prop_map(|(by, queue, max, bytes)| Step::Take { by, queue, max, bytes }),
        14 => (by.clone(), which, outcome).prop_map(|(by, which, outcome)| Step::Settle { by, which, outcome }),
        1 => (by.clone(), queue.clone(), few.clone()).prop_map(|(by, queue, limit)| Step::List { by, queue, limit }),
        2 => (by.clone(), 0..30_usize, any::<bool>()).prop_map(|(by, which, all)| Step::Replay { by, which, all }),
        1 => (by.clone(), queue.clone(), any::<bool>(), few.clone())
            .prop_map(|(by, queue, dead, limit)| Step::ReplayAll { by, queue, dead, limit }),
        1 => (by.clone(), queue, any::<bool>(), few.clone())
            .prop_map(|(by, queue, dead, limit)| Step::Purge { by, queue, dead, limit }),
        4 => prop::sample::select(vec![1, 1000, 3000, 50_000]).prop_map(|time| Step::Around(Around::Advance(time))),
        1 => prop::sample::select(vec![-120_000, -1000, 1000, 120_000]).prop_map(|by| Step::Around(Around::SetClock(by))),
        1 => (by.clone(), few.clone()).prop_map(|(by, queues)| Step::Restart { by, queues }),
        1 => (by, few, 0..3_usize).prop_map(|(by, queues, unwritten)| Step::Crash { by, queues, unwritten }),
        2 => (0..3_u8).prop_map(|after| Step::Around(Around::LoseAnswer { after })),
        1 => prop_oneof![1 => Just(Step::Around(Around::Away)), 3 => Just(Step::Around(Around::Back))],
    ]
}

/// The limits of a history.
pub fn limits(history: &History) -> Limits {
    let History { few, bytes, .. } = *history;
    let frames = u32::try_from(few).expect("few");
    let few_rows = i64::try_from(few).expect("few");
    let mut limits = Limits::default();
    limits.sqlite = limits::Sqlite {
        checkpoint_frames: frames,
        restart_frames: 4 * frames,
        batch_bytes: bytes,
        max_outcomes: few,
        claimed_ahead: few,
        cached_bytes: bytes,
        max_scanned: few_rows,
        retention_rows: few_rows,
        ..limits.sqlite
    };
    limits.redis = limits::Redis {
        take_bytes: bytes,
        max_batch: few,
        poll_every: Duration::from_secs(2),
        max_scanned: few,
        list_page: few,
        list_step: few,
        list_bytes: bytes,
        ..limits.redis
    };
    limits
}
