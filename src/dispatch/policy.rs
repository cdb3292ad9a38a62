//! The retry policy: whether and when a failed delivery is attempted again. Exponential backoff with full jitter.

use std::time::Duration;

use http::StatusCode;

use crate::base::time::Moment;
use crate::store::Tries;

/// The longest pause that an endpoint may ask for.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The retry policy of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Most attempts since the delivery was queued or replayed.
    pub max_attempts: u32,
    /// Longest time since the event was received or the delivery replayed; one attempt is made in any case.
    pub max_age: Duration,
    /// Longest pause after the first attempt; doubled after each further one.
    pub backoff: Duration,
    /// Longest pause after any attempt.
    pub max_backoff: Duration,
    /// Statuses after which the delivery is not attempted again.
    pub permanent: Vec<StatusCode>,
}

impl Policy {
    /// The pause before the next attempt, after one that failed `now`; `None` when the delivery is given up. `status`
    /// is that of the answer, `requested` the pause that the endpoint asked for, `tries` the earlier attempts, and
    /// `chance` a random number.
    pub fn pause_after(
        &self,
        (status, requested): (Option<StatusCode>, Option<Duration>),
        (tries, received_at): (&Tries, Moment),
        now: Moment,
        chance: u64,
    ) -> Option<Duration> {
        let attempts = tries.attempts.saturating_add(1).saturating_sub(tries.before_replay);
        let age = now.since(tries.replayed_at.unwrap_or(received_at));
        let permanent = status.is_some_and(|status| self.permanent.contains(&status));
        if permanent || attempts >= self.max_attempts || age >= self.max_age {
            return None;
        }
        Some(self.pause(attempts, chance).max(requested.unwrap_or_default().min(MAX_RETRY_AFTER)))
    }

    /// Full jitter: a random time up to the backoff, so that events that failed together are not retried together.
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
    use super::*;

    fn policy() -> Policy {
        Policy {
            max_attempts: 5,
            max_age: Duration::from_secs(3600),
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            permanent: vec![StatusCode::GONE],
        }
    }

    fn tried(attempts: u32, before_replay: u32) -> Tries {
        Tries { attempts, before_replay, ..Tries::default() }
    }

    fn after(status: u16, tries: &Tries, seconds: u64, (requested, chance): (Option<u64>, u64)) -> Option<Duration> {
        let (status, requested) = (StatusCode::from_u16(status).ok(), requested.map(Duration::from_secs));
        let now = RECEIVED.after(Duration::from_secs(seconds));
        policy().pause_after((status, requested), (tries, RECEIVED), now, chance)
    }

    const RECEIVED: Moment = Moment::from_unix(1_000_000);

    #[test]
    fn pauses_double_up_to_the_longest_and_are_anything_below() {
        let after_first = |chance| after(500, &tried(0, 0), 0, (None, chance));
        assert_eq!(after_first(0), Some(Duration::ZERO));
        assert_eq!(after_first(1000), Some(Duration::from_secs(1)));
        assert_eq!(after_first(1001), Some(Duration::ZERO));
        let longest = |attempts| (0..200_000).step_by(500).map(|chance| policy().pause(attempts, chance)).max();
        let seconds = [1, 2, 4, 8, 16, 32, 60, 60].map(|seconds| Some(Duration::from_secs(seconds)));
        assert_eq!((1..9).map(longest).collect::<Vec<_>>(), seconds);
    }

    #[test]
    fn an_endpoint_is_left_alone_as_long_as_it_asks_within_a_day() {
        let day = MAX_RETRY_AFTER.as_secs();
        for (requested, left) in [(120, 120), (day, day), (day + 1, day)] {
            assert_eq!(after(429, &tried(0, 0), 0, (Some(requested), 1)), Some(Duration::from_secs(left)));
        }
    }

    #[test]
    fn a_delivery_is_given_up_after_its_attempts_its_time_or_a_final_answer() {
        let is_given_up = |status, tries: &Tries, seconds| after(status, tries, seconds, (None, 1)).is_none();
        assert!(!is_given_up(500, &tried(3, 0), 0));
        assert!(is_given_up(500, &tried(4, 0), 0));
        assert!(!is_given_up(500, &tried(4, 4), 0), "what was before a replay does not count");
        assert!(!is_given_up(500, &tried(0, 0), 3599));
        assert!(is_given_up(500, &tried(0, 0), 3600));
        assert!(is_given_up(410, &tried(0, 0), 0));
        let replayed = Tries { replayed_at: Some(RECEIVED.after(Duration::from_secs(3600))), ..tried(4, 4) };
        assert!(!is_given_up(500, &replayed, 3700), "its time counts from the replay");
    }
}
