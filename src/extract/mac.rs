//! Hashes and HMACs (RFC 2104) with the hash functions that profiles name. Comparisons take constant time.

use hmac::KeyInit as _;
use hmac::Mac;
use hmac::digest::CtOutput;
use hmac::digest::Digest;
use hmac::digest::Output;
use hmac::digest::typenum::Unsigned as _;
use sha1::Sha1;
use sha2::Sha256;
use sha2::Sha512;

use crate::profile::Hash;

/// The longest digest, that of SHA-512, in bytes.
pub const MAX_DIGEST: usize = 64;

/// An HMAC key with its padded blocks already hashed. It is cloned for each use.
#[derive(Clone)]
pub enum Key {
    /// HMAC-SHA256.
    Sha256(hmac::Hmac<Sha256>),
    /// HMAC-SHA512.
    Sha512(hmac::Hmac<Sha512>),
    /// HMAC-SHA1.
    Sha1(hmac::Hmac<Sha1>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// Takes these bytes as the key. It never returns `None`, because RFC 2104 allows any length.
    pub fn new(hash: Hash, bytes: &[u8]) -> Option<Self> {
        match hash {
            Hash::Sha256 => hmac::Hmac::new_from_slice(bytes).ok().map(Self::Sha256),
            Hash::Sha512 => hmac::Hmac::new_from_slice(bytes).ok().map(Self::Sha512),
            Hash::Sha1 => hmac::Hmac::new_from_slice(bytes).ok().map(Self::Sha1),
        }
    }

    /// The length of its digests in bytes.
    pub fn digest_length(&self) -> usize {
        match self {
            Self::Sha256(_) => 32,
            Self::Sha512(_) => 64,
            Self::Sha1(_) => 20,
        }
    }

    /// Whether one of the presented digests is that of the message. Each is at the start of its array.
    pub fn verifies(&self, message: &[impl AsRef<[u8]>], presented: &[[u8; MAX_DIGEST]]) -> bool {
        match self {
            Self::Sha256(key) => any_equal(&compute(key, message), presented),
            Self::Sha512(key) => any_equal(&compute(key, message), presented),
            Self::Sha1(key) => any_equal(&compute(key, message), presented),
        }
    }

    /// The digest of the message.
    pub fn digest(&self, message: &[impl AsRef<[u8]>]) -> Vec<u8> {
        match self {
            Self::Sha256(key) => compute(key, message).into_bytes().to_vec(),
            Self::Sha512(key) => compute(key, message).into_bytes().to_vec(),
            Self::Sha1(key) => compute(key, message).into_bytes().to_vec(),
        }
    }
}

fn compute<M: Mac + Clone>(key: &M, message: &[impl AsRef<[u8]>]) -> CtOutput<M> {
    let mut mac = key.clone();
    message.iter().for_each(|piece| mac.update(piece.as_ref()));
    mac.finalize()
}

/// Whether a presented digest equals the computed one. `CtOutput` compares in constant time.
fn any_equal<M: Mac>(computed: &CtOutput<M>, presented: &[[u8; MAX_DIGEST]]) -> bool {
    presented.iter().any(|digest| {
        let digest = digest.get(..M::OutputSize::USIZE).and_then(|digest| Output::<M>::try_from(digest).ok());
        digest.is_some_and(|digest| CtOutput::new(digest) == *computed)
    })
}

/// The plain hash of the message.
pub fn hash(hash: Hash, message: &[impl AsRef<[u8]>]) -> Vec<u8> {
    fn of<D: Digest>(message: &[impl AsRef<[u8]>]) -> Vec<u8> {
        let mut digest = D::new();
        message.iter().for_each(|piece| digest.update(piece.as_ref()));
        digest.finalize().to_vec()
    }
    match hash {
        Hash::Sha256 => of::<Sha256>(message),
        Hash::Sha512 => of::<Sha512>(message),
        Hash::Sha1 => of::<Sha1>(message),
    }
}
