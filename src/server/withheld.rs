//! Masks the credentials of providers in the events that the API shows. Messages are stored without known credential
//! headers; a body is stored as it was signed, so its credentials are masked here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::Uri;

use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::http::content_coding::Coding;
use crate::http::inbound::Inbound;
use crate::message::Message;
use crate::profile::Credentials;
use crate::source::Source;

/// Most different credentials that are masked in one body.
const MAX_TEXTS: usize = 16;
/// Replaces a credential.
const MASK: &str = "***";

/// The locations of the credentials of all sources.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    sources: HashMap<String, CredentialLocations>,
    /// For sources that are no longer configured: the locations are unknown.
    unknown: CredentialLocations,
}

/// The locations of the credentials of one source.
#[derive(Debug, Default)]
pub(super) struct CredentialLocations {
    credentials: Credentials,
    plan: ExtractionPlan,
    fields: Vec<Field>,
    /// Whether the locations are known.
    is_known: bool,
}

impl Withheld {
    pub(super) fn of_sources(sources: &[Arc<Source>]) -> Self {
        let named = |source: &Arc<Source>| {
            (source.name.as_str().to_owned(), CredentialLocations::new(source.credentials.clone()))
        };
        Self { sources: sources.iter().map(named).collect(), unknown: CredentialLocations::default() }
    }

    /// The locations of a source, which may be no longer configured.
    pub(super) fn for_source(&self, source: &str) -> &CredentialLocations {
        self.sources.get(source).unwrap_or(&self.unknown)
    }
}

impl CredentialLocations {
    fn new(credentials: Credentials) -> Self {
        let mut plan = ExtractionPlan::default();
        let in_body = credentials.locations.iter().filter(|location| location.is_in_body());
        let fields = in_body.map(|location| Field::new(location, &mut plan)).collect();
        Self { credentials, plan, fields, is_known: true }
    }

    /// Whether a header is not shown. It may have been stored when the profile did not yet call it a credential.
    pub(super) fn is_header(&self, name: &HeaderName) -> bool {
        self.credentials.is_header(name)
    }

    /// The body with its credentials masked; `None` when they cannot be masked reliably.
    pub(super) fn body<'m>(&self, message: &'m Message) -> Option<Cow<'m, [u8]>> {
        if !self.is_known {
            return None;
        }
        if self.fields.is_empty() {
            return Some(Cow::Borrowed(&message.body));
        }
        // A compressed body cannot be masked.
        if Coding::from_headers(&message.headers.iter().cloned().collect()) != Ok(None) {
            return None;
        }
        let mut text = std::str::from_utf8(&message.body).ok()?.to_owned();
        for secret in self.texts(message, message.body.clone())? {
            let in_json = serde_json::Value::from(secret.as_str()).to_string();
            let in_form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let in_json = in_json.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&secret);
            for spelling in [secret.as_str(), in_json, &in_form] {
                text = text.replace(spelling, MASK);
            }
        }
        // A credential in another spelling, such as `\u0061`, is still there: the body is not shown then.
        let masked = Bytes::from(text);
        let remaining = self.texts(message, masked.clone())?;
        remaining.iter().all(|text| text == MASK).then(|| Cow::Owned(masked.to_vec()))
    }

    /// The texts at the credential locations of a body, without repetitions.
    fn texts(&self, message: &Message, body: Bytes) -> Option<Vec<String>> {
        let inbound =
            Inbound::recorded(message.method.clone(), Uri::default(), HeaderMap::new(), body, message.received_at);
        let mut values = self.plan.read(&inbound);
        self.plan.read_json(&inbound, &mut values, false).ok()?;
        let mut all = Vec::new();
        for field in &self.fields {
            let texts = field.texts(&inbound, &values).ok()?.into_iter().flatten();
            all.extend(texts.filter(|text| !text.is_empty()).map(str::to_owned));
        }
        all.sort_unstable();
        all.dedup();
        (all.len() <= MAX_TEXTS).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::message::Headers;
    use crate::profile::Profile;

    fn shown(from: &str, body: &str) -> Option<String> {
        coded(from, body, Headers::new())
    }

    fn coded(from: &str, body: &str, headers: Headers) -> Option<String> {
        let profile = format!("title = \"Own\"\n[auth.token]\nfrom = {from}\n[event]\nid = {{ unique = true }}\n");
        let profile = Profile::parse(&profile).unwrap_or_else(|wrong| panic!("{wrong}"));
        let message = Message { headers, body: Bytes::copy_from_slice(body.as_bytes()), ..Message::example() };
        let body = CredentialLocations::new(Credentials::of(&profile)).body(&message)?;
        Some(String::from_utf8(body.into_owned()).expect("text"))
    }

    #[test]
    fn a_credential_in_a_body_is_masked_however_it_is_written() {
        let json = "{ json = \"/value/*/state\" }";
        for (from, body, masked) in [
            (
                json,
                r#"{"value":[{"state":"hush","a": 1},{"state":"hush"}]}"#,
                r#"{"value":[{"state":"***","a": 1},{"state":"***"}]}"#,
            ),
            (json, r#"{"value":[{"state":"hu\"sh\\"}]}"#, r#"{"value":[{"state":"***"}]}"#),
            (json, r#"{"value":[{"state":""}]}"#, r#"{"value":[{"state":""}]}"#),
            ("{ form = \"token\" }", "token=hu%26sh+1&a=b", "token=***&a=b"),
            ("{ form = \"token\" }", "a=b", "a=b"),
            ("{ header = \"X-Token\" }", "hush", "hush"),
        ] {
            assert_eq!(shown(from, body).as_deref(), Some(masked), "{body}");
        }
    }

    #[test]
    fn no_compressed_body_is_shown_that_may_have_a_credential_in_it() {
        for (coding, json) in [("gzip", None), ("deflate", None), ("br", None), ("identity", Some("{}"))] {
            let headers = || vec![(http::header::CONTENT_ENCODING, HeaderValue::from_static(coding))];
            assert_eq!(coded("{ json = \"/state\" }", "{}", headers()).as_deref(), json, "{coding}");
            assert_eq!(coded("{ header = \"X-Token\" }", "{}", headers()).as_deref(), Some("{}"), "{coding}");
        }
    }

    #[test]
    fn a_body_whose_credential_cannot_be_found_is_not_shown() {
        let json = "{ json = \"/state\" }";
        let each = |number| format!("{{\"state\":\"s{number}\"}}");
        let many = format!("[{}]", (0..=MAX_TEXTS).map(each).collect::<Vec<_>>().join(","));
        for (from, body) in [
            (json, r#"{"state":"h\u0075sh"}"#),
            (json, r#"{"state":"hush""#),
            (json, r#"{"state":["hush"]}"#),
            (json, r#"{"state":12345}"#),
            (json, "state=hush"),
            ("{ form = \"token\" }", "token=h%75sh"),
            ("{ form = \"token\" }", "token=a&token=b"),
            ("{ json = \"/*/state\" }", &many),
        ] {
            assert_eq!(shown(from, body), None, "{body}");
        }
    }
}
