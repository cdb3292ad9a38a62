//! Private keys that sign requests, and their public halves in the form that the profile expects.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::jwk::PublicKeyUse;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::KeyPair;
use rcgen::PublicKeyData as _;
use rcgen::SigningKey as _;

use crate::profile;
use crate::profile::Algorithm;
use crate::profile::EcdsaFormat;
use crate::profile::Hash;
use crate::profile::KeyEncoding;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::profile::SignatureAlgorithm;

/// The `kid` of every key, in key sets and in tokens.
pub(super) const KID: &str = "doorward";

/// Kinds of private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA.
    Rsa,
}

impl Kind {
    /// The kind of key that a scheme is signed with; `None` when its key is a shared secret.
    pub fn of(scheme: &Scheme) -> Option<Self> {
        match scheme {
            Scheme::Signature(spec) => match spec.algorithm {
                SignatureAlgorithm::Hmac(_) => None,
                SignatureAlgorithm::Ed25519 => Some(Self::Ed25519),
                SignatureAlgorithm::Ecdsa(_) => Some(Self::P256),
                SignatureAlgorithm::Rsa(_) | SignatureAlgorithm::Certificate(..) => Some(Self::Rsa),
            },
            Scheme::Jwt(spec) => match spec.algorithm {
                Algorithm::Rs256
                | Algorithm::Rs384
                | Algorithm::Rs512
                | Algorithm::Ps256
                | Algorithm::Ps384
                | Algorithm::Ps512 => Some(Self::Rsa),
                Algorithm::Es256 => Some(Self::P256),
                Algorithm::Es384 => Some(Self::P384),
                Algorithm::EdDsa => Some(Self::Ed25519),
                Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => None,
            },
            Scheme::Token(_) | Scheme::Basic(_) => None,
        }
    }

    /// The name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519",
            Self::P256 => "ECDSA P-256",
            Self::P384 => "ECDSA P-384",
            Self::Rsa => "RSA",
        }
    }

    /// The command that generates one.
    pub fn command(self) -> &'static str {
        match self {
            Self::Ed25519 => "openssl genpkey -algorithm ed25519 -out key.pem",
            Self::P256 => "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem",
            Self::P384 => "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out key.pem",
            Self::Rsa => "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem",
        }
    }
}

/// A private key. Never printed.
pub struct PrivateKey {
    pair: KeyPair,
    kind: Kind,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The public half of a key, in the form that the source needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Public {
    /// The text of a secret of the source.
    Secret(String),
    /// A JWK set, to be published at the source's parameter `jwks_url`.
    KeySet(String),
    /// A certificate in PEM, to be published at the address in requests.
    Certificate(String),
}

impl PrivateKey {
    /// Generates a key.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate(kind: Kind) -> Result<Self, String> {
        let pair = match kind {
            // PKCS#8 version 1, without the public half: not all tools can read version 2.
            Kind::Ed25519 => Ed25519KeyPair::generate()
                .and_then(|pair| pair.to_pkcs8v1())
                .map_err(|error| error.to_string())
                .and_then(|der| KeyPair::try_from(der.as_ref()).map_err(|error| error.to_string())),
            Kind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string()),
            Kind::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).map_err(|error| error.to_string()),
            Kind::Rsa => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).map_err(|error| error.to_string()),
        };
        pair.map(|pair| Self { pair, kind }).map_err(|error| format!("a key could not be made: {error}"))
    }

    /// Reads a key in PKCS#8 PEM (RFC 5958, RFC 7468).
    ///
    /// # Errors
    /// What is wrong with it. The message never has a part of the key.
    pub fn parse(pem: &str) -> Result<Self, String> {
        if !pem.contains("-----BEGIN PRIVATE KEY-----") {
            return Err("is not a private key in PKCS#8 PEM, which begins with -----BEGIN PRIVATE KEY-----; \
                        `openssl pkcs8 -topk8 -nocrypt -in FILE` makes one of other forms"
                .to_owned());
        }
        let pair = KeyPair::from_pem(pem).map_err(|_rejected| "is not a private key that can be read")?;
        let kinds = [
            (&rcgen::PKCS_ED25519, Kind::Ed25519),
            (&rcgen::PKCS_ECDSA_P256_SHA256, Kind::P256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Kind::P384),
            (&rcgen::PKCS_RSA_SHA256, Kind::Rsa),
        ];
        let kind = kinds.into_iter().find(|(algorithm, _)| pair.is_compatible(algorithm)).map(|(_, kind)| kind);
        let kind = kind.ok_or("is of a kind that no profile uses: Ed25519, ECDSA P-256 or P-384, and RSA are")?;
        Ok(Self { pair, kind })
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The private key in PKCS#8 PEM.
    pub fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// Signs a message.
    pub(super) fn sign(&self, algorithm: &SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, String> {
        let failed = |error: rcgen::Error| format!("the key cannot sign: {error}");
        match algorithm {
            SignatureAlgorithm::Rsa(Hash::Sha1) | SignatureAlgorithm::Certificate(Hash::Sha1, _) => {
                Err("RSA with SHA-1 is verified where a provider still uses it, and signed no more".to_owned())
            }
            SignatureAlgorithm::Rsa(Hash::Sha512) | SignatureAlgorithm::Certificate(Hash::Sha512, _) => {
                let pair = KeyPair::from_pkcs8_pem_and_sign_algo(&self.to_pem(), &rcgen::PKCS_RSA_SHA512);
                pair.and_then(|pair| pair.sign(message)).map_err(failed)
            }
            SignatureAlgorithm::Ecdsa(EcdsaFormat::Raw) => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, self.pair.serialized_der())
                    .map_err(|error| format!("the key cannot sign: {error}"))?
                    .sign(&SystemRandom::new(), message)
                    .map(|signature| signature.as_ref().to_vec())
                    .map_err(|error| format!("the key cannot sign: {error}"))
            }
            SignatureAlgorithm::Rsa(Hash::Sha256)
            | SignatureAlgorithm::Certificate(Hash::Sha256, _)
            | SignatureAlgorithm::Ecdsa(EcdsaFormat::Der)
            | SignatureAlgorithm::Ed25519 => self.pair.sign(message).map_err(failed),
            SignatureAlgorithm::Hmac(_) => Err("a private key makes no HMAC".to_owned()),
        }
    }

    /// The key in the form of `jsonwebtoken`.
    pub(super) fn for_tokens(&self) -> Result<EncodingKey, String> {
        let pem = self.to_pem();
        let key = match self.kind {
            Kind::Ed25519 => EncodingKey::from_ed_pem(pem.as_bytes()),
            Kind::P256 | Kind::P384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Kind::Rsa => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        key.map_err(|error| format!("the key cannot sign tokens: {error}"))
    }

    /// The public half, in the form that the first scheme with this kind of key needs.
    ///
    /// # Errors
    /// The profile has no scheme with this kind of key.
    pub fn public(&self, profile: &Profile) -> Result<Public, String> {
        let scheme = profile.schemes().find(|scheme| Kind::of(scheme) == Some(self.kind));
        match scheme {
            Some(Scheme::Signature(spec)) => match &spec.algorithm {
                SignatureAlgorithm::Certificate(_, certificate) => {
                    self.certificate(certificate).map(Public::Certificate)
                }
                SignatureAlgorithm::Hmac(_)
                | SignatureAlgorithm::Ed25519
                | SignatureAlgorithm::Ecdsa(_)
                | SignatureAlgorithm::Rsa(_) => Ok(Public::Secret(self.secret_text(&spec.key))),
            },
            Some(Scheme::Jwt(spec)) => {
                let set = self.key_set(spec.algorithm)?;
                Ok(if profile.fetches_keys() { Public::KeySet(set) } else { Public::Secret(set) })
            }
            Some(Scheme::Token(_) | Scheme::Basic(_)) | None => {
                Err(format!("no scheme of this profile is signed with a key for {}", self.kind.title()))
            }
        }
    }

    /// The public half as the text of a secret.
    fn secret_text(&self, form: &profile::KeyForm) -> String {
        let raw = self.pair.public_key_raw();
        let text = match (form.encoding, self.kind) {
            (Some(KeyEncoding::Hex) | None, Kind::Ed25519) => const_hex::encode(raw),
            (Some(KeyEncoding::Base64), Kind::Ed25519) => base64::engine::general_purpose::STANDARD.encode(raw),
            _ => base64::engine::general_purpose::STANDARD.encode(self.pair.subject_public_key_info()),
        };
        format!("{}{text}", form.prefix.first().map(String::as_str).unwrap_or_default())
    }

    fn key_set(&self, algorithm: Algorithm) -> Result<String, String> {
        let failed = |error: jsonwebtoken::errors::Error| format!("the key has no public half: {error}");
        let algorithm = algorithm.title().parse().map_err(failed)?;
        let mut jwk = Jwk::from_encoding_key(&self.for_tokens()?, algorithm).map_err(failed)?;
        jwk.common.key_id = Some(KID.to_owned());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        serde_json::to_string(&JwkSet { keys: vec![jwk] }).map_err(|error| error.to_string())
    }

    /// A self-signed certificate with a common name that the profile accepts.
    fn certificate(&self, spec: &profile::Certificate) -> Result<String, String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = spec.subject.first().map_or("doorward", String::as_str).replace('*', "doorward");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&self.pair).map_err(|error| error.to_string())?;
        Ok(certificate.pem())
    }
}
