//! What one process knows of one queue: what it has in hand, and which outcomes it still has to record.

use std::collections::HashMap;
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
use crate::event::Lane;
use crate::store::DestinationId;
use crate::store::Keyspace;
use crate::store::MessageId;
use crate::store::Outcome;
use crate::store::Queue;
use crate::store::Stats;
use crate::store::Tries;
use crate::store::Unavailable;

/// The names of the keys of a destination, in the order in which its scripts expect them behind that of the stream.
const KEYS: [&str; 8] = ["ready", "due", "lanes", "blocked", "records", "retrying", "dead", "open"];

/// The keys of a destination, as its scripts expect them.
pub(super) fn keys(space: &Keyspace, destination: &str) -> impl Iterator<Item = String> {
    let parts = KEYS.map(|part| key(space, destination, part));
    std::iter::once(stream(space)).chain(parts)
}

/// One of them.
pub(super) fn key(space: &Keyspace, destination: &str, part: &str) -> String {
    format!("{}d:{destination}:{part}", space.prefix())
}

/// The stream of a source.
pub(super) fn stream(space: &Keyspace) -> String {
    format!("{}events", space.prefix())
}

/// One queue.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) queue: Queue,
    pub(super) space: Keyspace,
    /// Whether Redis knows the destination.
    pub(super) is_known: AtomicBool,
    /// Whether its outcomes are recorded by a task.
    pub(super) is_kept: AtomicBool,
    /// There is something to record.
    pub(super) told: Notify,
    /// Something was recorded.
    pub(super) recorded: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keep: Duration,
    /// Also what is in the outbox.
    in_hand: HashMap<MessageId, Held>,
    outbox: VecDeque<Told>,
    stats: Stats,
}

/// The newest claim of a delivery.
#[derive(Debug, Clone, Copy)]
struct Held {
    deadline: i64,
    attempts: u32,
    before_replay: u32,
}

/// An outcome that Redis does not know of yet.
#[derive(Debug, Clone)]
pub(super) struct Told {
    id: MessageId,
    lane: String,
    /// What was tried before.
    tries: Tries,
    deadline: i64,
    outcome: What,
    since: Instant,
}

/// What became of a claim.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// An attempt was made.
    Tried(Outcome),
    /// None was.
    GivenBack,
    /// It cannot be read.
    Damaged(Outcome),
}

impl Told {
    pub(super) fn new(
        id: MessageId,
        lane: Option<Lane>,
        (tries, deadline): (Tries, i64),
        what: (What, Instant),
    ) -> Self {
        let (outcome, since) = what;
        let lane = match (lane, &outcome) {
            (Some(lane), _) => lane_name(lane),
            (None, What::Damaged(_)) => "?".to_owned(),
            (None, What::Tried(_) | What::GivenBack) => String::new(),
        };
        Self { id, lane, tries, deadline, outcome, since }
    }

    /// As it is told for the newest claim of the delivery. An attempt that failed while somebody else has recorded one counts for
    /// nothing.
    fn for_claim(mut self, held: Option<&Held>) -> Self {
        let Some(held) = held.filter(|held| held.before_replay == self.tries.before_replay) else { return self };
        self.deadline = held.deadline;
        if held.attempts != self.tries.attempts && !self.is_delivered() {
            self.outcome = What::GivenBack;
            self.tries.attempts = held.attempts;
        }
        self
    }

    pub(super) fn id(&self) -> MessageId {
        self.id
    }

    fn is_delivered(&self) -> bool {
        matches!(self.outcome, What::Tried(Outcome::Delivered { .. }))
    }

    /// As the script takes it.
    pub(super) fn arguments(&self, now: Instant) -> [String; 8] {
        let (attempts, before) = match self.outcome {
            What::Damaged(_) => (String::new(), String::new()),
            What::Tried(_) | What::GivenBack => (self.tries.attempts.to_string(), self.tries.before_replay.to_string()),
        };
        let pause = match &self.outcome {
            What::Tried(Outcome::Retry { after, .. }) => {
                after.saturating_sub(now.saturating_duration_since(self.since))
            }
            What::Tried(_) | What::GivenBack | What::Damaged(_) => Duration::ZERO,
        };
        let (letter, record) = match &self.outcome {
            What::GivenBack => ("G".to_owned(), String::new()),
            What::Tried(outcome) | What::Damaged(outcome) => {
                let record = Record::after(outcome.clone(), &self.tries);
                (letter(record.state).map(String::from).unwrap_or_default(), record.without_state())
            }
        };
        let (id, deadline, lane) = (self.id.to_string(), self.deadline.to_string(), self.lane.clone());
        [id, letter, attempts, before, deadline, pause.as_micros().to_string(), lane, record]
    }

    /// Whether recording it may leave something to take.
    fn leaves_more(&self) -> bool {
        let again = matches!(self.outcome, What::GivenBack | What::Tried(Outcome::Retry { .. }));
        again || !self.lane.is_empty()
    }
}

impl Line {
    pub(super) fn new(queue: Queue, keep: Duration) -> Self {
        let space = Keyspace::of_source(&queue.id().source);
        let state = State { keep, in_hand: HashMap::new(), outbox: VecDeque::new(), stats: Stats::default() };
        let (told, recorded) = (Notify::new(), Notify::new());
        Self {
            queue,
            space,
            is_known: AtomicBool::new(false),
            is_kept: AtomicBool::new(false),
            told,
            recorded,
            state: Mutex::new(state),
        }
    }

    pub(super) fn id(&self) -> &DestinationId {
        self.queue.id()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        keys(&self.space, &self.id().name)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep(&self) -> Duration {
        self.lock().keep
    }

    pub(super) fn set_keep(&self, keep: Duration) {
        self.lock().keep = keep;
    }

    /// How many more may be taken, so that at most `max` are in hand or not recorded.
    pub(super) fn room(&self, max: usize) -> Result<usize, Unavailable> {
        let state = self.lock();
        match max.saturating_sub(state.in_hand.len().max(state.outbox.len())) {
            0 => Err(Unavailable("Redis does not record what was delivered".to_owned())),
            room => Ok(room),
        }
    }

    /// Notes a claim; whether it is to be handed out: what this process still holds only has another deadline from now on.
    pub(super) fn hold(&self, entry: &Entry, deadline: i64) -> bool {
        let Tries { attempts, before_replay, .. } = entry.tries;
        let held = Held { deadline, attempts, before_replay };
        let before = self.lock().in_hand.insert(entry.id, held);
        before.is_none_or(|before| before.before_replay != before_replay)
    }

    /// Something has to be recorded.
    pub(super) fn tell(&self, told: Told) {
        self.lock().outbox.push_back(told);
        self.told.notify_one();
    }

    /// The first of what has to be recorded.
    pub(super) fn batch(&self, max: usize) -> Vec<Told> {
        let state = self.lock();
        let first = state.outbox.iter().take(max);
        first.map(|told| told.clone().for_claim(state.in_hand.get(&told.id))).collect()
    }

    /// The batch was recorded, or is given up. What was claimed anew meanwhile, by an answer that came before this one, is told once
    /// more, for that claim.
    pub(super) fn recorded(&self, batch: &[Told]) {
        let mut state = self.lock();
        let State { in_hand, outbox, .. } = &mut *state;
        let mut again = Vec::new();
        for (sent, told) in batch.iter().zip(outbox.drain(..batch.len().min(outbox.len()))) {
            let held = in_hand.get(&sent.id).filter(|held| held.before_replay == sent.tries.before_replay);
            match held {
                Some(held) if held.deadline != sent.deadline && !sent.is_delivered() => again.push(told),
                Some(_) => drop(in_hand.remove(&sent.id)),
                None => {}
            }
        }
        again.into_iter().rev().for_each(|told| outbox.push_front(told));
        drop(state);
        if batch.iter().any(Told::leaves_more) {
            self.queue.signal().raise();
        }
        self.recorded.notify_waiters();
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.lock().outbox.is_empty()
    }

    /// What a look has shown.
    pub(super) fn looked(&self, stats: Stats, has_work: bool) {
        self.lock().stats = stats;
        if has_work {
            self.queue.signal().raise();
        }
    }

    pub(super) fn stats(&self) -> Stats {
        self.lock().stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FailedAttempt;
    use crate::time::Moment;

    const ID: MessageId = MessageId { millis: 12, sequence: 3 };

    fn line() -> Line {
        Line::new(Queue::new(DestinationId::unnamed("shop"), 0), Duration::from_secs(1))
    }

    fn claim(attempts: u32, before_replay: u32) -> Entry {
        Entry { id: ID, tries: Tries { attempts, before_replay, ..Tries::default() }, lane: None, message: None }
    }

    fn told(entry: &Entry, deadline: i64, what: What) -> Told {
        Told::new(ID, None, (entry.tries.clone(), deadline), (what, Instant::now()))
    }

    fn failed() -> What {
        let (at, reason) = (Moment::from_millis(1), String::new());
        let failed = FailedAttempt { at, ms: 0, status: None, reason, answer: String::new() };
        What::Tried(Outcome::Retry { after: Duration::ZERO, failed })
    }

    fn delivered() -> What {
        What::Tried(Outcome::Delivered { at: Moment::from_millis(1), status: None })
    }

    /// Letter, attempts and deadline of what would be told.
    fn sent(line: &Line) -> Vec<(String, String, String)> {
        let arguments = |told: &Told| {
            let [_, letter, attempts, _, deadline, ..] = told.arguments(Instant::now());
            (letter, attempts, deadline)
        };
        line.batch(9).iter().map(arguments).collect()
    }

    fn one(letter: &str, attempts: &str, deadline: &str) -> Vec<(String, String, String)> {
        vec![(letter.to_owned(), attempts.to_owned(), deadline.to_owned())]
    }

    #[test]
    fn what_is_in_hand_is_not_handed_out_again_and_its_outcome_is_for_the_new_claim() {
        let line = line();
        assert!(line.hold(&claim(0, 0), 1000));
        assert!(!line.hold(&claim(0, 0), 2000));
        line.tell(told(&claim(0, 0), 1000, failed()));
        assert_eq!(sent(&line), one("R", "0", "2000"));
        assert!(!line.hold(&claim(0, 0), 3000), "it is still in the outbox");
        assert_eq!(sent(&line), one("R", "0", "3000"));
        line.recorded(&line.batch(9));
        assert!(line.is_recorded());
        assert!(line.hold(&claim(1, 0), 4000));
    }

    #[test]
    fn what_is_claimed_while_its_outcome_is_recorded_is_not_left_to_its_lease() {
        let line = line();
        assert!(line.hold(&claim(0, 0), 1000));
        line.tell(told(&claim(0, 0), 1000, failed()));
        let batch = line.batch(9);
        // The retry was recorded, and the claim of it is answered first.
        assert!(!line.hold(&claim(1, 0), 2000));
        line.recorded(&batch);
        assert_eq!(sent(&line), one("G", "1", "2000"));
        line.recorded(&line.batch(9));
        assert!(line.is_recorded() && line.hold(&claim(1, 0), 3000));
    }

    #[test]
    fn a_failure_counts_for_nothing_after_somebody_elses_and_a_success_always_counts() {
        let line = line();
        assert!(line.hold(&claim(0, 0), 1000) && !line.hold(&claim(1, 0), 2000));
        line.tell(told(&claim(0, 0), 1000, failed()));
        assert_eq!(sent(&line), one("G", "1", "2000"));
        line.recorded(&line.batch(9));
        assert!(line.hold(&claim(1, 0), 3000) && !line.hold(&claim(2, 0), 4000));
        line.tell(told(&claim(1, 0), 3000, delivered()));
        assert_eq!(sent(&line), one("V", "1", "4000"));
    }

    #[test]
    fn what_was_replayed_meanwhile_is_handed_out_beside_what_is_in_hand() {
        let line = line();
        assert!(line.hold(&claim(0, 0), 1000) && line.hold(&claim(1, 1), 2000));
        line.tell(told(&claim(0, 0), 1000, failed()));
        assert_eq!(sent(&line), one("R", "0", "1000"));
        line.recorded(&line.batch(9));
        assert!(!line.hold(&claim(1, 1), 3000));
    }

    #[test]
    fn as_many_are_in_hand_as_may_be_and_no_more() {
        let line = line();
        assert_eq!(line.room(2).expect("room"), 2);
        assert!(line.hold(&claim(0, 0), 1000));
        assert_eq!(line.room(2).expect("room"), 1);
        assert!(line.room(1).is_err());
        line.tell(told(&claim(0, 0), 1000, delivered()));
        assert!(line.room(1).is_err(), "it is not recorded");
        line.recorded(&line.batch(9));
        assert_eq!(line.room(1).expect("room"), 1);
    }
}
