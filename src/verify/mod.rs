//! Verifies that requests come from the provider, answers its handshakes, and reads the identity of events. Independent
//! of HTTP statuses, stores and deliveries.

mod authenticator;
mod certificate;
pub mod compile;
mod failure;
mod freshness;
pub mod event_key;
pub mod handshake;
pub mod identity;
mod jwks;
mod jwt;
mod key_material;
mod keys;
mod public_key;
mod scheme;
mod signature;
mod token;

pub use authenticator::Authenticator;
pub use authenticator::Rejected;
pub use authenticator::Verified;
pub use certificate::Limits as CertificateLimits;
pub use failure::Failure;
pub use freshness::Freshness;
pub use freshness::Stamp;
pub use jwks::COOLDOWN as JWKS_COOLDOWN;
pub use jwks::Jwks;
pub use jwks::JwksMetrics;
pub use jwks::KeySet;
pub use jwks::LeftOut;
pub use jwks::Limits as JwksLimits;
pub use jwt::Jwt;
pub use key_material::KeyError;
pub use key_material::KeyMaterial;
pub use key_material::KeySets;
pub use keys::key_bytes;
pub use scheme::Member;
pub use scheme::Scheme;
pub use signature::Signature;
pub use signature::Signed;
pub use token::Token;
