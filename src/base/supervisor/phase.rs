//! The phases of a shutdown: first the threads of a gateway accept no more work, then they stop at once.

/// The phase of a gateway's shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The gateway serves requests.
    Running,
    /// No new requests are accepted; those in flight may finish.
    Finishing,
    /// Requests still in flight are aborted.
    Cut,
}
