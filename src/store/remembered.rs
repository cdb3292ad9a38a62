//! Finished events in memory: a bounded set of keys that forget themselves.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use super::Earlier;
use super::KeyMap;
use super::Keys;
use super::Known;
use super::Noted;
use crate::event::Ignored;
use crate::event::Key;
use crate::time::Moment;

/// Parts of the set, each with its own lock, so that growing one part stops nobody for long.
const SHARDS: usize = 64;
/// Share of the remembered time that is forgotten at once when a part is full.
const EVICTED: u32 = 8;

/// Keys with the second at which each is forgotten. Takes 24 to 48 bytes a key.
#[derive(Debug)]
pub struct Remembered {
    shards: Vec<Mutex<Shard>>,
    max_per_shard: usize,
}

#[derive(Debug, Default)]
struct Shard {
    keys: KeyMap<u32>,
    sweep_at: u32,
}

impl Remembered {
    /// Remembers at most this many keys; the oldest go first.
    pub fn new(max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, max_per_shard: (max / SHARDS).max(1) }
    }

    /// Whether the key is remembered now.
    pub fn contains(&self, key: Key) -> bool {
        let now = seconds(Moment::now());
        self.shard(key).keys.get(&key).is_some_and(|until| now < *until)
    }

    /// What it says to a claim: whether the event is finished, or was not wanted as another type.
    pub(crate) fn earlier(&self, keys: Keys) -> Option<Earlier> {
        if self.contains(keys.id) {
            return Some(Earlier::Finished(Known::Id));
        }
        let finished = keys.guard.is_some_and(|guard| self.contains(guard));
        let other_type = || keys.ignored.is_some_and(|ignored| self.note(ignored) == Noted::OtherType);
        (finished || other_type()).then_some(Earlier::Finished(Known::Content))
    }

    /// What it says to an event whose type is not wanted.
    pub(crate) fn note(&self, ignored: Ignored) -> Noted {
        if !self.contains(ignored.any) {
            return Noted::New;
        }
        if self.contains(ignored.typed) { Noted::Again } else { Noted::OtherType }
    }

    /// Remembers a key for this long.
    pub fn insert(&self, key: Key, ttl: Duration) {
        let now = Moment::now();
        let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
        self.insert_until(key, seconds(now).saturating_add(ttl), now);
    }

    /// Remembers a key until a second since 1970.
    pub fn insert_until(&self, key: Key, until: u32, now: Moment) {
        let now = seconds(now);
        let mut shard = self.shard(key);
        if shard.keys.len() == shard.keys.capacity() && now >= shard.sweep_at {
            // About to grow: first see whether forgetting is enough. At most once in a part of the remembered time, so
            // that each key is looked at a bounded number of times.
            shard.keys.retain(|_, until| now < *until);
            shard.sweep_at = now.saturating_add(until.saturating_sub(now) / EVICTED);
        }
        if shard.keys.len() >= self.max_per_shard {
            shard.evict();
        }
        shard.keys.insert(key, until);
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        let [first, ..] = key.0;
        #[expect(clippy::indexing_slicing, reason = "the remainder is less than the number of shards")]
        let shard = &self.shards[usize::from(first) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Forgets the oldest part of what is remembered.
    fn evict(&mut self) {
        let oldest = self.keys.values().copied().min().unwrap_or_default();
        let newest = self.keys.values().copied().max().unwrap_or_default();
        let until = oldest.saturating_add((newest - oldest) / EVICTED);
        self.keys.retain(|_, end| *end > until);
        tracing::warn!(
            "the store is full: the oldest finished events are forgotten before their ttl; raise \
                        store.max_events or use Redis"
        );
    }
}

/// Seconds since 1970 in 32 bits, which last until 2106.
pub(super) fn seconds(moment: Moment) -> u32 {
    u32::try_from(moment.unix()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Key(bytes)
    }

    #[test]
    fn keys_are_remembered_until_their_time() {
        let remembered = Remembered::new(1000);
        let now = Moment::now();
        remembered.insert(key(1), Duration::from_secs(60));
        remembered.insert_until(key(2), seconds(now), now);
        assert!(remembered.contains(key(1)));
        assert!(!remembered.contains(key(2)), "its time is over");
        assert!(!remembered.contains(key(3)));
    }

    #[test]
    fn a_full_set_forgets_the_oldest_first() {
        let remembered = Remembered::new(64 * SHARDS);
        let now = Moment::now();
        let until = |number: u64| seconds(now) + 1000 + u32::try_from(number / 64).expect("small");
        (0..20_000).for_each(|number| remembered.insert_until(key(number), until(number), now));
        let kept = (0..20_000).filter(|number| remembered.contains(key(*number))).count();
        assert!(kept <= 64 * SHARDS, "{kept}");
        assert!(kept >= 32 * SHARDS, "{kept}");
        assert!((19_900..20_000).all(|number| remembered.contains(key(number))), "the newest are there");
        assert!(!remembered.contains(key(0)));
    }
}
