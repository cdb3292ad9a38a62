//! One event at a time is delivered by one request, and whoever waits for its outcome is told, in whatever order
//! requests run.

mod base {
    pub(crate) mod sync {
        pub(crate) use shuttle::sync::Mutex;
        pub(crate) use shuttle::sync::atomic::AtomicU64;
        pub(crate) use shuttle::sync::atomic::Ordering;
    }
    pub(crate) mod clock {
        pub(crate) use doorward::base::clock::Clock;
    }
    pub(crate) mod limits {
        pub(crate) use doorward::base::limits::Dedup;
    }
}

mod verify {
    pub(crate) mod event_key {
        pub(crate) use doorward::verify::event_key::Key;
    }
}

mod message {
    pub(crate) use doorward::message::Keys;
}

mod store {
    pub(crate) use doorward::store::Token;

    pub(crate) type KeyMap<V> = std::collections::HashMap<super::verify::event_key::Key, V>;
}

#[path = "../../../../src/dedup/claims.rs"]
#[allow(dead_code)]
mod claims;
#[path = "../../../../src/dedup/single_flight.rs"]
#[allow(dead_code)]
mod single_flight;

use std::time::Duration;

use shuttle::sync::Arc;
use shuttle::sync::atomic::AtomicUsize;
use shuttle::sync::atomic::Ordering;
use shuttle::thread;

use self::base::limits::Dedup;
use self::claims::Entry;
use self::message::Keys;
use self::single_flight::SingleFlight;

const LEASE: Duration = Duration::from_secs(3600);
const KEYS: Keys =
    Keys { id: verify::event_key::Key([7; 16]), guard: Some(verify::event_key::Key([9; 16])), ignored: None };
const REQUESTS: usize = 4;

/// How many are delivering, and how many have.
#[derive(Default)]
struct Upstream {
    busy: AtomicUsize,
    delivered: AtomicUsize,
}

impl Upstream {
    fn deliver(&self, succeeds: bool) {
        assert_eq!(self.busy.fetch_add(1, Ordering::SeqCst), 0, "two deliver the event at the same time");
        thread::yield_now();
        self.delivered.fetch_add(usize::from(succeeds), Ordering::SeqCst);
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request; the first one dies in its delivery, the second one fails.
fn request(number: usize, single_flight: &std::sync::Arc<SingleFlight>, upstream: &Upstream) {
    match single_flight.enter(KEYS, LEASE) {
        Entry::Leader(leader) => {
            if upstream.delivered.load(Ordering::SeqCst) > 0 {
                return leader.complete(true);
            }
            upstream.deliver(number > 1);
            match number {
                0 => drop(leader),
                number => leader.complete(number > 1),
            }
        }
        Entry::Follower { mut outcome, same_id } => {
            assert!(same_id);
            let finished = loop {
                match outcome.try_recv() {
                    Ok(finished) => break finished,
                    Err(tokio::sync::oneshot::error::TryRecvError::Empty) => thread::yield_now(),
                    Err(gone) => panic!("nobody tells what came of it: {gone}"),
                }
            };
            assert_eq!(finished, upstream.delivered.load(Ordering::SeqCst) > 0 && finished, "told too much");
        }
        Entry::Busy(_) => panic!("there is room to wait"),
    }
}

fn each_is_told_and_one_delivers() {
    let (clock, _hand) = base::clock::Clock::manual(doorward::base::time::Moment::from_unix(1_000));
    let single_flight = std::sync::Arc::new(SingleFlight::new(1, &Dedup::default(), clock));
    let upstream = Arc::new(Upstream::default());
    let requests: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let (single_flight, upstream) = (std::sync::Arc::clone(&single_flight), Arc::clone(&upstream));
            thread::spawn(move || request(number, &single_flight, &upstream))
        })
        .collect();
    requests.into_iter().for_each(|request| request.join().expect("no panic"));
    assert!(upstream.delivered.load(Ordering::SeqCst) <= 1, "it was delivered twice");
}

fn main() {
    const ORDERS: usize = 20_000;
    shuttle::check_random(each_is_told_and_one_delivers, ORDERS);
    shuttle::check_pct(each_is_told_and_one_delivers, ORDERS, 3);
    println!("single leader: {} orders of {REQUESTS} requests are fine", 2 * ORDERS);
}
