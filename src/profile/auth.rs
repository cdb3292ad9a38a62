//! `[auth]`: how a request proves that it comes from the provider.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::condition::Condition;
use super::duration;
use super::hash::Hash;
use super::place::Encoding;
use super::place::Place;
use super::place::PrefixedPlace;
use super::place::SignaturePlace;
use super::place::place_table;
use super::read;
use super::read::written_as;
use super::template::Piece;
use super::template::Template;

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
    pub verifier: Verifier,
    /// How the secret's text becomes the key.
    pub key: KeyForm,
    /// Where the signature is and how it is written.
    pub place: SignaturePlace,
    /// The bytes that are signed: any of these.
    pub signed: Vec<Template>,
}

/// What verifies a signature.
#[derive(Debug, Clone)]
pub enum Verifier {
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
    pub from: Place,
    /// The hosts that may be asked, separated by spaces; `*` is one label, `{name}` a parameter of the source.
    pub hosts: String,
    /// What the path has to look like; `*` is anything.
    pub path: Option<String>,
    /// What the certificate's common name has to look like; `*` is anything.
    pub subject: Option<String>,
}

/// `[auth.token]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [auth.token]")]
pub struct Token {
    /// Where the secret stands.
    pub from: PrefixedPlace,
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

/// `[auth.jwt]`. `exp` must be there and hold, unless `max_age` is said; `nbf` must hold where it is there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [auth.jwt]")]
pub struct Jwt {
    /// The one algorithm that is accepted, whatever the token says.
    pub algorithm: Algorithm,
    /// Where the token is; the bearer token of `Authorization` (RFC 6750) unless said otherwise.
    pub from: Option<PrefixedPlace>,
    /// How the secrets' text becomes the key, for the algorithms that start with HS.
    #[serde(default)]
    pub key: KeyForm,
    /// The issuers of which one must be named; the parameter of this name unless said otherwise.
    #[serde(default, deserialize_with = "read::strings")]
    pub issuer: Vec<String>,
    /// The audiences of which one must be named; the parameter of this name unless said otherwise.
    #[serde(default, deserialize_with = "read::strings")]
    pub audience: Vec<String>,
    /// Allowed difference between the issuer's clock and ours; 10 s unless said otherwise.
    #[serde(default = "default_leeway", deserialize_with = "duration::required")]
    pub leeway: Duration,
    /// How long after `iat` the token is good.
    #[serde(default, deserialize_with = "duration::optional")]
    pub max_age: Option<Duration>,
    /// Claims and the value each must have; `{name}` in a text stands for a parameter.
    #[serde(default)]
    pub claims: BTreeMap<String, toml::Value>,
    /// The claim that binds the body.
    pub body: Option<BodyClaim>,
}

fn default_leeway() -> Duration {
    Duration::from_secs(10)
}

/// A claim that is the SHA-256 of the body.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { claim = \"body_sha256\", encoding = \"hex\" }")]
pub struct BodyClaim {
    /// Its name.
    pub claim: String,
    /// How the digest is written.
    pub encoding: Encoding,
}

/// Signature algorithms of tokens (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[expect(missing_docs, reason = "the names are the registered ones")]
pub enum Algorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "RS384")]
    Rs384,
    #[serde(rename = "RS512")]
    Rs512,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "PS384")]
    Ps384,
    #[serde(rename = "PS512")]
    Ps512,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "HS384")]
    Hs384,
    #[serde(rename = "HS512")]
    Hs512,
}

impl Algorithm {
    /// The registered name.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    /// Whether both sides share the key.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// How the text of a secret becomes key bytes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { about = \"the signing secret\", encoding = \"base64\" }")]
pub struct KeyForm {
    /// What the secret is and where to find it, for the operator.
    pub about: Option<String>,
    /// The encoding; what is usual for the scheme unless said otherwise.
    pub encoding: Option<KeyEncoding>,
    /// Dropped from the front when it is there, before decoding (`whsec_` at Standard Webhooks).
    pub prefix: Option<String>,
    /// Secrets without the prefix are not for this scheme, and those with it for no other.
    #[serde(default)]
    pub only_prefixed: bool,
    /// The key is this digest of what was decoded (Braintree).
    pub derive: Option<Hash>,
}

/// What the text of a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// The key itself, whatever it looks like.
    Text,
    /// RFC 4648 section 4, with or without padding.
    Base64,
    /// RFC 4648 section 8, either case.
    Hex,
    /// A public key as `SubjectPublicKeyInfo` (RFC 5280 section 4.1), in PEM (RFC 7468) or as the base64 in it.
    Spki,
}

impl Scheme {
    /// The scheme in one word or two.
    pub fn title(&self) -> String {
        match self {
            Self::Signature(signature) => match &signature.verifier {
                Verifier::Hmac(hash) => format!("HMAC-{}", hash.title()),
                Verifier::Ed25519 => "Ed25519".to_owned(),
                Verifier::Ecdsa(_) => "ECDSA P-256".to_owned(),
                Verifier::Rsa(hash) => format!("RSA-{}", hash.title()),
                Verifier::Certificate(hash, _) => format!("RSA-{} certificate", hash.title()),
            },
            Self::Token(_) => "token".to_owned(),
            Self::Basic(_) => "Basic".to_owned(),
            Self::Jwt(jwt) => format!("JWT {}", jwt.algorithm.title()),
        }
    }

    /// The key of its table in `[auth]`.
    pub fn table(&self) -> &'static str {
        match self {
            Self::Signature(signature) => match &signature.verifier {
                Verifier::Hmac(_) => "hmac",
                Verifier::Ed25519 => "ed25519",
                Verifier::Ecdsa(_) => "ecdsa",
                Verifier::Rsa(_) | Verifier::Certificate(..) => "rsa",
            },
            Self::Token(_) => "token",
            Self::Basic(_) => "basic",
            Self::Jwt(_) => "jwt",
        }
    }

    /// What its secrets are; `None` when it takes none. `fetched` when the profile names a JWK set.
    pub fn key(&self, fetched: bool) -> Option<&KeyForm> {
        match self {
            Self::Signature(signature) => match signature.verifier {
                Verifier::Certificate(..) => None,
                Verifier::Hmac(_) | Verifier::Ed25519 | Verifier::Ecdsa(_) | Verifier::Rsa(_) => Some(&signature.key),
            },
            Self::Token(token) => Some(&token.key),
            Self::Basic(basic) => Some(&basic.key),
            Self::Jwt(jwt) => (jwt.algorithm.is_symmetric() || !fetched).then_some(&jwt.key),
        }
    }

    /// Where its proof stands; `None` for the header `Authorization`, where it is usual.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Signature(signature) => Some(&signature.place.place),
            Self::Token(token) => Some(&token.from.place),
            Self::Basic(_) => None,
            Self::Jwt(jwt) => jwt.from.as_ref().map(|from| &from.place),
        }
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
            Self::Signature(signature) => !matches!(signature.verifier, Verifier::Hmac(_)),
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthTable {
    hmac: Option<HmacTable>,
    ed25519: Option<Ed25519Table>,
    ecdsa: Option<EcdsaTable>,
    rsa: Option<RsaTable>,
    token: Option<Token>,
    basic: Option<Basic>,
    jwt: Option<Jwt>,
    first: Option<Vec<Member>>,
    all: Option<Vec<Member>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberTable {
    hmac: Option<HmacTable>,
    ed25519: Option<Ed25519Table>,
    ecdsa: Option<EcdsaTable>,
    rsa: Option<RsaTable>,
    token: Option<Token>,
    basic: Option<Basic>,
    jwt: Option<Jwt>,
    #[serde(default)]
    when: Vec<Condition>,
    #[serde(default)]
    check: Vec<Condition>,
    #[serde(default)]
    optional: bool,
}

/// What all signatures say.
macro_rules! signature_table {
    ($name:ident, $expecting:literal, { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, expecting = $expecting)]
        struct $name {
            $($(#[$attribute])* $field: $type,)*
            #[serde(default)]
            key: KeyForm,
            signature: SignaturePlace,
            signed: Template,
            #[serde(default)]
            or_signed: Vec<Template>,
        }

        impl $name {
            fn scheme(self, verifier: Verifier) -> Scheme {
                let signed = std::iter::once(self.signed).chain(self.or_signed).collect();
                Scheme::Signature(Box::new(Signature { verifier, key: self.key, place: self.signature, signed }))
            }
        }
    };
}

signature_table!(HmacTable, "the table [auth.hmac]", {
    #[serde(default)]
    hash: Hash,
});
signature_table!(Ed25519Table, "the table [auth.ed25519]", {});
signature_table!(EcdsaTable, "the table [auth.ecdsa]", {
    #[serde(default)]
    format: EcdsaFormat,
});
signature_table!(RsaTable, "the table [auth.rsa]", {
    #[serde(default)]
    hash: Hash,
    certificate: Option<Certificate>,
});

impl RsaTable {
    fn verifier(&mut self) -> Verifier {
        match self.certificate.take() {
            Some(certificate) => Verifier::Certificate(self.hash, certificate),
            None => Verifier::Rsa(self.hash),
        }
    }
}

/// What a table says, of which there may be one.
const KINDS: &str = "hmac, ed25519, ecdsa, rsa, token, basic or jwt";

macro_rules! one_scheme {
    ($table:expr) => {{
        let table = $table;
        let mut schemes = Vec::new();
        schemes.extend(table.hmac.map(|said| {
            let hash = said.hash;
            said.scheme(Verifier::Hmac(hash))
        }));
        schemes.extend(table.ed25519.map(|said| said.scheme(Verifier::Ed25519)));
        schemes.extend(table.ecdsa.map(|said| {
            let format = said.format;
            said.scheme(Verifier::Ecdsa(format))
        }));
        schemes.extend(table.rsa.map(|mut said| {
            let verifier = said.verifier();
            said.scheme(verifier)
        }));
        schemes.extend(table.token.map(Scheme::Token));
        schemes.extend(table.basic.map(Scheme::Basic));
        schemes.extend(table.jwt.map(|said| Scheme::Jwt(Box::new(said))));
        schemes
    }};
}

written_as!(Auth, AuthTable, "the table [auth.hmac], or another of its kind");
written_as!(Member, MemberTable, "a table with a scheme, such as [auth.first.hmac]");

impl TryFrom<AuthTable> for Auth {
    type Error = String;

    fn try_from(mut table: AuthTable) -> Result<Self, String> {
        let combined = match (table.first.take(), table.all.take()) {
            (Some(members), None) => Some((Combination::First, members)),
            (None, Some(members)) => Some((Combination::All, members)),
            (None, None) => None,
            (Some(_), Some(_)) => return Err("has both first and all; a profile has one of them".to_owned()),
        };
        let mut schemes = one_scheme!(table);
        match (combined, schemes.len()) {
            (Some((_, members)), 0) if members.is_empty() => {
                Err(format!("has a list without schemes; each member is one of {KINDS}"))
            }
            (Some((Combination::All, members)), 0) if members.iter().any(|member| !member.when.is_empty()) => {
                Err("says when a member of all applies, but each always has to hold; write check = [ … ] for what has \
                      to hold besides, or [[auth.first]]"
                    .to_owned())
            }
            (Some((combination, members)), 0) => Ok(Self { combination, members }),
            (None, 1) => {
                let scheme = schemes.pop().ok_or("names no scheme")?;
                let member = Member { when: Vec::new(), check: Vec::new(), optional: false, scheme };
                Ok(Self { combination: Combination::All, members: vec![member] })
            }
            (None, 0) => Err(format!("names no scheme; write [auth.hmac], or another of {KINDS}")),
            _ => Err("names several schemes; write [[auth.first]] when one of them is enough, or [[auth.all]] when all have \
                      to hold"
                .to_owned()),
        }
    }
}

impl TryFrom<MemberTable> for Member {
    type Error = String;

    fn try_from(mut table: MemberTable) -> Result<Self, String> {
        let (when, check) = (std::mem::take(&mut table.when), std::mem::take(&mut table.check));
        let optional = table.optional;
        let mut schemes = one_scheme!(table);
        match (schemes.pop(), schemes.is_empty()) {
            (Some(scheme), true) => Ok(Self { when, check, optional, scheme }),
            (Some(_), false) => Err(format!("has several schemes; each member is one of {KINDS}")),
            (None, _) => Err(format!("names no scheme; each member is one of {KINDS}")),
        }
    }
}

place_table!(CertificateTable {
    hosts: Option<String>,
    path: Option<String>,
    subject: Option<String>,
});

written_as!(
    Certificate,
    CertificateTable,
    "a place with hosts, such as { header = \"X-Cert-Url\", hosts = \"certificates.example.com\" }"
);

impl TryFrom<CertificateTable> for Certificate {
    type Error = String;

    fn try_from(mut table: CertificateTable) -> Result<Self, String> {
        let from = table.spot().plain()?;
        let hosts = table.hosts.ok_or("says no hosts; write hosts = \"certificates.example.com\"")?;
        Ok(Self { from, hosts, path: table.path, subject: table.subject })
    }
}
