//! The authenticator of one source: verifies requests by its schemes, conditions and timestamp.

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

/// Verifies the requests of one source.
#[derive(Debug)]
pub struct Authenticator {
    /// Which of the members must verify.
    pub combination: Combination,
    /// The schemes, at least one.
    pub members: Vec<Member>,
    /// Conditions that must hold in addition to the proof.
    pub require: Vec<Condition>,
    /// How the timestamp is checked, where the provider sends one.
    pub freshness: Option<Freshness>,
    /// All values that the source reads: for verification, for signed handshakes, and for the event's identity.
    pub plan: ExtractionPlan,
    /// Whether JSON must be parsed before the request can be verified; see [`Self::reads_json`].
    pub json_first: bool,
    /// In which ways a compressed body may be signed, in the order in which they are tried.
    pub compressed: Vec<ContentEncoding>,
    /// Whether a body must be decompressed before the request can be verified.
    pub decompress_first: bool,
}

impl Authenticator {
    /// Verifies a request at the moment `now`.
    ///
    /// # Errors
    /// The first [`Failure`] found. The order of checks is the same for all requests of a profile.
    pub async fn verify(&self, mut inbound: Inbound, now: Moment) -> Result<Verified, Box<Rejected>> {
        let checked = match inbound.is_compressed() {
            false => self.check(&inbound, now).await,
            // Boxed, because it is rare and its future is large.
            true => Box::pin(self.check_compressed(&mut inbound, now)).await,
        };
        match checked {
            Ok(Proven { values, secret, skew, ahead, guard }) => {
                Ok(Verified { inbound, values, secret, skew, ahead, guard })
            }
            Err(failure) => Err(Box::new(Rejected { failure, inbound })),
        }
    }

    /// Tries the ways in which the body may be signed. Stops at a failure that does not depend on that.
    async fn check_compressed(&self, inbound: &mut Inbound, now: Moment) -> Result<Proven, Failure> {
        let mut failure = Failure::SignatureMismatch;
        for signed in &self.compressed {
            inbound.set_signed_as(*signed);
            match self.check(inbound, now).await {
                Err(other @ (Failure::SignatureMismatch | Failure::TokenBody | Failure::ConditionUnmet)) => {
                    failure = other;
                }
                checked => return checked,
            }
        }
        Err(failure)
    }

    /// Whether a compressed body should be decompressed: the request verifies with the body as sent, or cannot be
    /// verified before. Otherwise unverified clients could use up the budget for decompression.
    pub async fn is_worth_decompressing(&self, inbound: &Inbound, now: Moment) -> bool {
        if self.decompress_first || self.json_first || self.plan.form() {
            return true;
        }
        let values = self.plan.read(inbound);
        // Other failures do not depend on the body, or may be gone a moment later.
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

    async fn check(&self, inbound: &Inbound, now: Moment) -> Result<Proven, Failure> {
        let mut values = self.plan.read(inbound);
        if self.json_first {
            self.plan.read_json(inbound, &mut values, true)?;
        }
        let mut proven = self.prove(inbound, &values, now).await?;
        // JSON is parsed only after verification, unless verification needs a value of it.
        if !self.json_first {
            self.plan.read_json(inbound, &mut values, false)?;
        }
        proven.values = values;
        Ok(proven)
    }

    /// Verifies the request with these values. The result has no values; the caller adds them.
    async fn prove(&self, inbound: &Inbound, values: &Extracted, now: Moment) -> Result<Proven, Failure> {
        if !self.require.iter().all(|condition| condition.holds(inbound, values)) {
            return Err(Failure::ConditionUnmet);
        }
        let members = self.applicable_members(inbound, values)?;
        for member in members {
            member.scheme.require_proof(inbound, values)?;
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
            proven.skew = freshness.check(&stamp, now)?;
            proven.ahead = freshness.ahead(proven.skew).or(proven.ahead);
        }
        Ok(proven)
    }

    /// The members that must verify this request: all of them, or the first that applies. If none applies, the first
    /// without `when` conditions, preferably one whose carrier is present, so that the failure tells what is missing.
    ///
    /// # Errors
    /// [`Failure::ConditionUnmet`] when none applies and all have `when` conditions.
    pub fn applicable_members(&self, inbound: &Inbound, values: &Extracted) -> Result<&[Member], Failure> {
        match (self.combination, self.members.as_slice()) {
            (Combination::All, members) => Ok(members),
            (Combination::First, members @ [member]) if member.when.is_empty() => Ok(members),
            (Combination::First, members) => {
                let applies = |member: &Member| match member.when.as_slice() {
                    [] if member.has_own_carrier => member.scheme.field().is_present(inbound, values),
                    [] => member.scheme.field().has_entry(inbound, values),
                    when => when.iter().all(|condition| condition.holds(inbound, values)),
                };
                let is_present =
                    |member: &Member| member.when.is_empty() && member.scheme.field().is_present(inbound, values);
                let first = members
                    .iter()
                    .position(applies)
                    .or_else(|| members.iter().position(is_present))
                    .or_else(|| members.iter().position(|member| member.when.is_empty()))
                    .ok_or(Failure::ConditionUnmet)?;
                Ok(members.get(first..=first).unwrap_or_default())
            }
        }
    }

    /// The headers that this authenticator reads, each of which may occur only once.
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

    /// Whether verification needs a value of the JSON body.
    pub fn reads_json(&self) -> bool {
        let conditions =
            self.require.iter().chain(self.members.iter().flat_map(|member| member.when.iter().chain(&member.check)));
        self.freshness.as_ref().is_some_and(Freshness::reads_json)
            || conditions.flat_map(Condition::fields).any(Field::is_json)
            || self.members.iter().any(|member| member.scheme.reads_json())
    }
}

/// A verified request. Only [`Authenticator::verify`] makes one.
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
    /// The request.
    pub fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// The values of the plan.
    pub fn values(&self) -> &Extracted {
        &self.values
    }

    /// The position of the secret that matched, from 0; `None` for schemes without secrets.
    pub fn secret(&self) -> Option<usize> {
        self.secret
    }

    /// Seconds from the request's own time to now, where it has one.
    pub fn skew(&self) -> Option<i64> {
        self.skew
    }

    /// How far in the future the request's signed time is; zero when it is not. `None` where no time is signed.
    pub fn ahead(&self) -> Option<Duration> {
        self.ahead
    }

    /// The SHA-256 of the signed bytes, for the replay guard, where they do not cover the event id.
    pub fn guard(&self) -> Option<&[u8; 32]> {
        self.guard.as_ref()
    }

    /// The request, by value.
    pub fn into_inbound(self) -> Inbound {
        self.inbound
    }
}

/// A request that failed verification.
#[derive(Debug)]
pub struct Rejected {
    /// Why verification failed.
    pub failure: Failure,
    /// The request, still unverified.
    pub inbound: Inbound,
}

/// The result of a verification; see the methods of [`Verified`].
#[derive(Default)]
struct Proven {
    values: Extracted,
    secret: Option<usize>,
    skew: Option<i64>,
    ahead: Option<Duration>,
    guard: Option<[u8; 32]>,
}
