//! `[auth]`: how a request proves that it comes from the provider.

mod jwt;
mod key;
mod tables;

use http::header;
use serde::Deserialize;

use super::condition::Condition;
use super::hash::Hash;
use super::location::Location;
use super::location::PrefixedLocation;
use super::location::SignatureLocation;
use super::template::Piece;
use super::template::Template;

pub use jwt::Algorithm;
pub use jwt::BodyClaim;
pub use jwt::Jwt;
pub use key::KeyEncoding;
pub use key::KeyForm;

/// One scheme, or several and how they combine.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Which of the members have to hold.
    pub combination: Combination,
    /// At least one.
    pub members: Vec<Member>,
}

/// Which members of a combination have to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combination {
    /// All of them.
    All,
    /// The first that applies, and no other: what it refuses no later one accepts.
    First,
}

/// A scheme in a combination.
#[derive(Debug, Clone)]
pub struct Member {
    /// When it applies; when something stands where its proof should be, unless said otherwise.
    pub when: Vec<Condition>,
    /// What has to hold besides the proof.
    pub check: Vec<Condition>,
    /// Whether it counts only where the source has a secret for it.
    pub optional: bool,
    /// The scheme itself.
    pub scheme: Scheme,
}

/// How a request proves its origin.
#[derive(Debug, Clone)]
pub enum Scheme {
    /// A signature over bytes of the request.
    Signature(Box<Signature>),
    /// A secret that is sent along.
    Token(Token),
    /// User and password (RFC 7617).
    Basic(Basic),
    /// A signed token (RFC 7519).
    Jwt(Box<Jwt>),
}

/// A signature over bytes of the request.
#[derive(Debug, Clone)]
pub struct Signature {
    /// What verifies it.
    pub algorithm: SignatureAlgorithm,
    /// How the secret's text becomes the key.
    pub key: KeyForm,
    /// Where the signature is and how it is written.
    pub location: SignatureLocation,
    /// The bytes that are signed: any of these.
    pub signed: Vec<Template>,
    /// Why it does no harm that signed bytes can be read in more than one way, where they can.
    pub ambiguous: Option<String>,
    /// Whether it was proven that signed bytes give each value in one way only.
    pub one_reading: bool,
}

/// What verifies a signature.
#[derive(Debug, Clone)]
pub enum SignatureAlgorithm {
    /// A keyed hash (RFC 2104).
    Hmac(Hash),
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA with P-256 and SHA-256 (FIPS 186-5).
    Ecdsa(EcdsaFormat),
    /// RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2) with a configured key.
    Rsa(Hash),
    /// The same with the key of a certificate that the request names.
    Certificate(Hash, Certificate),
}

/// How an ECDSA signature is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EcdsaFormat {
    /// As an ASN.1 sequence (RFC 3279 section 2.2.3).
    #[default]
    Der,
    /// Both numbers one after the other (IEEE P1363).
    Raw,
}

/// A certificate that is fetched from an address in the request, if it lies on one of a few hosts.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Where the address is.
    pub from: Location,
    /// The hosts that may be asked, separated by spaces; `<region>` is a region of AWS, `{name}` a parameter of the
    /// source.
    pub hosts: String,
    /// What the path has to look like; `*` is one or more letters, digits, `-` and `_`.
    pub path: Option<String>,
    /// What the certificate's common name has to look like: one of these patterns, as of the path, if there are any.
    pub subject: Vec<String>,
}

/// `[auth.token]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [auth.token]")]
pub struct Token {
    /// Where the secret stands.
    pub from: PrefixedLocation,
    /// What the secret is.
    #[serde(default)]
    pub key: KeyForm,
}

/// `[auth.basic]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [auth.basic]")]
pub struct Basic {
    /// What the secret is: `user:password`.
    #[serde(default)]
    pub key: KeyForm,
}

impl Scheme {
    /// The scheme in one word or two.
    pub fn title(&self) -> String {
        match self {
            Self::Signature(signature) => match &signature.algorithm {
                SignatureAlgorithm::Hmac(hash) => format!("HMAC-{}", hash.title()),
                SignatureAlgorithm::Ed25519 => "Ed25519".to_owned(),
                SignatureAlgorithm::Ecdsa(_) => "ECDSA P-256".to_owned(),
                SignatureAlgorithm::Rsa(hash) => format!("RSA-{}", hash.title()),
                SignatureAlgorithm::Certificate(hash, _) => format!("RSA-{} certificate", hash.title()),
            },
            Self::Token(_) => "token".to_owned(),
            Self::Basic(_) => "Basic".to_owned(),
            Self::Jwt(jwt) => format!("JWT {}", jwt.algorithm.title()),
        }
    }

    /// The key of its table in `[auth]`.
    pub fn table(&self) -> &'static str {
        match self {
            Self::Signature(signature) => match &signature.algorithm {
                SignatureAlgorithm::Hmac(_) => "hmac",
                SignatureAlgorithm::Ed25519 => "ed25519",
                SignatureAlgorithm::Ecdsa(_) => "ecdsa",
                SignatureAlgorithm::Rsa(_) | SignatureAlgorithm::Certificate(..) => "rsa",
            },
            Self::Token(_) => "token",
            Self::Basic(_) => "basic",
            Self::Jwt(_) => "jwt",
        }
    }

    /// What its secrets are; `None` when it takes none. `fetched` when the profile names a JWK set.
    pub fn key(&self, fetched: bool) -> Option<&KeyForm> {
        match self {
            Self::Signature(signature) => match signature.algorithm {
                SignatureAlgorithm::Certificate(..) => None,
                SignatureAlgorithm::Hmac(_)
                | SignatureAlgorithm::Ed25519
                | SignatureAlgorithm::Ecdsa(_)
                | SignatureAlgorithm::Rsa(_) => Some(&signature.key),
            },
            Self::Token(token) => Some(&token.key),
            Self::Basic(basic) => Some(&basic.key),
            Self::Jwt(jwt) => (jwt.algorithm.is_symmetric() || !fetched).then_some(&jwt.key),
        }
    }

    /// Where its proof stands; `None` for the header `Authorization`, where it is usual.
    pub fn location(&self) -> Option<&Location> {
        match self {
            Self::Signature(signature) => Some(&signature.location.location),
            Self::Token(token) => Some(&token.from.location),
            Self::Basic(_) => None,
            Self::Jwt(jwt) => jwt.from.as_ref().map(|from| &from.location),
        }
    }

    /// Where its proof stands, usual or not.
    pub fn proof(&self) -> Location {
        self.location().cloned().unwrap_or_else(|| Location::header(header::AUTHORIZATION))
    }

    /// What a signature may have been made over; nothing for other schemes.
    pub fn signed(&self) -> &[Template] {
        if let Self::Signature(signature) = self { &signature.signed } else { &[] }
    }

    /// Whether a signature covers the body as a whole, or all of its form.
    pub fn signs_body(&self) -> bool {
        let mut pieces = self.signed().iter().flat_map(Template::walk);
        pieces.any(|piece| matches!(piece, Piece::Body | Piece::SortedForm))
    }

    /// Whether what stands in `secrets` is public.
    pub fn is_asymmetric(&self) -> bool {
        match self {
            Self::Signature(signature) => !matches!(signature.algorithm, SignatureAlgorithm::Hmac(_)),
            Self::Jwt(jwt) => !jwt.algorithm.is_symmetric(),
            Self::Token(_) | Self::Basic(_) => false,
        }
    }
}

impl Auth {
    /// The scheme in a word or two; several with what joins them.
    pub fn scheme(&self) -> String {
        let mut titles: Vec<_> = self.members.iter().map(|member| member.scheme.title()).collect();
        titles.dedup();
        titles.join(match self.combination {
            Combination::All => " and ",
            Combination::First => " or ",
        })
    }
}
