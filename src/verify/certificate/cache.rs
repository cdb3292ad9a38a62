//! A cache that fetches certificates, with negative entries and a bounded queue of addresses to fetch.
//!
//! An unverified request can name any allowed address, and only a fetch shows whether it has a certificate. So fetches
//! of unknown addresses are limited. Certificates that have verified a signature are proven: they are renewed under a
//! separate limit, and stay in use when that fails. Each unknown address is in the queue once, however many requests
//! name it. A request waits for its fetch up to a limit; if it is refused, the retry of the provider finds the
//! certificate.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio::sync::watch;

use super::Certificate;
use super::Reader;
use super::queue::Network;
use super::queue::Pending;
use super::queue::Queue;
use crate::base::supervisor::Background;
use crate::base::time::Moment;
use crate::http::fetch::Address;
use crate::http::fetch::Document;
use crate::http::fetch::FetchError;
use crate::verify::Failure;

/// How long certificates are used, and the limits of fetching them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a certificate is fresh. It is fetched again at four fifths of this age.
    pub fresh: Duration,
    /// How long after that it is still used when it cannot be fetched.
    pub stale: Duration,
    /// The least time between two attempts to renew a certificate.
    pub pause: Duration,
    /// The most cached certificates that are proven, and the most that are not.
    pub max_entries: usize,
    /// How long a negative entry (an address without a certificate) is cached.
    pub negative_ttl: Duration,
    /// The most negative entries.
    pub max_negative: usize,
    /// The most addresses that are queued or being fetched, other than renewals of proven certificates.
    pub max_queued: usize,
    /// The most of these fetches at a time.
    pub at_once: usize,
    /// How many of these fetches may follow each other at once before `interval` limits them.
    pub burst: u32,
    /// The time per fetch after the first `burst`.
    pub interval: Duration,
    /// The longest that a request waits for a fetch.
    pub patience: Duration,
    /// The most requests that wait. Others are refused, so that their provider tries again; the fetch goes on.
    pub max_waiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fresh: Duration::from_hours(24),
            stale: Duration::from_hours(7 * 24),
            pause: Duration::from_mins(1),
            max_entries: 64,
            negative_ttl: Duration::from_mins(1),
            max_negative: 1024,
            max_queued: 50,
            at_once: 8,
            burst: 50,
            interval: Duration::from_millis(100),
            patience: Duration::from_secs(10),
            max_waiters: 256,
        }
    }
}

/// The certificates of one scheme.
pub(super) struct Cache {
    reader: Reader,
    limits: Limits,
    state: Mutex<State>,
    /// Permits to fetch addresses without a proven certificate.
    fetching: Semaphore,
    /// Permits to renew proven certificates.
    renewing: Semaphore,
    /// Permits for requests that wait.
    waiters: Semaphore,
    fetches: Background,
}

struct State {
    entries: HashMap<Address, Entry>,
    /// Negative entries, each with the reason and its expiry.
    negative: HashMap<Address, (Failure, Instant)>,
    queue: Queue,
    /// The theoretical arrival time of the next fetch, by the generic cell rate algorithm (GCRA).
    next_slot: Instant,
}

struct Entry {
    certificate: Arc<Certificate>,
    fetched: Instant,
    /// When the last attempt to renew it began.
    tried: Instant,
}

/// The fetch of one address. Dropping it removes the address from the queue.
struct Fetch {
    cache: Arc<Cache>,
    address: Address,
    number: u64,
    proven: bool,
    /// Closed when the entry of the queue is removed.
    evicted: oneshot::Receiver<()>,
    /// Closes [`Pending::done`] when the fetch is dropped.
    _done: watch::Sender<()>,
}

/// The result of a look-up.
enum Lookup {
    Certificate(Arc<Certificate>),
    /// The address is queued or being fetched; the channel is closed when that has ended.
    Pending(watch::Receiver<()>),
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.cache.state().queue.remove(&self.address, self.number);
    }
}

impl Cache {
    pub(super) fn new(reader: Reader, limits: Limits) -> Self {
        let state = State {
            entries: HashMap::new(),
            negative: HashMap::new(),
            queue: Queue::default(),
            next_slot: Instant::now(),
        };
        Self {
            reader,
            limits,
            state: Mutex::new(state),
            fetches: Background::default(),
            fetching: Semaphore::new(limits.at_once),
            renewing: Semaphore::new(1),
            waiters: Semaphore::new(limits.max_waiters),
        }
    }

    /// The certificate at an address that is in a request from this network. Waits for its fetch.
    pub(super) async fn certificate(
        self: &Arc<Self>,
        address: &Address,
        network: Option<Network>,
        now: Moment,
    ) -> Result<Arc<Certificate>, Failure> {
        let (found, fetch) = self.find(&mut self.state(), address, network, now)?;
        if let Some(fetch) = fetch {
            fetch.spawn();
        }
        let mut done = match found {
            Lookup::Certificate(certificate) => return Ok(certificate),
            Lookup::Pending(done) => done,
        };
        let Ok(_waiter) = self.waiters.try_acquire() else { return Err(Failure::KeysUnavailable) };
        let _closed_or_late = tokio::time::timeout(self.limits.patience, done.changed()).await;
        let state = self.state();
        match (state.entries.get(address), state.refusal(address)) {
            (Some(entry), _) if self.is_usable(entry) => Ok(Arc::clone(&entry.certificate)),
            (_, Some(failure)) => Err(failure),
            _ => Err(Failure::KeysUnavailable),
        }
    }

    /// Looks an address up, and returns the fetch to begin, if one is needed: for an unknown address, or to renew a
    /// certificate while it is still used.
    fn find(
        self: &Arc<Self>,
        state: &mut State,
        address: &Address,
        network: Option<Network>,
        now: Moment,
    ) -> Result<(Lookup, Option<Fetch>), Failure> {
        let Some(entry) = state.entries.get_mut(address) else {
            return match state.refusal(address) {
                Some(failure) => Err(failure),
                None => self.enqueue(state, address, network),
            };
        };
        // An expired certificate may have been replaced on the host, so it is fetched again, unless it was fetched just
        // now.
        let replaced = !entry.certificate.is_valid(now) && entry.fetched.elapsed() >= self.limits.pause;
        let usable = (self.is_usable(entry) && !replaced).then(|| Arc::clone(&entry.certificate));
        let old = replaced || entry.fetched.elapsed() >= self.limits.fresh * 4 / 5;
        let due = old && entry.tried.elapsed() >= self.limits.pause;
        if due {
            entry.tried = Instant::now();
        }
        match usable {
            Some(certificate) => {
                let queued = due.then(|| self.enqueue(state, address, network));
                let fetch = queued.and_then(Result::ok).and_then(|(_, fetch)| fetch);
                Ok((Lookup::Certificate(certificate), fetch))
            }
            None if due || state.queue.done(address).is_some() => self.enqueue(state, address, network),
            None => Err(Failure::KeysUnavailable),
        }
    }

    fn is_usable(&self, entry: &Entry) -> bool {
        entry.fetched.elapsed() < self.limits.fresh + self.limits.stale
    }

    /// Adds an address to the queue, unless it is in it already.
    ///
    /// # Errors
    /// [`Failure::KeysUnavailable`] when the queue is full.
    fn enqueue(
        self: &Arc<Self>,
        state: &mut State,
        address: &Address,
        network: Option<Network>,
    ) -> Result<(Lookup, Option<Fetch>), Failure> {
        if let Some(done) = state.queue.done(address) {
            return Ok((Lookup::Pending(done), None));
        }
        let proven = state.entries.get(address).is_some_and(|entry| entry.certificate.is_proven());
        let room = if proven { Some(false) } else { state.queue.make_room(address, network, self.limits.max_queued) };
        let seen_before = room.ok_or(Failure::KeysUnavailable)?;
        let number = state.queue.next();
        let (done_when_dropped, done) = watch::channel(());
        let (entered, evicted) = oneshot::channel();
        state
            .queue
            .insert(address, Pending { network, proven, seen_before, done: done.clone(), number, _entered: entered });
        let cache = Arc::clone(self);
        let fetch = Fetch { cache, address: address.clone(), number, proven, evicted, _done: done_when_dropped };
        Ok((Lookup::Pending(done), Some(fetch)))
    }

    /// Reserves the next fetch, and returns when it may begin.
    fn reserve_slot(&self) -> Instant {
        let now = Instant::now();
        let mut state = self.state();
        let slot = state.next_slot.max(now);
        state.next_slot = slot + self.limits.interval;
        slot.checked_sub(self.limits.interval * self.limits.burst.saturating_sub(1)).unwrap_or(now)
    }

    /// Caches the result of a fetch.
    fn store_answer(&self, address: &Address, answer: Result<Document, FetchError>) {
        let now = Instant::now();
        let failure = match answer {
            Ok(document) => match self.reader.read(&document.bytes) {
                Ok(certificate) => {
                    let entry = Entry { certificate: Arc::new(certificate), fetched: now, tried: now };
                    self.state().insert(address, entry, self.limits.max_entries);
                    return;
                }
                Err(failure) => {
                    tracing::warn!(url = %address, "what was fetched is no certificate of this provider");
                    Some(failure)
                }
            },
            Err(error) => {
                tracing::warn!(url = %address, %error, "a certificate could not be fetched");
                match error {
                    // Anybody can name a file that does not exist, so that is cached.
                    FetchError::Refused(_) => Some(Failure::KeysUnavailable),
                    FetchError::Unavailable(_) => None,
                }
            }
        };
        let mut state = self.state();
        if let Some(failure) = failure.filter(|_| !state.entries.contains_key(address)) {
            if state.negative.len() >= self.limits.max_negative {
                state.negative.retain(|_, (_, until)| *until > now);
                if state.negative.len() >= self.limits.max_negative {
                    state.negative.clear();
                }
            }
            state.negative.insert(address.clone(), (failure, now + self.limits.negative_ttl));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch {
    /// Begins the fetch, which goes on when the client disconnects. The state must not be locked: a runtime that has
    /// shut down drops the fetch at once, which locks the state.
    fn spawn(mut self) {
        let cache = Arc::clone(&self.cache);
        cache.fetches.spawn("certificate-fetch", async move {
            tokio::select! {
                // Ends when the sender is dropped: nothing is ever sent.
                _evicted = &mut self.evicted => {}
                () = run(&self.cache, &self.address, self.proven) => {}
            }
        });
    }
}

async fn run(cache: &Cache, address: &Address, proven: bool) {
    let permits = if proven { &cache.renewing } else { &cache.fetching };
    let Ok(_permit) = permits.acquire().await else { return };
    if !proven {
        tokio::time::sleep_until(cache.reserve_slot().into()).await;
    }
    let answer = Box::pin(address.fetch()).await;
    cache.store_answer(address, answer);
}

impl State {
    /// The reason of a negative entry that has not expired.
    fn refusal(&self, address: &Address) -> Option<Failure> {
        let (failure, until) = self.negative.get(address)?;
        (*until > Instant::now()).then(|| failure.clone())
    }

    /// Caches a certificate. Evicts the oldest proven and the oldest other certificates, if there are more than `max`.
    fn insert(&mut self, address: &Address, entry: Entry, max: usize) {
        self.negative.remove(address);
        if let Some(earlier) = self.entries.insert(address.clone(), entry)
            && earlier.certificate.is_proven()
            && let Some(entry) = self.entries.get(address)
        {
            entry.certificate.mark_proven();
        }
        for proven in [true, false] {
            let in_group = |entry: &Entry| entry.certificate.is_proven() == proven;
            while self.entries.values().filter(|entry| in_group(entry)).count() > max {
                // Certificates in use are renewed, and so not the oldest.
                let oldest =
                    self.entries.iter().filter(|(_, entry)| in_group(entry)).min_by_key(|(_, entry)| entry.fetched);
                let Some(oldest) = oldest.map(|(address, _)| address.clone()) else { break };
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Hash;

    #[test]
    fn a_fetch_that_a_runtime_drops_because_it_is_ending_takes_its_entry_out() {
        let cache = Arc::new(Cache::new(Reader { hash: Hash::Sha256, subjects: Vec::new() }, Limits::default()));
        let address = Address::parse("https://example.com/certificate").expect("an address");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();
        let mut asked = std::pin::pin!(cache.certificate(&address, None, Moment::now()));
        let polled = asked.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(matches!(polled, std::task::Poll::Ready(Err(Failure::KeysUnavailable))), "{polled:?}");
        assert!(cache.state().queue.done(&address).is_none());
    }
}
