//! Reads the identity of a verified request: the event's id and type, the keys of its dedupe records, and its lane.

mod reference;

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;

use self::reference::Reference;
use self::reference::with_separator;
use crate::extract::field::Extracted;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::extract::params::Params;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::Profile;
use crate::profile::ReplayGuard;
use crate::verify::Verified;
use crate::verify::event_key::Ignored;
use crate::verify::event_key::Key;
use crate::verify::event_key::Keys;
use crate::verify::event_key::Lane;

/// The most bytes of an event id.
pub const MAX_ID: usize = 512;
/// The most bytes of an event type.
const MAX_KIND: usize = 256;

/// How the identity of a source's events is read.
#[derive(Debug)]
pub struct Identity {
    id: Reference,
    kind: Option<Reference>,
    nonce: Option<Field>,
    guard: ReplayGuard,
    /// Whether dedupe records are written for events that are ignored because of their type, so that a replay with
    /// another type is recognised.
    notes_ignored: bool,
    /// The ordering key.
    order: Option<Field>,
}

impl Identity {
    /// Compiles `[event]` of a profile, with this replay guard instead of the profile's.
    pub fn new(
        profile: &Profile,
        guard: ReplayGuard,
        notes_ignored: bool,
        params: &Params,
        plan: &mut ExtractionPlan,
    ) -> Self {
        let event = &profile.event;
        let proofs: Vec<_> = profile.schemes().map(profile::Scheme::proof).collect();
        Self {
            id: Reference::new(&event.id, &proofs, params, plan),
            kind: event.kind.as_ref().map(|kind| Reference::new(kind, &proofs, params, plan)),
            nonce: event.nonce.as_ref().map(|nonce| Field::new(nonce, plan).with_params(params)),
            guard,
            notes_ignored,
            order: None,
        }
    }

    /// The name of what recognises a replay under another id or as another type.
    pub fn guard_name(&self) -> &'static str {
        match (&self.nonce, self.notes_ignored) {
            (Some(_), _) => "nonce",
            // With `notes_ignored`, the guard is the content, or the signed id needs none.
            (None, true) => ReplayGuard::Content.name(),
            (None, false) => self.guard.name(),
        }
    }

    /// Sets the ordering key.
    pub fn set_order(&mut self, order: Field) {
        self.order = Some(order);
    }

    /// The headers that it reads, each of which may occur only once.
    pub fn headers(&self) -> Vec<HeaderName> {
        let mut headers = self.id.headers();
        headers.extend(self.kind.iter().flat_map(Reference::headers));
        headers.extend(self.nonce.iter().flat_map(Field::headers));
        headers
    }

    /// Reads the identity of a verified request.
    ///
    /// # Errors
    /// [`Unidentified`] when it has no usable id. A missing or unusable type is no error.
    pub fn identify(&self, source: &str, verified: Verified) -> Result<Event, Box<NotIdentified>> {
        let (inbound, values) = (verified.inbound(), verified.values());
        let (id, key) = match self.id(source, inbound, values) {
            Ok(id) => id,
            Err(why) => return Err(Box::new(NotIdentified { why, inbound: verified.into_inbound() })),
        };
        let kind = self.kind.as_ref().filter(|kind| kind.headers_agree(inbound));
        let kind = kind.and_then(|kind| kind.text(inbound, values).ok().flatten());
        let kind = kind.and_then(|kind| value(&with_separator(&kind, "."), MAX_KIND));
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

    /// Reads only the id, in the form for people.
    ///
    /// # Errors
    /// [`Unidentified`] when there is no usable one.
    pub fn read(&self, inbound: &Inbound, values: &Extracted) -> Result<String, Unidentified> {
        let (id, _) = self.id("", inbound, values)?;
        Ok(String::from_utf8_lossy(id.as_bytes()).into_owned())
    }

    fn id(&self, source: &str, inbound: &Inbound, values: &Extracted) -> Result<(HeaderValue, Key), Unidentified> {
        let id = self.id.text(inbound, values).map_err(|_not_text| Unidentified::Invalid)?;
        let id = id.ok_or(Unidentified::Missing)?;
        let shown = match &id {
            Cow::Owned(joined) => value(&with_separator(joined, ":"), MAX_ID),
            Cow::Borrowed(text) => value(text, MAX_ID),
        };
        Ok((shown.ok_or(Unidentified::Invalid)?, Key::new(source, b"id", &[id.as_bytes()])))
    }
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
    /// The keys of its dedupe records.
    pub keys: Keys,
    /// How far in the future its signed time is; zero when it is not. `None` where no time is signed.
    pub ahead: Option<Duration>,
    /// Its lane, where the source has an ordering key and the event a value of it.
    pub lane: Option<Lane>,
}

/// Why a verified request has no usable event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// There is no event id at the profile's location.
    #[error("there is no event id")]
    Missing,
    /// It is neither a number nor a text of 1 to [`MAX_ID`] bytes without control characters.
    #[error("the event id is neither a number nor a text of 1 to {MAX_ID} bytes without control characters")]
    Invalid,
}

/// A verified request without a usable event id.
#[derive(Debug)]
pub struct NotIdentified {
    /// Why it has none.
    pub why: Unidentified,
    /// The request.
    pub inbound: Inbound,
}

/// A text as the value of a header, without control characters.
fn value(text: &str, max: usize) -> Option<HeaderValue> {
    // `HeaderValue` accepts the tab and the control characters beyond ASCII, and refuses the others.
    let control = text.contains('\t') || !text.is_ascii() && text.contains(char::is_control);
    if text.is_empty() || text.len() > max || control {
        return None;
    }
    HeaderValue::from_bytes(text.as_bytes()).ok()
}
