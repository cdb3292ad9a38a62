//! Decides whether a request comes from the provider. Knows the secrets and keys of one source, and nothing of HTTP
//! statuses, stores or deliveries.

mod freshness;
mod hmac;
mod jwks;
mod jwt;

use http::HeaderName;

use crate::body::Inbound;
use crate::json::Fields;
use crate::json::Malformed;
use crate::json::Pointers;
use crate::time::Moment;

pub use freshness::Freshness;
pub use freshness::Stamp;
pub use hmac::Hmac;
pub use hmac::Signed;
pub use jwks::Jwks;
pub use jwks::JwksUrl;
pub use jwks::Key;
pub use jwks::KeySet;
pub use jwt::Jwt;

/// One scheme with its keys.
#[derive(Debug)]
pub enum Scheme {
    /// A keyed hash.
    Hmac(Hmac),
    /// A token signed by keys from a JWK set.
    Jwt(Jwt),
}

/// Everything one source needs to tell genuine requests from others.
#[derive(Debug)]
pub struct Authenticator {
    /// How a request proves its origin.
    pub scheme: Scheme,
    /// How its time is judged, where the provider sends one.
    pub freshness: Option<Freshness>,
    /// Every JSON value that the profile wants, of the authenticator and of the event.
    pub pointers: Pointers,
    /// Whether what identifies the event is under the signature; if not, a digest of what is guards against replays.
    pub covers_id: bool,
}

/// An inbound that an authenticator accepted. Born in [`Authenticator::verify`] only.
#[derive(Debug)]
pub struct Verified {
    inbound: Inbound,
    fields: Fields,
    secret: Option<usize>,
    skew: Option<i64>,
    guard: Option<[u8; 32]>,
}

impl Verified {
    /// The request itself.
    pub fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// What the profile's pointers found in the body.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Which of the source's secrets matched, counted from 0; `None` for schemes without secrets.
    pub fn secret(&self) -> Option<usize> {
        self.secret
    }

    /// Seconds from the request's own time to now, where it has one.
    pub fn skew(&self) -> Option<i64> {
        self.skew
    }

    /// SHA-256 of the signed bytes when they do not include the event id.
    pub fn guard(&self) -> Option<&[u8; 32]> {
        self.guard.as_ref()
    }

    /// Gives the request on.
    pub fn into_inbound(self) -> Inbound {
        self.inbound
    }
}

/// Why a request is not accepted. Senders are told the same for all of them but two; see [`crate::refusal`].
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
    #[error("the timestamp is older than the tolerance")]
    TimestampStale,
    #[error("the timestamp lies further ahead than the tolerance")]
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
    #[error("the issuer's keys are not available")]
    KeysUnavailable,
    #[error("the body is not JSON that everybody reads alike")]
    BodyMalformed,
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self::BodyMalformed
    }
}

impl Authenticator {
    /// Checks a request at the moment `now`.
    ///
    /// # Errors
    /// The first [`Failure`] found; the order is the same for every request of a profile.
    pub async fn verify(&self, inbound: Inbound, now: Moment) -> Result<Verified, Failure> {
        let early = self.needs_body_first();
        let early_fields = if early { self.pointers.extract(inbound.body())? } else { Fields::default() };
        if let Scheme::Hmac(hmac) = &self.scheme {
            hmac.presented(&inbound, &early_fields)?;
        }
        let stamp = self.freshness.as_ref().map(|freshness| freshness.read(&inbound, &early_fields)).transpose()?;
        let (secret, guard) = match &self.scheme {
            Scheme::Hmac(hmac) => {
                let signed = hmac.signed(&inbound, &early_fields, stamp.as_ref().and_then(|stamp| stamp.text))?;
                let secret = hmac.verify(&inbound, &early_fields, &signed)?;
                (Some(secret), (!self.covers_id).then(|| signed.digest()))
            }
            Scheme::Jwt(jwt) => {
                jwt.verify(inbound.headers(), now).await?;
                (None, None)
            }
        };
        let skew = match (&self.freshness, stamp) {
            (Some(freshness), Some(stamp)) => freshness.judge(&stamp, now)?,
            _ => None,
        };
        // Bodies are parsed once they are known to be genuine, unless the signature is inside.
        let fields =
            if early || self.pointers.is_empty() { early_fields } else { self.pointers.extract(inbound.body())? };
        Ok(Verified { inbound, fields, secret, skew, guard })
    }

    /// The headers that this authenticator reads, each of which may be there once.
    pub fn headers(&self) -> Vec<HeaderName> {
        let mut names = match &self.scheme {
            Scheme::Hmac(hmac) => hmac.headers(),
            Scheme::Jwt(_) => vec![http::header::AUTHORIZATION],
        };
        names.extend(self.freshness.as_ref().and_then(Freshness::header).cloned());
        names
    }

    fn needs_body_first(&self) -> bool {
        let scheme = match &self.scheme {
            Scheme::Hmac(hmac) => hmac.reads_body(),
            Scheme::Jwt(_) => false,
        };
        scheme || self.freshness.as_ref().is_some_and(Freshness::reads_body)
    }
}
