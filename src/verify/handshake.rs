//! Answers handshakes: the probes by which providers check that an endpoint expects their events.

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

/// Longest answer to a handshake, in bytes.
const MAX_ANSWER: usize = 8 * 1024;

/// The handshakes of one profile, in their order.
#[derive(Debug, Default)]
pub struct Handshakes {
    rules: Vec<Rule>,
    /// What the rules for unsigned requests want to know of them.
    plan: ExtractionPlan,
}

#[derive(Debug)]
struct Rule {
    method: Method,
    signed: bool,
    /// Those conditions for it to apply that headers alone decide.
    heads: Vec<Condition>,
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

/// What a handshake is answered with.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// What the body is; absent without a body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Bytes,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a handshake is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// What the profile checks of it does not hold.
    #[error("the handshake is not the one that the profile expects")]
    Refused,
    /// The address that has to be asked first does not answer.
    #[error("the address in the handshake does not answer")]
    Unavailable,
}

impl Handshakes {
    /// Makes the rules of a profile ready; `wants` are those of the authenticator, whose values signed requests come
    /// with.
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

    /// Whether a request can be one that need not be authentic, as far as method and headers tell.
    pub fn may_be_unsigned(&self, inbound: &Inbound) -> bool {
        self.rules.iter().any(|rule| rule.may_apply(false, inbound))
    }

    /// Whether a request with this method can be a handshake that has to be authentic.
    pub fn take_signed(&self, method: &Method) -> bool {
        self.rules.iter().any(|rule| rule.signed && rule.method == *method)
    }

    /// The headers that rules read, each of which may be there once.
    pub fn headers(&self) -> Vec<HeaderName> {
        self.rules.iter().flat_map(Rule::fields).flat_map(Field::headers).collect()
    }

    /// Answers a request that nobody has verified, if it is a handshake that need not be.
    ///
    /// # Errors
    /// [`Unanswered`] when it is one, but not a good one.
    pub async fn before(&self, inbound: &Inbound) -> Result<Option<Answer>, Unanswered> {
        // The body of a stranger is not parsed where the headers tell that this is no handshake, such as by a
        // signature.
        if !self.may_be_unsigned(inbound) {
            return Ok(None);
        }
        // What cannot be read is no handshake, and judged as an event.
        let mut values = self.plan.read(inbound);
        if self.plan.read_json(inbound, &mut values, false).is_err() {
            return Ok(None);
        }
        self.answer(false, inbound, &values).await
    }

    /// Answers a verified request, if it is a handshake.
    ///
    /// # Errors
    /// [`Unanswered`] when it is one, but not a good one.
    pub async fn after(&self, inbound: &Inbound, values: &Extracted) -> Result<Option<Answer>, Unanswered> {
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
            // Rare and large: it stays out of the way of all other requests.
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
        let (heads, when) = when.into_iter().partition(Condition::is_of_headers);
        Ok(Self {
            method: spec.method.method(),
            signed: spec.is_signed(),
            heads,
            when,
            check: Condition::all(&spec.check, context, plan),
            visit,
            reply: Reply::new(&spec.reply, context, plan),
        })
    }

    /// Whether it is for such a request, as far as method and headers tell.
    fn may_apply(&self, signed: bool, inbound: &Inbound) -> bool {
        self.signed == signed
            && self.method == *inbound.method()
            && self.heads.iter().all(|condition| condition.holds(inbound, &Extracted::default()))
    }

    fn fields(&self) -> Vec<&Field> {
        let conditions = self.heads.iter().chain(&self.when).chain(&self.check).flat_map(Condition::fields);
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
        // A profile with another name was refused when it was read.
        let headers =
            spec.headers.iter().filter_map(|(name, text)| Some((name.parse().ok()?, template(text)))).collect();
        let status = spec.status.and_then(|status| StatusCode::from_u16(status.code()).ok()).unwrap_or(StatusCode::OK);
        Self { status, body, headers }
    }

    fn fill(&self, inbound: &Inbound, values: &Extracted) -> Result<Answer, Unanswered> {
        let text = |template: &Template| {
            let filled =
                template.fill(inbound, values, None).map_err(|_unfilled| Unanswered::Refused)?.whole().into_owned();
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
