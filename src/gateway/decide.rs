//! Decides what a request is: an event, a handshake, or one that is refused. Nothing is counted, logged or stored here,
//! and the time is an argument: the gateway and `explain` decide by the same functions, and so do the tests of recorded
//! deliveries.

use http::Method;

use crate::base::time::Moment;
use crate::http::body::Limits;
use crate::http::inbound::Inbound;
use crate::source::refusal::Refusal;
use crate::verify::compile::RequestVerifier;
use crate::verify::handshake::Answer;
use crate::verify::identity::Event;

/// What a request is.
#[derive(Debug)]
pub struct Decision {
    /// By what it proved that it comes from the provider; absent when it did not.
    pub proof: Option<Proof>,
    /// What it is, or why it is refused.
    pub verdict: Result<Verdict, Rejection>,
}

/// By what a request proved that it comes from the provider.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    /// Which of the source's secrets, counted from 0; absent when the key was fetched.
    pub secret: Option<usize>,
    /// How many seconds its signed time lies in the past, where it has one; negative when it lies ahead.
    pub skew: Option<i64>,
}

/// What a request is that is not refused.
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
    /// The request, where it would be an event if it were verified: a source that only observes delivers it.
    pub unverified: Option<Inbound>,
}

impl<R: Into<Refusal>> From<R> for Rejection {
    fn from(refusal: R) -> Self {
        Self { refusal: refusal.into(), unverified: None }
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

/// Decides what a request to the source of this name is, at this moment. Keys and certificates are fetched where the
/// profile says so; a body is decompressed within the limits.
pub async fn decide(
    verifier: &RequestVerifier,
    source: &str,
    limits: &Limits,
    inbound: Inbound,
    now: Moment,
) -> Decision {
    let mut proof = None;
    let verdict = verdict(verifier, source, limits, (inbound, now), &mut proof).await;
    Decision { proof, verdict }
}

async fn verdict(
    verifier: &RequestVerifier,
    source: &str,
    limits: &Limits,
    (mut inbound, now): (Inbound, Moment),
    proof: &mut Option<Proof>,
) -> Result<Verdict, Rejection> {
    let RequestVerifier { authenticator, handshakes, identity, .. } = verifier;
    let is_event = *inbound.method() == Method::POST;
    if inbound.needs_decompression() {
        // Rare and large: in a box, so that other requests do not carry room for it.
        Box::pin(decompress(verifier, limits, &mut inbound, now)).await?;
    }
    if let Some(answer) = handshakes.answer_unverified(&inbound).await? {
        return Ok(Verdict::Handshake(answer));
    }
    if !is_event && !handshakes.take_signed(inbound.method()) {
        return Err(Refusal::MethodNotAllowed.into());
    }
    let verified = match authenticator.verify(inbound, now).await {
        Ok(verified) => verified,
        Err(rejected) => {
            let unverified = is_event.then_some(rejected.inbound);
            return Err(Rejection { refusal: rejected.failure.into(), unverified });
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
            Err(Rejection { refusal: unidentified.why.into(), unverified: Some(unidentified.inbound) })
        }
    }
}

/// Decompresses a body, unless it is signed as sent and the signature is wrong: then nothing of it is read.
///
/// # Errors
/// [`Refusal::Unreadable`] for what is too large, or not what its content coding makes.
pub async fn decompress(
    verifier: &RequestVerifier,
    limits: &Limits,
    inbound: &mut Inbound,
    now: Moment,
) -> Result<(), Refusal> {
    let unsigned = verifier.handshakes.may_be_unsigned(inbound);
    if unsigned || verifier.authenticator.is_worth_decompressing(inbound, now).await {
        inbound.decompress(limits).await?;
    }
    Ok(())
}
