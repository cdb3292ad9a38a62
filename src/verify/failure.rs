//! The reasons why verification fails.

use super::LeftOut;
use crate::base::json::Malformed;

/// Why verification fails. The answers to most failures are alike, see [`crate::source::refusal`]: they tell a sender
/// nothing that would help to forge a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it means")]
pub enum Failure {
    #[error("there is no signature")]
    SignatureMissing,
    #[error("the signature is not written the way the profile says")]
    SignatureMalformed,
    #[error("the signature belongs to other bytes or to another secret")]
    SignatureMismatch,
    #[error("there is no timestamp")]
    TimestampMissing,
    #[error("the timestamp is not written the way the profile says")]
    TimestampMalformed,
    #[error("the timestamp is older than the tolerance, or than events are remembered")]
    TimestampStale,
    #[error("the timestamp lies further ahead than the tolerance, or than events are remembered")]
    TimestampFuture,
    #[error("there is no bearer token")]
    TokenMissing,
    #[error("the token is no JWT")]
    TokenMalformed,
    #[error("the token's algorithm is not the profile's")]
    TokenAlgorithm,
    #[error("the token names no key that the issuer publishes")]
    TokenUnknownKey,
    #[error("the token's key is not for verifying signatures")]
    TokenKeyUse,
    #[error("the key that the token names is not used: it is {0}")]
    TokenKeyUnusable(LeftOut),
    #[error("the token's signature is wrong")]
    TokenSignature,
    #[error("the token is from another issuer")]
    TokenIssuer,
    #[error("the token is for another audience")]
    TokenAudience,
    #[error("the token has expired, or never says when")]
    TokenExpired,
    #[error("the token is not valid yet")]
    TokenNotYetValid,
    #[error("there is no secret where it should be")]
    CredentialMissing,
    #[error("what should be the secret is not written the way the profile says")]
    CredentialMalformed,
    #[error("the secret is another one")]
    CredentialMismatch,
    #[error("a claim that the profile requires is missing or has another value")]
    TokenClaim,
    #[error("the token is bound to another body")]
    TokenBody,
    #[error("the certificate's address is not one that the profile allows")]
    CertificateNotAllowed,
    #[error("the certificate cannot be used: not readable, not valid now, or of another subject")]
    CertificateInvalid,
    #[error("a condition of the profile does not hold")]
    ConditionUnmet,
    #[error("the issuer's keys are not available")]
    KeysUnavailable,
    #[error("the token names a key that may be newer than the issuer's keys at hand, which were fetched a moment ago")]
    KeysCoolingDown,
    #[error("the body cannot be read: {0}")]
    BodyMalformed(Malformed),
}

impl From<Malformed> for Failure {
    fn from(why: Malformed) -> Self {
        Self::BodyMalformed(why)
    }
}

impl Failure {
    /// The value of the label `reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureMismatch => "signature_mismatch",
            Self::TimestampMissing => "timestamp_missing",
            Self::TimestampMalformed => "timestamp_malformed",
            Self::TimestampStale => "timestamp_stale",
            Self::TimestampFuture => "timestamp_future",
            Self::TokenMissing => "token_missing",
            Self::TokenMalformed => "token_malformed",
            Self::TokenAlgorithm => "token_algorithm",
            Self::TokenUnknownKey => "token_unknown_key",
            Self::TokenKeyUse => "token_key_use",
            Self::TokenKeyUnusable(_) => "token_key_unusable",
            Self::TokenSignature => "token_signature",
            Self::TokenIssuer => "token_issuer",
            Self::TokenAudience => "token_audience",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenClaim => "token_claim",
            Self::TokenBody => "token_body",
            Self::CredentialMissing => "credential_missing",
            Self::CredentialMalformed => "credential_malformed",
            Self::CredentialMismatch => "credential_mismatch",
            Self::CertificateNotAllowed => "certificate_not_allowed",
            Self::CertificateInvalid => "certificate_invalid",
            Self::ConditionUnmet => "condition_unmet",
            Self::KeysUnavailable => "keys_unavailable",
            Self::KeysCoolingDown => "keys_cooling_down",
            Self::BodyMalformed(_) => "body_malformed",
        }
    }
}
