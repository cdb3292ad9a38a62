//! The phases of a shutdown, by which the threads of a gateway are told to stop accepting work, and then to stop at
//! once.

/// How far the gateway has come with stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It serves.
    Running,
    /// Nothing new is accepted; what is in flight may finish.
    Finishing,
    /// What is still in flight is cut.
    Cut,
}
