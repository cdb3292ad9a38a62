//! A circuit breaker: an upstream that has failed several times in a row is left alone, and then probed with one event at a
//! time until it takes one. <https://martinfowler.com/bliki/CircuitBreaker.html>

use std::time::Duration;
use std::time::Instant;

use crate::limits;

/// What is known of one upstream.
#[derive(Debug, Clone)]
pub struct Breaker {
    limits: limits::Dispatch,
    state: State,
    /// It asked not to be called before this time.
    quiet: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Events go through; so many failed in a row.
    Closed { failures: u32 },
    /// None goes through until then; after so many probes that failed.
    Open { until: Instant, probes: u32 },
    /// One has gone through, and everything waits for what comes of it.
    Probing { probes: u32 },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// Whether events may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// As many as there are.
    Any,
    /// One, whose outcome has to be told.
    Probe,
    /// None before this time.
    Not(Instant),
    /// None before the outcome of a probe is known.
    Wait,
}

impl Breaker {
    /// That of an upstream that nothing is known of.
    pub fn new(limits: limits::Dispatch) -> Self {
        Self { limits, state: State::default(), quiet: None }
    }

    /// Asks for a permit.
    pub fn permit(&mut self, now: Instant) -> Permit {
        if let Some(until) = self.quiet.filter(|until| now < *until) {
            return Permit::Not(until);
        }
        match self.state {
            State::Closed { .. } => Permit::Any,
            State::Open { until, .. } if now < until => Permit::Not(until),
            State::Open { probes, .. } => {
                self.state = State::Probing { probes };
                Permit::Probe
            }
            State::Probing { .. } => Permit::Wait,
        }
    }

    /// There was nothing to probe it with.
    pub fn return_probe(&mut self, now: Instant) {
        if let State::Probing { probes } = self.state {
            self.state = State::Open { until: now, probes };
        }
    }

    /// The upstream took an event, or refused it for good: it works. Whether that is news.
    pub fn succeeded(&mut self) -> bool {
        self.quiet = None;
        let before = std::mem::take(&mut self.state);
        !matches!(before, State::Closed { .. })
    }

    /// An attempt failed; `probe` when it was one. It is left alone for as long as it asks. Whether it is left alone from
    /// now on. `chance` is any number.
    pub fn failed(&mut self, probe: bool, retry_after: Option<Duration>, now: Instant, chance: u64) -> bool {
        if let Some(asked) = retry_after {
            self.quiet = Some(self.quiet.unwrap_or(now).max(now + asked.min(self.limits.breaker_max_asked)));
        }
        match self.state {
            State::Closed { failures } if failures + 1 >= self.limits.breaker_threshold => {
                self.state = State::Open { until: now + self.pause(0, chance), probes: 0 };
                true
            }
            State::Closed { failures } => {
                self.state = State::Closed { failures: failures + 1 };
                false
            }
            State::Probing { probes } if probe => {
                self.state = State::Open { until: now + self.pause(probes + 1, chance), probes: probes + 1 };
                false
            }
            // Attempts that were under way when it was noticed tell nothing new.
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// From half of the pause to all of it, so that several gateways do not probe together.
    fn pause(&self, probes: u32, chance: u64) -> Duration {
        let limits::Dispatch { breaker_pause: first, breaker_max_pause: most, .. } = self.limits;
        let longest = first.saturating_mul(1 << probes.min(16)).min(most);
        let half = u64::try_from(longest.as_millis() / 2).unwrap_or(u64::MAX);
        Duration::from_millis(half + chance % (half + 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Ask,
        Succeed(usize),
        Fail(usize, Option<u64>),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Ask),
            1 => any::<usize>().prop_map(Step::Succeed),
            4 => (any::<usize>(), proptest::option::weighted(0.1, 0..400_u64)).prop_map(|(which, asked)| Step::Fail(which, asked)),
            2 => (0..100_000_u64).prop_map(Step::Wait),
        ]
    }

    #[test]
    fn it_opens_at_the_threshold_and_each_pause_is_as_long_as_the_limits_say() {
        let seconds = Duration::from_secs;
        let limits = limits::Dispatch {
            breaker_threshold: 3,
            breaker_pause: seconds(10),
            breaker_max_pause: seconds(15),
            breaker_max_asked: seconds(60),
            ..limits::Dispatch::default()
        };
        let (mut breaker, mut now) = (Breaker::new(limits), Instant::now());
        assert_eq!((breaker.failed(false, None, now, 0), breaker.failed(false, None, now, 0)), (false, false));
        assert_eq!(breaker.permit(now), Permit::Any, "one less than the threshold");
        assert!(breaker.failed(false, None, now, 0));
        assert_eq!(breaker.permit(now), Permit::Not(now + seconds(5)), "from half of the pause");
        now += seconds(5) - Duration::from_millis(1);
        assert_ne!(breaker.permit(now), Permit::Probe);
        now += Duration::from_millis(1);
        assert_eq!(breaker.permit(now), Permit::Probe);
        breaker.failed(true, None, now, 7500);
        assert_eq!(breaker.permit(now), Permit::Not(now + seconds(15)), "to all of the longest one");
        now += seconds(15);
        assert_eq!(breaker.permit(now), Permit::Probe);
        assert!(breaker.succeeded());
        breaker.failed(false, Some(seconds(59)), now, 0);
        assert_eq!(breaker.permit(now), Permit::Not(now + seconds(59)), "what it asks for");
        breaker.failed(false, Some(seconds(61)), now, 0);
        assert_eq!(breaker.permit(now), Permit::Not(now + seconds(60)), "within the limit");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_failing_upstream_gets_one_event_at_a_time_and_never_waits_for_longer_than_it_may(
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let limits = limits::Dispatch::default();
            let (threshold, longest_asked) = (limits.breaker_threshold, limits.breaker_max_asked);
            let mut breaker = Breaker::new(limits);
            let mut now = Instant::now();
            let mut attempts: Vec<bool> = Vec::new();
            let mut failed_in_a_row = 0;
            for (chance, step) in steps.into_iter().enumerate() {
                let chance = u64::try_from(chance).expect("small").wrapping_mul(0x9e37_79b9_7f4a_7c15);
                match step {
                    Step::Ask => match breaker.permit(now) {
                        Permit::Any => {
                            prop_assert!(failed_in_a_row < threshold, "it is hammered");
                            attempts.push(false);
                        }
                        Permit::Probe => {
                            prop_assert!(!attempts.contains(&true), "two probes at a time");
                            attempts.push(true);
                        }
                        Permit::Not(until) => prop_assert!(until > now && until <= now + longest_asked),
                        Permit::Wait => prop_assert!(attempts.contains(&true), "nobody is probing"),
                    },
                    Step::Succeed(which) if !attempts.is_empty() => {
                        attempts.swap_remove(which % attempts.len());
                        breaker.succeeded();
                        // A probe that is still under way tells nothing any more.
                        attempts.iter_mut().for_each(|probe| *probe = false);
                        failed_in_a_row = 0;
                    }
                    Step::Fail(which, asked) if !attempts.is_empty() => {
                        let probe = attempts.swap_remove(which % attempts.len());
                        breaker.failed(probe, asked.map(Duration::from_secs), now, chance);
                        failed_in_a_row += 1;
                    }
                    Step::Succeed(_) | Step::Fail(..) => {}
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
            }
            // However it went: when everything that is under way has ended, it is tried again before long.
            for probe in attempts {
                breaker.failed(probe, None, now, 0);
            }
            now += longest_asked;
            prop_assert!(matches!(breaker.permit(now), Permit::Any | Permit::Probe));
        }
    }
}
