//! Gives a verified request its identity: event id, type and the key it is remembered under.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use sha2::Digest as _;
use sha2::Sha256;

use crate::auth::Verified;
use crate::body::Inbound;
use crate::field::Field;
use crate::json::Fields;
use crate::json::Pointers;
use crate::profile;

/// Longest event id, in bytes.
pub const MAX_ID: usize = 512;
/// Longest event type, in bytes.
const MAX_KIND: usize = 256;

/// Where a profile's events carry their identity.
#[derive(Debug)]
pub struct Identity {
    id: Field,
    kind: Option<Field>,
}

/// A verified request with its identity: what the gateway deduplicates and delivers.
#[derive(Debug)]
pub struct Event {
    inbound: Inbound,
    id: HeaderValue,
    kind: Option<HeaderValue>,
    key: Key,
    guard: Option<Key>,
}

/// What an event is remembered under: 128 bits of SHA-256 over the source and the id, so that no sender's bytes reach a
/// store and every key has the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 16]);

/// The request is genuine, but it cannot be told from other events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// There is no event id where the profile says.
    #[error("there is no event id")]
    Missing,
    /// It is not a text of 1 to [`MAX_ID`] bytes without control characters.
    #[error("the event id is not a text of 1 to {MAX_ID} bytes without control characters")]
    Invalid,
}

impl Identity {
    /// Takes the profile at its word.
    pub fn new(said: &profile::Event, pointers: &mut Pointers) -> Self {
        Self { id: Field::new(&said.id, pointers), kind: said.kind.as_ref().map(|kind| Field::new(kind, pointers)) }
    }

    /// The headers that it reads, each of which may be there once.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.id.header().into_iter().chain(self.kind.as_ref().and_then(Field::header))
    }

    /// Reads the identity of a verified request.
    ///
    /// # Errors
    /// [`Unidentified`] when it has no id that could be used. A missing or odd type is no error: the event is genuine.
    pub fn identify(&self, source: &str, verified: Verified) -> Result<Event, Unidentified> {
        let (headers, fields) = (verified.inbound().headers(), verified.fields());
        let id = self.id(headers, fields)?;
        let kind = self.kind.as_ref().and_then(|kind| kind.text(headers, fields).ok().flatten());
        let kind = kind.and_then(|kind| value(kind, MAX_KIND));
        let key = Key::new(source, b"id", id.as_bytes());
        let guard = verified.guard().map(|digest| Key::new(source, b"guard", digest));
        Ok(Event { id, kind, key, guard, inbound: verified.into_inbound() })
    }

    fn id(&self, headers: &HeaderMap, fields: &Fields) -> Result<HeaderValue, Unidentified> {
        let text = self.id.text(headers, fields).map_err(|_not_text| Unidentified::Invalid)?;
        value(text.ok_or(Unidentified::Missing)?, MAX_ID).ok_or(Unidentified::Invalid)
    }
}

/// A text that can stand in a header of its own.
fn value(text: &str, max: usize) -> Option<HeaderValue> {
    if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
        return None;
    }
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

impl Key {
    fn new(source: &str, what: &[u8], bytes: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(source.as_bytes());
        hash.update([0]);
        hash.update(what);
        hash.update([0]);
        hash.update(bytes);
        let digest: [u8; 32] = hash.finalize().into();
        Self(std::array::from_fn(|at| digest.get(at).copied().unwrap_or_default()))
    }

    /// In hexadecimal, for stores that want text.
    pub fn hex(self) -> String {
        const_hex::encode(self.0)
    }
}

impl Event {
    /// The request as it came.
    pub fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// The provider's id of the event.
    pub fn id(&self) -> &HeaderValue {
        &self.id
    }

    /// The event's type, where it has a usable one.
    pub fn kind(&self) -> Option<&HeaderValue> {
        self.kind.as_ref()
    }

    /// What it is remembered under.
    pub fn key(&self) -> Key {
        self.key
    }

    /// What it is remembered under as well, when its id is not signed: a digest of what is.
    pub fn guard(&self) -> Option<Key> {
        self.guard
    }
}
