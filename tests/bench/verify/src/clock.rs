//! The CPU time of this thread: what others do on the same core does not count.

use std::time::Duration;

use cpu_time::ThreadTime;

/// How much of it this takes, and what comes of it.
pub fn cpu_time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = ThreadTime::now();
    let done = work();
    (begun.elapsed(), done)
}
