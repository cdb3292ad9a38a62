//! Follows the verification of a request, and describes each step until the request is refused or becomes an event. It
//! uses the parts of the compiled verifier in the order of `verify`.

mod proof;

use std::ops::ControlFlow;

use http::HeaderName;
use http::Method;
use http::header;

use crate::explain::Case;
use crate::explain::wording::bytes;
use crate::explain::wording::differing;
use crate::extract::condition::Condition;
use crate::extract::field::Extracted;
use crate::extract::field::ExtractionPlan;
use crate::extract::template::Context;
use crate::gateway::decide;
use crate::http::body::Unreadable;
use crate::http::content_coding::Coding;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::ContentEncoding;
use crate::profile::Handshake;
use crate::profile::Reference;
use crate::source::refusal::Refusal;
use crate::verify::compile::RequestVerifier;

/// One step of the verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The kind of step.
    pub kind: Kind,
    /// The step and its result, for people. Without secrets, and with digests cut.
    pub description: String,
    /// Whether the request is refused because of it.
    pub failed: bool,
}

/// The kinds of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value was looked for.
    LookedFor,
    /// A value was found or not.
    Found,
    /// The signed bytes were assembled.
    Signed,
    /// A digest was computed.
    Computed,
    /// Two values were compared, or a condition was checked.
    Compared,
}

impl Kind {
    /// The name of the kind in the output.
    pub fn label(self) -> &'static str {
        match self {
            Self::LookedFor => "looked for",
            Self::Found => "found",
            Self::Signed => "signed",
            Self::Computed => "computed",
            Self::Compared => "compared",
        }
    }
}

/// Whether to continue with the next step.
type Flow = ControlFlow<()>;

const CONTINUE: Flow = ControlFlow::Continue(());

/// The steps up to the refusal, or to the end.
pub(super) async fn walk(case: &Case, verifier: &RequestVerifier) -> Vec<Step> {
    let mut inbound = case.inbound();
    if inbound.is_compressed() {
        // Finds out which bytes are signed; the decompressed ones, if no signature is right.
        inbound = match verifier.authenticator.verify(inbound, case.at).await {
            Ok(verified) => verified.into_inbound(),
            Err(rejected) => rejected.inbound,
        };
    }
    let mut walk = Walk { case, verifier, inbound: &inbound, steps: Vec::new() };
    let _end: Flow = walk.verify().await;
    walk.steps
}

struct Walk<'w> {
    case: &'w Case,
    verifier: &'w RequestVerifier,
    inbound: &'w Inbound,
    steps: Vec<Step>,
}

impl Walk<'_> {
    fn note(&mut self, kind: Kind, description: impl Into<String>) {
        self.steps.push(Step { kind, description: description.into(), failed: false });
    }

    fn fail(&mut self, kind: Kind, description: impl Into<String>) -> Flow {
        self.steps.push(Step { kind, description: description.into(), failed: true });
        ControlFlow::Break(())
    }

    async fn verify(&mut self) -> Flow {
        self.head().await?;
        let (verifier, inbound) = (self.verifier, self.inbound);
        let profile = &self.case.profile;
        self.handshake_before().await?;
        let authenticator = &verifier.authenticator;
        let mut values = self.read(&authenticator.plan, authenticator.json_first)?;
        for (spec, condition) in profile.require.iter().zip(&authenticator.require) {
            self.condition(spec, condition, &values)?;
        }
        let Ok(members) = authenticator.applicable_members(inbound, &values) else {
            return self.fail(Kind::Compared, "no scheme of the profile applies to this request");
        };
        let several = profile.auth.members.len() > 1;
        for member in members {
            self.proof(member, several, &values)?;
        }
        let freshness = authenticator.freshness.as_ref().filter(|_| members.iter().any(|member| member.timed));
        let stamp = match (freshness, &profile.timestamp) {
            (Some(freshness), Some(spec)) => match freshness.read(inbound, &values) {
                Ok(stamp) => self.time(spec, stamp.text),
                Err(failure) => return self.no_time(spec, freshness.field(), &values, &failure),
            },
            _ => None,
        };
        for member in members {
            let spec = profile.auth.members.get(member.position);
            for (spec, condition) in spec.iter().flat_map(|spec| &spec.check).zip(&member.check) {
                self.condition(spec, condition, &values)?;
            }
            self.check_proof(member, &values, stamp.as_deref()).await?;
        }
        if let Some(freshness) = freshness
            && let Ok(stamp) = freshness.read(inbound, &values)
            && let Err(failure) = freshness.check(&stamp, self.case.at)
        {
            return self.fail(Kind::Compared, failure.to_string());
        }
        if !authenticator.json_first
            && let Err(why) = authenticator.plan.read_json(inbound, &mut values, false)
        {
            return self.fail(Kind::Found, format!("the body cannot be read: {why}"));
        }
        self.end(&values).await
    }

    /// Method, headers and coding, which are checked for every request.
    async fn head(&mut self) -> Flow {
        let (case, verifier) = (self.case, self.verifier);
        if decide::check_method(verifier, &case.method).is_err() {
            return self.no_event();
        }
        let always = [header::HOST, header::CONTENT_TYPE];
        let twice = |name: &&HeaderName| case.headers.get_all(*name).iter().nth(1).is_some();
        if let Some(name) = verifier.single_headers.iter().chain(&always).find(twice) {
            return self.fail(Kind::Found, format!("the header {name} more than once"));
        }
        match (case.unreadable(verifier).await, case.headers.get(header::CONTENT_ENCODING)) {
            (None, _) => {
                self.compressed();
                CONTINUE
            }
            (Some(Refusal::Unreadable(Unreadable::Encoded(_))), Some(coding)) => {
                let coding = String::from_utf8_lossy(coding.as_bytes());
                self.fail(Kind::Found, format!("a body with Content-Encoding {coding}"))
            }
            (Some(why), _) => self.fail(Kind::Found, why.to_string()),
        }
    }

    /// Describes a compressed body, and which form of it is signed.
    fn compressed(&mut self) {
        let inbound = self.inbound;
        let Some(coding) = Coding::from_headers(&self.case.headers).ok().flatten().filter(|_| inbound.is_compressed())
        else {
            return;
        };
        let signed = match self.case.profile.signed_when_compressed().as_slice() {
            [ContentEncoding::SignedPlain] => "signed are those before it",
            [ContentEncoding::SignedAsSent] => "signed are those that are sent",
            _ => "the profile does not say which of them are signed, so both are tried",
        };
        let (sent, plain) = (bytes(inbound.sent().len()), bytes(inbound.body().len()));
        self.note(
            Kind::Found,
            format!(
                "a body compressed with {}: {sent} as sent, {plain} before its compression; {signed}",
                coding.name()
            ),
        );
    }

    fn no_event(&mut self) -> Flow {
        let method = &self.case.method;
        self.fail(Kind::Found, format!("the method {method}, where events come with POST and this is no handshake"))
    }

    fn read(&mut self, plan: &ExtractionPlan, json: bool) -> ControlFlow<(), Extracted> {
        let mut values = plan.read(self.inbound);
        match json.then(|| plan.read_json(self.inbound, &mut values, true)) {
            Some(Err(why)) => self.unreadable(&why),
            _ => ControlFlow::Continue(values),
        }
    }

    fn unreadable<T>(&mut self, why: &dyn std::fmt::Display) -> ControlFlow<(), T> {
        let _end: Flow = self.fail(Kind::Found, format!("the body cannot be read: {why}"));
        ControlFlow::Break(())
    }

    /// Checks for unsigned handshakes.
    async fn handshake_before(&mut self) -> Flow {
        let (case, inbound) = (self.case, self.inbound);
        let unsigned: Vec<_> = case.profile.handshakes.iter().filter(|spec| !spec.is_signed()).collect();
        match self.verifier.handshakes.answer_unverified(inbound).await {
            Ok(None) => {
                if !unsigned.is_empty() {
                    self.note(Kind::LookedFor, "a handshake that is not signed; this is none");
                }
                let event = case.method == Method::POST || self.verifier.handshakes.take_signed(&case.method);
                if event { CONTINUE } else { self.no_event() }
            }
            Ok(Some(answer)) => self.answered(answer.status.as_u16()),
            Err(why) => self.unanswered(&unsigned, &why),
        }
    }

    fn answered(&mut self, status: u16) -> Flow {
        self.note(Kind::Found, format!("a handshake; it is answered with {status}"));
        ControlFlow::Break(())
    }

    /// Describes the condition of a handshake that does not hold.
    fn unanswered(&mut self, spec: &[&Handshake], why: &dyn std::fmt::Display) -> Flow {
        let mut plan = ExtractionPlan::default();
        plan.json_optional = true;
        let context = Context { params: &self.case.params, signature: None, key: None };
        let rules: Vec<_> = spec
            .iter()
            .filter(|spec| spec.method.method() == self.case.method)
            .map(|spec| {
                let mut all = |conditions: &[profile::Condition]| Condition::all(conditions, context, &mut plan);
                (*spec, all(&spec.when), all(&spec.check))
            })
            .collect();
        let mut values = plan.read(self.inbound);
        let _unreadable = plan.read_json(self.inbound, &mut values, false).is_err();
        let holds = |condition: &Condition| condition.holds(self.inbound, &values);
        if let Some((spec, _, check)) = rules.iter().find(|(_, when, _)| when.iter().all(holds)) {
            self.note(Kind::Found, "a handshake");
            for (spec, condition) in spec.check.iter().zip(check) {
                self.condition(spec, condition, &values)?;
            }
        }
        self.fail(Kind::Compared, why.to_string())
    }

    fn condition(&mut self, spec: &profile::Condition, condition: &Condition, values: &Extracted) -> Flow {
        if condition.holds(self.inbound, values) {
            self.note(Kind::Compared, format!("{spec}, as it has to be"));
            return CONTINUE;
        }
        self.note(Kind::LookedFor, spec.to_string());
        let text = condition.field().text(self.inbound, values);
        let found = match (text, condition.expected(self.inbound, values)) {
            (Ok(None), _) => format!("nothing: {} is missing", spec.location),
            (Err(_), _) => format!("something else than one text in {}", spec.location),
            (Ok(Some(found)), Some(expected)) => differing(found.as_bytes(), expected.as_bytes()),
            (Ok(Some(found)), None) => format!("a text of {} there", bytes(found.len())),
        };
        self.fail(Kind::Found, found)
    }

    /// The steps after verification: signed handshakes, and the identity of the event.
    async fn end(&mut self, values: &Extracted) -> Flow {
        let profile = &self.case.profile;
        let signed: Vec<_> = profile.handshakes.iter().filter(|spec| spec.is_signed()).collect();
        match self.verifier.handshakes.answer_verified(self.inbound, values).await {
            Ok(None) if signed.is_empty() => {}
            Ok(None) => self.note(Kind::LookedFor, "a handshake that is signed; this is none"),
            Ok(Some(answer)) => return self.answered(answer.status.as_u16()),
            Err(why) => return self.unanswered(&signed, &why),
        }
        if self.case.method != Method::POST {
            return self.no_event();
        }
        self.note(Kind::LookedFor, format!("the event id: {}", profile.event.id));
        match self.verifier.identity.read(self.inbound, values) {
            Ok(_) if profile.event.id == Reference::Unique => self.note(Kind::Found, "a new one for each request"),
            Ok(id) => self.note(Kind::Found, id),
            Err(why) => return self.fail(Kind::Found, why.to_string()),
        }
        CONTINUE
    }
}
