//! The status of one connection: its phase, when that began, and why it shall be closed. They are atomics, so that a
//! request needs no lock for them. `Relaxed` is enough: one thread serves all connections of a listener.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No byte of the first request has arrived.
    Silent,
    /// A head has begun to arrive.
    Head,
    /// The head is complete, the body is not.
    Body,
    /// A complete request is being handled.
    Busy,
    /// The last request was answered, and no byte of the next one has arrived.
    Idle,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Silent, Self::Head, Self::Body, Self::Busy, Self::Idle];

    fn number(self) -> u8 {
        match self {
            Self::Silent => 0,
            Self::Head => 1,
            Self::Body => 2,
            Self::Busy => 3,
            Self::Idle => 4,
        }
    }
}

/// Why a connection shall be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// It has waited longest, and another connection needs its slot.
    Displaced,
    /// It waited longer than its timeout.
    TimedOut,
}

impl CloseReason {
    /// Its value in [`Status`], where zero is `None`.
    fn number(self) -> u8 {
        match self {
            Self::Displaced => 1,
            Self::TimedOut => 2,
        }
    }
}

/// The status of one connection.
#[derive(Debug)]
pub(super) struct Status {
    phase: AtomicU8,
    /// When the timeout of the phase began, in milliseconds; not used in phases without a timeout.
    since: AtomicU64,
    verified: AtomicBool,
    close_reason: AtomicU8,
}

impl Status {
    /// The status of a connection that was accepted at this time.
    pub(super) fn new(now: u64) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Silent.number()),
            since: AtomicU64::new(now),
            verified: AtomicBool::new(false),
            close_reason: AtomicU8::new(0),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::ALL.get(usize::from(self.phase.load(Relaxed))).copied().unwrap_or(Phase::Busy)
    }

    /// Sets a phase without restarting the timeout.
    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase.number(), Relaxed);
    }

    /// Sets a phase, whose timeout begins at this time.
    pub(super) fn begin_phase(&self, phase: Phase, now: u64) {
        self.since.store(now, Relaxed);
        self.set_phase(phase);
    }

    /// Milliseconds since the timeout began.
    pub(super) fn waited(&self, now: u64) -> u64 {
        now.saturating_sub(self.since.load(Relaxed))
    }

    /// Whether a request on this connection was verified.
    pub(super) fn is_verified(&self) -> bool {
        self.verified.load(Relaxed)
    }

    pub(super) fn set_verified(&self) {
        self.verified.store(true, Relaxed);
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        match self.close_reason.load(Relaxed) {
            0 => None,
            1 => Some(CloseReason::Displaced),
            _ => Some(CloseReason::TimedOut),
        }
    }

    /// Sets the reason, unless there is one already. Returns whether it was set.
    pub(super) fn set_close_reason(&self, close_reason: CloseReason) -> bool {
        self.close_reason.compare_exchange(0, close_reason.number(), Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_what_was_set() {
        let status = Status::new(0);
        for phase in Phase::ALL {
            status.set_phase(phase);
            assert_eq!(status.phase(), phase);
        }
    }
}
