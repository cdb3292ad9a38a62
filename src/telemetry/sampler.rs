//! A rate limit for log lines (a token bucket), which counts the lines that it suppresses.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// A token bucket: admits `burst` lines at once and `per_second` in the long run, and counts the suppressed ones.
#[derive(Debug)]
pub struct Sampler {
    burst: u32,
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Tokens in the bucket, in millionths.
    tokens: u64,
    /// When `tokens` was updated.
    at: Duration,
    /// Lines suppressed since the last admitted one.
    suppressed: u64,
}

/// One token.
const ONE: u64 = 1_000_000;

impl Sampler {
    /// A full bucket.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let state = State { tokens: u64::from(burst) * ONE, at: Duration::ZERO, suppressed: 0 };
        Self { burst, per_second, state: Mutex::new(state) }
    }

    /// Asks to write a line `now` (the time since any fixed moment). Returns how many were suppressed since the last
    /// admitted one; `None` when this one is suppressed.
    pub fn admit(&self, now: Duration) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_sub(state.at);
        state.at = state.at.max(now);
        let gained = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).saturating_mul(u64::from(self.per_second));
        state.tokens = state.tokens.saturating_add(gained).min(u64::from(self.burst) * ONE);
        match state.tokens.checked_sub(ONE) {
            Some(tokens) => {
                state.tokens = tokens;
                Some(std::mem::take(&mut state.suppressed))
            }
            None => {
                state.suppressed += 1;
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
