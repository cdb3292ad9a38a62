//! A clock that is passed as an argument: the system's clocks, a steady wall clock that ignores later changes of the
//! system's time, or a clock that a test sets.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::watch;

use crate::base::time::Moment;

/// A wall clock and a monotonic one.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The clocks of the system.
    #[default]
    System,
    /// The wall clock starts at the system's time and then follows the monotonic clock. The difference between two of
    /// its moments is the time that passed, even if the system's clock was set in between.
    Steady {
        /// The system's wall clock at the start.
        wall: Moment,
        /// The monotonic clock at the start.
        began: Instant,
    },
    /// Both clocks stand still until a test moves them.
    Manual(Arc<Manual>),
}

/// Moves the clocks of a test: a wall clock that may be set to any moment, and a monotonic one.
#[derive(Debug)]
pub struct Manual {
    reading: watch::Sender<Reading>,
    began: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    wall: Moment,
    elapsed: Duration,
}

impl Clock {
    /// A clock that shows `moment` until it is moved, and the handle that moves it.
    pub fn manual(moment: Moment) -> (Self, Arc<Manual>) {
        let reading = Reading { wall: moment, elapsed: Duration::ZERO };
        let manual = Arc::new(Manual { reading: watch::Sender::new(reading), began: Instant::now() });
        (Self::Manual(Arc::clone(&manual)), manual)
    }

    /// A steady clock that starts at the system's time.
    pub fn steady() -> Self {
        Self::Steady { wall: Moment::now(), began: Instant::now() }
    }

    /// The time of the wall clock.
    pub fn now(&self) -> Moment {
        match self {
            Self::System => Moment::now(),
            Self::Steady { wall, began } => wall.after(began.elapsed()),
            Self::Manual(manual) => manual.reading.borrow().wall,
        }
    }

    /// The time of the monotonic clock, for leases and pauses.
    pub fn instant(&self) -> Instant {
        match self {
            Self::System | Self::Steady { .. } => Instant::now(),
            Self::Manual(manual) => manual.began + manual.reading.borrow().elapsed,
        }
    }

    /// Waits until the monotonic clock has advanced by `duration`.
    pub async fn sleep(&self, duration: Duration) {
        match self {
            Self::System | Self::Steady { .. } => tokio::time::sleep(duration).await,
            Self::Manual(manual) => {
                let end = manual.reading.borrow().elapsed.saturating_add(duration);
                let mut reading = manual.reading.subscribe();
                // It cannot fail: `manual` owns the sender.
                drop(reading.wait_for(|reading| reading.elapsed >= end).await);
            }
        }
    }
}

impl Manual {
    /// Moves both clocks forward.
    pub fn advance(&self, duration: Duration) {
        self.reading.send_modify(|reading| {
            *reading =
                Reading { wall: reading.wall.after(duration), elapsed: reading.elapsed.saturating_add(duration) };
        });
    }

    /// Sets the wall clock alone.
    pub fn set(&self, moment: Moment) {
        self.reading.send_modify(|reading| reading.wall = moment);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_manual_clock_stands_still_until_it_is_moved() {
        let (clock, hand) = Clock::manual(Moment::from_unix(1_000));
        let began = clock.instant();
        assert_eq!((clock.now(), clock.instant()), (Moment::from_unix(1_000), began));
        hand.advance(Duration::from_secs(5));
        assert_eq!((clock.now(), clock.instant()), (Moment::from_unix(1_005), began + Duration::from_secs(5)));
        hand.set(Moment::from_unix(10));
        assert_eq!((clock.now(), clock.instant()), (Moment::from_unix(10), began + Duration::from_secs(5)));
    }

    #[test]
    fn whoever_sleeps_on_a_manual_clock_wakes_when_it_has_gone_on_for_long_enough() {
        let (clock, hand) = Clock::manual(Moment::from_unix(1_000));
        let mut sleep = std::pin::pin!(clock.sleep(Duration::from_secs(60)));
        let mut poll = || sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        hand.advance(Duration::from_secs(59));
        hand.set(Moment::from_unix(9_000));
        assert!(poll().is_pending());
        hand.advance(Duration::from_secs(1));
        assert!(poll().is_ready());
    }
}
