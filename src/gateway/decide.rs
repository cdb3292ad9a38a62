//! Decides what a request is: an event, a handshake, or refused. These functions count, log and store nothing, and the
//! time is an argument, so that `explain` and the tests of recorded deliveries use them too.

use http::Method;

use crate::base::time::Moment;
use crate::http::body::Limits;
use crate::http::inbound::Inbound;
use crate::source::refusal::Refusal;
use crate::verify::compile::RequestVerifier;
use crate::verify::handshake::Answer;
use crate::verify::identity::Event;

/// The result of [`decide`].
#[derive(Debug)]
pub struct Decision {
    /// How the request was verified; absent when it was not.
    pub proof: Option<Proof>,
    /// What the request is, or why it is refused.
    pub verdict: Result<Verdict, Rejection>,
}

/// How a request was verified.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    /// The index of the source's secret that verified it; absent when the key was fetched.
    pub secret: Option<usize>,
    /// The age of its time in seconds, if it has one; negative when that time is in the future.
    pub skew: Option<i64>,
}

/// A request that is not refused.
#[derive(Debug)]
pub enum Verdict {
    /// An event.
    Event(Event),
    /// A handshake, with its answer.
    Handshake(Answer),
}

/// A request that is refused.
#[derive(Debug)]
pub struct Rejection {
    /// Why.
    pub refusal: Refusal,
    /// The request, if it can be delivered by a source in observe mode: an event that is not verified, or has no
    /// identity.
    pub observable: Option<Inbound>,
}

impl<R: Into<Refusal>> From<R> for Rejection {
    fn from(refusal: R) -> Self {
        Self { refusal: refusal.into(), observable: None }
    }
}

/// Whether requests with this method are taken: events come with POST, handshakes with the methods of the profile.
///
/// # Errors
/// [`Refusal::MethodNotAllowed`].
pub fn check_method(verifier: &RequestVerifier, method: &Method) -> Result<(), Refusal> {
    let known = *method == Method::POST || verifier.handshakes.methods().any(|known| known == method);
    if known { Ok(()) } else { Err(Refusal::MethodNotAllowed) }
}

/// Decides what a request to the source of this name is. Fetches keys and certificates where the profile requires it,
/// and decompresses the body within the limits. `now` is read again after waiting for that: a request that was fresh
/// when it came, and waits until its dedupe record has expired, is stale.
pub async fn decide(
    verifier: &RequestVerifier,
    source: &str,
    limits: &Limits,
    inbound: Inbound,
    now: impl Fn() -> Moment,
) -> Decision {
    let mut proof = None;
    let verdict = verdict(verifier, source, limits, (inbound, now), &mut proof).await;
    Decision { proof, verdict }
}

async fn verdict(
    verifier: &RequestVerifier,
    source: &str,
    limits: &Limits,
    (mut inbound, now): (Inbound, impl Fn() -> Moment),
    proof: &mut Option<Proof>,
) -> Result<Verdict, Rejection> {
    let RequestVerifier { authenticator, handshakes, identity, .. } = verifier;
    let is_event = *inbound.method() == Method::POST;
    if inbound.needs_decompression() {
        // Boxed, because this future is rare and large.
        Box::pin(decompress(verifier, limits, &mut inbound, now())).await?;
    }
    if let Some(answer) = handshakes.answer_unverified(&inbound).await? {
        return Ok(Verdict::Handshake(answer));
    }
    if !is_event && !handshakes.take_signed(inbound.method()) {
        return Err(Refusal::MethodNotAllowed.into());
    }
    let verified = match authenticator.verify(inbound, now()).await {
        Ok(verified) => verified,
        Err(rejected) => {
            let observable = is_event.then_some(rejected.inbound);
            return Err(Rejection { refusal: rejected.failure.into(), observable });
        }
    };
    *proof = Some(Proof { secret: verified.secret(), skew: verified.skew() });
    if let Some(answer) = handshakes.answer_verified(verified.inbound(), verified.values()).await? {
        return Ok(Verdict::Handshake(answer));
    }
    if !is_event {
        return Err(Refusal::MethodNotAllowed.into());
    }
    match identity.identify(source, verified) {
        Ok(event) => Ok(Verdict::Event(event)),
        Err(unidentified) => {
            Err(Rejection { refusal: unidentified.why.into(), observable: Some(unidentified.inbound) })
        }
    }
}

/// Decompresses a body, unless the compressed bytes are signed and the signature is wrong.
///
/// # Errors
/// [`Refusal::Unreadable`] when the body is too large, or does not match its content coding.
pub async fn decompress(
    verifier: &RequestVerifier,
    limits: &Limits,
    inbound: &mut Inbound,
    now: Moment,
) -> Result<(), Refusal> {
    if !inbound.needs_decompression() {
        return Ok(());
    }
    let unsigned = verifier.handshakes.may_be_unsigned(inbound);
    if unsigned || verifier.authenticator.is_worth_decompressing(inbound, now).await {
        inbound.decompress(limits).await?;
    }
    Ok(())
}
