//! The limit on open files, and the number of connections that it allows: each needs a file, and one for its upstream
//! connection while it is busy.

use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

/// Files that are open besides connections: the store, and others of the process.
const OTHER_FILES: usize = 64;
/// Files of one worker besides connections: its listener and its event queue.
const FILES_PER_WORKER: usize = 8;

/// Raises the soft limit to the hard limit, and returns it. Shells and systemd set a soft limit of 1024, which a few
/// clients can use up.
pub(super) fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let files = if raised { maximum } else { current };
    files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

/// The number of connections for which this many files suffice, at least 1. With a higher limit, `accept` would fail
/// before admission could displace an idle connection.
pub(super) fn max_connections(files: usize, workers: usize, admin_connections: usize) -> usize {
    let available = files.saturating_sub(OTHER_FILES + FILES_PER_WORKER.saturating_mul(workers) + admin_connections);
    // A third is for upstream connections.
    (available - available / 3).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thirds_of_what_is_left_are_for_connections() {
        assert_eq!(max_connections(64 + 16 + 20, 2, 20), 1, "one in any case");
        assert_eq!(max_connections(64 + 16 + 20 + 300, 2, 20), 200);
        assert_eq!(max_connections(0, 2, 20), 1);
        assert!(max_connections(usize::MAX, 2, 20) > 1_000_000);
    }
}
