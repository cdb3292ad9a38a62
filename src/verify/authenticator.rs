//! The authenticator of one source: which schemes and conditions have to hold, and what a request is proven to be.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::Failure;
use super::Freshness;
use super::Jwks;
use super::Member;
use super::Scheme;
use super::Signed;
use crate::base::time::Moment;
use crate::extract::condition::Condition;
use crate::extract::field::Extracted;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::http::inbound::Inbound;
use crate::profile::Combination;
use crate::profile::ContentEncoding;

/// Everything one source needs to tell genuine requests from others.
#[derive(Debug)]
pub struct Authenticator {
    /// Which of the members have to hold.
    pub combination: Combination,
    /// How a request proves its origin; at least one.
    pub members: Vec<Member>,
    /// Conditions that have to hold besides the proof.
    pub require: Vec<Condition>,
    /// How its time is judged, where the provider sends one.
    pub freshness: Option<Freshness>,
    /// Every value that the profile wants, of the authenticator, of the handshakes and of the event.
    pub plan: ExtractionPlan,
    /// Whether JSON has to be parsed before the request is known to be genuine; see [`Self::reads_json`].
    pub json_first: bool,
    /// In which ways a compressed body may be signed, in the order in which they are tried.
    pub compressed: Vec<ContentEncoding>,
    /// Whether what a body was before its compression has to be known before the request is known to be genuine.
    pub unpacks_first: bool,
}

impl Authenticator {
    /// Checks a request at the moment `now`.
    ///
    /// # Errors
    /// The first [`Failure`] found; the order is the same for every request of a profile.
    pub async fn verify(&self, mut inbound: Inbound, now: Moment) -> Result<Verified, Box<Rejected>> {
        let judged = match inbound.is_compressed() {
            false => self.judge(&inbound, now).await,
            // Rare and large: it stays out of the way of all other requests.
            true => Box::pin(self.judge_compressed(&mut inbound, now)).await,
        };
        match judged {
            Ok(Proven { values, secret, skew, ahead, guard }) => {
                Ok(Verified { inbound, values, secret, skew, ahead, guard })
            }
            Err(failure) => Err(Box::new(Rejected { failure, inbound })),
        }
    }

    /// Takes the body for signed in one way after the other. What else is wrong would be so in each.
    async fn judge_compressed(&self, inbound: &mut Inbound, now: Moment) -> Result<Proven, Failure> {
        let mut failure = Failure::SignatureMismatch;
        for signed in &self.compressed {
            inbound.set_signed_as(*signed);
            match self.judge(inbound, now).await {
                Err(other @ (Failure::SignatureMismatch | Failure::TokenBody | Failure::ConditionUnmet)) => {
                    failure = other;
                }
                judged => return judged,
            }
        }
        Err(failure)
    }

    /// Whether a compressed body proves itself as it was sent, or has to be decompressed before that can be told: what
    /// only genuine requests need is not done for strangers.
    pub async fn is_worth_decompressing(&self, inbound: &Inbound, now: Moment) -> bool {
        if self.unpacks_first || self.json_first || self.plan.form() {
            return true;
        }
        let values = self.plan.read(inbound);
        // What may be judged otherwise a moment later is left to that.
        !matches!(
            self.prove(inbound, &values, now).await,
            Err(Failure::SignatureMissing
                | Failure::SignatureMalformed
                | Failure::SignatureMismatch
                | Failure::TokenMissing
                | Failure::TokenMalformed
                | Failure::TokenSignature
                | Failure::TokenBody
                | Failure::CredentialMissing
                | Failure::CredentialMalformed
                | Failure::CredentialMismatch)
        )
    }

    async fn judge(&self, inbound: &Inbound, now: Moment) -> Result<Proven, Failure> {
        let mut values = self.plan.read(inbound);
        if self.json_first {
            self.plan.read_json(inbound, &mut values, true)?;
        }
        let mut proven = self.prove(inbound, &values, now).await?;
        // Bodies are parsed once they are known to be genuine, unless something inside is needed to tell.
        if !self.json_first {
            self.plan.read_json(inbound, &mut values, false)?;
        }
        proven.values = values;
        Ok(proven)
    }

    /// Whether the request is genuine; the values of what it proves are left out.
    async fn prove(&self, inbound: &Inbound, values: &Extracted, now: Moment) -> Result<Proven, Failure> {
        if !self.require.iter().all(|condition| condition.holds(inbound, values)) {
            return Err(Failure::ConditionUnmet);
        }
        let members = self.applying(inbound, values)?;
        for member in members {
            member.scheme.presented(inbound, values)?;
        }
        let timed = members.iter().any(|member| member.timed);
        let freshness = self.freshness.as_ref().filter(|_| timed);
        let stamp = freshness.map(|freshness| freshness.read(inbound, values)).transpose()?;
        let timestamp = stamp.as_ref().and_then(|stamp| stamp.text);
        let mut proven = Proven::default();
        for member in members {
            if !member.check.iter().all(|condition| condition.holds(inbound, values)) {
                return Err(Failure::SignatureMismatch);
            }
            let signed = match &member.scheme {
                Scheme::Signature(signature) => signature.verify(inbound, values, timestamp, now).await?,
                Scheme::Token(token) => Signed { secret: Some(token.verify(inbound, values)?), digest: None },
                Scheme::Jwt(jwt) => {
                    proven.ahead = jwt.issued_within.map(|_| Duration::ZERO);
                    Box::pin(jwt.verify(inbound, values, now)).await?
                }
            };
            proven.guard = proven.guard.or(signed.digest);
            proven.secret = proven.secret.or(signed.secret);
        }
        if let (Some(freshness), Some(stamp)) = (freshness, stamp) {
            proven.skew = freshness.judge(&stamp, now)?;
            proven.ahead = freshness.ahead(proven.skew).or(proven.ahead);
        }
        Ok(proven)
    }

    /// The members that decide about this request.
    ///
    /// # Errors
    /// [`Failure::ConditionUnmet`] when none applies.
    pub fn applying(&self, inbound: &Inbound, values: &Extracted) -> Result<&[Member], Failure> {
        match (self.combination, self.members.as_slice()) {
            (Combination::All, members) => Ok(members),
            (Combination::First, members @ [member]) if member.when.is_empty() => Ok(members),
            (Combination::First, members) => {
                let applies = |member: &Member| match member.when.as_slice() {
                    [] if member.alone => member.scheme.field().is_there(inbound, values),
                    [] => member.scheme.field().has_entry(inbound, values),
                    when => when.iter().all(|condition| condition.holds(inbound, values)),
                };
                let there = |member: &Member| member.when.is_empty() && member.scheme.field().is_there(inbound, values);
                let first = members
                    .iter()
                    .position(applies)
                    .or_else(|| members.iter().position(there))
                    .or_else(|| members.iter().position(|member| member.when.is_empty()))
                    .ok_or(Failure::ConditionUnmet)?;
                Ok(members.get(first..=first).unwrap_or_default())
            }
        }
    }

    /// The headers that this authenticator reads, each of which may be there once.
    pub fn headers(&self) -> Vec<HeaderName> {
        let conditions =
            self.require.iter().chain(self.members.iter().flat_map(|member| member.when.iter().chain(&member.check)));
        let mut names: Vec<_> = conditions.flat_map(Condition::fields).flat_map(Field::headers).collect();
        names.extend(self.members.iter().flat_map(|member| member.scheme.headers()));
        names.extend(self.freshness.iter().flat_map(Freshness::headers));
        names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        names
    }

    /// The key sets that it verifies tokens with.
    pub fn key_sets(&self) -> impl Iterator<Item = &Arc<Jwks>> {
        self.members.iter().filter_map(|member| match &member.scheme {
            Scheme::Jwt(jwt) => jwt.jwks(),
            Scheme::Signature(_) | Scheme::Token(_) => None,
        })
    }

    /// Whether anything that decides stands in a JSON body.
    pub fn reads_json(&self) -> bool {
        let conditions =
            self.require.iter().chain(self.members.iter().flat_map(|member| member.when.iter().chain(&member.check)));
        self.freshness.as_ref().is_some_and(Freshness::reads_json)
            || conditions.flat_map(Condition::fields).any(Field::is_json)
            || self.members.iter().any(|member| member.scheme.reads_json())
    }
}

/// A request that an authenticator accepted. Made by [`Authenticator::verify`] only.
#[derive(Debug)]
pub struct Verified {
    inbound: Inbound,
    values: Extracted,
    secret: Option<usize>,
    skew: Option<i64>,
    ahead: Option<Duration>,
    guard: Option<[u8; 32]>,
}

impl Verified {
    /// The request itself.
    pub fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// What the profile wants of the body and the query.
    pub fn values(&self) -> &Extracted {
        &self.values
    }

    /// Which of the source's secrets matched, counted from 0; `None` for schemes without secrets.
    pub fn secret(&self) -> Option<usize> {
        self.secret
    }

    /// Seconds from the request's own time to now, where it has one.
    pub fn skew(&self) -> Option<i64> {
        self.skew
    }

    /// How far ahead of now the request's signed time is, if at all; nothing where no time is signed.
    pub fn ahead(&self) -> Option<Duration> {
        self.ahead
    }

    /// SHA-256 of the signed bytes when they do not include the event id.
    pub fn guard(&self) -> Option<&[u8; 32]> {
        self.guard.as_ref()
    }

    /// The request itself, by value.
    pub fn into_inbound(self) -> Inbound {
        self.inbound
    }
}

/// A request that an authenticator did not accept.
#[derive(Debug)]
pub struct Rejected {
    /// Why it was not accepted.
    pub failure: Failure,
    /// The request, as untrusted as before.
    pub inbound: Inbound,
}

/// What a request was proven to be.
#[derive(Default)]
struct Proven {
    values: Extracted,
    secret: Option<usize>,
    skew: Option<i64>,
    ahead: Option<Duration>,
    guard: Option<[u8; 32]>,
}
