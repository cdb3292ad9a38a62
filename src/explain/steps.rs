//! Follows the verification of a request and describes each step, until it is refused or becomes an event.

use std::ops::ControlFlow;

use http::HeaderName;
use http::Method;
use http::header;

use super::Case;
use super::token;
use super::words::bytes;
use super::words::cut;
use super::words::differing;
use super::words::duration;
use super::words::proof;
use super::words::secret;
use super::words::signed;
use crate::extract::condition::Condition;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::extract::field::Values;
use crate::gateway::decide;
use crate::http::body::Unreadable;
use crate::http::content_coding::Coding;
use crate::http::inbound::Inbound;
use crate::verify::Failure;
use crate::verify::Member;
use crate::verify::Scheme;
use crate::verify::compile::RequestVerifier;

use crate::extract::template::Context;
use crate::profile;
use crate::profile::Combination;
use crate::profile::ContentEncoding;
use crate::profile::Handshake;
use crate::profile::Reference;
use crate::source::refusal::Refusal;

/// One step of the verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was done.
    pub kind: Kind,
    /// What came of it, for people. Secrets are not in it, and digests are cut short.
    pub words: String,
    /// Whether it is the one that the request is refused for.
    pub failed: bool,
}

/// The kinds of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value was looked for.
    LookedFor,
    /// The value was there, or was not.
    Found,
    /// The bytes that a signature is over were put together.
    Signed,
    /// A digest was computed.
    Computed,
    /// Two things were compared, or a statement was judged.
    Compared,
}

impl Kind {
    /// How it is named to people.
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

/// Whether the walk goes on.
type Going = ControlFlow<()>;

const ON: Going = ControlFlow::Continue(());

/// Walks to where the request is refused, or to its end.
pub(super) async fn walk(case: &Case, verifier: &RequestVerifier) -> Vec<Step> {
    let mut inbound = case.inbound();
    if inbound.is_compressed() {
        // Over which bytes it is signed; before its compression, where it is not signed rightly at all.
        inbound = match verifier.authenticator.verify(inbound, case.at).await {
            Ok(verified) => verified.into_inbound(),
            Err(rejected) => rejected.inbound,
        };
    }
    let mut walk = Walk { case, verifier, inbound: &inbound, steps: Vec::new() };
    let _end: Going = walk.through().await;
    walk.steps
}

struct Walk<'w> {
    case: &'w Case,
    verifier: &'w RequestVerifier,
    inbound: &'w Inbound,
    steps: Vec<Step>,
}

impl Walk<'_> {
    fn note(&mut self, kind: Kind, words: impl Into<String>) {
        self.steps.push(Step { kind, words: words.into(), failed: false });
    }

    fn fail(&mut self, kind: Kind, words: impl Into<String>) -> Going {
        self.steps.push(Step { kind, words: words.into(), failed: true });
        ControlFlow::Break(())
    }

    async fn through(&mut self) -> Going {
        self.head().await?;
        let (verifier, inbound) = (self.verifier, self.inbound);
        let profile = &self.case.profile;
        self.handshake_before().await?;
        let authenticator = &verifier.authenticator;
        let mut values = self.read(&authenticator.wants, authenticator.json_first)?;
        for (said, condition) in profile.require.iter().zip(&authenticator.require) {
            self.condition(said, condition, &values)?;
        }
        let Ok(members) = authenticator.applying(inbound, &values) else {
            return self.fail(Kind::Compared, "no scheme of the profile applies to this request");
        };
        let several = profile.auth.members.len() > 1;
        for member in members {
            self.proof(member, several, &values)?;
        }
        let freshness = authenticator.freshness.as_ref().filter(|_| members.iter().any(|member| member.timed));
        let stamp = match (freshness, &profile.timestamp) {
            (Some(freshness), Some(said)) => match freshness.read(inbound, &values) {
                Ok(stamp) => self.time(said, stamp.text),
                Err(failure) => return self.no_time(said, freshness.field(), &values, &failure),
            },
            _ => None,
        };
        for member in members {
            let said = profile.auth.members.get(member.position);
            for (said, condition) in said.iter().flat_map(|said| &said.check).zip(&member.check) {
                self.condition(said, condition, &values)?;
            }
            self.judge(member, &values, stamp.as_deref()).await?;
        }
        if let Some(freshness) = freshness
            && let Ok(stamp) = freshness.read(inbound, &values)
            && let Err(failure) = freshness.judge(&stamp, self.case.at)
        {
            return self.fail(Kind::Compared, failure.to_string());
        }
        if !authenticator.json_first
            && let Err(why) = authenticator.wants.read_json(inbound, &mut values, false)
        {
            return self.fail(Kind::Found, format!("the body cannot be read: {why}"));
        }
        self.end(&values).await
    }

    /// What every request has to keep to.
    async fn head(&mut self) -> Going {
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
                ON
            }
            (Some(Refusal::Unreadable(Unreadable::Encoded(_))), Some(coding)) => {
                let coding = String::from_utf8_lossy(coding.as_bytes());
                self.fail(Kind::Found, format!("a body with Content-Encoding {coding}"))
            }
            (Some(why), _) => self.fail(Kind::Found, why.to_string()),
        }
    }

    /// What a compressed body is, and which of its bytes may be signed.
    fn compressed(&mut self) {
        let inbound = self.inbound;
        let Some(coding) = Coding::of(&self.case.headers).ok().flatten().filter(|_| inbound.is_compressed()) else {
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

    /// Which bytes of a compressed body those were that were signed, behind what says how many they are.
    fn signed_how(&self, said: &profile::Template, right: bool) -> &'static str {
        let body = said.walk().any(|piece| *piece == profile::Piece::Body) && self.inbound.is_compressed();
        match (body, self.inbound.signed_as(), right) {
            (false, ..) => "",
            (true, ContentEncoding::SignedPlain, true) => {
                ", before compression, because the signature is right over these"
            }
            (true, ContentEncoding::SignedPlain, false) => ", before compression",
            (true, ContentEncoding::SignedAsSent, true) => ", as sent, because the signature is right over these",
            (true, ContentEncoding::SignedAsSent, false) => ", as sent",
        }
    }

    fn no_event(&mut self) -> Going {
        let method = &self.case.method;
        self.fail(Kind::Found, format!("the method {method}, where events come with POST and this is no handshake"))
    }

    fn read(&mut self, wants: &ExtractionPlan, json: bool) -> ControlFlow<(), Values> {
        let mut values = wants.read(self.inbound);
        match json.then(|| wants.read_json(self.inbound, &mut values, true)) {
            Some(Err(why)) => self.unreadable(&why),
            _ => ControlFlow::Continue(values),
        }
    }

    fn unreadable<T>(&mut self, why: &dyn std::fmt::Display) -> ControlFlow<(), T> {
        let _end: Going = self.fail(Kind::Found, format!("the body cannot be read: {why}"));
        ControlFlow::Break(())
    }

    /// Whether it is a handshake that need not be signed.
    async fn handshake_before(&mut self) -> Going {
        let (case, inbound) = (self.case, self.inbound);
        let unsigned: Vec<_> = case.profile.handshakes.iter().filter(|said| !said.is_signed()).collect();
        match self.verifier.handshakes.before(inbound).await {
            Ok(None) => {
                if !unsigned.is_empty() {
                    self.note(Kind::LookedFor, "a handshake that is not signed; this is none");
                }
                let event = case.method == Method::POST || self.verifier.handshakes.take_signed(&case.method);
                if event { ON } else { self.no_event() }
            }
            Ok(Some(answer)) => self.answered(answer.status.as_u16()),
            Err(why) => self.unanswered(&unsigned, &why),
        }
    }

    fn answered(&mut self, status: u16) -> Going {
        self.note(Kind::Found, format!("a handshake; it is answered with {status}"));
        ControlFlow::Break(())
    }

    /// Which statement about which handshake does not hold.
    fn unanswered(&mut self, said: &[&Handshake], why: &dyn std::fmt::Display) -> Going {
        let mut wants = ExtractionPlan::default();
        wants.json_optional = true;
        let context = Context { params: &self.case.params, signature: None, key: None };
        let rules: Vec<_> = said
            .iter()
            .filter(|said| said.method.method() == self.case.method)
            .map(|said| {
                let mut all = |conditions: &[profile::Condition]| Condition::all(conditions, context, &mut wants);
                (*said, all(&said.when), all(&said.check))
            })
            .collect();
        let mut values = wants.read(self.inbound);
        let _unreadable = wants.read_json(self.inbound, &mut values, false).is_err();
        let holds = |condition: &Condition| condition.holds(self.inbound, &values);
        if let Some((said, _, check)) = rules.iter().find(|(_, when, _)| when.iter().all(holds)) {
            self.note(Kind::Found, "a handshake");
            for (said, condition) in said.check.iter().zip(check) {
                self.condition(said, condition, &values)?;
            }
        }
        self.fail(Kind::Compared, why.to_string())
    }

    fn condition(&mut self, said: &profile::Condition, condition: &Condition, values: &Values) -> Going {
        if condition.holds(self.inbound, values) {
            self.note(Kind::Compared, format!("{said}, as it has to be"));
            return ON;
        }
        self.note(Kind::LookedFor, said.to_string());
        let text = condition.field().text(self.inbound, values);
        let found = match (text, condition.expected(self.inbound, values)) {
            (Ok(None), _) => format!("nothing: {} is missing", said.place),
            (Err(_), _) => format!("something else than one text in {}", said.place),
            (Ok(Some(found)), Some(expected)) => differing(found.as_bytes(), expected.as_bytes()),
            (Ok(Some(found)), None) => format!("a text of {} there", bytes(found.len())),
        };
        self.fail(Kind::Found, found)
    }

    /// Where a member's proof should be, and whether it is there.
    fn proof(&mut self, member: &Member, several: bool, values: &Values) -> Going {
        let profile = &self.case.profile;
        let Some(said) = profile.auth.members.get(member.position) else { return ON };
        let which = match profile.auth.combination {
            Combination::First if several => ", which decides about this request",
            Combination::All if several => ", of several that all have to hold",
            Combination::First | Combination::All => "",
        };
        self.note(Kind::LookedFor, format!("{}{which}", proof(&said.scheme)));
        let there = member.scheme.field().is_there(self.inbound, values);
        if there { ON } else { self.fail(Kind::Found, "nothing: it is not there") }
    }

    /// The text of the time, where there is one.
    fn time(&mut self, said: &profile::Timestamp, text: Option<&str>) -> Option<String> {
        self.note(Kind::LookedFor, format!("the time in {}, {}", said.from, said.format.describe()));
        let found = match text.and_then(|text| Some((text, said.format.parse(text)?))) {
            Some((text, moment)) => {
                let age = self.case.at.seconds_since(moment);
                let age = match age {
                    0.. => format!("{} old", duration(age)),
                    _ => format!("{} ahead", duration(age.saturating_neg())),
                };
                format!("{text}, which is {}: {age}", moment.rfc3339())
            }
            None => "none that could be read, which does not matter here".to_owned(),
        };
        self.note(Kind::Found, found);
        text.map(str::to_owned)
    }

    fn no_time(&mut self, said: &profile::Timestamp, field: &Field, values: &Values, failure: &Failure) -> Going {
        self.note(Kind::LookedFor, format!("the time in {}, {}", said.from, said.format.describe()));
        let text = field.text(self.inbound, values).ok().flatten();
        let text = text.filter(|text| text.len() <= 64).map(|text| format!(": {text:?}")).unwrap_or_default();
        self.fail(Kind::Found, format!("{failure}{text}"))
    }

    async fn judge(&mut self, member: &Member, values: &Values, time: Option<&str>) -> Going {
        let Some(said) = self.case.profile.auth.members.get(member.position) else { return ON };
        match (&member.scheme, &said.scheme) {
            (Scheme::Signature(ready), profile::Scheme::Signature(said)) => {
                let texts = ready.field().texts(self.inbound, values).ok().flatten().into_iter().flatten();
                let prefix = said.place.prefix.clone();
                let texts: Vec<_> = texts.map(|text| cut(text, &prefix)).collect();
                let found = if texts.is_empty() { "no such entry".to_owned() } else { texts.join(", ") };
                self.note(Kind::Found, found);
                let verified = ready.verify(self.inbound, values, time, self.case.at).await;
                for (filled, said) in ready.signed(self.inbound, values, time).zip(&said.signed) {
                    let Ok(filled) = filled else { continue };
                    let how = self.signed_how(said, verified.is_ok());
                    self.note(Kind::Signed, format!("{}{how}", signed(said, &filled)));
                    for (at, digest) in ready.computed(&filled) {
                        let digest = cut(&digest, &prefix);
                        self.note(Kind::Computed, format!("{digest} with {}", secret(at)));
                    }
                }
                match verified {
                    Ok(proven) => self.equal(proven.secret),
                    Err(failure) => self.fail(Kind::Compared, failure.to_string()),
                }
            }
            (Scheme::Token(ready), _) => {
                let texts = ready.field().texts(self.inbound, values).ok().flatten().into_iter().flatten();
                let texts: Vec<_> = texts.map(|text| format!("a text of {}", bytes(text.len()))).collect();
                self.note(Kind::Found, texts.join(", "));
                match ready.verify(self.inbound, values) {
                    Ok(at) => self.equal(Some(at)),
                    Err(failure) => self.fail(Kind::Compared, failure.to_string()),
                }
            }
            (Scheme::Jwt(ready), profile::Scheme::Jwt(said)) => {
                let text = ready.field().text(self.inbound, values).ok().flatten();
                let prefix = said.from.as_ref().map(|from| from.prefix.as_str());
                let found = text.map_or_else(Vec::new, |text| token::described(text, prefix, said, self.case));
                found.into_iter().for_each(|found| self.note(Kind::Found, found));
                match ready.verify(self.inbound, values, self.case.at).await {
                    Ok(proven) => self.equal(proven.secret),
                    Err(failure) => self.fail(Kind::Compared, failure.to_string()),
                }
            }
            _ => ON,
        }
    }

    fn equal(&mut self, at: Option<usize>) -> Going {
        let whose = at.map_or_else(|| "the key that was fetched".to_owned(), secret);
        self.note(Kind::Compared, format!("it is right, by {whose}"));
        ON
    }

    /// From a genuine request to its event.
    async fn end(&mut self, values: &Values) -> Going {
        let profile = &self.case.profile;
        let signed: Vec<_> = profile.handshakes.iter().filter(|said| said.is_signed()).collect();
        match self.verifier.handshakes.after(self.inbound, values).await {
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
        ON
    }
}
