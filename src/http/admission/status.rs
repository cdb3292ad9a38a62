//! The status of one connection: its phase, when that began, and why it shall be closed. They are atomics, so that a
//! request needs no lock for them. `Relaxed` is enough: one thread serves all connections of a table.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
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
    /// Of HTTP/2: whether the client shall connect anew.
    ending: AtomicBool,
    /// Of HTTP/2: the streams that are open, and those of them whose requests are complete.
    streams: AtomicUsize,
    busy_streams: AtomicUsize,
}

impl Status {
    /// The status of a connection that was accepted at this time.
    pub(super) fn new(now: u64) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Silent.number()),
            since: AtomicU64::new(now),
            verified: AtomicBool::new(false),
            close_reason: AtomicU8::new(0),
            ending: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            busy_streams: AtomicUsize::new(0),
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

    /// Counts a stream whose head is complete.
    pub(super) fn open_stream(&self) {
        self.streams.fetch_add(1, Relaxed);
        self.set_phase(self.phase_of_streams());
    }

    /// Counts an open stream as busy.
    pub(super) fn occupy_stream(&self) {
        self.busy_streams.fetch_add(1, Relaxed);
        self.set_phase(Phase::Busy);
    }

    /// Counts a stream no more. Returns whether the connection waits from now on.
    pub(super) fn end_stream(&self, was_busy: bool, now: u64) -> bool {
        let was = self.phase();
        self.streams.fetch_sub(1, Relaxed);
        if was_busy {
            self.busy_streams.fetch_sub(1, Relaxed);
        }
        let phase = self.phase_of_streams();
        self.begin_phase(phase, now);
        phase == Phase::Idle || was == Phase::Busy && phase == Phase::Body
    }

    /// The phase of a connection with several streams: one whose request is complete keeps it from being displaced.
    fn phase_of_streams(&self) -> Phase {
        match (self.busy_streams.load(Relaxed), self.streams.load(Relaxed)) {
            (0, 0) => Phase::Idle,
            (0, _) => Phase::Body,
            _ => Phase::Busy,
        }
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

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Relaxed)
    }

    pub(super) fn set_ending(&self) {
        self.ending.store(true, Relaxed);
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
    fn several_streams_are_one_connection_that_waits_while_none_of_them_is_complete() {
        let status = Status::new(0);
        status.open_stream();
        status.open_stream();
        assert_eq!(status.phase(), Phase::Body);
        status.occupy_stream();
        assert_eq!(status.phase(), Phase::Busy);
        status.open_stream();
        assert_eq!(status.phase(), Phase::Busy, "another head changes nothing");
        assert!(!status.end_stream(false, 1) && status.phase() == Phase::Busy);
        assert!(status.end_stream(true, 2) && status.phase() == Phase::Body, "one body is left");
        assert!(status.end_stream(false, 3) && status.phase() == Phase::Idle);
        assert_eq!(status.waited(5), 2);
    }

    #[test]
    fn phases_are_what_was_set() {
        let status = Status::new(0);
        for phase in Phase::ALL {
            status.set_phase(phase);
            assert_eq!(status.phase(), phase);
        }
    }
}
