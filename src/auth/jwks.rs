//! The keys that an issuer publishes (RFC 7517), fetched from a configured address only, and kept.
//!
//! Refreshed in the background, and at once (but only once per [`COOLDOWN`]) when a token names an unknown key. A good
//! set is never replaced by an empty or unreadable one; it is served stale for [`MAX_STALE`]. Never more than
//! [`MAX_PER_MINUTE`] fetches a minute, whatever senders do.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::AlgorithmParameters;
use jsonwebtoken::jwk::EllipticCurve;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::jwk::KeyOperations;
use jsonwebtoken::jwk::PublicKeyUse;
use tokio::sync::Notify;
use tokio::sync::watch;

use super::Failure;
use crate::fetch::Address;
use crate::profile::Algorithm;

/// Least time between two fetches that tokens with unknown keys cause.
const COOLDOWN: Duration = Duration::from_secs(30);
/// Most fetches in any minute.
const MAX_PER_MINUTE: usize = 5;
/// How long a set is used after it was last fetched, when no newer one can be had.
const MAX_STALE: Duration = Duration::from_hours(24);
/// Longest a request waits for keys.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most keys that are taken from one set.
const MAX_KEYS: usize = 64;
/// How long a set is fresh when the issuer does not say, and the bounds of what it may say.
const FRESH: (Duration, Duration, Duration) =
    (Duration::from_mins(15), Duration::from_mins(5), Duration::from_hours(24));

/// One published key that may verify tokens.
pub struct Key {
    /// Ready for the verifier.
    pub key: DecodingKey,
    /// `false` when the issuer publishes it for something else.
    pub verifies: bool,
}

/// The keys of one fetch.
pub struct KeySet {
    keys: HashMap<String, Key>,
    anonymous: Option<Key>,
    /// Whether the anonymous key is meant whatever a token names.
    only: bool,
    fetched: Instant,
    /// Differs from that of every other set, so that what was verified with a withdrawn key is not remembered.
    pub generation: u64,
}

impl KeySet {
    /// The key that a token names; without a name, the only key of the set.
    pub fn find(&self, kid: Option<&str>) -> Option<&Key> {
        match kid {
            Some(kid) => self.keys.get(kid).or_else(|| self.anonymous.as_ref().filter(|_| self.only)),
            None if self.anonymous.is_some() => self.anonymous.as_ref(),
            None if self.keys.len() == 1 => self.keys.values().next(),
            None => None,
        }
    }

    /// One key that needs no name.
    pub(super) fn of(key: DecodingKey) -> Self {
        let anonymous = Some(Key { key, verifies: true });
        Self { keys: HashMap::new(), anonymous, only: true, fetched: Instant::now(), generation: 0 }
    }

    /// Reads a JWK set (RFC 7517 section 5), or one JWK.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(bytes: &[u8], algorithm: Algorithm, generation: u64) -> Result<Self, String> {
        let set: JwkSet =
            serde_json::from_slice(bytes).or_else(|error| match serde_json::from_slice::<Jwk>(bytes) {
                Ok(one) => Ok(JwkSet { keys: vec![one] }),
                Err(_) => Err(format!("not a JWK set: {error}")),
            })?;
        let mut keys = HashMap::new();
        let mut anonymous = Vec::new();
        for jwk in set.keys.iter().take(MAX_KEYS) {
            let Some(key) = usable(jwk, algorithm) else { continue };
            match &jwk.common.key_id {
                Some(kid) => drop(keys.insert(kid.clone(), key)),
                None => anonymous.push(key),
            }
        }
        if keys.is_empty() && anonymous.is_empty() {
            return Err(format!("the set has no {} key", algorithm.title()));
        }
        let anonymous = if anonymous.len() == 1 && keys.is_empty() { anonymous.pop() } else { None };
        Ok(Self { keys, anonymous, only: false, fetched: Instant::now(), generation })
    }
}

/// A key of the right kind and strength; RSA from 2048 to 8192 bits.
fn usable(jwk: &Jwk, algorithm: Algorithm) -> Option<Key> {
    let fits = match (&jwk.algorithm, algorithm) {
        (
            AlgorithmParameters::RSA(rsa),
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512,
        ) => {
            let modulus = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&rsa.n).ok()?;
            (256..=1024).contains(&modulus.len())
        }
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::Es256) => ec.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::Es384) => ec.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(okp), Algorithm::EdDsa) => okp.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    if !fits {
        return None;
    }
    let common = &jwk.common;
    let for_signatures = !matches!(common.public_key_use, Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)));
    let may_verify =
        common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let same_algorithm = common.key_algorithm.is_none_or(|named| named.to_string() == algorithm.title());
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { key, verifies: for_signatures && may_verify && same_algorithm })
}

/// The keys of one issuer, kept fresh by [`Jwks::run`].
pub struct Jwks {
    url: Address,
    algorithm: Algorithm,
    current: ArcSwapOption<KeySet>,
    wanted: Notify,
    fetching: AtomicBool,
    /// Whether the last fetch failed.
    failing: AtomicBool,
    attempts: watch::Sender<u64>,
    last_asked: Mutex<Option<Instant>>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwks").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Jwks {
    /// Keys from this address for this algorithm; none until [`Self::run`] runs.
    pub fn new(url: Address, algorithm: Algorithm) -> Self {
        Self {
            url,
            algorithm,
            current: ArcSwapOption::empty(),
            wanted: Notify::new(),
            // The first fetch is due as soon as `run` does.
            fetching: AtomicBool::new(true),
            failing: AtomicBool::new(false),
            attempts: watch::Sender::new(0),
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

    /// The set in use, waiting for the first fetch if that is under way.
    ///
    /// # Errors
    /// [`Failure::KeysUnavailable`] when there is no set, or only one that is too old.
    pub async fn keys(&self) -> Result<std::sync::Arc<KeySet>, Failure> {
        if self.current.load().is_none() && self.fetching.load(Ordering::Acquire) {
            self.wait().await;
        }
        self.current.load_full().filter(|set| set.fetched.elapsed() < MAX_STALE).ok_or(Failure::KeysUnavailable)
    }

    /// The set after one more fetch, because a token named a key that the present one lacks.
    ///
    /// # Errors
    /// [`Failure::KeysUnavailable`] as for [`Self::keys`], and when the fetch failed or takes too long: the key may be
    /// a new one.
    pub async fn refreshed(&self) -> Result<std::sync::Arc<KeySet>, Failure> {
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
        let mut attempts = self.attempts.subscribe();
        if self.fetching.load(Ordering::Acquire) {
            // Running out of patience and running out of keys are the same to the one who asks.
            let _late = tokio::time::timeout(PATIENCE, attempts.changed()).await;
        }
    }

    /// Once per cooldown; taken before the fetch, so that a failing one counts.
    fn take_slot(&self) -> bool {
        let mut last = self.last_asked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= COOLDOWN);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    /// Fetches for ever: at once, then before the set grows old, sooner after a failure or when asked.
    pub async fn run(&self) {
        let mut recent: VecDeque<Instant> = VecDeque::with_capacity(MAX_PER_MINUTE);
        let mut pause = Duration::from_secs(1);
        loop {
            if recent.len() == MAX_PER_MINUTE
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
                Ok((set, fresh)) => {
                    self.current.store(Some(std::sync::Arc::new(set)));
                    pause = Duration::from_secs(1);
                    fresh
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

    async fn fetch(&self) -> Result<(KeySet, Duration), String> {
        let document = self.url.fetch().await.map_err(|error| error.to_string())?;
        let generation = *self.attempts.borrow() + 1;
        let set = KeySet::parse(&document.bytes, self.algorithm, generation)?;
        Ok((set, document.max_age.unwrap_or(FRESH.0).clamp(FRESH.1, FRESH.2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_without_a_usable_key_are_no_sets() {
        for bad in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#] {
            assert!(KeySet::parse(bad.as_bytes(), Algorithm::Rs256, 1).is_err(), "{bad}");
        }
    }
}
