//! The JWK set (RFC 7517) of an issuer, fetched from a configured address only, and cached.
//!
//! Refreshed in the background, and at once (but only once per [`Limits::cooldown`]) when a token names an unknown key.
//! A good set is never replaced by an empty or unreadable one; it is used stale for [`Limits::stale`]. Never more than
//! [`Limits::per_minute`] fetches a minute, whatever senders do.

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

/// How long sets are used, and what fetching them may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a set is fresh when the issuer does not say. It is fetched again at four fifths of it.
    pub fresh: Duration,
    /// The least and the most that the issuer may say.
    pub fresh_within: (Duration, Duration),
    /// How long beyond that it is used when no newer one can be had.
    pub stale: Duration,
    /// Least time between two fetches that tokens with unknown keys cause.
    pub cooldown: Duration,
    /// Most fetches in any minute.
    pub per_minute: usize,
    /// Longest a request waits for keys.
    pub patience: Duration,
    /// Most requests that wait; others are asked to come again.
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
/// Most keys of one set whose being left out is logged one by one.
const MAX_TOLD: usize = 64;

/// The keys of one issuer, kept fresh by [`Jwks::run`].
pub struct Jwks {
    url: Address,
    algorithm: Algorithm,
    limits: Limits,
    current: ArcSwapOption<KeySet>,
    wanted: Notify,
    fetching: AtomicBool,
    /// Whether the last fetch failed.
    failing: AtomicBool,
    attempts: watch::Sender<u64>,
    waiters: Semaphore,
    last_asked: Mutex<Option<Instant>>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwks").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Jwks {
    /// Keys from this address for this algorithm; none until [`Self::run`] runs.
    pub fn new(url: Address, algorithm: Algorithm, limits: Limits) -> Self {
        Self {
            url,
            algorithm,
            limits,
            current: ArcSwapOption::empty(),
            wanted: Notify::new(),
            // The first fetch is due as soon as `run` does.
            fetching: AtomicBool::new(true),
            failing: AtomicBool::new(false),
            attempts: watch::Sender::new(0),
            waiters: Semaphore::new(limits.max_waiters),
            last_asked: Mutex::new(None),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// How many fetches succeeded and how many failed.
    pub fn refreshes(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// How long ago the keys in use were fetched; `None` when there are none.
    pub fn age(&self) -> Option<Duration> {
        self.current.load().as_ref().map(|set| set.fetched.elapsed())
    }

    /// The set in use, waiting for the fetch that is under way if there is none.
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

    /// The set after one more fetch, because a token named a key that the present one lacks; the present one while the
    /// cooldown runs.
    ///
    /// # Errors
    /// [`Failure::KeysUnavailable`] as for [`Self::keys`], and when the fetch failed or takes too long: the key may be
    /// a new one.
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
            // Running out of patience and running out of keys are the same to the one who asks.
            let _late = tokio::time::timeout(self.limits.patience, attempts.changed()).await;
        }
    }

    /// Once per cooldown; taken before the fetch, so that a failing one counts.
    fn take_slot(&self) -> bool {
        let mut last = self.last_asked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= self.limits.cooldown);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    /// Fetches for ever: at once, then before the set grows old, sooner after a failure or when asked.
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
            // Being asked and growing old lead to the same fetch.
            let _asked = tokio::time::timeout(next, self.wanted.notified()).await;
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
            return Err(set.nothing(self.algorithm));
        }
        (set.began, set.fresh) = (began, fresh);
        self.tell(&set);
        Ok(set)
    }

    /// Logs which keys are not taken.
    fn tell(&self, set: &KeySet) {
        for (kid, why) in set.left_out().take(MAX_TOLD) {
            if why.is_usual() {
                tracing::info!(url = %self.url, kid, reason = %why, "a key of the issuer is left out");
            } else {
                tracing::warn!(url = %self.url, kid, reason = %why, "a key of the issuer is left out");
            }
        }
        let more = set.left_out().skip(MAX_TOLD).count();
        if more > 0 {
            tracing::warn!(url = %self.url, more, "more keys of the issuer are left out");
        }
    }
}
