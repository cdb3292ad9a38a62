//! Tokens that were verified, so that one that is sent again is not verified again.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use super::claims::Validity;
use crate::base::time::Moment;

/// Most tokens that are remembered.
const MAX_TOKENS: usize = 4096;

/// Verified tokens by their SHA-256.
#[derive(Debug, Default)]
pub(super) struct TokenCache(Mutex<HashMap<[u8; 32], VerifiedToken>>);

/// A verified token: when it holds, and which keys it was verified with.
#[derive(Debug, Clone, Copy)]
pub(super) struct VerifiedToken {
    pub(super) validity: Validity,
    /// That of the set of keys.
    pub(super) generation: u64,
    /// The position of the secret, if the keys were configured.
    pub(super) secret: Option<usize>,
}

impl TokenCache {
    /// A token that was verified with keys of this generation.
    pub(super) fn get(&self, fingerprint: &[u8; 32], generation: u64) -> Option<VerifiedToken> {
        self.lock().get(fingerprint).copied().filter(|known| known.generation == generation)
    }

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
