//! Explains why a captured request verifies or does not: the steps of its verification, and the common mistake that
//! would account for a refusal. Verifies with the gateway's own code, and never shows a secret.
//!
//! `capture` parses the request, `steps` follows its verification, `mistakes` tests hypotheses about a refusal.

mod capture;
mod mistakes;
mod order;
mod json_styles;
mod steps;
mod token;
mod wording;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Uri;

use crate::base::secret::Secret;
use crate::base::supervisor::Background;
use crate::base::time::Moment;
use crate::extract::params::Params;
use crate::gateway::decide;
use crate::gateway::decide::Verdict;
use crate::http::body;
use crate::http::body::Limits;
use crate::http::body::Unreadable;
use crate::http::content_coding::Coding;
use crate::http::inbound::Inbound;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::source::refusal::Refusal;
use crate::verify::KeySets;
use crate::verify::compile::ReplayPolicy;
use crate::verify::compile::RequestVerifier;
use crate::verify::handshake::Answer;

pub use capture::Capture;
pub use mistakes::Cause;
pub use steps::Kind;
pub use steps::Step;

/// The source name for identities of events.
const SOURCE: &str = "explain";
/// The limit on decompressed bodies where the profile does not say what its provider sends.
const MAX_DECOMPRESSED: usize = 64 * 1024 * 1024;

/// A request, with the profile and settings that it is verified with.
#[derive(Debug, Clone)]
pub struct Case {
    /// The profile of its provider.
    pub profile: Profile,
    /// The secrets of its source.
    pub secrets: Vec<Secret>,
    /// Earlier secrets of the source, which it no longer accepts.
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
    /// The time at which it is verified.
    pub at: Moment,
}

/// An accepted request.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// An event.
    Event {
        /// Its id.
        id: String,
        /// Its type, where it has one.
        kind: Option<String>,
        /// The index of the secret that verified it.
        secret: Option<usize>,
    },
    /// A handshake, and its answer.
    Handshake(Answer),
}

/// The explanation of what the gateway does with a request.
#[derive(Debug)]
pub struct Explanation {
    /// The steps of the verification, up to the one that decided.
    pub steps: Vec<Step>,
    /// What the gateway would do with it.
    pub verdict: Result<Accepted, Refusal>,
    verifier: RequestVerifier,
    key_sets: KeySets,
    /// Refreshes the key sets.
    _fetches: Background,
}

/// Explains what the gateway does with a request. Fetches keys and certificates where the profile requires it.
///
/// # Errors
/// What is wrong with the secrets or parameters.
pub async fn explain(case: &Case) -> Result<Explanation, String> {
    let mut key_sets = KeySets::new();
    let verifier = case.verifier(&mut key_sets)?;
    let fetches = Background::default();
    for jwks in key_sets.values() {
        let jwks = Arc::clone(jwks);
        fetches.spawn("key-set", async move { match jwks.run().await {} });
    }
    let verdict = case.verdict(&verifier).await;
    let steps = steps::walk(case, &verifier).await;
    Ok(Explanation { steps, verdict, verifier, key_sets, _fetches: fetches })
}

impl Explanation {
    /// The most likely cause, if the request is refused. Tests the common mistakes, which takes some hundred
    /// signatures.
    pub async fn cause(&mut self, case: &Case) -> Option<Cause> {
        let refusal = self.verdict.as_ref().err()?;
        Some(mistakes::cause(case, &self.verifier, refusal, &mut self.key_sets).await)
    }
}

impl Case {
    fn verifier(&self, key_sets: &mut KeySets) -> Result<RequestVerifier, String> {
        let replays = ReplayPolicy::new(self.ttl, None, &[]);
        RequestVerifier::new(&self.profile, &self.secrets, &self.params, replays, key_sets).map_err(|errors| {
            let line = |(key, message): &(String, String)| format!("{key} {message}");
            errors.iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }

    /// Whether a proof covers the body.
    fn covers_body(&self) -> bool {
        self.profile.schemes().any(|scheme| match scheme {
            Scheme::Signature(_) => true,
            Scheme::Jwt(jwt) => jwt.body.is_some(),
            Scheme::Token(_) | Scheme::Basic(_) => false,
        })
    }

    /// The request, decompressed if possible.
    fn inbound(&self) -> Inbound {
        let inbound = self.recorded();
        let plain = Coding::from_headers(&self.headers).ok().flatten().and_then(|coding| {
            let plain = coding.decompress(&self.body, self.max_body()).ok().flatten()?;
            Some(plain.into())
        });
        match plain {
            Some(plain) => inbound.with_decompressed(plain),
            None => inbound,
        }
    }

    fn recorded(&self) -> Inbound {
        let (method, target, headers) = (self.method.clone(), self.target.clone(), self.headers.clone());
        Inbound::recorded(method, target, headers, self.body.clone(), self.at)
    }

    /// The limit on bodies, compressed or not, in bytes.
    fn max_body(&self) -> usize {
        let limit = self.profile.limits.max_body.and_then(|size| usize::try_from(size.as_u64()).ok());
        limit.unwrap_or_else(|| MAX_DECOMPRESSED.max(self.body.len()))
    }

    fn limits(&self) -> Limits {
        Limits { max_body: self.max_body(), max_decompressions: usize::MAX, ..Limits::none() }
    }

    /// The request as the gateway reads it before verification.
    fn read(&self, verifier: &RequestVerifier) -> Result<Inbound, Unreadable> {
        let limits = self.limits();
        body::check_head(&self.headers, &verifier.single_headers, &limits)?;
        if self.body.len() > limits.max_body { Err(Unreadable::TooLarge) } else { Ok(self.recorded()) }
    }

    /// Why the gateway cannot read the request, if it cannot.
    async fn unreadable(&self, verifier: &RequestVerifier) -> Option<Refusal> {
        match self.read(verifier) {
            Ok(mut inbound) => decide::decompress(verifier, &self.limits(), &mut inbound, self.at).await.err(),
            Err(why) => Some(why.into()),
        }
    }

    /// What the gateway does with the request.
    async fn verdict(&self, verifier: &RequestVerifier) -> Result<Accepted, Refusal> {
        decide::check_method(verifier, &self.method)?;
        let inbound = self.read(verifier)?;
        let decision = decide::decide(verifier, SOURCE, &self.limits(), inbound, || self.at).await;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        match decision.verdict {
            Ok(Verdict::Handshake(answer)) => Ok(Accepted::Handshake(answer)),
            Ok(Verdict::Event(event)) => Ok(Accepted::Event {
                id: text(&event.id),
                kind: event.kind.as_ref().map(text),
                secret: decision.proof.and_then(|proof| proof.secret),
            }),
            Err(rejection) => Err(rejection.refusal),
        }
    }
}
