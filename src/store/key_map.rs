//! A map by event key. A key is a hash already, but of what its sender may have chosen: whoever can sign could look for ids
//! that fall together, if where they fall were the same in every process.

use std::hash::BuildHasher;
use std::hash::Hasher;
use std::hash::RandomState;
use std::sync::LazyLock;

use hashbrown::HashMap;

use crate::event::Key;

/// Values by event key.
pub(crate) type KeyMap<V> = HashMap<Key, V, Seeded>;

/// Hashes keys with the random numbers of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seeded([u64; 2]);

/// Takes the sixteen bytes of a key.
#[derive(Debug)]
pub(crate) struct KeyHasher {
    seed: [u64; 2],
    hash: u64,
}

impl Default for Seeded {
    fn default() -> Self {
        static SEED: LazyLock<Seeded> = LazyLock::new(Seeded::random);
        *SEED
    }
}

impl Seeded {
    fn random() -> Self {
        Self([0_u8, 1].map(|part| RandomState::new().hash_one(part)))
    }

    /// The hash of a key.
    pub(crate) fn of(self, key: Key) -> u64 {
        let [a, b, c, d, e, f, g, h, rest @ ..] = key.0;
        let [first, second] = self.0;
        let left = u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ first;
        let right = u64::from_le_bytes(rest) ^ second;
        // Every bit of the product's middle depends on both numbers, which nobody outside knows.
        let product = u128::from(left) * u128::from(right);
        #[expect(clippy::cast_possible_truncation, clippy::as_conversions, reason = "the two halves are folded")]
        let folded = (product >> 64) as u64 ^ product as u64;
        folded
    }
}

impl BuildHasher for Seeded {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher { seed: self.0, hash: 0 }
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(key) = bytes.first_chunk() {
            self.hash = Seeded(self.seed).of(Key(*key));
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key whose last bytes are the same as those of all others made here.
    fn alike(number: u64) -> Key {
        let mut bytes = [0x5a; 16];
        bytes[..8].copy_from_slice(&(number << 40).to_le_bytes());
        Key(bytes)
    }

    #[test]
    fn where_a_key_falls_differs_from_process_to_process() {
        let processes: Vec<_> = (0..4).map(|_| Seeded::random()).collect();
        let falls: std::collections::HashSet<_> = processes.iter().map(|process| process.of(alike(1))).collect();
        assert_eq!(falls.len(), processes.len());
        assert_eq!(Seeded::default().of(alike(1)), Seeded::default().hash_one(alike(1)), "but not within one");
    }

    #[test]
    fn keys_that_are_mostly_alike_fall_apart() {
        let seeded = Seeded::random();
        for shift in [0, 16, 32, 57] {
            let mut filled = [0_u32; 64];
            (0..6400).for_each(|number| {
                filled[usize::try_from(seeded.of(alike(number)) >> shift & 63).expect("small")] += 1;
            });
            assert!(filled.iter().all(|count| (10..400).contains(count)), "{shift}: {filled:?}");
        }
    }
}
