//! The JWK set (RFC 7517) of an issuer, fetched only from a configured address, and cached.
//!
//! It is refreshed in the background, and at once when a token names an unknown key, but only once per
//! [`Limits::cooldown`]. A valid set is never replaced by an empty or invalid one: it is used for [`Limits::stale`]
//! after it was fresh. There are at most [`Limits::per_minute`] fetches in any minute, whatever senders do.

mod metrics;
mod set;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::sync::watch;

use super::Failure;
use crate::base::time::Moment;
use crate::http::fetch::Address;
use crate::profile::Algorithm;

pub use self::metrics::JwksMetrics;
pub use self::set::KeySet;
pub use self::set::LeftOut;

/// How long sets are used, and the limits of fetching them.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a set is fresh when the answer has no `max-age`. It is fetched again at four fifths of this age.
    pub fresh: Duration,
    /// The bounds to which `max-age` is clamped.
    pub fresh_within: (Duration, Duration),
    /// How long after that it is still used when no newer one can be fetched.
    pub stale: Duration,
    /// The least time between two fetches because of unknown keys.
    pub cooldown: Duration,
    /// The most fetches in any minute.
    pub per_minute: usize,
    /// The longest that a request waits for keys.
    pub patience: Duration,
    /// The most requests that wait. Others are refused, so that their provider tries again.
    pub max_waiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fresh: Duration::from_mins(15),
            fresh_within: (Duration::from_mins(5), Duration::from_hours(24)),
            stale: Duration::from_hours(24),
            cooldown: COOLDOWN,
            per_minute: 5,
            patience: Duration::from_secs(3),
            max_waiters: 1024,
        }
    }
}

/// The default of [`Limits::cooldown`].
pub const COOLDOWN: Duration = Duration::from_secs(30);
/// The most unusable keys of one set that are logged one by one.
const MAX_LOGGED: usize = 64;

/// The keys of one issuer. [`Jwks::run`] keeps them fresh.
pub struct Jwks {
    url: Address,
    algorithm: Algorithm,
    limits: Limits,
    current: ArcSwapOption<KeySet>,
    /// Notified when a request needs a fetch.
    wanted: Notify,
    /// Whether a fetch is running or due.
    fetching: AtomicBool,
    /// Whether the last fetch failed.
    failing: AtomicBool,
    /// The number of fetches that have ended.
    attempts: watch::Sender<u64>,
    /// Permits for requests that wait.
    waiters: Semaphore,
    /// When a request last caused a fetch.
    last_requested: Mutex<Option<Instant>>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwks").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Jwks {
    /// The keys at this address for this algorithm. There are none before [`Self::run`] has fetched them.
    pub fn new(url: Address, algorithm: Algorithm, limits: Limits) -> Self {
        Self {
            url,
            algorithm,
            limits,
            current: ArcSwapOption::empty(),
            wanted: Notify::new(),
            // `run` begins with a fetch.
            fetching: AtomicBool::new(true),
            failing: AtomicBool::new(false),
            attempts: watch::Sender::new(0),
            waiters: Semaphore::new(limits.max_waiters),
            last_requested: Mutex::new(None),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// The numbers of fetches that succeeded and that failed.
    pub fn refreshes(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// How long ago the keys in use were fetched; `None` when there are none.
    pub fn age(&self) -> Option<Duration> {
        self.current.load().as_ref().map(|set| set.fetched.elapsed())
    }

    /// The current set. Waits for the running fetch if there is none.
    ///
    /// # Errors
    /// [`Failure::KeysUnavailable`] when there is no set, or only one that is too old.
    pub async fn keys(&self) -> Result<Arc<KeySet>, Failure> {
        let usable = || self.current.load_full().filter(|set| set.fetched.elapsed() < set.fresh + self.limits.stale);
        if let Some(set) = usable() {
            return Ok(set);
        }
        if self.fetching.load(Ordering::Acquire) {
            self.wait().await;
        }
        usable().ok_or(Failure::KeysUnavailable)
    }

    /// The set after another fetch, because a token named a key that is not in the current one. The current set during
    /// the cooldown.
    ///
    /// # Errors
    /// [`Failure::KeysUnavailable`] as for [`Self::keys`], and when the fetch failed or takes too long, because the key
    /// may be a new one.
    pub async fn refreshed(&self) -> Result<Arc<KeySet>, Failure> {
        if self.take_slot() {
            self.fetching.store(true, Ordering::Release);
            self.wanted.notify_one();
        }
        if self.fetching.load(Ordering::Acquire) {
            self.wait().await;
        }
        if self.failing.load(Ordering::Acquire) || self.fetching.load(Ordering::Acquire) {
            return Err(Failure::KeysUnavailable);
        }
        self.keys().await
    }

    async fn wait(&self) {
        let Ok(_waiter) = self.waiters.try_acquire() else { return };
        let mut attempts = self.attempts.subscribe();
        if self.fetching.load(Ordering::Acquire) {
            // The caller checks again, whether the fetch ended or timed out.
            let _late = tokio::time::timeout(self.limits.patience, attempts.changed()).await;
        }
    }

    /// Whether a request may cause a fetch, which it may once per cooldown. Taken before the fetch, so that a failed
    /// one counts too.
    fn take_slot(&self) -> bool {
        let mut last = self.last_requested.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= self.limits.cooldown);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    /// Fetches forever: at once, then before the set gets old, earlier after a failure or when a request needs it.
    pub async fn run(&self) -> Infallible {
        let mut recent: VecDeque<Instant> = VecDeque::new();
        let mut pause = Duration::from_secs(1);
        loop {
            if recent.len() >= self.limits.per_minute
                && let Some(earliest) = recent.pop_front()
            {
                tokio::time::sleep_until((earliest + Duration::from_mins(1)).into()).await;
            }
            recent.push_back(Instant::now());
            self.fetching.store(true, Ordering::Release);
            let outcome = self.fetch().await;
            self.failing.store(outcome.is_err(), Ordering::Release);
            let counter = if outcome.is_ok() { &self.succeeded } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
            let next = match outcome {
                Ok(set) => {
                    let again = set.fresh * 4 / 5;
                    self.current.store(Some(Arc::new(set)));
                    pause = Duration::from_secs(1);
                    again
                }
                Err(error) => {
                    tracing::warn!(url = %self.url, error, "the issuer's keys could not be fetched");
                    pause = (pause * 2).min(Duration::from_mins(1));
                    pause
                }
            };
            self.fetching.store(false, Ordering::Release);
            self.attempts.send_modify(|attempts| *attempts += 1);
            // The next fetch is due after the pause, or earlier when a request needs it.
            let _requested = tokio::time::timeout(next, self.wanted.notified()).await;
        }
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let began = Moment::now();
        let document = self.url.fetch().await.map_err(|error| error.to_string())?;
        let generation = *self.attempts.borrow() + 1;
        let (least, most) = self.limits.fresh_within;
        let fresh = document.max_age.unwrap_or(self.limits.fresh).clamp(least, most);
        let mut set = KeySet::parse(&document.bytes, self.algorithm, generation)?;
        if !set.has_keys() {
            return Err(set.no_key_message(self.algorithm));
        }
        (set.began, set.fresh) = (began, fresh);
        self.log_left_out(&set);
        Ok(set)
    }

    /// Logs the keys that are not used.
    fn log_left_out(&self, set: &KeySet) {
        for (kid, why) in set.left_out().take(MAX_LOGGED) {
            if why.is_expected() {
                tracing::info!(url = %self.url, kid, reason = %why, "a key of the issuer is left out");
            } else {
                tracing::warn!(url = %self.url, kid, reason = %why, "a key of the issuer is left out");
            }
        }
        let more = set.left_out().skip(MAX_LOGGED).count();
        if more > 0 {
            tracing::warn!(url = %self.url, more, "more keys of the issuer are left out");
        }
    }
}
