//! The state of one queue in this process: the deliveries that it holds, and the outcomes that are not recorded in
//! Redis yet.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;

use super::entry::Entry;
use super::entry::lane_name;
use super::record::Record;
use super::record::letter;
use crate::store::DestinationId;
use crate::store::Keyspace;
use crate::store::MessageId;
use crate::store::Outcome;
use crate::store::Queue;
use crate::store::Stats;
use crate::store::Tries;
use crate::store::Unavailable;
use crate::verify::event_key::Lane;

/// The keys of a destination, in the order in which scripts expect them after the stream; see `lua/delivery.lua`.
const KEYS: [&str; 8] = ["ready", "due", "lanes", "blocked", "records", "retrying", "dead", "open"];

/// The stream and the keys of a destination, as scripts expect them.
pub(super) fn keys(space: &Keyspace, destination: &str) -> impl Iterator<Item = String> {
    let parts = KEYS.map(|part| key(space, destination, part));
    std::iter::once(stream(space)).chain(parts)
}

/// One key of a destination.
pub(super) fn key(space: &Keyspace, destination: &str, part: &str) -> String {
    format!("{}d:{destination}:{part}", space.prefix())
}

/// The stream of a source.
pub(super) fn stream(space: &Keyspace) -> String {
    format!("{}events", space.prefix())
}

/// One queue.
#[derive(Debug)]
pub(super) struct RedisQueue {
    pub(super) handle: Queue,
    pub(super) space: Keyspace,
    /// In the order of [`keys`].
    keys: Vec<String>,
    /// Whether the destination is registered in Redis.
    pub(super) is_registered: AtomicBool,
    /// Whether its outcomes are recorded by a task.
    pub(super) has_tasks: AtomicBool,
    /// Notified when there are outcomes to record.
    pub(super) more: Notify,
    /// Notified when outcomes were recorded.
    pub(super) recorded: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    retention: Duration,
    /// The deliveries that this process holds, including those whose outcome is in the outbox.
    in_hand: HashMap<MessageId, Claim>,
    /// Outcomes to be recorded, the oldest first.
    outbox: VecDeque<Unrecorded>,
    /// The number of takes that are not answered yet.
    takes: usize,
    /// Deliveries that were recorded as delivered during these takes, with their attempts before the last replay.
    delivered: HashSet<(MessageId, u32)>,
    stats: Stats,
}

/// A take in progress, until this is dropped.
#[derive(Debug)]
pub(super) struct Take<'q>(&'q RedisQueue);

impl Drop for Take<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.takes -= 1;
        if state.takes == 0 {
            state.delivered.clear();
        }
    }
}

/// The newest claim of a delivery.
#[derive(Debug, Clone, Copy)]
struct Claim {
    deadline: i64,
    attempts: u32,
    before_replay: u32,
}

/// An outcome that is not recorded in Redis yet.
#[derive(Debug, Clone)]
pub(super) struct Unrecorded {
    id: MessageId,
    lane: String,
    /// The earlier attempts.
    tries: Tries,
    deadline: i64,
    outcome: Ending,
    since: Instant,
}

/// How a claim ended.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    /// An attempt was made.
    Attempted(Outcome),
    /// No attempt was made.
    Released,
    /// The message cannot be read.
    Damaged(Outcome),
}

impl Unrecorded {
    pub(super) fn new(
        id: MessageId,
        lane: Option<Lane>,
        (tries, deadline): (Tries, i64),
        what: (Ending, Instant),
    ) -> Self {
        let (outcome, since) = what;
        let lane = match (lane, &outcome) {
            (Some(lane), _) => lane_name(lane),
            (None, Ending::Damaged(_)) => "?".to_owned(),
            (None, Ending::Attempted(_) | Ending::Released) => String::new(),
        };
        Self { id, lane, tries, deadline, outcome, since }
    }

    /// The outcome, for the newest claim of the delivery. A failure is dropped when another gateway has recorded an
    /// attempt meanwhile.
    fn for_claim(mut self, held: Option<&Claim>) -> Self {
        let Some(held) = held.filter(|held| held.before_replay == self.tries.before_replay) else { return self };
        self.deadline = held.deadline;
        if held.attempts != self.tries.attempts && !self.is_delivered() {
            self.outcome = Ending::Released;
            self.tries.attempts = held.attempts;
        }
        self
    }

    pub(super) fn id(&self) -> MessageId {
        self.id
    }

    fn is_delivered(&self) -> bool {
        matches!(self.outcome, Ending::Attempted(Outcome::Delivered { .. }))
    }

    /// The arguments of the script.
    pub(super) fn arguments(&self, now: Instant) -> [String; 8] {
        let (attempts, before) = match self.outcome {
            Ending::Damaged(_) => (String::new(), String::new()),
            Ending::Attempted(_) | Ending::Released => {
                (self.tries.attempts.to_string(), self.tries.before_replay.to_string())
            }
        };
        let pause = match &self.outcome {
            Ending::Attempted(Outcome::Retry { after, .. }) => {
                after.saturating_sub(now.saturating_duration_since(self.since))
            }
            Ending::Attempted(_) | Ending::Released | Ending::Damaged(_) => Duration::ZERO,
        };
        let (letter, record) = match &self.outcome {
            Ending::Released => ("G".to_owned(), String::new()),
            Ending::Attempted(outcome) | Ending::Damaged(outcome) => {
                let record = Record::after(outcome.clone(), &self.tries);
                (letter(record.state).map(String::from).unwrap_or_default(), record.without_state())
            }
        };
        let (id, deadline, lane) = (self.id.to_string(), self.deadline.to_string(), self.lane.clone());
        [id, letter, attempts, before, deadline, pause.as_micros().to_string(), lane, record]
    }

    /// Whether recording it may make a delivery available: this one, or the next of its lane.
    fn may_unblock(&self) -> bool {
        let again = matches!(self.outcome, Ending::Released | Ending::Attempted(Outcome::Retry { .. }));
        again || !self.lane.is_empty()
    }
}

impl RedisQueue {
    pub(super) fn new(handle: Queue, retention: Duration) -> Self {
        let space = Keyspace::of_source(&handle.id().source);
        let keys = keys(&space, &handle.id().name).collect();
        let state = State {
            retention,
            in_hand: HashMap::new(),
            outbox: VecDeque::new(),
            takes: 0,
            delivered: HashSet::new(),
            stats: Stats::default(),
        };
        Self {
            handle,
            space,
            keys,
            is_registered: AtomicBool::new(false),
            has_tasks: AtomicBool::new(false),
            more: Notify::new(),
            recorded: Notify::new(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn id(&self) -> &DestinationId {
        self.handle.id()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        self.keys.iter().cloned()
    }

    /// The keys that `enqueue.lua` writes, without the stream.
    pub(super) fn enqueue_keys(&self) -> impl Iterator<Item = String> {
        [1, 3, 4, 8].into_iter().filter_map(|at| self.keys.get(at).cloned())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn retention(&self) -> Duration {
        self.lock().retention
    }

    pub(super) fn set_retention(&self, retention: Duration) {
        self.lock().retention = retention;
    }

    /// How many more may be taken, so that at most `max` are held or unrecorded.
    pub(super) fn room(&self, max: usize) -> Result<usize, Unavailable> {
        let state = self.lock();
        match max.saturating_sub(state.in_hand.len().max(state.outbox.len())) {
            0 => Err(Unavailable("Redis does not record what was delivered".to_owned())),
            room => Ok(room),
        }
    }

    /// Begins a take. A delivery that it claims may be recorded as delivered before its answer comes.
    pub(super) fn take(&self) -> Take<'_> {
        self.lock().takes += 1;
        Take(self)
    }

    /// Registers a claim. Returns whether the delivery is to be attempted: not if this process still holds it (its
    /// deadline is updated), or has delivered it since the take began.
    pub(super) fn claim(&self, entry: &Entry, deadline: i64) -> bool {
        let Tries { attempts, before_replay, .. } = entry.tries;
        let held = Claim { deadline, attempts, before_replay };
        let mut state = self.lock();
        if state.delivered.contains(&(entry.id, before_replay)) {
            return false;
        }
        let before = state.in_hand.insert(entry.id, held);
        before.is_none_or(|before| before.before_replay != before_replay)
    }

    /// Adds an outcome to be recorded.
    pub(super) fn push(&self, outcome: Unrecorded) {
        self.lock().outbox.push_back(outcome);
        self.more.notify_one();
    }

    /// The first outcomes to be recorded.
    pub(super) fn batch(&self, max: usize) -> Vec<Unrecorded> {
        let state = self.lock();
        let first = state.outbox.iter().take(max);
        first.map(|outcome| outcome.clone().for_claim(state.in_hand.get(&outcome.id))).collect()
    }

    /// Removes a batch that was recorded, or is given up. An outcome whose delivery was claimed anew meanwhile is
    /// recorded again, for the new claim.
    pub(super) fn recorded(&self, batch: &[Unrecorded]) {
        let mut state = self.lock();
        let State { in_hand, outbox, takes, delivered, .. } = &mut *state;
        let mut again = Vec::new();
        for (sent, outcome) in batch.iter().zip(outbox.drain(..batch.len().min(outbox.len()))) {
            if *takes > 0 && sent.is_delivered() {
                delivered.insert((sent.id, sent.tries.before_replay));
            }
            let held = in_hand.get(&sent.id).filter(|held| held.before_replay == sent.tries.before_replay);
            match held {
                Some(held) if held.deadline != sent.deadline && !sent.is_delivered() => again.push(outcome),
                Some(_) => drop(in_hand.remove(&sent.id)),
                None => {}
            }
        }
        again.into_iter().rev().for_each(|outcome| outbox.push_front(outcome));
        drop(state);
        if batch.iter().any(Unrecorded::may_unblock) {
            self.handle.signal().raise();
        }
        self.recorded.notify_waiters();
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.lock().outbox.is_empty()
    }

    /// Updates the statistics; raises the signal when there is something to take.
    pub(super) fn set_stats(&self, stats: Stats, has_work: bool) {
        self.lock().stats = stats;
        if has_work {
            self.handle.signal().raise();
        }
    }

    pub(super) fn stats(&self) -> Stats {
        self.lock().stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Moment;
    use crate::store::FailedAttempt;

    const ID: MessageId = MessageId { millis: 12, sequence: 3 };

    fn queue() -> RedisQueue {
        RedisQueue::new(Queue::new(DestinationId::unnamed("shop"), 0), Duration::from_secs(1))
    }

    fn claim(attempts: u32, before_replay: u32) -> Entry {
        Entry { id: ID, tries: Tries { attempts, before_replay, ..Tries::default() }, lane: None, message: None }
    }

    fn outcome(entry: &Entry, deadline: i64, what: Ending) -> Unrecorded {
        Unrecorded::new(ID, None, (entry.tries.clone(), deadline), (what, Instant::now()))
    }

    fn failed() -> Ending {
        let (at, reason) = (Moment::from_millis(1), String::new());
        let failed = FailedAttempt { at, ms: 0, status: None, reason, answer: String::new() };
        Ending::Attempted(Outcome::Retry { after: Duration::ZERO, failed })
    }

    fn delivered() -> Ending {
        Ending::Attempted(Outcome::Delivered { at: Moment::from_millis(1), status: None })
    }

    /// Letter, attempts and deadline of what would be told.
    fn sent(queue: &RedisQueue) -> Vec<(String, String, String)> {
        let arguments = |outcome: &Unrecorded| {
            let [_, letter, attempts, _, deadline, ..] = outcome.arguments(Instant::now());
            (letter, attempts, deadline)
        };
        queue.batch(9).iter().map(arguments).collect()
    }

    fn one(letter: &str, attempts: &str, deadline: &str) -> Vec<(String, String, String)> {
        vec![(letter.to_owned(), attempts.to_owned(), deadline.to_owned())]
    }

    #[test]
    fn what_is_in_hand_is_not_handed_out_again_and_its_outcome_is_for_the_new_claim() {
        let queue = queue();
        assert!(queue.claim(&claim(0, 0), 1000));
        assert!(!queue.claim(&claim(0, 0), 2000));
        queue.push(outcome(&claim(0, 0), 1000, failed()));
        assert_eq!(sent(&queue), one("R", "0", "2000"));
        assert!(!queue.claim(&claim(0, 0), 3000), "it is still in the outbox");
        assert_eq!(sent(&queue), one("R", "0", "3000"));
        queue.recorded(&queue.batch(9));
        assert!(queue.is_recorded());
        assert!(queue.claim(&claim(1, 0), 4000));
    }

    #[test]
    fn what_is_claimed_while_its_outcome_is_recorded_is_not_left_to_its_lease() {
        let queue = queue();
        assert!(queue.claim(&claim(0, 0), 1000));
        queue.push(outcome(&claim(0, 0), 1000, failed()));
        let batch = queue.batch(9);
        // The retry was recorded, and the claim of it is answered first.
        assert!(!queue.claim(&claim(1, 0), 2000));
        queue.recorded(&batch);
        assert_eq!(sent(&queue), one("G", "1", "2000"));
        queue.recorded(&queue.batch(9));
        assert!(queue.is_recorded() && queue.claim(&claim(1, 0), 3000));
    }

    #[test]
    fn a_failure_counts_for_nothing_after_somebody_elses_and_a_success_always_counts() {
        let queue = queue();
        assert!(queue.claim(&claim(0, 0), 1000) && !queue.claim(&claim(1, 0), 2000));
        queue.push(outcome(&claim(0, 0), 1000, failed()));
        assert_eq!(sent(&queue), one("G", "1", "2000"));
        queue.recorded(&queue.batch(9));
        assert!(queue.claim(&claim(1, 0), 3000) && !queue.claim(&claim(2, 0), 4000));
        queue.push(outcome(&claim(1, 0), 3000, delivered()));
        assert_eq!(sent(&queue), one("V", "1", "4000"));
    }

    #[test]
    fn what_was_recorded_as_delivered_before_the_answer_to_a_take_is_not_handed_out_by_that_answer() {
        let queue = queue();
        assert!(queue.claim(&claim(0, 0), 1000));
        queue.push(outcome(&claim(0, 0), 1000, delivered()));
        let take = queue.take();
        queue.recorded(&queue.batch(9));
        assert!(!queue.claim(&claim(0, 0), 2000));
        assert!(queue.claim(&claim(1, 1), 3000), "it was replayed since");
        drop(take);
        assert_eq!(queue.room(9).expect("room"), 8, "nothing is left of the first");
        let _take = queue.take();
        queue.push(outcome(&claim(1, 1), 3000, failed()));
        queue.recorded(&queue.batch(9));
        assert!(queue.claim(&claim(2, 1), 4000), "a retry");
    }

    #[test]
    fn what_was_replayed_meanwhile_is_handed_out_beside_what_is_in_hand() {
        let queue = queue();
        assert!(queue.claim(&claim(0, 0), 1000) && queue.claim(&claim(1, 1), 2000));
        queue.push(outcome(&claim(0, 0), 1000, failed()));
        assert_eq!(sent(&queue), one("R", "0", "1000"));
        queue.recorded(&queue.batch(9));
        assert!(!queue.claim(&claim(1, 1), 3000));
    }

    #[test]
    fn as_many_are_in_hand_as_may_be_and_no_more() {
        let queue = queue();
        assert_eq!(queue.room(2).expect("room"), 2);
        assert!(queue.claim(&claim(0, 0), 1000));
        assert_eq!(queue.room(2).expect("room"), 1);
        assert!(queue.room(1).is_err());
        queue.push(outcome(&claim(0, 0), 1000, delivered()));
        assert!(queue.room(1).is_err(), "it is not recorded");
        queue.recorded(&queue.batch(9));
        assert_eq!(queue.room(1).expect("room"), 1);
    }
}
