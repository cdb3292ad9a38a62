//! The keys under which events are remembered, and the lanes in which they are delivered: hashes, so that no sender's
//! bytes reach a store and all are of one size.

use http::HeaderValue;
use sha2::Digest as _;
use sha2::Sha256;

/// What an event is remembered under: its id and, where the id is not signed, a digest of what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// The key of the event id.
    pub id: Key,
    /// The key of what is signed.
    pub guard: Option<Key>,
    /// As one whose type was not wanted: looked up with the others, and written when this one is not wanted either.
    /// Nothing where nobody but the provider could change the type.
    pub ignored: Option<Ignored>,
}

impl Keys {
    /// What it is known by under another id, or as another type.
    pub fn content(self) -> Option<Key> {
        self.guard.or_else(|| self.ignored.map(|_| self.id))
    }

    /// Those that an event is finished under.
    pub fn iter(self) -> impl Iterator<Item = Key> + Clone {
        std::iter::once(self.id).chain(self.guard)
    }
}

/// What an event is remembered under when its type is not wanted, and the type is not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored {
    /// The key of what is signed, whatever its type.
    pub any: Key,
    /// The key of what is signed and of its type.
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

/// What events have in common that are delivered one after the other: a hash of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane(pub u64);

impl Lane {
    pub(super) fn new(source: &str, value: &str) -> Self {
        let Key([a, b, c, d, e, f, g, h, ..]) = Key::new(source, b"lane", &[value.as_bytes()]);
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// What an event is remembered under: 128 bits of SHA-256 over the source and the id, so that no sender's bytes reach a
/// store and every key has the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// All parts but the last are of one length.
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

    /// In hexadecimal, for stores that want text.
    pub fn hex(self) -> String {
        const_hex::encode(self.0)
    }
}
