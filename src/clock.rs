//! The clocks of everything that holds events: the system's, a steady one, and that of a test.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::watch;

use crate::time::Moment;

/// A clock that goes on from the system's at one speed, whatever becomes of that: pauses measured with it are as long as
/// they should be when somebody sets the clock.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    began_at: Moment,
    began: Instant,
}

impl Steady {
    /// A clock that shows the system's time now.
    pub fn start() -> Self {
        Self { began_at: Moment::now(), began: Instant::now() }
    }

    /// What it shows now.
    pub fn now(self) -> Moment {
        self.began_at.after(self.began.elapsed())
    }
}

/// Tells the time to everything that holds events: the system's clock, one that goes on steadily from it, or that of a test.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's, whatever becomes of it.
    #[default]
    System,
    /// Goes on from the system's at one speed.
    Steady(Steady),
    /// Stands still until a test moves it.
    Manual(Arc<Manual>),
}

/// The clock of a test. A wall clock that may be set to anything, and a steady one that only goes forward.
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
    /// A clock that shows this moment until it is moved.
    pub fn manual(moment: Moment) -> (Self, Arc<Manual>) {
        let shown = Shown { wall: moment, elapsed: Duration::ZERO };
        let manual = Arc::new(Manual { shown: watch::Sender::new(shown), began: Instant::now() });
        (Self::Manual(Arc::clone(&manual)), manual)
    }

    /// A clock that goes on from the system's at one speed.
    pub fn steady() -> Self {
        Self::Steady(Steady::start())
    }

    /// The date and time.
    pub fn now(&self) -> Moment {
        match self {
            Self::System => Moment::now(),
            Self::Steady(steady) => steady.now(),
            Self::Manual(manual) => manual.shown.borrow().wall,
        }
    }

    /// A point on the steady clock, for leases and pauses.
    pub fn instant(&self) -> Instant {
        match self {
            Self::System | Self::Steady(_) => Instant::now(),
            Self::Manual(manual) => manual.began + manual.shown.borrow().elapsed,
        }
    }

    /// Waits until the steady clock has gone on for this long.
    pub async fn sleep(&self, duration: Duration) {
        match self {
            Self::System | Self::Steady(_) => tokio::time::sleep(duration).await,
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
    /// Both clocks go on.
    pub fn advance(&self, duration: Duration) {
        self.shown.send_modify(|shown| {
            *shown = Shown { wall: shown.wall.after(duration), elapsed: shown.elapsed.saturating_add(duration) };
        });
    }

    /// Somebody sets the wall clock; the steady one does not notice.
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
