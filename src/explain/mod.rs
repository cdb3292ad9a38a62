//! Explains why a captured request verifies or does not: what was looked for, found, computed and compared, and which
//! common mistake would account for a refusal. Verifies with the gateway's own code; never shows a secret.

mod capture;
mod mistakes;
mod order;
mod json_styles;
mod steps;
mod token;
mod words;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Uri;

use crate::base::secret::Secret;
use crate::base::supervisor::Background;
use crate::base::time::Moment;
use crate::config::Judge;
use crate::config::Replays;
use crate::extract::params::Params;
use crate::http::body;
use crate::http::body::Budget;
use crate::http::body::Inbound;
use crate::http::body::Limits;
use crate::http::body::Unreadable;
use crate::http::content_coding::Coding;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::source::refusal::Refusal;
use crate::verify::KeySets;
use crate::verify::handshake::Answer;

pub use capture::Capture;
pub use mistakes::Cause;
pub use steps::Kind;
pub use steps::Step;

/// The name that the source goes by.
const SOURCE: &str = "explain";
/// Most bytes that a body is looked at with before its compression, where no profile says what its provider sends.
const MAX_PLAIN: usize = 64 * 1024 * 1024;

/// A request, and what it is judged by.
#[derive(Debug, Clone)]
pub struct Case {
    /// The profile of its provider.
    pub profile: Profile,
    /// The secrets of its source.
    pub secrets: Vec<Secret>,
    /// Secrets that the source had earlier, and does not accept any more.
    pub old_secrets: Vec<Secret>,
    /// The parameters of its source, complete.
    pub params: Params,
    /// How long the gateway remembers events.
    pub ttl: Duration,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// When it is judged.
    pub at: Moment,
}

/// What an accepted request is to the gateway.
#[derive(Debug, Clone)]
pub enum Taken {
    /// An event.
    Event {
        /// Its id.
        id: String,
        /// Its type, where it has one.
        kind: Option<String>,
        /// Which secret it was proved with, counted from 0.
        secret: Option<usize>,
    },
    /// A handshake, and its answer.
    Handshake(Answer),
}

/// What becomes of a request, and how.
#[derive(Debug)]
pub struct Explanation {
    /// What was done, in its order, to where it ended.
    pub steps: Vec<Step>,
    /// What the gateway would make of it.
    pub verdict: Result<Taken, Refusal>,
    judge: Judge,
    key_sets: KeySets,
    /// What keeps the key sets fresh.
    _fetches: Background,
}

/// Explains what becomes of a request. Keys and certificates are fetched where the profile says so.
///
/// # Errors
/// What is wrong with the secrets or parameters.
pub async fn explain(case: &Case) -> Result<Explanation, String> {
    let mut key_sets = KeySets::new();
    let judge = case.judge(&mut key_sets)?;
    let fetches = Background::default();
    for jwks in key_sets.values() {
        let jwks = Arc::clone(jwks);
        fetches.spawn("key-set", async move { match jwks.run().await {} });
    }
    let verdict = case.verdict(&judge).await;
    let steps = steps::walk(case, &judge).await;
    Ok(Explanation { steps, verdict, judge, key_sets, _fetches: fetches })
}

impl Explanation {
    /// Looks for the likeliest cause, when the request is refused: tries the usual mistakes, which takes some hundred
    /// signatures.
    pub async fn cause(&mut self, case: &Case) -> Option<Cause> {
        let refusal = self.verdict.as_ref().err()?;
        Some(mistakes::cause(case, &self.judge, refusal, &mut self.key_sets).await)
    }
}

impl Case {
    fn judge(&self, key_sets: &mut KeySets) -> Result<Judge, String> {
        let replays = Replays::new(self.ttl, None, &[]);
        Judge::new(&self.profile, &self.secrets, &self.params, replays, key_sets).map_err(|misfits| {
            let line = |(key, message): &(String, String)| format!("{key} {message}");
            misfits.iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }

    /// Whether a proof is over anything of the body.
    fn covers_body(&self) -> bool {
        self.profile.schemes().any(|scheme| match scheme {
            Scheme::Signature(_) => true,
            Scheme::Jwt(jwt) => jwt.body.is_some(),
            Scheme::Token(_) | Scheme::Basic(_) => false,
        })
    }

    /// The request as the gateway has read it; compressed where it can be.
    fn inbound(&self) -> Inbound {
        let (method, target) = (self.method.clone(), self.target.clone());
        let inbound = Inbound::recorded(method, target, self.headers.clone(), self.body.clone(), self.at);
        match self.plain(self.max_body()) {
            Ok(Some(plain)) => inbound.compressed(plain),
            Ok(None) | Err(_) => inbound,
        }
    }

    /// The body before its compression, where it is compressed.
    fn plain(&self, max: usize) -> Result<Option<Bytes>, Unreadable> {
        let Some(coding) = Coding::of(&self.headers)? else { return Ok(None) };
        let plain = coding.plain(&self.body, max)?.ok_or(Unreadable::TooLarge)?;
        Ok(Some(plain.into()))
    }

    /// The largest body that is looked at, in bytes, compressed or not.
    fn max_body(&self) -> usize {
        let said = self.profile.limits.max_body.and_then(|size| usize::try_from(size.as_u64()).ok());
        said.unwrap_or_else(|| MAX_PLAIN.max(self.body.len()))
    }

    /// What every request has to keep to, of whatever provider.
    async fn readable(&self, judge: &Judge) -> Result<(), Unreadable> {
        let limits = Limits {
            max_body: self.max_body(),
            body_timeout: Duration::ZERO,
            budget: Arc::new(Budget::new(usize::MAX)),
            ..Limits::none()
        };
        body::announced(&self.headers, &judge.single_headers, &limits)?;
        if self.body.len() > limits.max_body {
            return Err(Unreadable::TooLarge);
        }
        let Err(why) = self.plain(limits.max_body) else { return Ok(()) };
        let inbound = self.inbound();
        let needed = judge.handshakes.may_be_unsigned(&inbound)
            || judge.authenticator.is_worth_decompressing(&inbound, self.at).await;
        if needed { Err(why) } else { Ok(()) }
    }

    /// The steps of the gateway, from the head of a request to its event.
    async fn verdict(&self, judge: &Judge) -> Result<Taken, Refusal> {
        let Judge { authenticator, handshakes, identity, .. } = judge;
        let event = self.method == Method::POST;
        if !event && !handshakes.methods().any(|known| *known == self.method) {
            return Err(Refusal::MethodNotAllowed);
        }
        self.readable(judge).await?;
        let inbound = self.inbound();
        if let Some(answer) = handshakes.before(&inbound).await? {
            return Ok(Taken::Handshake(answer));
        }
        if !event && !handshakes.take_signed(&self.method) {
            return Err(Refusal::MethodNotAllowed);
        }
        let verified = authenticator.verify(inbound, self.at).await.map_err(|rejected| rejected.failure)?;
        if let Some(answer) = handshakes.after(verified.inbound(), verified.values()).await? {
            return Ok(Taken::Handshake(answer));
        }
        if !event {
            return Err(Refusal::MethodNotAllowed);
        }
        let secret = verified.secret();
        let event = identity.identify(SOURCE, verified).map_err(|nameless| nameless.why)?;
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Ok(Taken::Event { id: text(&event.id), kind: event.kind.as_ref().map(text), secret })
    }
}
