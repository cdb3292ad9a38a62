//! Makes requests as a provider would send them, for trials and tests: the counterpart of [`crate::verify`]. The signed
//! bytes come from the same profiles and templates that verification uses.

mod draft;
mod key;
mod event_identity;
mod body_edit;
mod token;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use jsonwebtoken::EncodingKey;

use crate::base::secret::Secret;
use crate::base::time::Moment;
use crate::extract::condition::Condition;
use crate::extract::field::Extracted;
use crate::extract::field::ExtractionPlan;
use crate::extract::params::Params;
use crate::extract::template::Context;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::Carrier;
use crate::profile::Combination;
use crate::profile::Location;
use crate::profile::Piece;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::profile::SignatureAlgorithm;
use crate::profile::Template;
use crate::verify;
use crate::verify::Failure;
use crate::verify::Freshness;
use crate::verify::KeyMaterial;
use crate::verify::KeySets;

use self::draft::Draft;

pub use key::Kind;
pub use key::PrivateKey;
pub use key::Public;

/// The request to make, and the keys to sign it with.
#[derive(Debug, Clone, Copy)]
pub struct Order<'o> {
    /// The provider's profile.
    pub profile: &'o Profile,
    /// The complete parameters of the profile.
    pub params: &'o Params,
    /// The secrets of the source.
    pub secrets: &'o [Secret],
    /// The private key whose public half the source has.
    pub key: Option<&'o PrivateKey>,
    /// The body, in which only proofs are set; the profile's sample when absent.
    pub body: Option<&'o Bytes>,
    /// The query of the address that it is sent to, without its question mark.
    pub query: Option<&'o str>,
    /// The event's id.
    pub id: Id<'o>,
    /// The event's type; the sample's when absent.
    pub kind: Option<&'o str>,
    /// The time of the request.
    pub at: Moment,
    /// The address of the key's certificate, for profiles whose requests have one.
    pub certificate_url: Option<&'o str>,
}

/// An event's id.
#[derive(Debug, Clone, Copy)]
pub enum Id<'o> {
    /// The id that the caller wants.
    Asked(&'o str),
    /// An id of these random bits, as a text or a number.
    Fresh(u64),
}

impl Id<'_> {
    fn text(self) -> String {
        match self {
            Self::Asked(text) => text.to_owned(),
            Self::Fresh(bits) => format!("evt_{bits:016x}"),
        }
    }

    /// The id as a number of at most 52 bits, which every JSON parser can represent (RFC 8259 section 6).
    fn number(self) -> String {
        match self {
            Self::Asked(text) => text.to_owned(),
            Self::Fresh(bits) => (bits >> 12).to_string(),
        }
    }
}

/// A signed request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The query of its target, without question mark.
    pub query: Option<String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The event's id; where the provider has none, the text that makes the event unique.
    pub id: String,
}

/// Makes a request.
///
/// # Errors
/// What is missing or does not fit, and what would be right.
pub fn request(order: &Order<'_>) -> Result<Request, String> {
    let signer = Signer::new(order)?;
    let mut draft = Draft::new(order.profile, order.params, order.body, order.query)?;
    let id = event_identity::set_identity(&mut draft, order)?;
    signer.satisfy(&signer.require, &mut draft, &id)?;
    let members = signer.choose(&mut draft, &id)?;
    event_identity::make_unique(
        &mut draft,
        order,
        &members.iter().map(|member| &member.spec.scheme).collect::<Vec<_>>(),
        &id,
    )?;
    // Secrets are set first, because signatures may cover them.
    let (signatures, secrets): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| matches!(member.spec.scheme, Scheme::Signature(_) | Scheme::Jwt(_)));
    for member in secrets.into_iter().chain(signatures) {
        signer.satisfy(&member.check, &mut draft, &id)?;
        signer.prove(member, &mut draft, &id)?;
    }
    Ok(Request { method: Method::POST, query: draft.query, headers: draft.headers, body: draft.body, id })
}

/// A compiled profile with the keys of one order.
struct Signer<'o> {
    order: &'o Order<'o>,
    members: Vec<Member<'o>>,
    require: Vec<CompiledCondition<'o>>,
    time: Option<Freshness>,
    plan: ExtractionPlan,
}

/// A compiled member of the profile's schemes.
struct Member<'o> {
    spec: &'o profile::Member,
    scheme: verify::Scheme,
    when: Vec<CompiledCondition<'o>>,
    check: Vec<CompiledCondition<'o>>,
}

/// A condition of the profile, and its compiled form.
type CompiledCondition<'o> = (&'o profile::Condition, Condition);

impl<'o> Signer<'o> {
    fn new(order: &'o Order<'o>) -> Result<Self, String> {
        let profile = order.profile;
        let (mut plan, mut key_sets) = (ExtractionPlan::default(), KeySets::new());
        plan.json_optional = profile.event.id.works_without_json();
        let mut material = KeyMaterial::new(order.secrets, order.params, profile.keys(), &mut plan, &mut key_sets);
        let schemes =
            profile.schemes().map(|spec| verify::Scheme::new(spec, &mut material)).collect::<Result<Vec<_>, _>>();
        let schemes = schemes.map_err(|(key, message)| format!("{key} {message}"))?;
        if let Some((at, message)) = material.unusable().next() {
            let number = if order.secrets.len() > 1 { format!(" number {}", at + 1) } else { String::new() };
            return Err(format!("the secret{number} {message}"));
        }
        let context = Context { params: order.params, signature: None, key: None };
        let mut compile = |spec: &'o [profile::Condition]| {
            spec.iter().map(|spec| (spec, Condition::new(spec, context, &mut plan))).collect::<Vec<_>>()
        };
        let members = profile.auth.members.iter().zip(schemes);
        let members = members
            .map(|(spec, scheme)| Member { spec, scheme, when: compile(&spec.when), check: compile(&spec.check) })
            .collect();
        let require = compile(&profile.require);
        let time = profile.timestamp.as_ref().map(|spec| Freshness::new(spec, None, &mut plan));
        Ok(Self { order, members, require, time, plan })
    }

    /// Whether there is a key for this member.
    fn has_key(&self, member: &Member<'_>) -> bool {
        match Kind::of(&member.spec.scheme) {
            Some(kind) => self.order.key.is_some_and(|key| key.kind() == kind),
            None => member.scheme.has_keys(),
        }
    }

    /// The members to prove the request with. Of alternatives, the first with a key whose conditions hold already, or
    /// else the first with a key whose conditions can be satisfied.
    fn choose(&self, draft: &mut Draft<'_>, id: &str) -> Result<Vec<&Member<'o>>, String> {
        let profile = self.order.profile;
        let (with, without): (Vec<_>, Vec<_>) = self.members.iter().partition(|member| self.has_key(member));
        if profile.auth.combination == Combination::All {
            return match without.into_iter().find(|member| !member.spec.optional) {
                Some(member) => Err(missing(member.spec, profile)),
                None => Ok(with),
            };
        }
        for member in &with {
            let parsed = self.parse(draft)?;
            if member.when.iter().all(|(_, condition)| condition.holds(&parsed.inbound, &parsed.values)) {
                return Ok(vec![member]);
            }
        }
        let mut why = self.members.first().map(|first| missing(first.spec, profile)).unwrap_or_default();
        for member in with {
            let mut trial = draft.clone();
            match self.satisfy(&member.when, &mut trial, id) {
                Ok(()) => {
                    *draft = trial;
                    return Ok(vec![member]);
                }
                Err(message) => why = message,
            }
        }
        Err(why)
    }

    /// Changes the draft so that the conditions hold.
    ///
    /// # Errors
    /// A condition that cannot be satisfied.
    fn satisfy(&self, conditions: &[CompiledCondition<'_>], draft: &mut Draft<'_>, id: &str) -> Result<(), String> {
        for (spec, condition) in conditions {
            let parsed = self.parse(draft)?;
            if condition.holds(&parsed.inbound, &parsed.values) {
                continue;
            }
            let text = match spec.test {
                profile::Test::Equals(_) => condition.expected(&parsed.inbound, &parsed.values),
                profile::Test::Present => Some(id.to_owned()),
                profile::Test::Absent | profile::Test::Without(_) | profile::Test::Length(..) => None,
            };
            let impossible = |why: &str| format!("the profile requires that {spec}{why}");
            match text {
                Some(text) => draft.set(&spec.location, &text).map_err(|why| impossible(&format!("; {why}")))?,
                None => return Err(impossible(", which does not hold")),
            }
        }
        Ok(())
    }

    /// Sets a member's proof.
    fn prove(&self, member: &Member<'_>, draft: &mut Draft<'_>, id: &str) -> Result<(), String> {
        match (&member.spec.scheme, &member.scheme) {
            (Scheme::Signature(spec), verify::Scheme::Signature(compiled)) => self.sign(spec, compiled, draft, id),
            (Scheme::Jwt(spec), _) => {
                let key = self.token_key(spec)?;
                let token = token::token(spec, &key, self.order.params, (id, &draft.body, self.order.at))?;
                let (location, prefix) = match &spec.from {
                    Some(from) => (&from.location, from.prefix.as_str()),
                    None => (&Location::header(http::header::AUTHORIZATION), "Bearer "),
                };
                draft.prove(location, &format!("{prefix}{token}"))
            }
            (Scheme::Token(spec), verify::Scheme::Token(compiled)) => {
                draft.prove(&spec.from.location, &compiled.present().ok_or("the secret is not text")?)
            }
            (Scheme::Basic(_), verify::Scheme::Token(compiled)) => {
                let credentials = compiled.present().ok_or("the secret is not text")?;
                draft.prove(&Location::header(http::header::AUTHORIZATION), &credentials)
            }
            (Scheme::Signature(_) | Scheme::Token(_) | Scheme::Basic(_), _) => {
                Err("two schemes were mixed up".to_owned())
            }
        }
    }

    fn sign(
        &self,
        spec: &profile::Signature,
        compiled: &verify::Signature,
        draft: &mut Draft<'_>,
        id: &str,
    ) -> Result<(), String> {
        if let SignatureAlgorithm::Certificate(_, certificate) = &spec.algorithm {
            let address =
                self.order.certificate_url.ok_or("requests of this provider name the address of a certificate")?;
            draft.prove(&certificate.from, address)?;
        }
        // Signed headers and parameters that are absent get the id.
        for location in spec.signed.iter().flat_map(Template::walk).filter_map(Piece::location) {
            if matches!(location.carrier, Carrier::Header(_) | Carrier::Query(_)) && !draft.has(location) {
                draft.set(location, id)?;
            }
        }
        let parsed = self.parse(draft)?;
        let stamp = self.time.as_ref().and_then(|time| time.read(&parsed.inbound, &parsed.values).ok());
        let time = stamp.as_ref().and_then(|stamp| stamp.text);
        let signed =
            compiled.signed(&parsed.inbound, &parsed.values, time).next().ok_or("the profile signs nothing")?;
        let signed = signed.map_err(|failure| self.describe_failure(&failure))?;
        let text = match self.order.key.filter(|_| !matches!(spec.algorithm, SignatureAlgorithm::Hmac(_))) {
            Some(key) => compiled.present(&key.sign(&spec.algorithm, &signed.concat())?),
            None => compiled.computed(&signed).next().ok_or("there is no key to sign with")?.1,
        };
        draft.prove(&spec.location.location, &text)
    }

    /// Why there is no text to sign.
    fn describe_failure(&self, failure: &Failure) -> String {
        match &self.order.profile.timestamp {
            Some(timestamp) if *failure == Failure::TimestampMissing => {
                format!("the time is signed, and there is none: the {} is missing", timestamp.from)
            }
            _ => "something that is signed is not one text".to_owned(),
        }
    }

    fn token_key(&self, spec: &profile::Jwt) -> Result<EncodingKey, String> {
        if let Some(key) = self.order.key.filter(|_| !spec.algorithm.is_symmetric()) {
            return key.for_tokens();
        }
        let secret = self.order.secrets.first().ok_or("there is no key to sign with")?;
        verify::key_bytes(&spec.key, secret).map(|bytes| EncodingKey::from_secret(&bytes))
    }

    /// Parses the draft as the gateway will.
    fn parse(&self, draft: &Draft<'_>) -> Result<ParsedDraft, String> {
        let inbound = draft.inbound(self.order.at)?;
        let mut values = self.plan.read(&inbound);
        self.plan.read_json(&inbound, &mut values, false).map_err(|why| format!("the body cannot be read: {why}"))?;
        Ok(ParsedDraft { inbound, values })
    }
}

/// A draft as the gateway reads it.
struct ParsedDraft {
    inbound: Inbound,
    values: Extracted,
}

/// The error message that a member has no key.
fn missing(spec: &profile::Member, profile: &Profile) -> String {
    let about = spec.scheme.key(profile.fetches_keys()).and_then(|key| key.about.as_deref());
    let about = about.map(|about| format!(": {about}")).unwrap_or_default();
    match Kind::of(&spec.scheme) {
        Some(kind) => {
            format!("a private key for {} is needed, of which the source knows the public half{about}", kind.title())
        }
        None => format!("a secret for {} is needed{about}", spec.scheme.title()),
    }
}
