//! Panics: a hook that logs and counts all panics of the process, and a wrapper that turns the panic of a future into
//! an error.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Poll;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// The number of panics in this process since [`log_panics`] was called.
pub(super) fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Installs the hook that logs and counts all panics of this process.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(place, thread = thread.name(), why = text(panic.payload()), "a fault of the gateway: a panic");
    }));
}

/// Awaits a future and catches its panic.
///
/// # Errors
/// The message of the panic.
pub async fn catch_panic<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        // Unwind safe: it is not polled again, and what it shares with others is behind locks that ignore poison.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(text(&*panic))),
        }
    })
    .await
}

/// The message of a panic.
pub(super) fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_default())
}
