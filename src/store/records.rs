//! Dedupe records in memory: a bounded set of expiring keys, in which each source has a share that others cannot evict.

use std::hash::BuildHasher as _;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::IntCounter;

use super::Earlier;
use super::IgnoreResult;
use super::KeyHasher;
use super::KeyMap;
use super::Keyspace;
use super::KnownBy;
use super::SourceTag;
use crate::base::clock::Clock;
use crate::base::time::Moment;
use crate::message::Keys;
use crate::verify::event_key::Ignored;
use crate::verify::event_key::Key;

/// A dedupe record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The tag of the source.
    pub source: SourceTag,
    /// The key.
    pub key: Key,
    /// When it expires, in seconds since 1970; never 0.
    pub until: u32,
}

/// Most shards. Each has its own lock, so that the growth of one blocks only a few requests.
const MAX_SHARDS: usize = 64;
/// A shard has room for at least this many keys of each source, so that the keys are distributed evenly enough.
const MIN_SHARE: usize = 1024;
/// A full shard is searched for expired keys at most once per eighth of their time to live. If none has expired, an
/// eighth of the keys of the largest source is evicted at once.
const EIGHTH: u32 = 8;
/// The shortest interval between two warnings about evictions, in seconds.
const WARNING_INTERVAL: i64 = 60;

/// Keys of several sources with the second at which each expires. Takes 24 to 48 bytes for each key.
///
/// When the set is full, the oldest keys of the source with most keys are evicted. So a source may use the share that
/// others leave free, and always keeps at least seven eighths of its own.
#[derive(Debug)]
pub struct DedupeRecords {
    /// Sorted by their tags.
    sources: Vec<Keyspace>,
    clock: Clock,
    /// Maps keys to shards.
    hasher: KeyHasher,
    shards: Vec<Mutex<Shard>>,
    max_per_shard: usize,
    evicted: IntCounter,
    /// When the last warning about evictions was logged, in seconds since 1970.
    warned_at: AtomicI64,
}

/// The number of keys that were evicted, and the part of their source.
#[derive(Debug, Clone, Copy)]
struct Evicted {
    part: usize,
    keys: usize,
}

#[derive(Debug)]
struct Shard {
    /// The keys of each source in the order of [`DedupeRecords::sources`], then those of unknown sources.
    parts: Vec<KeyMap<u32>>,
    /// The number of keys of all sources.
    count: usize,
    /// When expired keys may be searched for again, in seconds since 1970.
    sweep_at: u32,
}

impl DedupeRecords {
    /// An empty set for at most `max` keys of these sources, with equal shares.
    pub fn new(max: usize, sources: impl IntoIterator<Item = Keyspace>, clock: Clock) -> Self {
        let mut sources: Vec<_> = sources.into_iter().collect();
        sources.sort_unstable_by_key(Keyspace::tag);
        sources.dedup();
        let parts = sources.len() + 1;
        let shards = (max / (parts * MIN_SHARE)).clamp(1, MAX_SHARDS);
        Self {
            sources,
            clock,
            hasher: KeyHasher::default(),
            shards: (0..shards).map(|_| Mutex::new(Shard::new(parts))).collect(),
            max_per_shard: (max / shards).max(1),
            evicted: evictions(),
            warned_at: AtomicI64::new(0),
        }
    }

    /// `doorward_dedupe_evicted_total`.
    pub fn evicted(&self) -> &IntCounter {
        &self.evicted
    }

    /// Whether the key of a source is in the set and has not expired.
    pub fn contains(&self, source: SourceTag, key: Key) -> bool {
        self.contains_at(source, key, self.clock.now())
    }

    fn contains_at(&self, source: SourceTag, key: Key, now: Moment) -> bool {
        let now = seconds(now);
        let part = self.part(source);
        let shard = self.lock(self.shard_of(key));
        let until = |part: Option<&KeyMap<u32>>| part.and_then(|keys| keys.get(&key).copied());
        let until = until(shard.parts.get(part)).or_else(|| until(shard.parts.last()));
        until.is_some_and(|until| now < until)
    }

    /// The answer to a claim: whether the event is finished, or was ignored as another type.
    pub(crate) fn earlier(&self, source: SourceTag, keys: Keys) -> Option<Earlier> {
        let now = self.clock.now();
        if self.contains_at(source, keys.id, now) {
            return Some(Earlier::Finished(KnownBy::Id));
        }
        let finished = keys.guard.is_some_and(|guard| self.contains_at(source, guard, now));
        let other_type =
            || keys.ignored.is_some_and(|ignored| self.ignored_at(source, ignored, now) == IgnoreResult::OtherType);
        (finished || other_type()).then_some(Earlier::Finished(KnownBy::Content))
    }

    /// Whether an event was ignored before. Changes nothing.
    pub(crate) fn ignored(&self, source: SourceTag, ignored: Ignored) -> IgnoreResult {
        self.ignored_at(source, ignored, self.clock.now())
    }

    fn ignored_at(&self, source: SourceTag, ignored: Ignored, now: Moment) -> IgnoreResult {
        if !self.contains_at(source, ignored.any, now) {
            return IgnoreResult::New;
        }
        if self.contains_at(source, ignored.typed, now) { IgnoreResult::Again } else { IgnoreResult::OtherType }
    }

    /// Inserts a key of a source for `ttl`.
    pub fn insert(&self, source: SourceTag, key: Key, ttl: Duration) {
        let (until, now) = self.until(ttl);
        self.insert_until(source, key, until, now);
    }

    /// When a key that is inserted now expires, in seconds since 1970; and now.
    pub(crate) fn until(&self, ttl: Duration) -> (u32, Moment) {
        let now = self.clock.now();
        (seconds(now).saturating_add(u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)), now)
    }

    /// Inserts a key that expires `until` then. Sources that are not configured share one part.
    pub fn insert_until(&self, source: SourceTag, key: Key, until: u32, now: Moment) {
        let part = self.part(source);
        let at = self.shard_of(key);
        let evicted = self.lock(at).insert((part, key, until), seconds(now), self.max_per_shard);
        self.warn_evicted(evicted, now);
    }

    /// Inserts many keys, one shard after the other, which is faster, because a shard fits into the processor's caches.
    pub(super) fn insert_all(&self, records: &[Record], now: Moment) {
        let mut shards = vec![Vec::with_capacity(records.len() / self.shards.len() * 2); self.shards.len()];
        for record in records {
            if let Some(shard) = shards.get_mut(self.shard_of(record.key)) {
                shard.push((self.part(record.source), record.key, record.until));
            }
        }
        for (at, keys) in shards.into_iter().enumerate() {
            let mut shard = self.lock(at);
            let insert = |key| shard.insert(key, seconds(now), self.max_per_shard);
            let evicted = keys.into_iter().filter_map(insert);
            let evicted = evicted.reduce(|one, other| Evicted { keys: one.keys + other.keys, ..other });
            drop(shard);
            self.warn_evicted(evicted, now);
        }
    }

    /// Counts evicted keys, and logs their source, at most once a minute.
    fn warn_evicted(&self, evicted: Option<Evicted>, now: Moment) {
        let Some(Evicted { part, keys }) = evicted else { return };
        self.evicted.inc_by(u64::try_from(keys).unwrap_or(u64::MAX));
        let (now, warned_at) = (now.unix(), self.warned_at.load(Ordering::Relaxed));
        let is_recent = now.abs_diff(warned_at) < WARNING_INTERVAL.unsigned_abs();
        if is_recent || self.warned_at.compare_exchange(warned_at, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        tracing::warn!(
            source = self.sources.get(part).map_or("", Keyspace::source),
            total = self.evicted.get(),
            "the store is full: the oldest finished events of the source that has most are forgotten before their ttl; raise \
             store.max_events or use Redis"
        );
    }

    /// Removes expired keys; returns the number of the others.
    pub(super) fn remove_expired(&self, now: Moment) -> usize {
        let now = seconds(now);
        let left = self.shards.iter().map(|shard| {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain_all(|until| now < until);
            shard.count
        });
        left.sum()
    }

    /// All records that have not expired, one shard at a time. Contains every record that was inserted before the
    /// iteration began. Records of sources that are not configured have [`SourceTag::UNKNOWN`].
    pub(super) fn parts(&self, now: Moment) -> impl Iterator<Item = Vec<Record>> {
        let now = seconds(now);
        self.shards.iter().map(move |shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut records = Vec::with_capacity(shard.count);
            for (part, keys) in shard.parts.iter().enumerate() {
                let source = self.sources.get(part).map_or(SourceTag::UNKNOWN, Keyspace::tag);
                let live = keys.iter().filter(|(_, until)| now < **until);
                records.extend(live.map(|(key, until)| Record { source, key: *key, until: *until }));
            }
            records
        })
    }

    /// The index of a source's part in each shard; the last one for unknown sources.
    fn part(&self, source: SourceTag) -> usize {
        self.sources.binary_search_by_key(&source, Keyspace::tag).unwrap_or(self.sources.len())
    }

    fn shard_of(&self, key: Key) -> usize {
        usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default() % self.shards.len()
    }

    fn lock(&self, at: usize) -> MutexGuard<'_, Shard> {
        #[expect(clippy::indexing_slicing, reason = "all numbers of shards are remainders, or counted")]
        let shard = &self.shards[at];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn new(parts: usize) -> Self {
        Self { parts: vec![KeyMap::default(); parts], count: 0, sweep_at: 0 }
    }

    /// Inserts a key of a part into at most `max` keys; returns what was evicted for it.
    fn insert(&mut self, (part, key, until): (usize, Key, u32), now: u32, max: usize) -> Option<Evicted> {
        if let Some(known) = self.parts.get_mut(part).and_then(|keys| keys.get_mut(&key)) {
            *known = until;
            return None;
        }
        let full = self.count >= max;
        let grows = self.parts.get(part).is_some_and(|keys| keys.len() == keys.capacity());
        if (full || grows) && now >= self.sweep_at {
            // First removes expired keys. At most once per eighth of the time to live, so that each key is visited a
            // bounded number of times.
            self.retain_all(|until| now < until);
            self.sweep_at = now.saturating_add(until.saturating_sub(now) / EIGHTH);
        }
        let evicted = if self.count >= max { self.evict() } else { None };
        if let Some(keys) = self.parts.get_mut(part) {
            self.count += usize::from(keys.insert(key, until).is_none());
        }
        evicted
    }

    fn retain_all(&mut self, kept: impl Fn(u32) -> bool) {
        self.parts.iter_mut().for_each(|keys| retain(keys, &kept));
        self.count = self.parts.iter().map(KeyMap::len).sum();
    }

    /// Evicts the oldest eighth of the keys of the largest part.
    fn evict(&mut self) -> Option<Evicted> {
        let (part, keys) = self.parts.iter_mut().enumerate().max_by_key(|(_, keys)| keys.len())?;
        let evicted = (keys.len() / usize::try_from(EIGHTH).ok()?).max(1);
        if keys.is_empty() {
            return None;
        }
        let mut ends: Vec<u32> = keys.values().copied().collect();
        let (older, last, _) = ends.select_nth_unstable(evicted - 1);
        // Many may expire in the same second: `also` is how many of those are evicted.
        let (last, mut also) = (*last, evicted - older.iter().filter(|end| **end < *last).count());
        let before = keys.len();
        retain(keys, |until| {
            let goes = until < last || until == last && also > 0;
            also -= usize::from(goes && until == last);
            !goes
        });
        let keys = before - keys.len();
        self.count -= keys;
        Some(Evicted { part, keys })
    }
}

fn evictions() -> IntCounter {
    let help = "Dedupe records that were evicted before their time, because there were too many.";
    #[expect(clippy::expect_used, reason = "the name is a constant")]
    IntCounter::new("doorward_dedupe_evicted_total", help).expect("a valid metric")
}

/// Retains some keys, and shrinks the map, so that other sources can use the memory.
fn retain(keys: &mut KeyMap<u32>, mut kept: impl FnMut(u32) -> bool) {
    keys.retain(|_, until| kept(*until));
    keys.shrink_to(keys.len() / 7 * 8);
}

/// Seconds since 1970 in 32 bits, which suffice until 2106.
pub(super) fn seconds(moment: Moment) -> u32 {
    u32::try_from(moment.unix()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> Key {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Key(bytes)
    }

    fn records(max: usize, sources: impl IntoIterator<Item = Keyspace>) -> DedupeRecords {
        DedupeRecords::new(max, sources, Clock::System)
    }

    fn sources<const N: usize>(names: [&str; N]) -> ([SourceTag; N], [Keyspace; N]) {
        let spaces = names.map(Keyspace::of_source);
        (spaces.each_ref().map(Keyspace::tag), spaces)
    }

    #[test]
    fn keys_are_remembered_until_their_time() {
        let ([source], spaces) = sources(["one"]);
        let remembered = records(1000, spaces);
        let now = Moment::now();
        remembered.insert(source, key(1), Duration::from_secs(60));
        remembered.insert_until(source, key(2), seconds(now), now);
        assert!(remembered.contains(source, key(1)));
        assert!(!remembered.contains(source, key(2)), "its time is over");
        assert!(!remembered.contains(source, key(3)));
    }

    #[test]
    fn a_full_set_forgets_the_oldest_first() {
        const MAX: usize = 8 * MIN_SHARE;
        let ([source], spaces) = sources(["one"]);
        let remembered = records(MAX, spaces);
        let now = Moment::now();
        let until = |number: u64| seconds(now) + 1000 + u32::try_from(number / 64).expect("small");
        (0..50_000).for_each(|number| remembered.insert_until(source, key(number), until(number), now));
        let kept = (0..50_000).filter(|number| remembered.contains(source, key(*number))).count();
        assert!((MAX / 8 * 7..=MAX).contains(&kept), "{kept}");
        assert!((49_900..50_000).all(|number| remembered.contains(source, key(number))), "the newest are there");
        assert!(!remembered.contains(source, key(0)));
        assert_eq!(usize::try_from(remembered.evicted().get()), Ok(50_000 - kept));
    }

    #[test]
    fn as_many_keys_are_kept_as_may_be_and_one_more_is_too_many() {
        let ([source], spaces) = sources(["one"]);
        let remembered = records(80, spaces);
        let kept = || (0..=80).filter(|number| remembered.contains(source, key(*number))).count();
        (0..80).for_each(|number| remembered.insert(source, key(number), Duration::from_secs(60)));
        assert_eq!(kept(), 80);
        remembered.insert(source, key(0), Duration::from_secs(90));
        assert_eq!(kept(), 80, "it was there");
        remembered.insert(source, key(80), Duration::from_secs(60));
        assert_eq!(kept(), 80 - 10 + 1);
        assert!(remembered.contains(source, key(0)) && remembered.contains(source, key(80)));
    }

    #[test]
    fn what_is_past_its_time_makes_room_whosever_it_was() {
        let ([busy, idle], spaces) = sources(["busy", "idle"]);
        let remembered = records(100, spaces);
        let then = Moment::from_unix(Moment::now().unix() - 1000);
        (0..100).for_each(|number| remembered.insert_until(idle, key(number), seconds(then) + 10, then));
        (100..200).for_each(|number| remembered.insert(busy, key(number), Duration::from_secs(60)));
        assert!((100..200).all(|number| remembered.contains(busy, key(number))));
    }

    #[test]
    fn keys_of_nobody_that_is_known_are_found_by_everybody_and_are_one_more_share() {
        let ([one, gone], [space, _]) = sources(["one", "gone"]);
        let remembered = records(100, [space]);
        let now = Moment::now();
        let until = seconds(now) + 60;
        remembered.insert_until(SourceTag::UNKNOWN, key(1), until, now);
        remembered.insert_until(gone, key(2), until, now);
        assert!(remembered.contains(one, key(1)) && remembered.contains(one, key(2)));
        (100..1100).for_each(|number| remembered.insert(one, key(number), Duration::from_secs(60)));
        assert!(remembered.contains(one, key(1)) && remembered.contains(one, key(2)), "they have a share");
    }

    #[test]
    fn room_that_a_source_has_let_go_of_is_given_back() {
        let names: Vec<String> = (0..16).map(|number| number.to_string()).collect();
        let spaces: Vec<_> = names.iter().map(|name| Keyspace::of_source(name)).collect();
        let remembered = records(16_000, spaces.clone());
        let mut numbers = 0..;
        for space in &spaces {
            // Each fills the whole set once.
            numbers.by_ref().take(40_000).for_each(|n| remembered.insert(space.tag(), key(n), Duration::from_secs(60)));
        }
        let shard = remembered.shards[0].lock().expect("a shard");
        let room: usize = shard.parts.iter().map(KeyMap::capacity).sum();
        assert!(shard.count <= 16_000 && room <= 3 * 16_000, "{room} for {}", shard.count);
    }

    proptest! {
        #[test]
        fn a_source_keeps_its_share_whatever_others_do(
            max in 40_usize..400,
            floods in proptest::collection::vec((0..4_usize, 1..600_u64, 0..40_u32), 1..20),
        ) {
            let (tags, spaces) = sources(["a", "b", "c", "d", "e"]);
            let remembered = records(max, spaces);
            let (now, quiet) = (Moment::now(), tags[4]);
            // Five sources, and those of nobody.
            let share = u64::try_from(max / 6 / 8 * 7).expect("small");
            (0..share).for_each(|number| remembered.insert_until(quiet, key(number), seconds(now) + 50, now));
            let mut numbers = 1000..;
            for (who, many, age) in floods {
                for number in numbers.by_ref().take(usize::try_from(many).expect("small")) {
                    remembered.insert_until(tags[who], key(number), seconds(now) + 90 - age, now);
                }
                let kept: usize = remembered.shards.iter().map(|shard| shard.lock().expect("a shard").count).sum();
                prop_assert!(kept <= max);
            }
            prop_assert!((0..share).all(|number| remembered.contains(quiet, key(number))));
        }
    }
}
