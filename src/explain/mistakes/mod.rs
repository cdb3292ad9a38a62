//! Finds the likely cause of a refusal by tests of hypotheses: each undoes one common mistake, and if the request
//! verifies then, that mistake is the cause. There is a file for each kind of mistake.

mod address;
mod body;
mod compressed;
mod form;
mod keys;
mod location;
mod from_refusal;
mod text;
mod time;

use bytes::Bytes;

use super::Accepted;
use super::Case;
use crate::http::body::Unreadable;
use crate::profile::Scheme;
use crate::profile::SignatureAlgorithm;
use crate::source::refusal::Refusal;
use crate::verify::Failure;
use crate::verify::KeySets;
use crate::verify::compile::RequestVerifier;

/// Bodies, each with a description of the mistake that it undoes.
type Variants = Vec<(String, Vec<u8>)>;

/// The largest body for which mistakes of bodies and of secrets are combined, in bytes.
const MAX_COMBINED: usize = 64 * 1024;

/// The likely cause of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What is wrong and how to fix it, in sentences.
    pub description: String,
    /// Whether the request verifies when the mistake is undone.
    pub proven: bool,
}

/// A case with one mistake undone, and the description of that mistake.
#[derive(Debug)]
struct Hypothesis {
    description: String,
    case: Case,
    /// Whether only the request differs, so that the verifier can be reused.
    request_only: bool,
}

impl Hypothesis {
    /// A hypothesis with another profile, secret or parameter.
    fn new(description: impl Into<String>, case: Case) -> Self {
        Self { description: description.into(), case, request_only: false }
    }

    /// A hypothesis with another request.
    fn request(description: impl Into<String>, case: Case) -> Self {
        Self { description: description.into(), case, request_only: true }
    }

    /// A hypothesis with another body.
    fn body(description: String, body: Bytes, case: &Case) -> Self {
        Self { description, case: Case { body, ..case.clone() }, request_only: true }
    }
}

/// The most likely cause of a refusal.
pub(super) async fn cause(case: &Case, verifier: &RequestVerifier, refusal: &Refusal, key_sets: &mut KeySets) -> Cause {
    if let Refusal::Unreadable(Unreadable::Garbled(_)) = refusal {
        for hypothesis in compressed::hypothesis(case) {
            if proves(&hypothesis.case, verifier, &Failure::SignatureMismatch).await {
                return Cause { description: hypothesis.description, proven: true };
            }
        }
    }
    let Some(failure) = testable(refusal) else {
        return Cause { description: from_refusal::describe(case, refusal), proven: false };
    };
    let mut tried = 0;
    for hypothesis in hypotheses(case, failure) {
        tried += 1;
        let proven = if hypothesis.request_only {
            proves(&hypothesis.case, verifier, failure).await
        } else if let Ok(verifier) = hypothesis.case.verifier(key_sets) {
            // Not tested with certificates: every verifier would fetch the certificate again.
            !case.profile.schemes().any(has_certificate) && proves(&hypothesis.case, &verifier, failure).await
        } else {
            false
        };
        if proven {
            return Cause { description: hypothesis.description, proven };
        }
    }
    match combined(case, failure, key_sets).await {
        Some(description) => Cause { description, proven: true },
        None => Cause { description: from_refusal::unexplained(case, failure, tried), proven: false },
    }
}

fn has_certificate(scheme: &Scheme) -> bool {
    matches!(scheme, Scheme::Signature(spec) if matches!(spec.algorithm, SignatureAlgorithm::Certificate(..)))
}

/// The failure, if hypotheses about it can be tested.
fn testable(refusal: &Refusal) -> Option<&Failure> {
    let Refusal::Unauthenticated(failure) = refusal else { return None };
    match failure {
        Failure::SignatureMissing
        | Failure::SignatureMalformed
        | Failure::SignatureMismatch
        | Failure::CredentialMissing
        | Failure::CredentialMalformed
        | Failure::CredentialMismatch
        | Failure::TokenMissing
        | Failure::TokenMalformed
        | Failure::TokenSignature
        | Failure::TokenBody
        | Failure::TimestampMissing
        | Failure::TimestampMalformed
        | Failure::TimestampStale
        | Failure::TimestampFuture => Some(failure),
        Failure::TokenAlgorithm
        | Failure::TokenUnknownKey
        | Failure::TokenKeyUse
        | Failure::TokenKeyUnusable(_)
        | Failure::TokenIssuer
        | Failure::TokenAudience
        | Failure::TokenExpired
        | Failure::TokenNotYetValid
        | Failure::TokenClaim
        | Failure::CertificateNotAllowed
        | Failure::CertificateInvalid
        | Failure::ConditionUnmet
        | Failure::KeysUnavailable
        | Failure::KeysCoolingDown
        | Failure::BodyMalformed(_) => None,
    }
}

/// All hypotheses about a failure, the most likely first, generated lazily.
fn hypotheses<'c>(case: &'c Case, failure: &Failure) -> Box<dyn Iterator<Item = Hypothesis> + 'c> {
    let time = matches!(
        failure,
        Failure::TimestampMissing | Failure::TimestampMalformed | Failure::TimestampStale | Failure::TimestampFuture
    );
    if time {
        return Box::new(time::units(case).into_iter());
    }
    let missing = matches!(
        failure,
        Failure::SignatureMissing | Failure::CredentialMissing | Failure::TokenMissing | Failure::SignatureMalformed
    );
    let elsewhere = || lazily(case, location::elsewhere);
    let first = elsewhere().take(if missing { usize::MAX } else { 0 });
    let last = elsewhere().take(if missing { 0 } else { usize::MAX });
    let bodies = case.covers_body().then(|| body::altered(case)).into_iter().flatten();
    let orders = case.covers_body().then(|| body::ordered(case)).into_iter().flatten();
    let all = first
        .chain(lazily(case, keys::old_secrets))
        .chain(lazily(case, keys::altered))
        .chain(lazily(case, address::spelled))
        .chain(lazily(case, address::query_spelled))
        .chain(lazily(case, compressed::hypothesis))
        .chain(bodies)
        .chain(lazily(case, time::scaled))
        .chain(last)
        .chain(lazily(case, location::signs_otherwise))
        .chain(orders);
    Box::new(all)
}

/// Hypotheses of one kind, generated when they are needed.
fn lazily<'c>(case: &'c Case, mistakes: fn(&Case) -> Vec<Hypothesis>) -> impl Iterator<Item = Hypothesis> + 'c {
    std::iter::once_with(move || mistakes(case)).flatten()
}

/// Whether the request verifies in this case.
async fn proves(case: &Case, verifier: &RequestVerifier, failure: &Failure) -> bool {
    match case.verdict(verifier).await {
        Ok(Accepted::Event { .. } | Accepted::Handshake(_)) => true,
        Err(Refusal::Unidentified(_) | Refusal::Unanswered(_)) => true,
        // The signature is checked before the time.
        Err(Refusal::Unauthenticated(later @ (Failure::TimestampStale | Failure::TimestampFuture))) => {
            !matches!(failure, Failure::TimestampStale | Failure::TimestampFuture) && later != *failure
        }
        Err(_) => false,
    }
}

/// Two mistakes at once: one of a secret, and one of the body.
async fn combined(case: &Case, failure: &Failure, key_sets: &mut KeySets) -> Option<String> {
    let hashed = |scheme: &Scheme| matches!(scheme, Scheme::Signature(spec) if matches!(spec.algorithm, SignatureAlgorithm::Hmac(_)));
    let wrong = matches!(failure, Failure::SignatureMismatch);
    if !wrong || case.body.len() > MAX_COMBINED || !case.profile.schemes().any(hashed) {
        return None;
    }
    let bodies: Vec<_> = body::altered(case).collect();
    for key in keys::old_secrets(case).into_iter().chain(keys::altered(case)) {
        let Ok(verifier) = key.case.verifier(key_sets) else { continue };
        for hypothesis in &bodies {
            let both = Case { body: hypothesis.case.body.clone(), ..key.case.clone() };
            if proves(&both, &verifier, failure).await {
                return Some(format!(
                    "two mistakes at once. First, {} Second, {}",
                    key.description, hypothesis.description
                ));
            }
        }
    }
    None
}
