//! Whoever finds nothing to do and waits for a signal is never asleep while there is something, in whatever order two
//! threads run.

mod base {
    pub(crate) mod sync {
        pub(crate) use loom::sync::Mutex;
        pub(crate) use loom::sync::atomic::AtomicU64;
        pub(crate) use loom::sync::atomic::Ordering;
    }
}

#[path = "../../../../src/base/signal.rs"]
mod signal;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering;

use self::signal::Signal;

/// How often a thread is interrupted by another one: more takes hours.
const PREEMPTIONS: usize = 2;

/// Things to do come one after the other, from two threads; one task does them all.
fn every_thing_is_found() {
    let (things, signal) = (Arc::new(AtomicUsize::new(0)), Arc::new(Signal::default()));
    let come = || {
        let (things, signal) = (Arc::clone(&things), Arc::clone(&signal));
        loom::thread::spawn(move || {
            things.fetch_add(1, Ordering::Release);
            signal.raise();
        })
    };
    let threads = [come(), come()];
    loom::future::block_on(async {
        let mut done = 0;
        while done < 2 {
            let seen = signal.count();
            match things.swap(0, Ordering::AcqRel) {
                0 => signal.changed_since(seen).await,
                found => done += found,
            }
        }
    });
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

fn main() {
    // A wait that nothing ends is what loom calls a deadlock.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(every_thing_is_found);
    println!("signal: every order of two threads and a waiting task, with up to {PREEMPTIONS} interruptions, is fine");
}
