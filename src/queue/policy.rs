//! What follows an attempt: nothing more, another one later, or giving up.

use std::time::Duration;

use http::StatusCode;

use crate::store::queued::LastAnswer;
use crate::store::queued::MAX_KEPT_ANSWER;
use crate::store::queued::Taken;
use crate::store::queued::Verdict;
use crate::target::Failure;
use crate::target::Receipt;
use crate::time;
use crate::time::Moment;

/// Longest that an upstream may ask to be left alone.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long and how often an event is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Most attempts since it was queued or replayed.
    pub max_attempts: u32,
    /// Longest since it was received or replayed; there is one attempt in any case.
    pub max_age: Duration,
    /// Longest pause after the first attempt; doubled after each further one.
    pub backoff: Duration,
    /// Longest pause after any attempt.
    pub max_backoff: Duration,
    /// Statuses after which it is not tried again.
    pub permanent: Vec<StatusCode>,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct Attempted {
    /// Why it failed, in words; nothing after a delivery.
    pub reason: Option<String>,
    /// What the upstream answered.
    pub answer: Option<LastAnswer>,
    /// How long it asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl Attempted {
    /// What the upstream's answer, or the lack of one, means at this moment.
    pub fn new(delivered: &Result<Receipt, Failure>, now: Moment) -> Self {
        let answer = match delivered {
            Ok(Receipt::Answered(answer)) => Some(answer),
            Ok(Receipt::Stored) => None,
            Err(failure) => failure.answer(),
        };
        let asked = answer.and_then(|answer| answer.retry_after.as_ref()).and_then(|text| text.to_str().ok());
        Self {
            reason: delivered.as_ref().err().map(ToString::to_string),
            answer: answer.map(|answer| kept(answer.status, &answer.body)),
            retry_after: asked.and_then(|text| time::retry_after(text, now)).map(|asked| asked.min(MAX_RETRY_AFTER)),
        }
    }

    /// Whether the upstream took the event.
    pub fn is_delivered(&self) -> bool {
        self.reason.is_none()
    }
}

fn kept(status: StatusCode, body: &[u8]) -> LastAnswer {
    let begin = body.get(..MAX_KEPT_ANSWER).unwrap_or(body);
    LastAnswer { status: status.as_u16(), body: String::from_utf8_lossy(begin).into_owned() }
}

impl Policy {
    /// Whether an attempt that ended like this shows that the event is at fault, and not the upstream.
    pub fn is_permanent(&self, attempted: &Attempted) -> bool {
        let status = attempted.answer.as_ref().map(|answer| answer.status);
        !attempted.is_delivered() && self.permanent.iter().any(|permanent| Some(permanent.as_u16()) == status)
    }

    /// What follows an attempt that ended `now`. `chance` is any number; all of them are equally likely.
    pub fn judge(&self, attempted: &Attempted, taken: &Taken, now: Moment, chance: u64) -> Verdict {
        if attempted.is_delivered() {
            return Verdict::Delivered;
        }
        let tries = taken.tries;
        let attempts = tries.attempts.saturating_add(1).saturating_sub(tries.spent);
        let age = now.since(tries.replayed_at.unwrap_or(taken.message.received_at));
        if self.is_permanent(attempted) || attempts >= self.max_attempts || age >= self.max_age {
            return Verdict::Dead;
        }
        let pause = self.pause(attempts, chance).max(attempted.retry_after.unwrap_or_default());
        Verdict::Retry(now.after(pause))
    }

    /// Full jitter: anything up to the pause, so that events that failed together do not come back together.
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
    fn pause(&self, attempts: u32, chance: u64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        let longest = self.backoff.saturating_mul(1 << doublings).min(self.max_backoff);
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(chance % millis.saturating_add(1).max(1))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::Message;
    use crate::store::queued::Number;
    use crate::store::queued::Tries;

    fn policy() -> Policy {
        Policy {
            max_attempts: 5,
            max_age: Duration::from_secs(3600),
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            permanent: vec![StatusCode::GONE],
        }
    }

    fn answered(status: u16, retry_after: Option<u64>) -> Attempted {
        Attempted {
            reason: (!(200..300).contains(&status)).then(|| format!("the upstream answered {status}")),
            answer: Some(LastAnswer { status, body: String::new() }),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    fn taken(tries: Tries) -> Taken {
        let message = Message { received_at: RECEIVED, ..Message::example() };
        Taken { number: Number { millis: 1, sequence: 0 }, message: Arc::new(message), tries, lease_end: None }
    }

    fn tried(attempts: u32, spent: u32) -> Tries {
        Tries { attempts, spent, replayed_at: None }
    }

    fn judge(attempted: &Attempted, tries: Tries, after: u64, chance: u64) -> Verdict {
        policy().judge(attempted, &taken(tries), RECEIVED.after(Duration::from_secs(after)), chance)
    }

    const RECEIVED: Moment = Moment::from_unix(1_000_000);

    #[test]
    fn what_was_delivered_is_done() {
        assert_eq!(judge(&answered(204, None), tried(99, 0), 1_000_000, 7), Verdict::Delivered);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_anything_below() {
        let after_first = |chance| judge(&answered(500, None), tried(0, 0), 0, chance);
        assert_eq!(after_first(0), Verdict::Retry(RECEIVED));
        assert_eq!(after_first(1000), Verdict::Retry(RECEIVED.after(Duration::from_secs(1))));
        assert_eq!(after_first(1001), Verdict::Retry(RECEIVED));
        let longest = |attempts| (0..200_000).step_by(500).map(|chance| policy().pause(attempts, chance)).max();
        let seconds = [1, 2, 4, 8, 16, 32, 60, 60].map(|seconds| Some(Duration::from_secs(seconds)));
        assert_eq!((1..9).map(longest).collect::<Vec<_>>(), seconds);
    }

    #[test]
    fn an_upstream_is_left_alone_as_long_as_it_asks() {
        let verdict = judge(&answered(429, Some(120)), tried(0, 0), 0, 1);
        assert_eq!(verdict, Verdict::Retry(RECEIVED.after(Duration::from_secs(120))));
    }

    #[test]
    fn events_are_given_up_after_their_attempts_their_time_or_a_final_answer() {
        let judge = |status, tries, after| judge(&answered(status, None), tries, after, 1);
        assert!(matches!(judge(500, tried(3, 0), 0), Verdict::Retry(_)));
        assert_eq!(judge(500, tried(4, 0), 0), Verdict::Dead);
        assert!(matches!(judge(500, tried(4, 4), 0), Verdict::Retry(_)), "what was before a replay does not count");
        assert_eq!(judge(500, tried(0, 0), 3600), Verdict::Dead);
        assert_eq!(judge(410, tried(0, 0), 0), Verdict::Dead);
        let replayed = Tries { replayed_at: Some(RECEIVED.after(Duration::from_secs(3600))), ..tried(4, 4) };
        assert!(matches!(judge(500, replayed, 3700), Verdict::Retry(_)), "its time counts from the replay");
    }
}
