//! Answers handshakes: the probes with which providers check that an endpoint expects their events.

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use serde_json::Value;

use crate::extract::condition::Condition;
use crate::extract::field::Extracted;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::extract::params;
use crate::extract::template::Context;
use crate::extract::template::Template;
use crate::http::fetch::Hosts;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::Json;

/// The most bytes of a text in the answer to a handshake.
const MAX_ANSWER: usize = 8 * 1024;

/// The handshakes of one profile, in order.
#[derive(Debug, Default)]
pub struct Handshakes {
    rules: Vec<Rule>,
    /// The values that the rules for unsigned requests read. Those of other rules are in the authenticator's plan.
    plan: ExtractionPlan,
}

#[derive(Debug)]
struct Rule {
    method: Method,
    signed: bool,
    /// The `when` conditions that depend only on headers.
    when_headers: Vec<Condition>,
    /// The other `when` conditions.
    when: Vec<Condition>,
    check: Vec<Condition>,
    visit: Option<(Field, Hosts)>,
    reply: Reply,
}

#[derive(Debug)]
struct Reply {
    status: StatusCode,
    body: Body,
    headers: Vec<(HeaderName, Template)>,
}

#[derive(Debug)]
enum Body {
    Empty,
    Text(Template),
    Json(Vec<(String, Member)>),
}

#[derive(Debug)]
enum Member {
    Text(Template),
    Fixed(Value),
}

/// The answer to a handshake.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The media type of the body; absent without a body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Bytes,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a handshake is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// A `check` condition does not hold, or the reply cannot be composed.
    #[error("the handshake is not the one that the profile expects")]
    Refused,
    /// The address that must be requested first does not answer.
    #[error("the address in the handshake does not answer")]
    Unavailable,
}

impl Handshakes {
    /// Compiles the rules of a profile. `plan` is the authenticator's, which reads the values of signed requests.
    ///
    /// # Errors
    /// What is wrong with a parameter.
    pub fn new(spec: &[profile::Handshake], context: Context<'_>, plan: &mut ExtractionPlan) -> Result<Self, String> {
        let mut own = ExtractionPlan::default();
        own.json_optional = true;
        let rules = spec.iter().map(|spec| {
            let plan = if spec.is_signed() { &mut *plan } else { &mut own };
            Rule::new(spec, context, plan)
        });
        let rules = rules.collect::<Result<Vec<_>, String>>()?;
        Ok(Self { rules, plan: own })
    }

    /// The methods of requests that may be handshakes.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.rules.iter().map(|rule| &rule.method)
    }

    /// Whether a request may be an unsigned handshake, by its method and headers.
    pub fn may_be_unsigned(&self, inbound: &Inbound) -> bool {
        self.rules.iter().any(|rule| rule.may_apply(false, inbound))
    }

    /// Whether a request with this method may be a signed handshake.
    pub fn take_signed(&self, method: &Method) -> bool {
        self.rules.iter().any(|rule| rule.signed && rule.method == *method)
    }

    /// The headers that rules read, each of which may occur only once.
    pub fn headers(&self) -> Vec<HeaderName> {
        self.rules.iter().flat_map(Rule::fields).flat_map(Field::headers).collect()
    }

    /// Answers an unverified request, if it is an unsigned handshake.
    ///
    /// # Errors
    /// [`Unanswered`] when it is one, but is refused.
    pub async fn answer_unverified(&self, inbound: &Inbound) -> Result<Option<Answer>, Unanswered> {
        // An unverified body is not parsed if the headers tell that this is no handshake: usually a signature is
        // present.
        if !self.may_be_unsigned(inbound) {
            return Ok(None);
        }
        // A body that cannot be parsed is no handshake. The request is handled as an event.
        let mut values = self.plan.read(inbound);
        if self.plan.read_json(inbound, &mut values, false).is_err() {
            return Ok(None);
        }
        self.answer(false, inbound, &values).await
    }

    /// Answers a verified request, if it is a signed handshake.
    ///
    /// # Errors
    /// [`Unanswered`] when it is one, but is refused.
    pub async fn answer_verified(&self, inbound: &Inbound, values: &Extracted) -> Result<Option<Answer>, Unanswered> {
        self.answer(true, inbound, values).await
    }

    async fn answer(&self, signed: bool, inbound: &Inbound, values: &Extracted) -> Result<Option<Answer>, Unanswered> {
        let hold = |conditions: &[Condition]| conditions.iter().all(|condition| condition.holds(inbound, values));
        let mut rules = self.rules.iter().filter(|rule| rule.may_apply(signed, inbound));
        let Some(rule) = rules.find(|rule| hold(&rule.when)) else { return Ok(None) };
        if !hold(&rule.check) {
            return Err(Unanswered::Refused);
        }
        if let Some((field, hosts)) = &rule.visit {
            let address = field.text(inbound, values).ok().flatten().and_then(|text| hosts.admit(text));
            let address = address.ok_or(Unanswered::Refused)?;
            // Boxed, because it is rare and its future is large.
            Box::pin(address.fetch()).await.map_err(|error| {
                tracing::warn!(%error, "the address in a handshake does not answer");
                Unanswered::Unavailable
            })?;
        }
        rule.reply.fill(inbound, values).map(Some)
    }
}

impl Rule {
    fn new(spec: &profile::Handshake, context: Context<'_>, plan: &mut ExtractionPlan) -> Result<Self, String> {
        let visit = match &spec.visit {
            Some(visit) => {
                Some((Field::new(&visit.from, plan), Hosts::parse(&params::fill(&visit.hosts, context.params))?))
            }
            None => None,
        };
        let when = Condition::all(&spec.when, context, plan);
        let (when_headers, when) = when.into_iter().partition(Condition::reads_only_headers);
        Ok(Self {
            method: spec.method.method(),
            signed: spec.is_signed(),
            when_headers,
            when,
            check: Condition::all(&spec.check, context, plan),
            visit,
            reply: Reply::new(&spec.reply, context, plan),
        })
    }

    /// Whether the rule may apply to a request, by its method and headers.
    fn may_apply(&self, signed: bool, inbound: &Inbound) -> bool {
        self.signed == signed
            && self.method == *inbound.method()
            && self.when_headers.iter().all(|condition| condition.holds(inbound, &Extracted::default()))
    }

    fn fields(&self) -> Vec<&Field> {
        let conditions = self.when_headers.iter().chain(&self.when).chain(&self.check).flat_map(Condition::fields);
        conditions.chain(self.visit.iter().map(|(field, _)| field)).chain(self.reply.fields()).collect()
    }
}

impl Reply {
    fn new(spec: &profile::Reply, context: Context<'_>, plan: &mut ExtractionPlan) -> Self {
        let mut template = |spec: &profile::Template| Template::new(spec, context, plan);
        let body = match (&spec.text, &spec.json) {
            (Some(text), _) => Body::Text(template(text)),
            (None, Some(members)) => Body::Json(
                members
                    .iter()
                    .map(|(name, value)| {
                        let value = match value {
                            Json::Text(text) => Member::Text(template(text)),
                            Json::Number(number) => Member::Fixed(Value::from(*number)),
                            Json::Bool(yes) => Member::Fixed(Value::from(*yes)),
                        };
                        (name.clone(), value)
                    })
                    .collect(),
            ),
            (None, None) => Body::Empty,
        };
        // All names are valid: the profile was validated.
        let headers =
            spec.headers.iter().filter_map(|(name, text)| Some((name.parse().ok()?, template(text)))).collect();
        let status = spec.status.and_then(|status| StatusCode::from_u16(status.code()).ok()).unwrap_or(StatusCode::OK);
        Self { status, body, headers }
    }

    fn fill(&self, inbound: &Inbound, values: &Extracted) -> Result<Answer, Unanswered> {
        let text = |template: &Template| {
            let filled =
                template.fill(inbound, values, None).map_err(|_unfilled| Unanswered::Refused)?.concat().into_owned();
            if filled.len() > MAX_ANSWER { Err(Unanswered::Refused) } else { Ok(filled) }
        };
        let (content_type, body) = match &self.body {
            Body::Empty => (None, Vec::new()),
            Body::Text(template) => (Some("text/plain"), text(template)?),
            Body::Json(members) => {
                let mut object = serde_json::Map::new();
                for (name, member) in members {
                    let value = match member {
                        Member::Text(template) => {
                            Value::from(String::from_utf8(text(template)?).map_err(|_bytes| Unanswered::Refused)?)
                        }
                        Member::Fixed(value) => value.clone(),
                    };
                    object.insert(name.clone(), value);
                }
                (Some("application/json"), Value::Object(object).to_string().into_bytes())
            }
        };
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, template) in &self.headers {
            let value = HeaderValue::from_bytes(&text(template)?).map_err(|_bad| Unanswered::Refused)?;
            headers.push((name.clone(), value));
        }
        Ok(Answer { status: self.status, content_type, body: body.into(), headers })
    }

    fn fields(&self) -> Vec<&Field> {
        let in_body: Vec<&Field> = match &self.body {
            Body::Empty => Vec::new(),
            Body::Text(template) => template.fields(),
            Body::Json(members) => members
                .iter()
                .filter_map(|(_, member)| if let Member::Text(template) = member { Some(template) } else { None })
                .flat_map(Template::fields)
                .collect(),
        };
        self.headers.iter().flat_map(|(_, template)| template.fields()).chain(in_body).collect()
    }
}
