//! Fetches certificates, and keeps them.
//!
//! Whoever sends a request can name an address that was never heard of before, and until it has been asked nobody can tell
//! whether there is a certificate. So what such requests cost is bounded, and it is theirs alone: certificates that a
//! signature was right by are fetched again on an account of their own, and stay in use when that fails. Other addresses wait
//! in a line, each one once however many requests name it; a request that does not wait so long finds the certificate when
//! it comes again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::sync::watch;

use super::Certificate;
use super::Reader;
use super::line::Entry;
use super::line::Line;
use super::line::Network;
use crate::auth::Failure;
use crate::fetch::Address;
use crate::fetch::Document;
use crate::fetch::Unfetched;

/// How long certificates are used, and what fetching them may cost.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How old a certificate gets before it is fetched again; that begins at four fifths of it.
    pub fresh: Duration,
    /// How long beyond that it is used when it cannot be fetched again.
    pub stale: Duration,
    /// Least time between two tries to fetch one again.
    pub pause: Duration,
    /// Most certificates that are kept of those that signatures were right by, and most of the others.
    pub kept: usize,
    /// How long it is remembered that an address has no certificate.
    pub refused: Duration,
    /// Most addresses of which that is remembered.
    pub most_refused: usize,
    /// Most addresses that wait.
    pub waiting: usize,
    /// Most of them that are asked at one time.
    pub at_once: usize,
    /// How many of them are asked as fast as they answer, before they are asked one per `interval`.
    pub burst: u32,
    /// See `burst`.
    pub interval: Duration,
    /// Longest that a request waits.
    pub patience: Duration,
    /// Most requests that wait; others are asked to come again, and the address that they name is asked meanwhile.
    pub held: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            fresh: Duration::from_hours(24),
            stale: Duration::from_hours(7 * 24),
            pause: Duration::from_mins(1),
            kept: 64,
            refused: Duration::from_mins(1),
            most_refused: 1024,
            waiting: 50,
            at_once: 8,
            burst: 50,
            interval: Duration::from_millis(100),
            patience: Duration::from_secs(10),
            held: 256,
        }
    }
}

/// The certificates of one scheme.
pub(super) struct Store {
    reader: Reader,
    terms: Terms,
    state: Mutex<State>,
    /// For addresses whose certificate no signature was right by.
    asking: Semaphore,
    /// For the others.
    renewing: Semaphore,
    /// For requests that wait.
    held: Semaphore,
}

struct State {
    known: HashMap<Address, Known>,
    /// Addresses without a certificate: why, and until when that counts.
    refused: HashMap<Address, (Failure, Instant)>,
    line: Line,
    /// When the next address of the line would be asked if there were no burst (GCRA).
    turn: Instant,
}

struct Known {
    certificate: Arc<Certificate>,
    fetched: Instant,
    /// When it was last tried to fetch it again.
    tried: Instant,
}

/// The fetch of one address; its entry is taken out when it is over, however it ends.
struct Fetch {
    store: Arc<Store>,
    address: Address,
    number: u64,
    _over: watch::Sender<()>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.store.state().line.remove(&self.address, self.number);
    }
}

impl Store {
    pub(super) fn new(reader: Reader, terms: Terms) -> Self {
        let state =
            State { known: HashMap::new(), refused: HashMap::new(), line: Line::default(), turn: Instant::now() };
        Self {
            reader,
            terms,
            state: Mutex::new(state),
            asking: Semaphore::new(terms.at_once),
            renewing: Semaphore::new(1),
            held: Semaphore::new(terms.held),
        }
    }

    /// The certificate at an address, named by a request from a network.
    pub(super) async fn certificate(
        self: &Arc<Self>,
        address: &Address,
        network: Option<Network>,
    ) -> Result<Arc<Certificate>, Failure> {
        let mut over = {
            let mut state = self.state();
            if let Some(found) = self.found(&mut state, address, network) {
                return found;
            }
            self.begin(&mut state, address, network)?
        };
        let Ok(_held) = self.held.try_acquire() else { return Err(Failure::KeysUnavailable) };
        let _closed_or_late = tokio::time::timeout(self.terms.patience, over.changed()).await;
        let state = self.state();
        match (state.known.get(address), state.refusal(address)) {
            (Some(known), _) if self.is_good(known) => Ok(Arc::clone(&known.certificate)),
            (_, Some(failure)) => Err(failure),
            _ => Err(Failure::KeysUnavailable),
        }
    }

    /// What is known of an address without asking it. One that grows old is asked again meanwhile.
    fn found(
        self: &Arc<Self>,
        state: &mut State,
        address: &Address,
        network: Option<Network>,
    ) -> Option<Result<Arc<Certificate>, Failure>> {
        let Some(known) = state.known.get_mut(address) else { return state.refusal(address).map(Err) };
        let good = self.is_good(known);
        let certificate = Arc::clone(&known.certificate);
        let due = known.fetched.elapsed() >= self.terms.fresh * 4 / 5;
        if due && known.tried.elapsed() >= self.terms.pause {
            known.tried = Instant::now();
            let begun = self.begin(state, address, network);
            if !good {
                return begun.err().map(Err);
            }
        } else if !good && state.line.over(address).is_none() {
            return Some(Err(Failure::KeysUnavailable));
        }
        good.then_some(Ok(certificate))
    }

    fn is_good(&self, known: &Known) -> bool {
        known.fetched.elapsed() < self.terms.fresh + self.terms.stale
    }

    /// Has an address asked, unless it is already; what is given is closed when that is over.
    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        address: &Address,
        network: Option<Network>,
    ) -> Result<watch::Receiver<()>, Failure> {
        if let Some(over) = state.line.over(address) {
            return Ok(over);
        }
        let proven = state.known.get(address).is_some_and(|known| known.certificate.is_proven());
        let room = if proven { Some(false) } else { state.line.make_room(address, network, self.terms.waiting) };
        let again = room.ok_or(Failure::KeysUnavailable)?;
        let number = state.line.next();
        let (sender, over) = watch::channel(());
        let fetch = Fetch { store: Arc::clone(self), address: address.clone(), number, _over: sender };
        // A sender that hangs up does not end it.
        let task = tokio::spawn(async move { fetch.run(proven).await }).abort_handle();
        state.line.insert(address, Entry { network, proven, again, over: over.clone(), task, number });
        Ok(over)
    }

    /// When the next address of the line may be asked.
    fn turn(&self) -> Instant {
        let now = Instant::now();
        let mut state = self.state();
        let turn = state.turn.max(now);
        state.turn = turn + self.terms.interval;
        turn.checked_sub(self.terms.interval * self.terms.burst.saturating_sub(1)).unwrap_or(now)
    }

    /// Keeps what an address answered.
    fn keep(&self, address: &Address, answer: Result<Document, Unfetched>) {
        let now = Instant::now();
        let failure = match answer {
            Ok(document) => match self.reader.read(&document.bytes) {
                Some(certificate) => {
                    let kept = Known { certificate: Arc::new(certificate), fetched: now, tried: now };
                    self.state().insert(address, kept, self.terms.kept);
                    return;
                }
                None => {
                    tracing::warn!(url = %address, "what was fetched is no certificate of this provider");
                    // A host may serve something else by mistake, and mend that.
                    Some(Failure::CertificateInvalid)
                }
            },
            Err(error) => {
                tracing::warn!(url = %address, %error, "a certificate could not be fetched");
                match error {
                    // Anybody may name a file that is not there; asking for it again helps nobody.
                    Unfetched::Refused(_) => Some(Failure::KeysUnavailable),
                    Unfetched::Unavailable(_) => None,
                }
            }
        };
        let mut state = self.state();
        if let Some(failure) = failure.filter(|_| !state.known.contains_key(address)) {
            if state.refused.len() >= self.terms.most_refused {
                state.refused.retain(|_, (_, until)| *until > now);
                if state.refused.len() >= self.terms.most_refused {
                    state.refused.clear();
                }
            }
            state.refused.insert(address.clone(), (failure, now + self.terms.refused));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch {
    async fn run(self, proven: bool) {
        let places = if proven { &self.store.renewing } else { &self.store.asking };
        let Ok(_place) = places.acquire().await else { return };
        if !proven {
            tokio::time::sleep_until(self.store.turn().into()).await;
        }
        let answer = Box::pin(self.address.fetch()).await;
        self.store.keep(&self.address, answer);
    }
}

impl State {
    /// Why an address that was asked lately gave no certificate.
    fn refusal(&self, address: &Address) -> Option<Failure> {
        let (failure, until) = self.refused.get(address)?;
        (*until > Instant::now()).then(|| failure.clone())
    }

    /// Keeps a certificate. Those that no signature was right by yet push out none of the others, and the other way round.
    fn insert(&mut self, address: &Address, known: Known, most: usize) {
        self.refused.remove(address);
        if let Some(earlier) = self.known.insert(address.clone(), known)
            && earlier.certificate.is_proven()
            && let Some(known) = self.known.get(address)
        {
            known.certificate.proven.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        for proven in [true, false] {
            let such = |known: &Known| known.certificate.is_proven() == proven;
            while self.known.values().filter(|known| such(known)).count() > most {
                // What is in use was fetched within a day.
                let oldest = self.known.iter().filter(|(_, known)| such(known)).min_by_key(|(_, known)| known.fetched);
                let Some(oldest) = oldest.map(|(address, _)| address.clone()) else { break };
                self.known.remove(&oldest);
            }
        }
    }
}
