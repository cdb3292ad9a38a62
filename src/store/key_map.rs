//! A map by event key, which is a hash already and is not hashed again.

use std::hash::BuildHasherDefault;
use std::hash::Hasher;

use hashbrown::HashMap;

use crate::event::Key;

/// Values by event key.
pub(crate) type KeyMap<V> = HashMap<Key, V, BuildHasherDefault<AlreadyHashed>>;

/// Takes the last eight bytes of a key as they are.
#[derive(Debug, Default)]
pub(crate) struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
