//! The limit on open files, and the number of connections that it allows: each takes one file, and another for its
//! upstream while it is busy.

use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

/// What is open besides connections: the store, listeners, and what each thread waits with.
const BESIDES: usize = 64;
const OF_WORKER: usize = 8;

/// Raises the limit as far as the system lets the process, and says what it is then: shells and systemd begin with
/// 1024, which a few strangers would use up.
pub(super) fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let files = if raised { maximum } else { current };
    files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

/// For how many connections so many files suffice, at least one. More would not give way to each other, because the
/// last ones could not even be accepted.
pub(super) fn suffice_for(files: usize, workers: usize, admin_connections: usize) -> usize {
    let left = files.saturating_sub(BESIDES + OF_WORKER.saturating_mul(workers) + admin_connections);
    // A third is for upstreams.
    (left - left / 3).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thirds_of_what_is_left_are_for_connections() {
        assert_eq!(suffice_for(64 + 16 + 20, 2, 20), 1, "one in any case");
        assert_eq!(suffice_for(64 + 16 + 20 + 300, 2, 20), 200);
        assert_eq!(suffice_for(0, 2, 20), 1);
        assert!(suffice_for(usize::MAX, 2, 20) > 1_000_000);
    }
}
