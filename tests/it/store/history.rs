//! Histories: what users, dispatchers, clocks and faults do to a store, one step after the other.

use std::time::Duration;

use doorward::limits;
use doorward::limits::Limits;
use proptest::prelude::*;

use super::Known;
use super::model::Outcome;

/// Bodies are about as large as this, which is what limits of bytes are.
pub const BYTES: usize = 1000;
pub const QUEUES: usize = 3;
const LOOK: Duration = Duration::from_secs(2);

/// One thing that happens. Numbers choose among what there is; `by` is one of the processes.
#[derive(Debug, Clone)]
pub enum Step {
    /// A message for these queues (a bit each). Of two with the same `key`, the second is a duplicate; without, it is new.
    Enqueue {
        by: usize,
        queues: u8,
        lane: Option<u64>,
        key: Option<u32>,
        size: usize,
    },
    Take {
        by: usize,
        queue: usize,
        max: usize,
    },
    /// It is said what came of an attempt in hand.
    Settle {
        by: usize,
        which: usize,
        outcome: Outcome,
    },
    /// It is said once more, and perhaps differently, what came of one of the last attempts.
    Again {
        by: usize,
        which: usize,
        outcome: Outcome,
    },
    /// An attempt ends, and nobody says how.
    Drop {
        by: usize,
        which: usize,
    },
    List {
        by: usize,
        queue: usize,
        limit: usize,
    },
    Replay {
        by: usize,
        which: usize,
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
    /// Somebody deletes what the server keeps of claims.
    LoseClaims,
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
    let outcome = prop_oneof![
        4 => Just(Outcome::Delivered),
        3 => prop::sample::select(vec![0, 1, 1000, 40_000]).prop_map(Outcome::Retry),
        1 => Just(Outcome::Dead),
    ];
    let few = 1..4_usize;
    let key = prop_oneof![6 => Just(None), 1 => (0..3_u32).prop_map(Some)];
    prop_oneof![
        12 => (by.clone(), 1..8_u8, prop::option::of(0..3_u64), key, size)
            .prop_map(|(by, queues, lane, key, size)| Step::Enqueue { by, queues, lane, key, size }),
        14 => (by.clone(), queue.clone(), few.clone()).prop_map(|(by, queue, max)| Step::Take { by, queue, max }),
        14 => (by.clone(), which.clone(), outcome.clone())
            .prop_map(|(by, which, outcome)| Step::Settle { by, which, outcome }),
        1 => (by.clone(), which.clone(), outcome).prop_map(|(by, which, outcome)| Step::Again { by, which, outcome }),
        1 => (by.clone(), which).prop_map(|(by, which)| Step::Drop { by, which }),
        1 => (by.clone(), queue.clone(), few.clone()).prop_map(|(by, queue, limit)| Step::List { by, queue, limit }),
        2 => (by.clone(), 0..30_usize).prop_map(|(by, which)| Step::Replay { by, which }),
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
        1 => prop_oneof![3 => Just(Step::Around(Around::Back)), 1 => Just(Step::Around(Around::LoseClaims))],
    ]
}

/// The limits of a history.
pub fn limits(history: &History, shown: Option<Known>) -> Limits {
    let History { lanes, few, bytes, .. } = *history;
    let many = usize::MAX / 4;
    let in_lanes = |fault: Known, small: usize| if lanes > 0 && shown != Some(fault) { many } else { small };
    let frames = u32::try_from(few).expect("few");
    let few_rows = i64::try_from(few).expect("few");
    let mut limits = Limits::default();
    limits.sqlite = limits::Sqlite {
        checkpoint_frames: frames,
        restart_frames: 4 * frames,
        batch_bytes: bytes,
        max_outcomes: few,
        window: in_lanes(Known::ParkedWindow, few),
        window_bytes: in_lanes(Known::ParkedWindow, bytes),
        max_behind: in_lanes(Known::TooManyBehind, few),
        max_load: in_lanes(Known::ParkedWindow, few).min(10_000),
        max_load_bytes: in_lanes(Known::ParkedWindow, bytes),
        max_scanned: few_rows,
        max_sorted: few_rows,
        ..limits.sqlite
    };
    limits.redis = limits::Redis {
        take_step: few,
        take_bytes: bytes,
        take_scanned: few,
        max_batch: few,
        poll_every: LOOK,
        max_scanned: few,
        list_page: few,
        list_step: few,
        list_bytes: bytes,
        ..limits.redis
    };
    limits
}
