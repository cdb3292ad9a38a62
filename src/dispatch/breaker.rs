//! The circuit breaker of an endpoint. Closed: messages are sent. Open, after several failures in a row (the endpoint
//! is unreachable or overloaded): nothing is sent until the pause is over. Probing: one message is sent, and its
//! outcome closes the breaker or opens it for a longer pause. <https://martinfowler.com/bliki/CircuitBreaker.html>

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;

use crate::base::clock::Clock;
use crate::base::limits;
use crate::base::time::Moment;

/// The circuit breaker of one endpoint, which all destinations share that deliver to it.
#[derive(Debug)]
pub struct CircuitBreaker {
    breaker: Mutex<Breaker>,
    changed: Notify,
    clock: Clock,
}

/// The permission to attempt messages.
#[derive(Debug)]
pub(super) enum Pass {
    /// Any number of them: the breaker is closed.
    Any,
    /// One message, as a probe.
    Probe(Probe),
}

/// The permission to probe an endpoint. At most one exists for each breaker; dropped without an outcome, it is
/// returned.
#[derive(Debug)]
pub(super) struct Probe(Option<Arc<CircuitBreaker>>);

impl CircuitBreaker {
    /// A closed breaker.
    pub fn new(limits: limits::Dispatch, clock: Clock) -> Arc<Self> {
        Arc::new(Self { breaker: Mutex::new(Breaker::new(limits)), changed: Notify::new(), clock })
    }

    /// Waits until messages may be attempted.
    pub(super) async fn pass(self: &Arc<Self>) -> Pass {
        loop {
            let changed = self.changed.notified();
            let permit = self.breaker().permit(self.clock.instant());
            match permit {
                Permit::Any => return Pass::Any,
                Permit::Probe => return Pass::Probe(Probe(Some(Arc::clone(self)))),
                Permit::NotBefore(until) => {
                    tokio::select! {
                        () = changed => {}
                        () = self.clock.sleep(until.saturating_duration_since(self.clock.instant())) => {}
                    }
                }
                Permit::Wait => changed.await,
            }
        }
    }

    /// Records that the endpoint answered. Returns whether that closed the breaker.
    pub(super) fn answered(&self, probe: Option<Probe>) -> bool {
        if let Some(probe) = probe {
            probe.spend();
        }
        let closed = self.breaker().succeeded();
        if closed {
            self.changed.notify_waiters();
        }
        closed
    }

    /// Records that the endpoint was unreachable or overloaded. `retry_after` is the pause that it asked for, `chance`
    /// a random number. Returns whether that opened the breaker.
    pub(super) fn failed(&self, probe: Option<Probe>, retry_after: Option<Duration>, chance: u64) -> bool {
        let was_probe = probe.map(Probe::spend).is_some();
        let opened = self.breaker().failed(was_probe, retry_after, self.clock.instant(), chance);
        if was_probe {
            self.changed.notify_waiters();
        }
        opened
    }

    /// When the pause of an open breaker ends; the current time during a probe, `None` when the breaker is closed.
    pub fn open_until(&self) -> Option<Moment> {
        let now = self.clock.instant();
        let until = self.breaker().open_until(now)?;
        Some(self.clock.now().after(until.saturating_duration_since(now)))
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probe {
    fn spend(mut self) {
        self.0 = None;
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(breaker) = self.0.take() {
            breaker.breaker().return_probe(breaker.clock.instant());
            breaker.changed.notify_waiters();
        }
    }
}

/// The state machine of a circuit breaker; the caller passes the time.
#[derive(Debug, Clone)]
struct Breaker {
    limits: limits::Dispatch,
    state: State,
    /// The end of the pause that the endpoint asked for. It applies in every state.
    not_before: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Messages are attempted. `failures` is the number of failures in a row.
    Closed { failures: u32 },
    /// Nothing is attempted before `until`. `probes` is the number of failed probes.
    Open { until: Instant, probes: u32 },
    /// One message is in flight as a probe, and nothing else is attempted before its outcome.
    Probing { probes: u32 },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// Whether messages may be attempted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permit {
    /// Any number of them.
    Any,
    /// One, as a probe; its outcome has to be recorded.
    Probe,
    /// None before this time.
    NotBefore(Instant),
    /// None before the outcome of the current probe.
    Wait,
}

impl Breaker {
    fn new(limits: limits::Dispatch) -> Self {
        Self { limits, state: State::default(), not_before: None }
    }

    /// Decides whether messages may be attempted; an open breaker whose pause is over begins a probe.
    fn permit(&mut self, now: Instant) -> Permit {
        if let Some(until) = self.not_before.filter(|until| now < *until) {
            return Permit::NotBefore(until);
        }
        match self.state {
            State::Closed { .. } => Permit::Any,
            State::Open { until, .. } if now < until => Permit::NotBefore(until),
            State::Open { probes, .. } => {
                self.state = State::Probing { probes };
                Permit::Probe
            }
            State::Probing { .. } => Permit::Wait,
        }
    }

    /// Takes back a probe without an outcome: the next one may begin at once.
    fn return_probe(&mut self, now: Instant) {
        if let State::Probing { probes } = self.state {
            self.state = State::Open { until: now, probes };
        }
    }

    /// Closes the breaker. Returns whether it was not closed before. `not_before` stays, because the attempt may have
    /// begun before the endpoint asked for the pause.
    fn succeeded(&mut self) -> bool {
        let before = std::mem::take(&mut self.state);
        !matches!(before, State::Closed { .. })
    }

    /// Records a failed attempt. Returns whether that opened a closed breaker.
    fn failed(&mut self, probe: bool, retry_after: Option<Duration>, now: Instant, chance: u64) -> bool {
        if let Some(requested) = retry_after {
            self.not_before =
                Some(self.not_before.unwrap_or(now).max(now + requested.min(self.limits.breaker_max_requested)));
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
            // The attempt began before the breaker opened.
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// See [`CircuitBreaker::open_until`].
    fn open_until(&self, now: Instant) -> Option<Instant> {
        let not_before = self.not_before.filter(|until| now < *until);
        let open = match self.state {
            State::Closed { .. } => None,
            State::Open { until, .. } => Some(until.max(now)),
            State::Probing { .. } => Some(now),
        };
        not_before.max(open)
    }

    /// The pause after this many failed probes: exponential, with jitter from half of the pause to all of it, so that
    /// several gateways do not probe at the same time.
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
            4 => (any::<usize>(), proptest::option::weighted(0.1, 0..400_u64)).prop_map(|(which, requested)| Step::Fail(which, requested)),
            2 => (0..100_000_u64).prop_map(Step::Wait),
        ]
    }

    #[test]
    fn an_answer_to_an_attempt_that_began_earlier_does_not_end_what_the_endpoint_has_asked_for() {
        let limits = limits::Dispatch::default();
        let (mut breaker, now) = (Breaker::new(limits), Instant::now());
        assert!(!breaker.failed(false, Some(Duration::from_secs(30)), now, 0));
        assert!(!breaker.succeeded());
        let until = now + Duration::from_secs(30);
        assert_eq!((breaker.permit(now), breaker.open_until(now)), (Permit::NotBefore(until), Some(until)));
        assert_eq!(breaker.permit(until), Permit::Any);
    }

    #[test]
    fn it_opens_at_the_threshold_and_each_pause_is_as_long_as_the_limits_say() {
        let seconds = Duration::from_secs;
        let limits = limits::Dispatch {
            breaker_threshold: 3,
            breaker_pause: seconds(10),
            breaker_max_pause: seconds(15),
            breaker_max_requested: seconds(60),
        };
        let (mut breaker, mut now) = (Breaker::new(limits), Instant::now());
        assert_eq!((breaker.failed(false, None, now, 0), breaker.failed(false, None, now, 0)), (false, false));
        assert_eq!(breaker.permit(now), Permit::Any, "one less than the threshold");
        assert!(breaker.failed(false, None, now, 0));
        assert_eq!(breaker.permit(now), Permit::NotBefore(now + seconds(5)), "from half of the pause");
        assert_eq!(breaker.open_until(now), Some(now + seconds(5)));
        now += seconds(5) - Duration::from_millis(1);
        assert_ne!(breaker.permit(now), Permit::Probe);
        now += Duration::from_millis(1);
        assert_eq!(breaker.permit(now), Permit::Probe);
        breaker.failed(true, None, now, 7500);
        assert_eq!(breaker.permit(now), Permit::NotBefore(now + seconds(15)), "to all of the longest one");
        now += seconds(15);
        assert_eq!(breaker.permit(now), Permit::Probe);
        assert_eq!(breaker.open_until(now), Some(now), "a probe is under way");
        assert!(breaker.succeeded());
        assert_eq!(breaker.open_until(now), None);
        breaker.failed(false, Some(seconds(59)), now, 0);
        assert_eq!(breaker.permit(now), Permit::NotBefore(now + seconds(59)), "what it asks for");
        breaker.failed(false, Some(seconds(61)), now, 0);
        assert_eq!(breaker.permit(now), Permit::NotBefore(now + seconds(60)), "within the limit");
    }

    #[tokio::test]
    async fn whoever_waits_for_an_endpoint_is_woken_by_the_end_of_its_probe() {
        let limits = limits::Dispatch { breaker_threshold: 1, ..limits::Dispatch::default() };
        let (clock, hand) = Clock::manual(Moment::from_unix(1_000));
        let breaker = CircuitBreaker::new(limits, clock);
        let Pass::Any = breaker.pass().await else { panic!("nothing is known of it") };
        assert!(breaker.failed(None, None, 0));
        assert_eq!(breaker.open_until(), Some(Moment::from_millis(1_000_500)));
        for _ in 0..2 {
            hand.advance(Duration::from_mins(2));
            let Pass::Probe(probe) = breaker.pass().await else { panic!("it is open") };
            let mut waiting = Box::pin(breaker.pass());
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            drop(probe);
            let Pass::Probe(again) = waiting.await else { panic!("it is open") };
            assert!(!breaker.failed(Some(again), None, 0), "it is no news");
        }
        hand.advance(Duration::from_mins(2));
        let Pass::Probe(probe) = breaker.pass().await else { panic!("it is open") };
        let waiting = breaker.pass();
        assert!(breaker.answered(Some(probe)));
        let Pass::Any = waiting.await else { panic!("it has answered") };
        assert_eq!(breaker.open_until(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_failing_endpoint_gets_one_message_at_a_time_and_never_waits_for_longer_than_it_may(
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let limits = limits::Dispatch::default();
            let (threshold, longest_asked) = (limits.breaker_threshold, limits.breaker_max_requested);
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
                        Permit::NotBefore(until) => prop_assert!(until > now && until <= now + longest_asked),
                        Permit::Wait => prop_assert!(attempts.contains(&true), "nobody is probing"),
                    },
                    Step::Succeed(which) if !attempts.is_empty() => {
                        attempts.swap_remove(which % attempts.len());
                        breaker.succeeded();
                        // A probe that is still under way tells nothing any more.
                        attempts.iter_mut().for_each(|probe| *probe = false);
                        failed_in_a_row = 0;
                    }
                    Step::Fail(which, requested) if !attempts.is_empty() => {
                        let probe = attempts.swap_remove(which % attempts.len());
                        breaker.failed(probe, requested.map(Duration::from_secs), now, chance);
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
