//! A cache of verified tokens, so that a token that is sent again is not verified again.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use super::claims::Validity;
use crate::base::time::Moment;

/// The most cached tokens.
const MAX_TOKENS: usize = 4096;

/// Verified tokens by their SHA-256.
#[derive(Debug, Default)]
pub(super) struct TokenCache(Mutex<HashMap<[u8; 32], VerifiedToken>>);

/// A verified token: its validity, and with which keys it was verified.
#[derive(Debug, Clone, Copy)]
pub(super) struct VerifiedToken {
    pub(super) validity: Validity,
    /// The generation of the key set.
    pub(super) generation: u64,
    /// The position of the secret, if the keys were configured.
    pub(super) secret: Option<usize>,
}

impl TokenCache {
    /// The cached token, if it was verified with keys of this generation.
    pub(super) fn get(&self, fingerprint: &[u8; 32], generation: u64) -> Option<VerifiedToken> {
        self.lock().get(fingerprint).copied().filter(|known| known.generation == generation)
    }

    /// Caches a token. When the cache is full, removes expired tokens and those of other generations, or else all.
    pub(super) fn insert(&self, fingerprint: [u8; 32], token: VerifiedToken, now: Moment) {
        let mut tokens = self.lock();
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, other| other.validity.expires > now.unix() && other.generation == token.generation);
            if tokens.len() >= MAX_TOKENS {
                tokens.clear();
            }
        }
        tokens.insert(fingerprint, token);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], VerifiedToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
