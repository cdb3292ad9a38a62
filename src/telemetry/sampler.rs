//! A rate limit for log lines of one kind: a burst, then so many a second; the others are counted.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// Lets a burst through and then so many a second, and counts the rest.
#[derive(Debug)]
pub struct Sampler {
    burst: u32,
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Lines that may still be written, in millionths.
    left: u64,
    at: Duration,
    left_out: u64,
}

const ONE: u64 = 1_000_000;

impl Sampler {
    /// So many at once, and so many a second in the long run.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let state = State { left: u64::from(burst) * ONE, at: Duration::ZERO, left_out: 0 };
        Self { burst, per_second, state: Mutex::new(state) }
    }

    /// Whether one more may come at this time, since any one moment; and how many were left out since the last one that
    /// might.
    pub fn admit(&self, now: Duration) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_sub(state.at);
        state.at = state.at.max(now);
        let gained = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).saturating_mul(u64::from(self.per_second));
        state.left = state.left.saturating_add(gained).min(u64::from(self.burst) * ONE);
        match state.left.checked_sub(ONE) {
            Some(left) => {
                state.left = left;
                Some(std::mem::take(&mut state.left_out))
            }
            None => {
                state.left_out += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let sampler = Sampler::new(3, 2);
        let at = |milliseconds| sampler.admit(Duration::from_millis(milliseconds));
        assert_eq!([0, 0, 0, 0].map(at), [Some(0), Some(0), Some(0), None]);
        assert_eq!([499, 500, 500].map(at), [None, Some(2), None], "two a second");
        assert_eq!([999, 1000].map(at), [None, Some(2)]);
        assert_eq!([9000, 9000, 9000, 9000].map(at), [Some(0), Some(0), Some(0), None], "no more than the burst");
        assert_eq!([8000, 9500].map(at), [None, Some(2)], "a clock that goes back gives nothing");
    }
}
