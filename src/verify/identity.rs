//! Reads the identity of a verified request: its event id, its type, and the keys under which it is remembered.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use sha2::Digest as _;
use sha2::Sha256;

use crate::base::form::NotText;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::extract::field::Values;
use crate::extract::mac;
use crate::extract::params::Params;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::Hash;
use crate::profile::Place;
use crate::profile::Profile;
use crate::profile::ReplayGuard;
use crate::verify::Verified;

/// Longest event id, in bytes.
pub const MAX_ID: usize = 512;
/// Longest event type, in bytes.
const MAX_KIND: usize = 256;

/// Stands between the parts of a composite id: a control character, which no part has, so that no two ids look the same.
const JOINT: &str = "\u{1f}";

/// Where a profile's events carry their identity.
#[derive(Debug)]
pub struct Identity {
    id: Reference,
    kind: Option<Reference>,
    nonce: Option<Field>,
    guard: ReplayGuard,
    /// Whether events of types that are not wanted are known again, when they come as another type.
    notes_ignored: bool,
    /// What events have in common that are delivered in order.
    order: Option<Field>,
}

/// What an event is known by, ready to be read.
#[derive(Debug)]
enum Reference {
    Field(Field),
    /// The SHA-256 of what stands there: a proof, which nobody else may see.
    Proof(Field),
    All(Vec<Self>),
    First(Vec<Self>),
    /// The SHA-256 of what stands there in each item of a list.
    Each(Vec<Field>),
    BodyDigest,
    Unique,
}

/// A verified request with its identity.
#[derive(Debug)]
pub struct Event {
    /// The request as it came.
    pub inbound: Inbound,
    /// The provider's id of the event, of 1 to [`MAX_ID`] bytes.
    pub id: HeaderValue,
    /// Its type, where it has a usable one.
    pub kind: Option<HeaderValue>,
    /// What it is remembered under.
    pub keys: Keys,
    /// How far ahead of now its signed time is, if at all; nothing where no time is signed.
    pub ahead: Option<Duration>,
    /// What it has in common with events that are delivered before and after it.
    pub lane: Option<Lane>,
}

/// What an event is remembered under: its id and, where the id is not signed, a digest of what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// The key of the event id.
    pub id: Key,
    /// The key of what is signed.
    pub guard: Option<Key>,
    /// As one whose type was not wanted: looked up with the others, and written when this one is not wanted either. Nothing
    /// where nobody but the provider could change the type.
    pub ignored: Option<Ignored>,
}

/// What an event is remembered under when its type is not wanted, and the type is not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored {
    /// The key of what is signed, whatever its type.
    pub any: Key,
    /// The key of what is signed and of its type.
    pub typed: Key,
}

/// What events have in common that are delivered one after the other: a hash of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane(pub u64);

impl Lane {
    fn new(source: &str, value: &str) -> Self {
        let Key([a, b, c, d, e, f, g, h, ..]) = Key::new(source, b"lane", &[value.as_bytes()]);
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
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
    /// It is neither a number nor a text of 1 to [`MAX_ID`] bytes without control characters.
    #[error("the event id is neither a number nor a text of 1 to {MAX_ID} bytes without control characters")]
    Invalid,
}

/// A genuine request without a usable id.
#[derive(Debug)]
pub struct Nameless {
    /// Why.
    pub why: Unidentified,
    /// The request.
    pub inbound: Inbound,
}

impl Identity {
    /// As the profile says, but for its replay guard, which is given; with `notes_ignored`, events whose type is not wanted
    /// are recognised when they come as another type.
    pub fn new(
        profile: &Profile,
        guard: ReplayGuard,
        notes_ignored: bool,
        params: &Params,
        wants: &mut ExtractionPlan,
    ) -> Self {
        let said = &profile.event;
        let proofs: Vec<_> = profile.schemes().map(profile::Scheme::proof).collect();
        Self {
            id: Reference::new(&said.id, &proofs, params, wants),
            kind: said.kind.as_ref().map(|kind| Reference::new(kind, &proofs, params, wants)),
            nonce: said.nonce.as_ref().map(|nonce| Field::new(nonce, wants).with_params(params)),
            guard,
            notes_ignored,
            order: None,
        }
    }

    /// By what an event is known again under another id or as another type.
    pub fn guard_name(&self) -> &'static str {
        match (&self.nonce, self.notes_ignored) {
            (Some(_), _) => "nonce",
            // Only where the content is the guard, or an id that is signed needs none.
            (None, true) => ReplayGuard::Content.name(),
            (None, false) => self.guard.name(),
        }
    }

    /// Events in which this reads the same are delivered in order.
    pub fn set_order(&mut self, order: Field) {
        self.order = Some(order);
    }

    /// The headers that it reads, each of which may be there once.
    pub fn headers(&self) -> Vec<HeaderName> {
        let mut headers = self.id.headers();
        headers.extend(self.kind.iter().flat_map(Reference::headers));
        headers.extend(self.nonce.iter().flat_map(Field::headers));
        headers
    }

    /// Reads the identity of a verified request.
    ///
    /// # Errors
    /// [`Unidentified`] when it has no id that could be used. A missing or odd type is no error: the event is genuine.
    pub fn identify(&self, source: &str, verified: Verified) -> Result<Event, Box<Nameless>> {
        let (inbound, values) = (verified.inbound(), verified.values());
        let (id, key) = match self.id(source, inbound, values) {
            Ok(known) => known,
            Err(why) => return Err(Box::new(Nameless { why, inbound: verified.into_inbound() })),
        };
        let kind = self.kind.as_ref().filter(|kind| kind.agrees(inbound));
        let kind = kind.and_then(|kind| kind.text(inbound, values).ok().flatten());
        let kind = kind.and_then(|kind| value(&parted(&kind, "."), MAX_KIND));
        let nonce = self.nonce.as_ref().and_then(|nonce| nonce.text(inbound, values).ok().flatten());
        let guard = match nonce {
            Some(nonce) => Some(Key::new(source, b"nonce", &[nonce.as_bytes()])),
            None => verified.guard().and_then(|digest| self.guard(source, digest, kind.as_ref())),
        };
        let ignored = self.notes_ignored.then(|| Ignored::new(source, guard.unwrap_or(key), kind.as_ref()));
        let ahead = verified.ahead();
        let order = self.order.as_ref().and_then(|order| order.text(inbound, values).ok().flatten());
        let lane = order.map(|order| Lane::new(source, order));
        let keys = Keys { id: key, guard, ignored };
        Ok(Event { inbound: verified.into_inbound(), id, kind, keys, ahead, lane })
    }

    fn guard(&self, source: &str, digest: &[u8; 32], kind: Option<&HeaderValue>) -> Option<Key> {
        match self.guard {
            ReplayGuard::Content => Some(Key::new(source, b"guard", &[digest])),
            ReplayGuard::ContentAndType => {
                let kind = kind.map(HeaderValue::as_bytes).unwrap_or_default();
                Some(Key::new(source, b"guard+type", &[digest, kind]))
            }
            ReplayGuard::Off => None,
        }
    }

    /// Reads the id alone, as it is shown.
    ///
    /// # Errors
    /// [`Unidentified`] when there is none that could be used.
    pub fn read(&self, inbound: &Inbound, values: &Values) -> Result<String, Unidentified> {
        let (id, _) = self.id("", inbound, values)?;
        Ok(String::from_utf8_lossy(id.as_bytes()).into_owned())
    }

    fn id(&self, source: &str, inbound: &Inbound, values: &Values) -> Result<(HeaderValue, Key), Unidentified> {
        let id = self.id.text(inbound, values).map_err(|_not_text| Unidentified::Invalid)?;
        let id = id.ok_or(Unidentified::Missing)?;
        let shown = match &id {
            Cow::Owned(joined) => value(&parted(joined, ":"), MAX_ID),
            Cow::Borrowed(text) => value(text, MAX_ID),
        };
        Ok((shown.ok_or(Unidentified::Invalid)?, Key::new(source, b"id", &[id.as_bytes()])))
    }
}

impl Reference {
    fn new(said: &profile::Reference, proofs: &[Place], params: &Params, wants: &mut ExtractionPlan) -> Self {
        let mut all = |several: &[profile::Reference]| {
            several.iter().map(|said| Self::new(said, proofs, params, wants)).collect()
        };
        match said {
            profile::Reference::All(several) => Self::All(all(several)),
            profile::Reference::First(several) => Self::First(all(several)),
            profile::Reference::Place(place) => {
                let field = Field::new(place, wants).with_params(params);
                // What is only beside a proof, in the same list, is none.
                let is_proof = |proof: &Place| proof == place || place.item.is_none() && proof.holder == place.holder;
                let proof = proofs.iter().any(is_proof);
                if proof { Self::Proof(field) } else { Self::Field(field) }
            }
            profile::Reference::Each(places) => {
                Self::Each(places.iter().map(|place| Field::new(place, wants)).collect())
            }
            profile::Reference::BodyDigest => Self::BodyDigest,
            profile::Reference::Unique => Self::Unique,
        }
    }

    fn headers(&self) -> Vec<HeaderName> {
        match self {
            Self::Field(field) | Self::Proof(field) => field.headers(),
            Self::All(several) | Self::First(several) => several.iter().flat_map(Self::headers).collect(),
            Self::Each(_) | Self::BodyDigest | Self::Unique => Vec::new(),
        }
    }

    /// Whether no header that it may be read from contradicts another one.
    fn agrees(&self, inbound: &Inbound) -> bool {
        match self {
            Self::Field(field) | Self::Proof(field) => field.agrees(inbound),
            Self::All(several) | Self::First(several) => several.iter().all(|one| one.agrees(inbound)),
            Self::Each(_) | Self::BodyDigest | Self::Unique => true,
        }
    }

    /// The text; `None` when there is none, or not all of it.
    fn text<'r>(&'r self, inbound: &'r Inbound, values: &'r Values) -> Result<Option<Cow<'r, str>>, NotText> {
        match self {
            Self::Field(field) => Ok(field.text(inbound, values)?.map(Cow::Borrowed)),
            Self::Proof(field) => {
                let text = field.text(inbound, values)?.filter(|text| !text.is_empty());
                Ok(text.map(|text| Cow::Owned(digest(text.as_bytes()))))
            }
            Self::First(several) => {
                for one in several {
                    if let Some(text) = one.text(inbound, values)?.filter(|text| !text.is_empty()) {
                        return Ok(Some(text));
                    }
                }
                Ok(None)
            }
            Self::All(several) => {
                let mut texts = Vec::with_capacity(several.len());
                for one in several {
                    let text = one.text(inbound, values)?.filter(|text| !text.is_empty());
                    match text {
                        Some(text) if text.contains(char::is_control) => return Err(NotText),
                        Some(text) => texts.push(text),
                        None => return Ok(None),
                    }
                }
                Ok(Some(Cow::Owned(texts.join(JOINT))))
            }
            Self::Each(fields) => Ok(each(fields, values)?.map(Cow::Owned)),
            Self::BodyDigest => Ok(Some(Cow::Owned(digest(inbound.signed())))),
            Self::Unique => {
                let mut random = [0_u8; 16];
                getrandom::fill(&mut random).map_err(|_unavailable| NotText)?;
                Ok(Some(Cow::Owned(const_hex::encode(random))))
            }
        }
    }
}

/// The SHA-256 of what all items of a list say, in whatever order they are; `None` when one of them says nothing.
fn each(fields: &[Field], values: &Values) -> Result<Option<String>, NotText> {
    let mut items: Vec<Vec<&str>> = Vec::new();
    for field in fields {
        let Some(texts) = field.each(values)? else { return Ok(None) };
        items.resize_with(texts.len(), Vec::new);
        items.iter_mut().zip(texts).for_each(|(item, text)| item.push(text));
    }
    items.sort_unstable();
    let mut hash = Sha256::new();
    for text in items.into_iter().flatten() {
        // Each is told where it ends by its length, so that no other texts give the same bytes.
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(text);
    }
    Ok(Some(const_hex::encode(hash.finalize())))
}

fn digest(bytes: &[u8]) -> String {
    const_hex::encode(mac::hash(Hash::Sha256, &[bytes]))
}

/// A text with `between` its parts, if it has several.
fn parted<'t>(text: &'t str, between: &str) -> Cow<'t, str> {
    if text.contains(JOINT) { Cow::Owned(text.replace(JOINT, between)) } else { Cow::Borrowed(text) }
}

/// A text that can stand in a header of its own.
fn value(text: &str, max: usize) -> Option<HeaderValue> {
    // Of the control characters that are ASCII, a header takes the tab alone.
    let control = text.contains('\t') || !text.is_ascii() && text.contains(char::is_control);
    if text.is_empty() || text.len() > max || control {
        return None;
    }
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

impl Ignored {
    /// Both keys.
    pub fn iter(self) -> impl Iterator<Item = Key> + Clone {
        [self.any, self.typed].into_iter()
    }

    fn new(source: &str, Key(content): Key, kind: Option<&HeaderValue>) -> Self {
        let kind = kind.map(HeaderValue::as_bytes).unwrap_or_default();
        let any = Key::new(source, b"ignored", &[&content]);
        Self { any, typed: Key::new(source, b"ignored+type", &[&content, kind]) }
    }
}

impl Key {
    /// All parts but the last are of one length.
    fn new(source: &str, what: &[u8], parts: &[&[u8]]) -> Self {
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
