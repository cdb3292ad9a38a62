//! Reads the identity of a verified request: its event id, its type, and the keys under which it is remembered.

mod reference;

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;

use self::reference::Reference;
use self::reference::parted;
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

/// Longest event id, in bytes.
pub const MAX_ID: usize = 512;
/// Longest event type, in bytes.
const MAX_KIND: usize = 256;

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

impl Identity {
    /// As the profile says, but for its replay guard, which is given; with `notes_ignored`, events whose type is not
    /// wanted are recognised when they come as another type.
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
    pub fn identify(&self, source: &str, verified: Verified) -> Result<Event, Box<NotIdentified>> {
        let (inbound, values) = (verified.inbound(), verified.values());
        let (id, key) = match self.id(source, inbound, values) {
            Ok(known) => known,
            Err(why) => return Err(Box::new(NotIdentified { why, inbound: verified.into_inbound() })),
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
    pub fn read(&self, inbound: &Inbound, values: &Extracted) -> Result<String, Unidentified> {
        let (id, _) = self.id("", inbound, values)?;
        Ok(String::from_utf8_lossy(id.as_bytes()).into_owned())
    }

    fn id(&self, source: &str, inbound: &Inbound, values: &Extracted) -> Result<(HeaderValue, Key), Unidentified> {
        let id = self.id.text(inbound, values).map_err(|_not_text| Unidentified::Invalid)?;
        let id = id.ok_or(Unidentified::Missing)?;
        let shown = match &id {
            Cow::Owned(joined) => value(&parted(joined, ":"), MAX_ID),
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
    /// What it is remembered under.
    pub keys: Keys,
    /// How far ahead of now its signed time is, if at all; nothing where no time is signed.
    pub ahead: Option<Duration>,
    /// What it has in common with events that are delivered before and after it.
    pub lane: Option<Lane>,
}

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
pub struct NotIdentified {
    /// Why.
    pub why: Unidentified,
    /// The request.
    pub inbound: Inbound,
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
