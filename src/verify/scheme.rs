//! The schemes by which a request proves its origin, and when each of them applies.

use http::HeaderName;

use super::Failure;
use super::Jwt;
use super::KeyError;
use super::KeyMaterial;
use super::Signature;
use super::Token;
use crate::extract::condition::Condition;
use crate::extract::field::Extracted;
use crate::extract::field::Field;
use crate::http::inbound::Inbound;
use crate::profile;

/// A scheme with its keys.
#[derive(Debug)]
pub enum Scheme {
    /// A signature over bytes of the request.
    Signature(Box<Signature>),
    /// A secret that is sent with the request.
    Token(Token),
    /// A JWT.
    Jwt(Box<Jwt>),
}

impl Scheme {
    /// Compiles a profile's scheme. Secrets that are not valid keys for it are recorded in `material`.
    ///
    /// # Errors
    /// What is wrong with a parameter.
    pub fn new(scheme: &profile::Scheme, material: &mut KeyMaterial<'_>) -> Result<Self, KeyError> {
        Ok(match scheme {
            profile::Scheme::Signature(signature) => Self::Signature(Box::new(Signature::new(signature, material)?)),
            profile::Scheme::Token(token) => Self::Token(Token::new(token, material)),
            profile::Scheme::Basic(basic) => Self::Token(Token::basic(&basic.key, material)),
            profile::Scheme::Jwt(jwt) => Self::Jwt(Box::new(Jwt::new(jwt, material)?)),
        })
    }

    /// The field of its proof.
    pub fn field(&self) -> &Field {
        match self {
            Self::Signature(signature) => signature.field(),
            Self::Token(token) => token.field(),
            Self::Jwt(jwt) => jwt.field(),
        }
    }

    /// Whether it has a key to verify with.
    pub fn has_keys(&self) -> bool {
        match self {
            Self::Signature(signature) => signature.has_keys(),
            Self::Token(token) => token.has_keys(),
            Self::Jwt(jwt) => jwt.has_keys(),
        }
    }

    /// Fails when the request has no proof for this scheme.
    pub(super) fn require_proof(&self, inbound: &Inbound, values: &Extracted) -> Result<(), Failure> {
        let missing = match self {
            Self::Signature(_) => Failure::SignatureMissing,
            Self::Token(_) => Failure::CredentialMissing,
            Self::Jwt(_) => Failure::TokenMissing,
        };
        if self.field().is_present(inbound, values) { Ok(()) } else { Err(missing) }
    }

    pub(super) fn headers(&self) -> Vec<HeaderName> {
        match self {
            Self::Signature(signature) => signature.headers(),
            Self::Token(token) => token.headers(),
            Self::Jwt(jwt) => jwt.headers(),
        }
    }

    pub(super) fn reads_json(&self) -> bool {
        match self {
            Self::Signature(signature) => signature.reads_json(),
            Self::Token(token) => token.reads_json(),
            Self::Jwt(jwt) => jwt.reads_json(),
        }
    }
}

/// A scheme and when it applies.
#[derive(Debug)]
pub struct Member {
    /// Its position among the members of the profile, from 0.
    pub position: usize,
    /// The conditions under which it applies; when empty, it applies when its proof is present.
    pub when: Vec<Condition>,
    /// Conditions that must hold in addition to the proof.
    pub check: Vec<Condition>,
    /// The scheme.
    pub scheme: Scheme,
    /// Whether no other member's proof has the same carrier, so that any value of it counts as this member's proof.
    pub has_own_carrier: bool,
    /// Whether the timestamp is checked for requests with this proof.
    pub timed: bool,
}
