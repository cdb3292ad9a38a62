//! A cache of the id, type and time with which recent events first arrived. It only serves the log; no decision depends
//! on it. It holds about 10,000 events of all sources together, so a busy source may displace those of another.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use http::HeaderValue;

use crate::base::time::Moment;
use crate::message::Message;
use crate::verify::event_key::Key;

/// The first arrival of an event.
#[derive(Debug, Clone)]
pub struct FirstSeen {
    /// Its id.
    pub id: HeaderValue,
    /// Its type, where it had one.
    pub kind: Option<HeaderValue>,
    /// When it arrived.
    pub at: Moment,
}

/// Number of shards. Each has its own lock, so that workers rarely wait for each other.
const SHARDS: usize = 64;
/// Most events in a shard: about 10,000 in all.
const MAX_PER_SHARD: usize = 160;

/// First arrivals by the key of the content (FIFO eviction). Takes about 250 bytes for each event.
#[derive(Debug)]
pub struct FirstSeenCache {
    shards: [Mutex<Shard>; SHARDS],
}

/// In order of arrival, without an index: insertions are frequent, lookups are rare.
type Shard = VecDeque<(Key, FirstSeen)>;

impl Default for FirstSeenCache {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl FirstSeenCache {
    /// Records the first arrival of an event.
    pub(super) fn record(&self, content: Key, message: &Message) {
        let (id, kind) = (message.event_id.clone(), message.kind.clone());
        self.insert(content, FirstSeen { id, kind, at: message.received_at });
    }

    fn insert(&self, content: Key, first: FirstSeen) {
        let mut shard = self.shard(content);
        let oldest = if shard.len() < MAX_PER_SHARD { None } else { shard.pop_front() };
        shard.push_back((content, first));
        drop(shard);
        drop(oldest);
    }

    /// The first arrival of the event with this content; the latest one, if it was evicted and came again.
    pub(super) fn get(&self, content: Key) -> Option<FirstSeen> {
        let shard = self.shard(content);
        shard.iter().rev().find(|(known, _)| *known == content).map(|(_, first)| first.clone())
    }

    fn shard(&self, content: Key) -> MutexGuard<'_, Shard> {
        let [first, ..] = content.0;
        #[expect(clippy::indexing_slicing, reason = "the remainder is less than the number of shards")]
        let shard = &self.shards[usize::from(first) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key with this number in a shard.
    fn key(shard: u8, number: usize) -> Key {
        let mut bytes = [shard; 16];
        bytes[8..].copy_from_slice(&u64::try_from(number).expect("small").to_le_bytes());
        Key(bytes)
    }

    fn first(id: &str) -> FirstSeen {
        FirstSeen { id: HeaderValue::from_str(id).expect("an id"), kind: None, at: Moment::from_unix(1) }
    }

    fn id(first_seen: &FirstSeenCache, key: Key) -> Option<HeaderValue> {
        first_seen.get(key).map(|first| first.id)
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let first_seen = FirstSeenCache::default();
        (0..MAX_PER_SHARD).for_each(|number| first_seen.insert(key(1, number), first(&number.to_string())));
        first_seen.insert(key(2, 0), first("another shard"));
        assert_eq!(id(&first_seen, key(1, 0)).expect("the oldest"), "0");
        first_seen.insert(key(1, MAX_PER_SHARD), first("one more"));
        assert_eq!(id(&first_seen, key(1, 0)), None);
        assert_eq!(id(&first_seen, key(1, 1)).expect("the next"), "1");
        assert_eq!(id(&first_seen, key(1, MAX_PER_SHARD)).expect("the last"), "one more");
        assert_eq!(id(&first_seen, key(2, 0)).expect("what others do not crowd out"), "another shard");
    }

    #[test]
    fn what_comes_anew_after_it_was_forgotten_is_known_as_it_came_then() {
        let first_seen = FirstSeenCache::default();
        ["one", "two"].iter().for_each(|id| first_seen.insert(key(1, 0), first(id)));
        assert_eq!(id(&first_seen, key(1, 0)).expect("there"), "two");
    }
}
