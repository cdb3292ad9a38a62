//! A clock that is passed as an argument: the system's, a steady one that starts at the system's time and is not set
//! with it, or one that a test sets.

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
    /// The wall clock goes on from the system's at `wall` without being set with it, so that pauses between two of its
    /// moments have the right length.
    Steady {
        /// The wall clock when it began.
        wall: Moment,
        /// The monotonic clock when it began.
        began: Instant,
    },
    /// Both stand still until a test moves them.
    Manual(Arc<Manual>),
}

/// The clocks of a test: a wall clock that may be set to anything, and a monotonic one.
#[derive(Debug)]
pub struct Manual {
    shown: watch::Sender<Shown>,
    began: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Shown {
    wall: Moment,
    elapsed: Duration,
}

impl Clock {
    /// A clock that shows this moment until it is moved, with the handle that moves it.
    pub fn manual(moment: Moment) -> (Self, Arc<Manual>) {
        let shown = Shown { wall: moment, elapsed: Duration::ZERO };
        let manual = Arc::new(Manual { shown: watch::Sender::new(shown), began: Instant::now() });
        (Self::Manual(Arc::clone(&manual)), manual)
    }

    /// A clock that shows the system's time now, and goes on steadily.
    pub fn steady() -> Self {
        Self::Steady { wall: Moment::now(), began: Instant::now() }
    }

    /// What the wall clock shows.
    pub fn now(&self) -> Moment {
        match self {
            Self::System => Moment::now(),
            Self::Steady { wall, began } => wall.after(began.elapsed()),
            Self::Manual(manual) => manual.shown.borrow().wall,
        }
    }

    /// What the monotonic clock shows, for leases and pauses.
    pub fn instant(&self) -> Instant {
        match self {
            Self::System | Self::Steady { .. } => Instant::now(),
            Self::Manual(manual) => manual.began + manual.shown.borrow().elapsed,
        }
    }

    /// Waits until the monotonic clock has gone on for this long.
    pub async fn sleep(&self, duration: Duration) {
        match self {
            Self::System | Self::Steady { .. } => tokio::time::sleep(duration).await,
            Self::Manual(manual) => {
                let end = manual.shown.borrow().elapsed.saturating_add(duration);
                let mut shown = manual.shown.subscribe();
                // The sender is in the clock, which is here.
                drop(shown.wait_for(|shown| shown.elapsed >= end).await);
            }
        }
    }
}

impl Manual {
    /// Moves both clocks forward.
    pub fn advance(&self, duration: Duration) {
        self.shown.send_modify(|shown| {
            *shown = Shown { wall: shown.wall.after(duration), elapsed: shown.elapsed.saturating_add(duration) };
        });
    }

    /// Sets the wall clock alone.
    pub fn set(&self, moment: Moment) {
        self.shown.send_modify(|shown| shown.wall = moment);
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
