//! Which parts of a request are credentials: secrets that let anybody who reads them send other requests.

use std::borrow::Cow;

use http::HeaderName;
use http::header;

use super::Carrier;
use super::Location;
use super::Profile;
use super::Scheme;
use crate::base::query::Names;

/// Headers that may have the address of the request, with the credentials in its query: those of proxies, and
/// `Referer`.
const ADDRESSES: [HeaderName; 5] = [
    header::REFERER,
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-original-uri"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// The credentials of one provider's requests.
#[derive(Debug, Clone)]
pub struct Credentials {
    headers: Vec<HeaderName>,
    /// The names before the number of headers such as `NAME-1`.
    numbered: Vec<HeaderName>,
    /// The locations in the query or in the body. The body is delivered as it was signed, with them.
    pub locations: Vec<Location>,
    /// The names of the locations in the query.
    query: Names,
}

impl Default for Credentials {
    /// The credentials of HTTP: user and password, bearer tokens, cookies.
    fn default() -> Self {
        Self {
            headers: vec![header::AUTHORIZATION, header::COOKIE],
            numbered: Vec::new(),
            locations: Vec::new(),
            query: Names::default(),
        }
    }
}

impl Credentials {
    /// The credentials of a profile, whether a source has a secret for them or not. Signatures are no credentials: they
    /// are valid only for the bytes that they cover, and a destination may verify them again.
    pub fn of(profile: &Profile) -> Self {
        let (secrets, signatures): (Vec<_>, Vec<_>) = profile.schemes().partition(|scheme| sends_secret(scheme));
        let signed = |name: &HeaderName| {
            let holds =
                |scheme: &&Scheme| matches!(scheme.proof().carrier, Carrier::Header(names) if names.contains(name));
            signatures.iter().any(holds)
        };
        let mut all = Self::default();
        all.headers.retain(|name| !signed(name));
        for location in secrets.into_iter().map(Scheme::proof) {
            match location.carrier {
                Carrier::Header(names) => all.headers.extend(names),
                Carrier::Numbered(family) => all.numbered.push(family),
                Carrier::Query(_) => {
                    all.headers.extend(ADDRESSES);
                    all.locations.push(location);
                }
                Carrier::Json(_) | Carrier::Form(_) => all.locations.push(location),
            }
        }
        let name = |location: &Location| match &location.carrier {
            Carrier::Query(name) => Some(name.bytes().collect()),
            Carrier::Header(_) | Carrier::Numbered(_) | Carrier::Json(_) | Carrier::Form(_) => None,
        };
        all.query = Names::new(all.locations.iter().filter_map(name));
        all
    }

    /// Path and query of a request without the parameters that are credentials.
    pub fn remove_from<'t>(&self, target: &'t str) -> Cow<'t, str> {
        if self.query.is_empty() {
            return Cow::Borrowed(target);
        }
        let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
        match self.query.remove_from(query) {
            Cow::Borrowed(_) => Cow::Borrowed(target),
            Cow::Owned(rest) if rest.is_empty() => Cow::Borrowed(path),
            Cow::Owned(rest) => Cow::Owned(format!("{path}?{rest}")),
        }
    }

    /// Whether a header is a credential, or may have one in it.
    pub fn is_header(&self, name: &HeaderName) -> bool {
        let is_numbered = |family: &HeaderName| {
            let number = name.as_str().strip_prefix(family.as_str()).and_then(|rest| rest.strip_prefix('-'));
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        self.headers.contains(name) || self.numbered.iter().any(is_numbered)
    }
}

/// Whether the proof is valid for any request, and not only for the bytes of one.
fn sends_secret(scheme: &Scheme) -> bool {
    match scheme {
        Scheme::Token(_) | Scheme::Basic(_) => true,
        Scheme::Jwt(jwt) => jwt.body.is_none(),
        Scheme::Signature(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profiles;

    #[test]
    fn what_is_sent_along_is_a_credential_and_signatures_are_none() {
        let profiles = Profiles::shipped();
        let of = |name: &str| Credentials::of(profiles.get(name).expect("a profile"));
        let is = |name: &str, header: &'static str| of(name).is_header(&HeaderName::from_static(header));
        for (name, header) in [
            ("gitlab", "x-gitlab-token"),
            ("telegram", "x-telegram-bot-api-secret-token"),
            ("azure-devops", "authorization"),
            ("adyen", "authorization"),
            ("google-pubsub", "authorization"),
            ("github", "authorization"),
            ("github", "cookie"),
            ("azure-event-grid", "x-original-uri"),
        ] {
            assert!(is(name, header), "{name} {header}");
        }
        for (name, header) in
            [("github", "x-hub-signature-256"), ("plaid", "plaid-verification"), ("gitlab", "webhook-signature")]
        {
            assert!(!is(name, header), "{name} {header}");
        }
        assert_eq!(of("microsoft-graph").locations.len(), 1);
    }

    #[test]
    fn a_header_that_holds_a_signature_stays() {
        let profile =
            |scheme: &str| Profile::parse(&format!("title = \"Own\"\n{scheme}[event]\nid = {{ unique = true }}\n"));
        let of = |scheme: &str| Credentials::of(&profile(scheme).unwrap_or_else(|wrong| panic!("{wrong}")));
        let hmac =
            of("[auth.hmac]\nsignature = { header = \"Authorization\", prefix = \"HMAC \", encoding = \"hex\" }\n\
                       signed = \"{body}\"\n");
        assert!(!hmac.is_header(&header::AUTHORIZATION) && hmac.is_header(&header::COOKIE));
        let token = of("[auth.token]\nfrom = { header = \"X-Part\", numbered = true }\n");
        let is = |name| token.is_header(&HeaderName::from_static(name));
        assert!(is("x-part-1") && is("x-part-20") && !is("x-part-a") && !is("x-part"));
    }
}
