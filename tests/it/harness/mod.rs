//! What the tests are made of: the gateway, and the providers, upstreams, Redis servers and faults around it.

pub mod authority;
pub mod cases;
pub mod fault;
pub mod gateway;
pub mod http;
pub mod http2;
pub mod load;
pub mod provider;
pub mod random;
pub mod recorded;
pub mod redis;
pub mod tls;
pub mod upstream;

use std::net::TcpListener;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// Longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A port where nobody listens. It is none of those that the system hands out (from 32768), so that no other test gets
/// it by chance before it is used, and processes that run at the same time begin to look at different ones.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 600).expect("small") * 32;
    wait_for("a free port", || {
        let port = 10_000 + (first + TAKEN.fetch_add(1, Ordering::Relaxed)) % 20_000;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    })
}

/// Waits until `condition` gives something, and fails with `what` when it never does.
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_at_most(PATIENCE, what, condition)
}

/// The same for something that may take this long.
#[track_caller]
pub fn wait_at_most<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begun.elapsed() < patience, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` is true.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
