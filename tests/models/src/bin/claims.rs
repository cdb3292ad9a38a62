//! The writer of a file claims deliveries, a dispatcher takes them, gives one back, and sleeps when there is none: it
//! never sleeps while there is something to take, and none is taken twice.

mod base {
    pub(crate) mod sync {
        pub(crate) use loom::sync::Mutex;
        pub(crate) use loom::sync::atomic::AtomicU64;
        pub(crate) use loom::sync::atomic::Ordering;
    }
}

#[path = "../../../../src/store/sqlite/queue.rs"]
#[allow(dead_code)]
mod queue;
#[path = "../../../../src/base/signal.rs"]
mod signal;

use std::collections::VecDeque;

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::Mutex;

use self::queue::Claims;
use self::queue::Entry;
use self::queue::Need;
use self::signal::Signal;

const EVENTS: i64 = 2;
/// How often a thread is interrupted by another one: more takes hours.
const PREEMPTIONS: usize = 2;

struct Store {
    claims: Claims,
    signal: Signal,
    /// What may be attempted, as the file has it.
    file: Mutex<Vec<i64>>,
    mailbox: Mutex<Mailbox>,
    mail: Signal,
    refilled: Signal,
}

#[derive(Default)]
struct Mailbox {
    asked: bool,
    ended: bool,
}

fn entry(id: i64) -> Entry {
    Entry { id, lane: None, attempts: 0, before_replay: 0, replayed: None }
}

impl Store {
    fn refill(&self) {
        let (wanted, claimed) = self.claims.wanted();
        let limit = wanted + claimed;
        let read: Vec<_> = self.file.lock().unwrap().iter().copied().take(limit).collect();
        let full = read.len() == limit;
        let unclaimed = self.claims.unclaimed(read);
        let left = unclaimed.len() > wanted;
        self.claims.refill(unclaimed.into_iter().take(wanted).map(entry).collect(), full || left, None, 0);
    }

    /// Commits so many events, and does what it is asked for until the dispatcher ends.
    fn write(&self) {
        for id in 1..=EVENTS {
            self.file.lock().unwrap().push(id);
            self.claims.arrived(entry(id));
            if self.claims.is_low() {
                self.refill();
            }
            self.signal.raise();
        }
        block_on(async {
            loop {
                let seen = self.mail.count();
                let Mailbox { asked, ended } = std::mem::take(&mut *self.mailbox.lock().unwrap());
                if asked {
                    self.refill();
                    self.signal.raise();
                    self.refilled.raise();
                }
                if ended {
                    return;
                }
                if !asked {
                    self.mail.changed_since(seen).await;
                }
            }
        });
    }

    fn tell(&self, tell: impl FnOnce(&mut Mailbox)) {
        tell(&mut self.mailbox.lock().unwrap());
        self.mail.raise();
    }

    /// Takes all of them, and gives the first one back once.
    async fn dispatch(&self) {
        let (mut done, mut gave_back) = (Vec::new(), false);
        while done.len() < 2 {
            let seen = self.signal.count();
            let refilled = self.refilled.count();
            let (mut taken, need) = self.claims.take(1, 0);
            match (taken.pop_front(), need) {
                (Some(entry), _) if !gave_back => {
                    gave_back = true;
                    self.claims.give_back(VecDeque::from([entry]));
                    self.signal.raise();
                }
                (Some(entry), need) => {
                    assert!(!done.contains(&entry.id), "it is taken twice");
                    if need != Need::Nothing {
                        self.tell(|mail| mail.asked = true);
                    }
                    done.push(entry.id);
                }
                (None, Need::Now | Need::Soon) => {
                    self.tell(|mail| mail.asked = true);
                    self.refilled.changed_since(refilled).await;
                }
                (None, Need::Nothing) => self.signal.changed_since(seen).await,
            }
        }
        self.tell(|mail| mail.ended = true);
    }
}

fn everything_is_taken_once() {
    let store = Arc::new(Store {
        claims: Claims::new(1),
        signal: Signal::default(),
        file: Mutex::default(),
        mailbox: Mutex::default(),
        mail: Signal::default(),
        refilled: Signal::default(),
    });
    let writer = {
        let store = Arc::clone(&store);
        loom::thread::spawn(move || store.write())
    };
    block_on(store.dispatch());
    writer.join().expect("no panic");
}

fn main() {
    // A wait that nothing ends is what loom calls a deadlock.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(everything_is_taken_once);
    println!("claims: every order of a writer and a dispatcher, with up to {PREEMPTIONS} interruptions, is fine");
}
