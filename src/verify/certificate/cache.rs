//! A cache of certificates, which it fetches itself: with negative entries, and a bounded queue of addresses to fetch.
//!
//! Any request can name an address that is not known yet, and only a fetch shows whether there is a certificate. So the
//! fetches that such requests cause are bounded, and separate from others: certificates that have verified a signature
//! are renewed under a limit of their own, and stay in use when that fails. Unknown addresses wait in a queue, each
//! once however many requests name it; a request that does not wait so long finds the certificate when it is sent
//! again.

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

/// How long certificates are used, and what fetching them may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How old a certificate gets before it is fetched again; that begins at four fifths of it.
    pub fresh: Duration,
    /// How long beyond that it is used when it cannot be fetched again.
    pub stale: Duration,
    /// Least time between two tries to fetch one again.
    pub pause: Duration,
    /// Most certificates that are kept of those that signatures were right by, and most of the others.
    pub max_entries: usize,
    /// How long it is remembered that an address has no certificate.
    pub negative_ttl: Duration,
    /// Most addresses of which that is remembered.
    pub max_negative: usize,
    /// Most addresses that wait.
    pub max_queued: usize,
    /// Most of them that are asked at one time.
    pub at_once: usize,
    /// How many of them are asked as fast as they answer, before they are asked one per `interval`.
    pub burst: u32,
    /// The least time between two fetches after the first `burst`.
    pub interval: Duration,
    /// Longest that a request waits.
    pub patience: Duration,
    /// Most requests that wait; others are asked to come again, and the address that they name is asked meanwhile.
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
    /// Permits to fetch addresses whose certificate has not verified a signature.
    asking: Semaphore,
    /// Permits to renew certificates that have verified a signature.
    renewing: Semaphore,
    /// Permits for requests that wait.
    waiters: Semaphore,
    fetches: Background,
}

struct State {
    entries: HashMap<Address, Entry>,
    /// Addresses without a certificate: why, and until when that counts.
    negative: HashMap<Address, (Failure, Instant)>,
    queue: Queue,
    /// When the next address of the queue would be asked if there were no burst (GCRA).
    turn: Instant,
}

struct Entry {
    certificate: Arc<Certificate>,
    fetched: Instant,
    /// When it was last tried to fetch it again.
    tried: Instant,
}

/// The fetch of one address; its entry is taken out when it is over, however it ends.
struct Fetch {
    cache: Arc<Cache>,
    address: Address,
    number: u64,
    proven: bool,
    /// Closed when the entry is gone.
    evicted: oneshot::Receiver<()>,
    _over: watch::Sender<()>,
}

/// What is known of an address.
enum Found {
    Certificate(Arc<Certificate>),
    /// It is being asked; this is closed when that is over.
    Awaited(watch::Receiver<()>),
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.cache.state().queue.remove(&self.address, self.number);
    }
}

impl Cache {
    pub(super) fn new(reader: Reader, limits: Limits) -> Self {
        let state =
            State { entries: HashMap::new(), negative: HashMap::new(), queue: Queue::default(), turn: Instant::now() };
        Self {
            reader,
            limits,
            state: Mutex::new(state),
            fetches: Background::default(),
            asking: Semaphore::new(limits.at_once),
            renewing: Semaphore::new(1),
            waiters: Semaphore::new(limits.max_waiters),
        }
    }

    /// The certificate at an address, named by a request from a network.
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
        let mut over = match found {
            Found::Certificate(certificate) => return Ok(certificate),
            Found::Awaited(over) => over,
        };
        let Ok(_waiter) = self.waiters.try_acquire() else { return Err(Failure::KeysUnavailable) };
        let _closed_or_late = tokio::time::timeout(self.limits.patience, over.changed()).await;
        let state = self.state();
        match (state.entries.get(address), state.refusal(address)) {
            (Some(entry), _) if self.is_usable(entry) => Ok(Arc::clone(&entry.certificate)),
            (_, Some(failure)) => Err(failure),
            _ => Err(Failure::KeysUnavailable),
        }
    }

    /// What is known of an address without asking it, and the fetch that is to begin. One that grows old is asked again
    /// meanwhile.
    fn find(
        self: &Arc<Self>,
        state: &mut State,
        address: &Address,
        network: Option<Network>,
        now: Moment,
    ) -> Result<(Found, Option<Fetch>), Failure> {
        let Some(entry) = state.entries.get_mut(address) else {
            return match state.refusal(address) {
                Some(failure) => Err(failure),
                None => self.ask(state, address, network),
            };
        };
        // Another one may stand there by now: a request waits for it, and what has just been fetched is judged as it
        // is.
        let replaced = !entry.certificate.is_valid(now) && entry.fetched.elapsed() >= self.limits.pause;
        let usable = (self.is_usable(entry) && !replaced).then(|| Arc::clone(&entry.certificate));
        let old = replaced || entry.fetched.elapsed() >= self.limits.fresh * 4 / 5;
        let due = old && entry.tried.elapsed() >= self.limits.pause;
        if due {
            entry.tried = Instant::now();
        }
        match usable {
            Some(certificate) => {
                let asked = due.then(|| self.ask(state, address, network));
                let fetch = asked.and_then(Result::ok).and_then(|(_, fetch)| fetch);
                Ok((Found::Certificate(certificate), fetch))
            }
            None if due || state.queue.over(address).is_some() => self.ask(state, address, network),
            None => Err(Failure::KeysUnavailable),
        }
    }

    fn is_usable(&self, entry: &Entry) -> bool {
        entry.fetched.elapsed() < self.limits.fresh + self.limits.stale
    }

    /// Has an address asked, unless it is already.
    fn ask(
        self: &Arc<Self>,
        state: &mut State,
        address: &Address,
        network: Option<Network>,
    ) -> Result<(Found, Option<Fetch>), Failure> {
        if let Some(over) = state.queue.over(address) {
            return Ok((Found::Awaited(over), None));
        }
        let proven = state.entries.get(address).is_some_and(|entry| entry.certificate.is_proven());
        let room = if proven { Some(false) } else { state.queue.make_room(address, network, self.limits.max_queued) };
        let again = room.ok_or(Failure::KeysUnavailable)?;
        let number = state.queue.next();
        let (over_when_dropped, over) = watch::channel(());
        let (entered, evicted) = oneshot::channel();
        state.queue.insert(address, Pending { network, proven, again, over: over.clone(), number, _entered: entered });
        let cache = Arc::clone(self);
        let fetch = Fetch { cache, address: address.clone(), number, proven, evicted, _over: over_when_dropped };
        Ok((Found::Awaited(over), Some(fetch)))
    }

    /// When the next address of the queue may be asked.
    fn turn(&self) -> Instant {
        let now = Instant::now();
        let mut state = self.state();
        let turn = state.turn.max(now);
        state.turn = turn + self.limits.interval;
        turn.checked_sub(self.limits.interval * self.limits.burst.saturating_sub(1)).unwrap_or(now)
    }

    /// Keeps what an address answered.
    fn keep(&self, address: &Address, answer: Result<Document, FetchError>) {
        let now = Instant::now();
        let failure = match answer {
            Ok(document) => match self.reader.read(&document.bytes) {
                Ok(certificate) => {
                    let kept = Entry { certificate: Arc::new(certificate), fetched: now, tried: now };
                    self.state().insert(address, kept, self.limits.max_entries);
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
                    // Anybody may name a file that is not there; asking for it again helps nobody.
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
    /// Begins; a sender that hangs up does not end it. Not while the state is locked: a runtime that is ending drops
    /// the fetch at once, which locks it too.
    fn spawn(mut self) {
        let cache = Arc::clone(&self.cache);
        cache.fetches.spawn("certificate-fetch", async move {
            tokio::select! {
                // Nothing is ever sent.
                _evicted = &mut self.evicted => {}
                () = run(&self.cache, &self.address, self.proven) => {}
            }
        });
    }
}

async fn run(cache: &Cache, address: &Address, proven: bool) {
    let locations = if proven { &cache.renewing } else { &cache.asking };
    let Ok(_place) = locations.acquire().await else { return };
    if !proven {
        tokio::time::sleep_until(cache.turn().into()).await;
    }
    let answer = Box::pin(address.fetch()).await;
    cache.keep(address, answer);
}

impl State {
    /// Why an address that was asked lately gave no certificate.
    fn refusal(&self, address: &Address) -> Option<Failure> {
        let (failure, until) = self.negative.get(address)?;
        (*until > Instant::now()).then(|| failure.clone())
    }

    /// Keeps a certificate. Those that no signature was right by yet push out none of the others, and the other way
    /// round.
    fn insert(&mut self, address: &Address, entry: Entry, most: usize) {
        self.negative.remove(address);
        if let Some(earlier) = self.entries.insert(address.clone(), entry)
            && earlier.certificate.is_proven()
            && let Some(entry) = self.entries.get(address)
        {
            entry.certificate.mark_proven();
        }
        for proven in [true, false] {
            let such = |entry: &Entry| entry.certificate.is_proven() == proven;
            while self.entries.values().filter(|entry| such(entry)).count() > most {
                // What is in use was fetched within a day.
                let oldest =
                    self.entries.iter().filter(|(_, entry)| such(entry)).min_by_key(|(_, entry)| entry.fetched);
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
        assert!(cache.state().queue.over(&address).is_none());
    }
}
