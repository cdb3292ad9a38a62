//! The memory budget for request bodies, in bytes, shared by all connections and threads.
//!
//! A body that arrives in one piece only changes two atomic counters: that of its source and that of all sources. A
//! body that waits for more bytes is also in a list, ordered by age, until it is complete. The oldest incomplete body
//! is displaced when another body needs its bytes.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;

use super::Origin;
use super::Quota;

/// The budget of one source, which is a share of the budget of all sources.
#[derive(Debug)]
pub struct Budget {
    pool: Arc<Pool>,
    share: Quota,
}

/// The budget of all sources together.
#[derive(Debug)]
struct Pool {
    available: Quota,
    /// The most bytes of incomplete bodies of one address.
    max_per_address: usize,
    unfinished: Mutex<Unfinished>,
}

/// The bodies that wait for more bytes.
#[derive(Debug, Default)]
struct Unfinished {
    /// By their sequence numbers, the oldest first.
    bodies: BTreeMap<u64, Body>,
    /// Bytes of these bodies by address. Addresses without any are not in it.
    addresses: HashMap<Origin, usize>,
    /// The last sequence number.
    last: u64,
}

#[derive(Debug)]
struct Body {
    budget: Arc<Budget>,
    bytes: usize,
    origin: Option<Origin>,
    /// Set before the waker is woken, which synchronises the two threads.
    displaced: Arc<AtomicBool>,
    waker: Waker,
}

/// Why a body gets no more bytes of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The budget is used up, and no older body can be displaced.
    Exhausted,
    /// The body itself was displaced.
    Displaced,
}

/// The limit that was reached.
#[derive(Debug, Clone, Copy)]
enum Scope {
    All,
    Source,
    Address(Origin),
}

impl Budget {
    /// A budget of this many bytes, without a limit by address.
    pub fn new(bytes: usize) -> Self {
        Self::with_address_limit(bytes, bytes)
    }

    /// A budget of this many bytes, with a limit for the incomplete bodies of one address.
    pub fn with_address_limit(bytes: usize, max_per_address: usize) -> Self {
        let pool = Pool { available: Quota::new(bytes), max_per_address, unfinished: Mutex::default() };
        Self { pool: Arc::new(pool), share: Quota::new(bytes) }
    }

    /// The budget of one source: at most this many bytes of this budget.
    pub fn share(&self, bytes: usize) -> Self {
        Self { pool: Arc::clone(&self.pool), share: Quota::new(bytes) }
    }

    fn take(&self, bytes: usize) -> Result<(), Scope> {
        if !self.share.take(bytes) {
            return Err(Scope::Source);
        }
        if !self.pool.available.take(bytes) {
            self.share.give_back(bytes);
            return Err(Scope::All);
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.share.give_back(bytes);
        self.pool.available.give_back(bytes);
    }
}

impl Pool {
    fn unfinished(&self) -> MutexGuard<'_, Unfinished> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unfinished {
    /// Takes bytes of the budget, and displaces older bodies if needed. `own` is the sequence number of the body that
    /// needs the bytes, if it is in the list: if that is the oldest, none is displaced.
    fn take(&mut self, budget: &Arc<Budget>, bytes: usize, own: Option<u64>) -> Result<(), Full> {
        while let Err(scope) = budget.take(bytes) {
            self.displace(budget, scope, own)?;
        }
        Ok(())
    }

    /// Displaces the oldest body within the scope.
    fn displace(&mut self, budget: &Arc<Budget>, scope: Scope, own: Option<u64>) -> Result<(), Full> {
        let within = |body: &Body| {
            body.bytes > 0
                && match scope {
                    Scope::All => true,
                    Scope::Source => Arc::ptr_eq(&body.budget, budget),
                    Scope::Address(origin) => body.origin == Some(origin),
                }
        };
        let oldest = self.bodies.iter().find(|(_, body)| within(body)).map(|(age, _)| *age);
        match oldest.filter(|age| Some(*age) != own).and_then(|age| self.remove(age)) {
            Some(body) => {
                body.budget.give_back(body.bytes);
                body.displaced.store(true, Relaxed);
                body.waker.wake();
                Ok(())
            }
            None => Err(Full::Exhausted),
        }
    }

    /// Removes a body from the list.
    fn remove(&mut self, age: u64) -> Option<Body> {
        let body = self.bodies.remove(&age)?;
        self.update_bytes(body.origin, |bytes| bytes - body.bytes);
        Some(body)
    }

    /// Whether an address would have more than `max` bytes in incomplete bodies with `more` bytes for a body that has
    /// `own` bytes already. The only body of an address is never limited.
    fn would_exceed(&self, origin: Origin, own: usize, more: usize, max: usize) -> bool {
        let all = self.addresses.get(&origin).copied().unwrap_or(0);
        all > own && all.saturating_add(more) > max
    }

    fn update_bytes(&mut self, origin: Option<Origin>, change: impl FnOnce(usize) -> usize) {
        let Some(origin) = origin else { return };
        let bytes = change(self.addresses.get(&origin).copied().unwrap_or(0));
        if bytes == 0 {
            self.addresses.remove(&origin);
        } else {
            self.addresses.insert(origin, bytes);
        }
    }
}

/// The bytes of the budget that one body has taken. Dropping it gives them back.
#[derive(Debug)]
pub struct Reserved {
    budget: Arc<Budget>,
    /// The bytes of the body, unless it is in the list of [`Unfinished`] bodies, which then has them.
    bytes: usize,
    /// The sequence number of the body in that list, and whether it was displaced.
    unfinished: Option<(u64, Arc<AtomicBool>)>,
}

impl Reserved {
    /// A reservation of no bytes.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0, unfinished: None }
    }

    /// Takes bytes that have arrived.
    ///
    /// # Errors
    /// [`Full`] when the budget is used up, or this body was displaced.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        match &self.unfinished {
            None if self.budget.take(bytes).is_ok() => {}
            None => self.budget.pool.unfinished().take(&self.budget, bytes, None)?,
            Some((age, _)) => return self.grow_unfinished(*age, bytes),
        }
        self.bytes += bytes;
        Ok(())
    }

    fn grow_unfinished(&self, age: u64, bytes: usize) -> Result<(), Full> {
        let pool = &self.budget.pool;
        let mut unfinished = pool.unfinished();
        let Body { origin, bytes: own, .. } = *unfinished.bodies.get(&age).ok_or(Full::Displaced)?;
        if let Some(origin) = origin {
            while unfinished.would_exceed(origin, own, bytes, pool.max_per_address) {
                unfinished.displace(&self.budget, Scope::Address(origin), Some(age))?;
            }
        }
        unfinished.take(&self.budget, bytes, Some(age))?;
        unfinished.update_bytes(origin, |all| all + bytes);
        let body = unfinished.bodies.get_mut(&age).ok_or(Full::Displaced)?;
        body.bytes += bytes;
        Ok(())
    }

    /// Marks the body as waiting for more bytes, so that others may displace it. If that happens, the waker is woken,
    /// and [`Self::is_displaced`] returns true.
    ///
    /// # Errors
    /// [`Full`] when its address has too many bytes, and no older body can be displaced.
    pub fn mark_waiting(&mut self, address: Option<IpAddr>, waker: &Waker) -> Result<(), Full> {
        if self.unfinished.is_some() {
            return Ok(());
        }
        let pool = &self.budget.pool;
        let mut unfinished = pool.unfinished();
        let origin = address.map(Origin::of);
        if let Some(origin) = origin {
            while unfinished.would_exceed(origin, 0, self.bytes, pool.max_per_address) {
                unfinished.displace(&self.budget, Scope::Address(origin), None)?;
            }
        }
        unfinished.last += 1;
        let age = unfinished.last;
        let displaced = Arc::new(AtomicBool::new(false));
        let body = Body {
            budget: Arc::clone(&self.budget),
            bytes: std::mem::take(&mut self.bytes),
            origin,
            displaced: Arc::clone(&displaced),
            waker: waker.clone(),
        };
        unfinished.update_bytes(origin, |all| all + body.bytes);
        unfinished.bodies.insert(age, body);
        self.unfinished = Some((age, displaced));
        Ok(())
    }

    /// Whether the body was displaced.
    pub fn is_displaced(&self) -> bool {
        self.unfinished.as_ref().is_some_and(|(_, displaced)| displaced.load(Relaxed))
    }

    /// Marks the body as complete: it cannot be displaced any more.
    ///
    /// # Errors
    /// [`Full::Displaced`] when it was displaced before.
    pub fn complete(&mut self) -> Result<(), Full> {
        let Some((age, _)) = self.unfinished.take() else { return Ok(()) };
        let body = self.budget.pool.unfinished().remove(age).ok_or(Full::Displaced)?;
        self.bytes = body.bytes;
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let _displaced = self.complete();
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of an address that has so many bytes and waits for more.
    #[track_caller]
    fn waiting(budget: &Arc<Budget>, address: &str, bytes: usize) -> Reserved {
        let mut body = Reserved::new(budget);
        body.grow(bytes).expect("room");
        body.mark_waiting(Some(address.parse().expect("an address")), Waker::noop()).expect("room of its address");
        body
    }

    #[test]
    fn the_oldest_that_is_not_complete_gives_way_and_what_is_complete_does_not() {
        let budget = Arc::new(Budget::new(100));
        let mut complete = waiting(&budget, "192.0.2.1", 20);
        complete.complete().expect("it was not displaced");
        let oldest = waiting(&budget, "192.0.2.1", 40);
        let newer = waiting(&budget, "192.0.2.2", 40);
        let mut new = Reserved::new(&budget);
        new.grow(1).expect("the room of the oldest");
        assert!(oldest.is_displaced() && !newer.is_displaced() && !complete.is_displaced());
        new.grow(39).expect("the rest of it");
        assert!(!newer.is_displaced(), "there was room");
        new.grow(41).expect_err("what the newer one has is one too few");
        assert!(newer.is_displaced(), "it was closed, and would have sufficed for less");
        assert_eq!(new.grow(40), Ok(()));
        assert_eq!(new.grow(1), Err(Full::Exhausted), "what is complete keeps its room");
        drop((oldest, newer, complete));
        assert_eq!(new.grow(20), Ok(()), "what was given away is not given back once more");
        assert_eq!(new.grow(1), Err(Full::Exhausted));
    }

    #[test]
    fn a_body_that_was_displaced_cannot_go_on() {
        let budget = Arc::new(Budget::new(10));
        let mut slow = waiting(&budget, "192.0.2.1", 6);
        let mut new = Reserved::new(&budget);
        new.grow(5).expect("room");
        assert!(slow.is_displaced());
        assert_eq!((slow.grow(1), slow.complete()), (Err(Full::Displaced), Err(Full::Displaced)));
    }

    #[test]
    fn the_oldest_of_all_closes_nothing_for_itself() {
        let budget = Arc::new(Budget::new(10));
        let mut oldest = waiting(&budget, "192.0.2.1", 5);
        let mut newer = waiting(&budget, "192.0.2.2", 5);
        assert_eq!(oldest.grow(1), Err(Full::Exhausted));
        assert!(!newer.is_displaced());
        assert_eq!(newer.grow(1), Ok(()));
        assert!(oldest.is_displaced());
    }

    #[test]
    fn a_source_takes_from_its_own_where_its_share_is_full() {
        let all = Budget::new(100);
        let [one, other] = [60, 60].map(|share| Arc::new(all.share(share)));
        let others = waiting(&other, "192.0.2.1", 30);
        let own = waiting(&one, "192.0.2.1", 60);
        let mut new = Reserved::new(&one);
        new.grow(10).expect("the room of its own source");
        assert!(own.is_displaced() && !others.is_displaced());
        new.grow(51).expect_err("its share is full of what is complete");
        assert!(!others.is_displaced());
        new.grow(50).expect("up to its share");
        let mut last = Reserved::new(&other);
        last.grow(11).expect("the room of the oldest of all");
        assert!(others.is_displaced());
    }

    #[test]
    fn an_address_takes_from_its_own_where_it_has_as_much_as_it_may() {
        let budget = Arc::new(Budget::with_address_limit(100, 40));
        let others = waiting(&budget, "2001:db8:1::1", 10);
        let first = waiting(&budget, "2001:db8::1", 20);
        let mut second = waiting(&budget, "2001:db8::2", 20);
        assert!(!first.is_displaced(), "up to the limit");
        second.grow(1).expect("the room of the first");
        assert!(first.is_displaced() && !others.is_displaced());
        second.grow(20).expect("one body alone can always be read");
        let younger = waiting(&budget, "2001:db8::3", 1);
        assert!(second.is_displaced() && !others.is_displaced(), "the oldest gives way once there are two");
        drop(younger);
        let mut second = waiting(&budget, "2001:db8::2", 20);
        let younger = waiting(&budget, "2001:db8::3", 20);
        assert!(!second.is_displaced(), "up to the limit");
        second.complete().expect("it was not displaced");
        drop(younger);
        let _third = waiting(&budget, "2001:db8::3", 40);
        assert!(!others.is_displaced(), "what is complete counts no more for its address");
    }
}
