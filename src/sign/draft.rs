//! A request that is being composed: sets texts at the locations of a profile, without changing anything else.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::header;
use serde_json::Value;

use super::body_edit;
use crate::base::time::Moment;
use crate::extract::mac;
use crate::extract::params;
use crate::extract::params::Params;
use crate::http::inbound::Inbound;
use crate::profile::Carrier;
use crate::profile::Hash;
use crate::profile::Location;
use crate::profile::Profile;

/// A request that is being composed.
#[derive(Debug, Clone)]
pub(super) struct Draft<'d> {
    pub(super) headers: HeaderMap,
    pub(super) query: Option<String>,
    pub(super) body: Bytes,
    /// Whether the body was given, so that only proofs are set in it.
    given: bool,
    params: &'d Params,
}

impl<'d> Draft<'d> {
    /// The profile's sample, with this body instead of the sample's if there is one.
    pub(super) fn new(
        profile: &Profile,
        params: &'d Params,
        body: Option<&Bytes>,
        query: Option<&str>,
    ) -> Result<Self, String> {
        let sample = &profile.sample;
        let queries: Vec<_> =
            query.into_iter().chain(sample.query.as_deref()).filter(|text| !text.is_empty()).collect();
        let empty = if in_form(profile) { "" } else { "{}" };
        let mut draft = Self {
            headers: HeaderMap::new(),
            query: (!queries.is_empty()).then(|| queries.join("&")),
            given: body.is_some(),
            body: match (body, &sample.body) {
                (Some(body), _) => body.clone(),
                (None, Some(text)) => Bytes::from(text.clone()),
                (None, None) => Bytes::from_static(empty.as_bytes()),
            },
            params,
        };
        let content_type = if in_form(profile) { "application/x-www-form-urlencoded" } else { "application/json" };
        draft.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        for (name, text) in &sample.headers {
            let name = HeaderName::try_from(name).map_err(|_bad| format!("{name:?} is not a header name"))?;
            draft.header(name, text)?;
        }
        Ok(draft)
    }

    /// Whether the value at the location must not be changed.
    pub(super) fn is_fixed(&self, location: &Location) -> bool {
        self.given && location.is_in_body()
    }

    /// Whether the body was given, so that only proofs may be set in it.
    pub(super) fn is_given(&self) -> bool {
        self.given
    }

    /// Whether the location has a value other than `null`. Always `false` for an entry of a list.
    pub(super) fn has(&self, location: &Location) -> bool {
        let has_carrier = match &location.carrier {
            Carrier::Header(_) | Carrier::Numbered(_) => self.list(&location.carrier).is_some(),
            Carrier::Json(_) => self.json(location).is_some_and(|value| !value.is_null()),
            Carrier::Form(name) => body_edit::pair_value(&self.text(), name).is_some(),
            Carrier::Query(name) => body_edit::pair_value(self.query.as_deref().unwrap_or_default(), name).is_some(),
        };
        has_carrier && location.item.is_none()
    }

    /// Whether the location is a number in the JSON body.
    pub(super) fn is_number(&self, location: &Location) -> bool {
        self.json(location).is_some_and(|value| value.is_number())
    }

    /// A text derived from `id`, with the length of the text in the JSON body at the location.
    pub(super) fn replacement(&self, location: &Location, id: &str) -> String {
        let length = self.json(location).and_then(|value| value.as_str().map(str::len));
        let digest = const_hex::encode(mac::hash(Hash::Sha256, &[id.as_bytes()]));
        digest.chars().cycle().take(length.unwrap_or(digest.len())).collect()
    }

    /// Sets a text at a location.
    ///
    /// # Errors
    /// It is in a body that was given, or cannot be set.
    pub(super) fn set(&mut self, location: &Location, text: &str) -> Result<(), String> {
        if self.is_fixed(location) {
            return Err(format!("the body that was given stays as it is, and so does the {location}"));
        }
        self.prove(location, text)
    }

    /// Sets a proof at its location, also in a body that was given.
    pub(super) fn prove(&mut self, location: &Location, text: &str) -> Result<(), String> {
        let list = location.item.as_ref().map(|item| {
            let key = params::fill(&item.key, self.params);
            let entry = format!("{key}{}{text}", item.assign);
            let has_key =
                |entry: &str| entry.trim_matches(' ').split_once(item.assign).is_some_and(|(known, _)| known == key);
            let before = self.list(&location.carrier).unwrap_or_default();
            let others = before.split(item.separator).filter(|entry| !entry.is_empty() && !has_key(entry));
            others.chain([entry.as_str()]).collect::<Vec<_>>().join(&item.separator.to_string())
        });
        let text = list.as_deref().unwrap_or(text);
        match &location.carrier {
            Carrier::Header(names) => {
                let name = self.header_name(names).ok_or("a place has no name")?;
                self.header(name, text)
            }
            Carrier::Numbered(family) => {
                let name = HeaderName::try_from(format!("{family}-1")).map_err(|error| error.to_string())?;
                self.header(name, text)
            }
            Carrier::Json(pointer) => {
                let body = std::str::from_utf8(&self.body).map_err(|error| format!("the body is not JSON: {error}"))?;
                let body = body_edit::set_json(body, pointer.tokens(), text)
                    .map_err(|why| format!("nothing can be set in the body at {pointer}: {why}"))?;
                self.body = body.into();
                Ok(())
            }
            Carrier::Form(name) => {
                self.body = body_edit::set_pair(&self.text(), name, text).into();
                Ok(())
            }
            Carrier::Query(name) => {
                self.query = Some(body_edit::set_pair(self.query.as_deref().unwrap_or_default(), name, text));
                Ok(())
            }
        }
    }

    /// Adds a member or field to the body, so that it differs from that of every other event. Does nothing if the body
    /// is neither JSON nor a form.
    pub(super) fn add_marker(&mut self, name: &str, text: &str) {
        let body = self.text();
        let tokens = |tokens: &[&str]| tokens.iter().map(|token| (*token).to_owned()).collect::<Vec<_>>();
        let marked = match body.trim_start().bytes().next() {
            Some(b'{') => body_edit::set_json(&body, &tokens(&[name]), text).ok(),
            Some(b'[') => body_edit::set_json(&body, &tokens(&["0", name]), text).ok(),
            Some(_) if body.contains('=') => Some(body_edit::set_pair(&body, name, text)),
            _ => None,
        };
        if let Some(marked) = marked {
            self.body = marked.into();
        }
    }

    /// The request as a gateway reads it.
    pub(super) fn inbound(&self, at: Moment) -> Result<Inbound, String> {
        let target = match &self.query {
            Some(query) => format!("/?{query}"),
            None => "/".to_owned(),
        };
        let target: Uri = target.parse().map_err(|error| format!("the query cannot be sent: {error}"))?;
        Ok(Inbound::recorded(Method::POST, target, self.headers.clone(), self.body.clone(), at))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self, location: &Location) -> Option<Value> {
        let Carrier::Json(pointer) = &location.carrier else { return None };
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        body.pointer(&pointer.to_string().replace("/*", "/0")).cloned()
    }

    /// The text of the carrier, which is a list.
    fn list(&self, carrier: &Carrier) -> Option<String> {
        match carrier {
            Carrier::Header(names) => {
                let value = names.iter().find_map(|name| self.headers.get(name))?;
                value.to_str().ok().map(str::to_owned)
            }
            Carrier::Numbered(family) => self.headers.get(format!("{family}-1"))?.to_str().ok().map(str::to_owned),
            Carrier::Json(_) => {
                let location = Location { carrier: carrier.clone(), item: None };
                self.json(&location).and_then(|value| value.as_str().map(str::to_owned))
            }
            Carrier::Form(name) => body_edit::pair_value(&self.text(), name).map(|text| text.into_owned()),
            Carrier::Query(name) => {
                body_edit::pair_value(self.query.as_deref().unwrap_or_default(), name).map(|text| text.into_owned())
            }
        }
    }

    /// The name of the header that is present, or else the first.
    fn header_name(&self, names: &[HeaderName]) -> Option<HeaderName> {
        names.iter().find(|name| self.headers.contains_key(*name)).or_else(|| names.first()).cloned()
    }

    fn header(&mut self, name: HeaderName, text: &str) -> Result<(), String> {
        let value = HeaderValue::from_str(text)
            .map_err(|_bad| format!("what has to stand in the header {name} has characters that no header can have"))?;
        self.headers.insert(name, value);
        Ok(())
    }
}

/// Whether the profile reads fields of forms and no JSON.
fn in_form(profile: &Profile) -> bool {
    let event = &profile.event;
    let references = std::iter::once(&event.id).chain(&event.kind).flat_map(crate::profile::Reference::locations);
    let proofs = profile.schemes().filter_map(crate::profile::Scheme::location);
    let locations: Vec<_> = references.chain(proofs).chain(profile.require.iter().map(|spec| &spec.location)).collect();
    locations.iter().any(|location| matches!(location.carrier, Carrier::Form(_)))
        && !locations.iter().any(|location| location.is_json())
}
