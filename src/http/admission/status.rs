//! What one connection is doing, how long it has done so, and whether it is to be closed: a few atomic words, so that a
//! request takes no lock for them. All connections of a listener are served by one thread, so that they need no
//! ordering.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of its first request has come.
    Silent,
    /// A head has begun.
    Head,
    /// The head is complete, and the body is not.
    Body,
    /// A complete request is being handled.
    Busy,
    /// The last request has been answered, and nothing of another one has come.
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

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has waited longest, and another one needs its place.
    Displaced,
    /// What it waited for did not come in time.
    TimedOut,
}

impl Verdict {
    /// Zero is no verdict.
    fn number(self) -> u8 {
        match self {
            Self::Displaced => 1,
            Self::TimedOut => 2,
        }
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Status {
    phase: AtomicU8,
    /// When the phase began, in milliseconds, where it is limited in time.
    since: AtomicU64,
    verified: AtomicBool,
    verdict: AtomicU8,
}

impl Status {
    /// That of a connection that was accepted at this time.
    pub(super) fn new(now: u64) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Silent.number()),
            since: AtomicU64::new(now),
            verified: AtomicBool::new(false),
            verdict: AtomicU8::new(0),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::ALL.get(usize::from(self.phase.load(Relaxed))).copied().unwrap_or(Phase::Busy)
    }

    /// Sets a phase; its time, if it has any, runs from where it began before.
    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase.number(), Relaxed);
    }

    /// Sets a phase that begins at this time.
    pub(super) fn begin_phase(&self, phase: Phase, now: u64) {
        self.since.store(now, Relaxed);
        self.set_phase(phase);
    }

    /// For how many milliseconds the phase has lasted.
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

    pub(super) fn verdict(&self) -> Option<Verdict> {
        match self.verdict.load(Relaxed) {
            0 => None,
            1 => Some(Verdict::Displaced),
            _ => Some(Verdict::TimedOut),
        }
    }

    /// Sets the verdict unless there is one; whether there was none.
    pub(super) fn decide(&self, verdict: Verdict) -> bool {
        self.verdict.compare_exchange(0, verdict.number(), Relaxed, Relaxed).is_ok()
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
