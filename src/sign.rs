//! Makes requests as a provider would: the counterpart of [`crate::auth`], driven by the same profiles.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Uri;
use serde_json::Value;
use serde_json::json;

use crate::auth::KeySets;
use crate::auth::Material;
use crate::auth::Signature;
use crate::body::Inbound;
use crate::field::Wants;
use crate::json::Pointer;
use crate::params::Params;
use crate::profile::Holder;
use crate::profile::Piece;
use crate::profile::Place;
use crate::profile::Profile;
use crate::profile::Reference;
use crate::profile::Scheme;
use crate::profile::Template;
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
    draft.refer(&profile.event.id, id)?;
    if let Some(kind_at) = &profile.event.kind {
        draft.refer(kind_at, kind)?;
    }
    let time = profile.timestamp.as_ref().map(|timestamp| (timestamp, timestamp.format.write(at)));
    if let Some((timestamp, time)) = &time {
        draft.set(&timestamp.from, time)?;
    }
    let scheme = profile.schemes().next().ok_or("the profile names no scheme")?;
    match (scheme, proof) {
        (Scheme::Signature(said), Proof::Secret(secret)) => {
            // Whatever else is signed has to be there.
            for place in said.signed.iter().flat_map(Template::walk).filter_map(Piece::place) {
                if !draft.has(place) {
                    draft.set(place, id)?;
                }
            }
            let (params, mut wants, mut key_sets) = (Params::new(), Wants::default(), KeySets::new());
            let secrets = std::slice::from_ref(secret);
            let mut material = Material::new(secrets, &params, profile.keys(), &mut wants, &mut key_sets);
            let signature = Signature::new(said, &mut material).map_err(|(key, message)| format!("{key} {message}"))?;
            if let Some((_, message)) = material.unusable().next() {
                return Err(format!("the secret {message}"));
            }
            let inbound =
                Inbound::recorded(Method::POST, Uri::from_static("/"), draft.headers.clone(), draft.bytes(), at);
            let mut values = wants.read(&inbound).map_err(|error| error.to_string())?;
            wants.read_json(&inbound, &mut values, false).map_err(|error| error.to_string())?;
            let time = time.as_ref().map(|(_, time)| time.as_str());
            let signed = signature.signed(&inbound, &values, time).next().ok_or("nothing is signed")?;
            let text = signature.sign(&signed.map_err(|error| error.to_string())?).ok_or("the key cannot sign")?;
            draft.set(&said.place.place, &text)?;
        }
        (Scheme::Jwt(_), Proof::Bearer(token)) => {
            draft.header(&http::header::AUTHORIZATION, &format!("Bearer {token}"))?;
        }
        (_, Proof::Bearer(_)) => return Err("this profile is not signed with a token".to_owned()),
        (_, Proof::Secret(_)) => return Err("this profile is not signed with a secret".to_owned()),
    }
    Ok(Sample { body: draft.bytes(), headers: draft.headers })
}

impl Draft {
    fn bytes(&self) -> Bytes {
        self.body.to_string().into()
    }

    fn has(&self, place: &Place) -> bool {
        match &place.holder {
            Holder::Header(names) => names.iter().any(|name| self.headers.contains_key(name)),
            Holder::Json(pointer) => self.body.pointer(&pointer.to_string()).is_some(),
            Holder::Numbered(_) | Holder::Form(_) | Holder::Query(_) => false,
        }
    }

    fn refer(&mut self, reference: &Reference, text: &str) -> Result<(), String> {
        match reference {
            Reference::Place(place) => self.set(place, text),
            Reference::All(several) => several.iter().try_for_each(|one| self.refer(one, text)),
            Reference::First(several) => several.first().map_or(Ok(()), |one| self.refer(one, text)),
            Reference::BodyDigest | Reference::Unique => Ok(()),
        }
    }

    fn set(&mut self, place: &Place, text: &str) -> Result<(), String> {
        match (&place.holder, &place.item) {
            (Holder::Header(names), item) => {
                let name = names.first().ok_or("a place has no name")?;
                let Some(item) = item else { return self.header(name, text) };
                let entry = format!("{}{}{text}", item.key, item.assign);
                let list = match self.headers.get(name).and_then(|list| list.to_str().ok()) {
                    Some(before) => format!("{before}{}{entry}", item.separator),
                    None => entry,
                };
                self.header(name, &list)
            }
            (Holder::Json(pointer), _) => self.field(pointer, text),
            (Holder::Numbered(_) | Holder::Form(_) | Holder::Query(_), _) => {
                Err(format!("nothing is made up for the {place}"))
            }
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
