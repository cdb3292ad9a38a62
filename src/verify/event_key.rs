//! The keys of dedupe records and of lanes. They are hashes, so that all have the same size and no bytes of a sender
//! are keys in a store.

use http::HeaderValue;
use sha2::Digest as _;
use sha2::Sha256;

/// The keys of the dedupe records of one event: of its id and, where the id is not signed, of the signed content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// The key of the event id.
    pub id: Key,
    /// The key of the replay guard: of the signed content, or of the nonce.
    pub guard: Option<Key>,
    /// The keys of an event that is ignored because of its type: looked up together with the others, and written when
    /// the type is not selected. `None` where an attacker cannot change the type.
    pub ignored: Option<Ignored>,
}

impl Keys {
    /// The key by which a replay under another id or as another type is recognised.
    pub fn content(self) -> Option<Key> {
        self.guard.or_else(|| self.ignored.map(|_| self.id))
    }

    /// The keys of the records that are written when the event is delivered or queued.
    pub fn iter(self) -> impl Iterator<Item = Key> + Clone {
        std::iter::once(self.id).chain(self.guard)
    }
}

/// The keys of the dedupe records of an event that is ignored because of its unsigned type. A replay with a selected
/// type is recognised by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored {
    /// The key of the signed content, with any type.
    pub any: Key,
    /// The key of the signed content together with the type.
    pub typed: Key,
}

impl Ignored {
    /// Both keys.
    pub fn iter(self) -> impl Iterator<Item = Key> + Clone {
        [self.any, self.typed].into_iter()
    }

    pub(super) fn new(source: &str, Key(content): Key, kind: Option<&HeaderValue>) -> Self {
        let kind = kind.map(HeaderValue::as_bytes).unwrap_or_default();
        let any = Key::new(source, b"ignored", &[&content]);
        Self { any, typed: Key::new(source, b"ignored+type", &[&content, kind]) }
    }
}

/// A lane: the hash of the ordering key that events share which are delivered one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane(pub u64);

impl Lane {
    pub(super) fn new(source: &str, value: &str) -> Self {
        let Key([a, b, c, d, e, f, g, h, ..]) = Key::new(source, b"lane", &[value.as_bytes()]);
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// The key of a dedupe record: the first 128 bits of a SHA-256 over the source, the kind of the key and the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// Hashes the parts. All but the last must have a fixed length for this `what`, because nothing separates them.
    pub(super) fn new(source: &str, what: &[u8], parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(source.as_bytes());
        hash.update([0]);
        hash.update(what);
        hash.update([0]);
        parts.iter().for_each(|part| hash.update(part));
        let digest: [u8; 32] = hash.finalize().into();
        Self(std::array::from_fn(|at| digest.get(at).copied().unwrap_or_default()))
    }

    /// In hexadecimal, for stores with text keys.
    pub fn hex(self) -> String {
        const_hex::encode(self.0)
    }
}
