//! Makes requests as a provider would: the counterpart of [`crate::auth`], driven by the same profiles.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use serde_json::Value;
use serde_json::json;

use crate::auth::Hmac;
use crate::body::Inbound;
use crate::json::Pointer;
use crate::json::Pointers;
use crate::profile::Auth;
use crate::profile::Piece;
use crate::profile::Place;
use crate::profile::Profile;
use crate::secret::Secret;
use crate::time::Moment;

/// What proves a sample to be genuine.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'p> {
    /// A secret that the source knows, as its text.
    Secret(&'p Secret),
    /// A token that was signed elsewhere.
    Bearer(&'p str),
}

/// A request that a provider would send with `POST`.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A sample in the making: texts at their places.
struct Draft {
    headers: HeaderMap,
    body: Value,
}

/// Makes a signed event with this id and type, sent at this moment.
///
/// # Errors
/// What the profile asks for that cannot be made up.
pub fn sample(profile: &Profile, proof: Proof<'_>, id: &str, kind: &str, at: Moment) -> Result<Sample, String> {
    let mut draft = Draft { headers: HeaderMap::new(), body: json!({}) };
    draft.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    draft.set(&profile.event.id, id)?;
    if let Some(place) = &profile.event.kind {
        draft.set(place, kind)?;
    }
    let time = profile.timestamp.as_ref().map(|timestamp| (timestamp, timestamp.format.write(at)));
    if let Some((timestamp, time)) = &time {
        draft.set(&timestamp.from, time)?;
    }
    match (&profile.auth, proof) {
        (Auth::Hmac(said), Proof::Secret(secret)) => {
            // Whatever else is signed has to be there.
            for place in said.signed.pieces().iter().filter_map(Piece::place) {
                if !draft.has(place) {
                    draft.set(place, id)?;
                }
            }
            let mut pointers = Pointers::default();
            let hmac = Hmac::new(said, std::slice::from_ref(secret), &mut pointers)
                .map_err(|wrong| wrong.into_iter().map(|(_, message)| message).collect::<Vec<_>>().join("; "))?;
            let inbound = Inbound::recorded(Method::POST, draft.headers.clone(), draft.bytes(), at);
            let fields = pointers.extract(inbound.body()).map_err(|error| error.to_string())?;
            let time = time.as_ref().map(|(_, time)| time.as_str());
            let signed = hmac.signed(&inbound, &fields, time).map_err(|error| error.to_string())?;
            let signature = hmac.sign(&signed).ok_or("the key cannot sign")?;
            draft.set(&said.signature.place, &signature)?;
        }
        (Auth::Jwt(_), Proof::Bearer(token)) => {
            draft.header(&http::header::AUTHORIZATION, &format!("Bearer {token}"))?;
        }
        (Auth::Hmac(_), Proof::Bearer(_)) => return Err("this profile is signed with a secret".to_owned()),
        (Auth::Jwt(_), Proof::Secret(_)) => return Err("this profile is signed with a private key".to_owned()),
    }
    Ok(Sample { body: draft.bytes(), headers: draft.headers })
}

impl Draft {
    fn bytes(&self) -> Bytes {
        self.body.to_string().into()
    }

    fn has(&self, place: &Place) -> bool {
        match place {
            Place::Header(header) => self.headers.contains_key(&header.name),
            Place::Json(pointer) => self.body.pointer(&pointer.to_string()).is_some(),
        }
    }

    fn set(&mut self, place: &Place, text: &str) -> Result<(), String> {
        match place {
            Place::Header(header) => match &header.item {
                None => self.header(&header.name, text),
                Some(item) => {
                    let entry = format!("{}{}{text}", item.key, item.assign);
                    let list = match self.headers.get(&header.name).and_then(|list| list.to_str().ok()) {
                        Some(before) => format!("{before}{}{entry}", item.separator),
                        None => entry,
                    };
                    self.header(&header.name, &list)
                }
            },
            Place::Json(pointer) => self.field(pointer, text),
        }
    }

    fn header(&mut self, name: &HeaderName, text: &str) -> Result<(), String> {
        let value = HeaderValue::from_str(text).map_err(|_bad| format!("{text:?} cannot stand in a header"))?;
        self.headers.insert(name.clone(), value);
        Ok(())
    }

    /// Sets a text in the body, with the objects on the way to it.
    fn field(&mut self, pointer: &Pointer, text: &str) -> Result<(), String> {
        let mut at = &mut self.body;
        for token in pointer.tokens() {
            let Value::Object(object) = at else {
                return Err(format!("{pointer} leads through something that is no object"));
            };
            at = object.entry(token.clone()).or_insert_with(|| json!({}));
        }
        *at = Value::from(text);
        Ok(())
    }
}
