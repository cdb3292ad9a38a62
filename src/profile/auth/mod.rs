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

/// One or more schemes, and which of them must verify.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Which of the members must verify.
    pub combination: Combination,
    /// The schemes, at least one.
    pub members: Vec<Member>,
}

/// Which members of a combination must verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combination {
    /// All of them.
    All,
    /// The first member that applies. If that refuses the request, no later one is tried.
    First,
}

/// A scheme in a combination.
#[derive(Debug, Clone)]
pub struct Member {
    /// The conditions under which it applies. Default: its proof is present.
    pub when: Vec<Condition>,
    /// Conditions that must hold in addition to the proof.
    pub check: Vec<Condition>,
    /// Whether it is skipped where the source has no secret for it.
    pub optional: bool,
    /// The scheme.
    pub scheme: Scheme,
}

/// How a request proves its origin.
#[derive(Debug, Clone)]
pub enum Scheme {
    /// A signature over bytes of the request.
    Signature(Box<Signature>),
    /// A secret that is sent with the request.
    Token(Token),
    /// User and password (RFC 7617).
    Basic(Basic),
    /// A signed token (RFC 7519).
    Jwt(Box<Jwt>),
}

/// A signature over bytes of the request.
#[derive(Debug, Clone)]
pub struct Signature {
    /// The algorithm.
    pub algorithm: SignatureAlgorithm,
    /// How the text of the secret becomes the key.
    pub key: KeyForm,
    /// The location and encoding of the signature.
    pub location: SignatureLocation,
    /// The signed text: one of these alternatives.
    pub signed: Vec<Template>,
    /// The author's reason why an ambiguous signed text does no harm; absent where it is not ambiguous.
    pub ambiguous: Option<String>,
    /// Whether the signed text was proven to be unambiguous. Set when the profile is parsed.
    pub unambiguous: bool,
}

/// The algorithm of a signature.
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
    /// The same with the key of a certificate, whose address is in the request.
    Certificate(Hash, Certificate),
}

/// How an ECDSA signature is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EcdsaFormat {
    /// As an ASN.1 sequence (RFC 3279 section 2.2.3).
    #[default]
    Der,
    /// The concatenation of both numbers (IEEE P1363).
    Raw,
}

/// A certificate that is fetched from an address in the request, if the host is allowed.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The location of the address.
    pub from: Location,
    /// The allowed hosts, separated by spaces; `<region>` matches a region of AWS, `{name}` is replaced by a parameter
    /// of the source.
    pub hosts: String,
    /// The pattern of the path; `*` matches one or more letters, digits, `-` and `_`. Any path when absent.
    pub path: Option<String>,
    /// The patterns, like that of the path, of which one must match the certificate's common name. Any when empty.
    pub subject: Vec<String>,
}

/// `[auth.token]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [auth.token]")]
pub struct Token {
    /// The location of the secret.
    pub from: PrefixedLocation,
    /// What the secret is, for the operator.
    #[serde(default)]
    pub key: KeyForm,
}

/// `[auth.basic]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [auth.basic]")]
pub struct Basic {
    /// What the secret is, for the operator. It has the form `user:password`.
    #[serde(default)]
    pub key: KeyForm,
}

impl Scheme {
    /// A short name of the scheme for people.
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

    /// The form of its secrets; `None` when it takes none. `fetched`: whether the keys of tokens come from a JWK set.
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

    /// The configured location of its proof; `None` for the default, the header `Authorization`.
    pub fn location(&self) -> Option<&Location> {
        match self {
            Self::Signature(signature) => Some(&signature.location.location),
            Self::Token(token) => Some(&token.from.location),
            Self::Basic(_) => None,
            Self::Jwt(jwt) => jwt.from.as_ref().map(|from| &from.location),
        }
    }

    /// The location of its proof.
    pub fn proof(&self) -> Location {
        self.location().cloned().unwrap_or_else(|| Location::header(header::AUTHORIZATION))
    }

    /// The alternatives of the text that a signature covers; empty for other schemes.
    pub fn signed(&self) -> &[Template] {
        if let Self::Signature(signature) = self { &signature.signed } else { &[] }
    }

    /// Whether a signature covers the body as a whole, or all of its form.
    pub fn signs_body(&self) -> bool {
        let mut pieces = self.signed().iter().flat_map(Template::walk);
        pieces.any(|piece| matches!(piece, Piece::Body | Piece::SortedForm))
    }

    /// Whether its keys in `secrets` are public.
    pub fn is_asymmetric(&self) -> bool {
        match self {
            Self::Signature(signature) => !matches!(signature.algorithm, SignatureAlgorithm::Hmac(_)),
            Self::Jwt(jwt) => !jwt.algorithm.is_symmetric(),
            Self::Token(_) | Self::Basic(_) => false,
        }
    }
}

impl Auth {
    /// A short name of the schemes for people, joined by "and" or "or".
    pub fn scheme(&self) -> String {
        let mut titles: Vec<_> = self.members.iter().map(|member| member.scheme.title()).collect();
        titles.dedup();
        titles.join(match self.combination {
            Combination::All => " and ",
            Combination::First => " or ",
        })
    }
}
