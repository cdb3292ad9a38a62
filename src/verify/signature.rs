//! Verifies signatures over bytes of the request: HMAC, or with a public key.

use http::HeaderName;
use sha2::Digest as _;
use sha2::Sha256;

use super::Failure;
use super::KeyError;
use super::KeyMaterial;
use super::certificate::Certificates;
use super::keys;
use super::public_key::MAX_SIGNATURE;
use super::public_key::PublicKey;
use crate::base::time::Moment;
use crate::extract::field::Extracted;
use crate::extract::field::Field;
use crate::extract::field::Texts;
use crate::extract::mac;
use crate::extract::mac::MAX_DIGEST;
use crate::extract::template::Context;
use crate::extract::template::Filled;
use crate::extract::template::Template;
use crate::extract::template::Unfilled;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::EcdsaFormat;
use crate::profile::Encoding;
use crate::profile::KeyEncoding;
use crate::profile::SignatureAlgorithm;

/// A signature of a profile with the keys of a source.
#[derive(Debug)]
pub struct Signature {
    keys: Keys,
    field: Field,
    prefix: String,
    encoding: Encoding,
    /// The alternatives of the signed text.
    templates: Vec<Template>,
    /// Whether [`Signed::digest`] is needed, because the signature does not cover the event's id.
    pub digest_signed: bool,
}

/// Keys. Those from secrets have the position of their secret.
#[derive(Debug)]
enum Keys {
    Hmac(Vec<(usize, mac::Key)>),
    Public(Vec<(usize, PublicKey)>, Shape),
    Certificates(Box<Certificates>),
}

/// The format of a signature's bytes.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// This many bytes.
    Exactly(usize),
    /// An ASN.1 sequence of two numbers.
    Der,
    /// As many bytes as the modulus of the key.
    Modulus,
}

/// The decoded signatures of a request.
enum Presented {
    /// HMACs, each at the start of its array.
    Digests(Vec<[u8; MAX_DIGEST]>),
    /// Signatures for public keys.
    Signatures(Vec<Vec<u8>>),
}

/// What a verified signature proves.
#[derive(Debug)]
pub struct Signed {
    /// The position of the secret that matched; `None` when the key was fetched.
    pub secret: Option<usize>,
    /// SHA-256 of the signed bytes, where the replay guard needs it.
    pub digest: Option<[u8; 32]>,
}

impl Signature {
    /// Compiles the profile's scheme. Secrets that are not valid keys for it are recorded in `material`.
    ///
    /// # Errors
    /// What is wrong with a parameter.
    pub fn new(spec: &profile::Signature, material: &mut KeyMaterial<'_>) -> Result<Self, KeyError> {
        let field = Field::new(&spec.location.location, material.plan).with_params(material.params);
        let default_encoding = match spec.algorithm {
            SignatureAlgorithm::Hmac(_) => KeyEncoding::Text,
            SignatureAlgorithm::Ed25519 => KeyEncoding::Hex,
            SignatureAlgorithm::Ecdsa(_) | SignatureAlgorithm::Rsa(_) | SignatureAlgorithm::Certificate(..) => {
                KeyEncoding::Spki
            }
        };
        let keys = match &spec.algorithm {
            SignatureAlgorithm::Hmac(hash) => Keys::Hmac(material.keys(&spec.key, |form, text| {
                let bytes = keys::bytes(form, default_encoding, text)?;
                mac::Key::new(*hash, &bytes).ok_or_else(|| "is not usable as a key".to_owned())
            })),
            SignatureAlgorithm::Ed25519 => Keys::Public(
                material.keys(&spec.key, |form, text| PublicKey::ed25519(&keys::bytes(form, default_encoding, text)?)),
                Shape::Exactly(64),
            ),
            SignatureAlgorithm::Ecdsa(format) => Keys::Public(
                material.keys(&spec.key, |form, text| {
                    PublicKey::ecdsa(*format, &keys::bytes(form, default_encoding, text)?)
                }),
                if *format == EcdsaFormat::Raw { Shape::Exactly(64) } else { Shape::Der },
            ),
            SignatureAlgorithm::Rsa(hash) => Keys::Public(
                material
                    .keys(&spec.key, |form, text| PublicKey::rsa(*hash, &keys::bytes(form, default_encoding, text)?)),
                Shape::Modulus,
            ),
            SignatureAlgorithm::Certificate(hash, certificate) => {
                Keys::Certificates(Box::new(Certificates::new(*hash, certificate, material)?))
            }
        };
        let context = Context { params: material.params, signature: Some(&field), key: None };
        let templates = spec.signed.iter().map(|signed| Template::new(signed, context, material.plan)).collect();
        Ok(Self {
            keys,
            templates,
            digest_signed: false,
            prefix: spec.location.prefix.clone(),
            encoding: spec.location.encoding,
            field,
        })
    }

    /// Whether there is a key to verify with.
    pub fn has_keys(&self) -> bool {
        match &self.keys {
            Keys::Hmac(keys) => !keys.is_empty(),
            Keys::Public(keys, _) => !keys.is_empty(),
            Keys::Certificates(_) => true,
        }
    }

    /// The field of the signature.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// The alternatives of the signed bytes, in pieces. An absent value counts as empty.
    ///
    /// # Errors
    /// [`Failure::TimestampMissing`] when a timestamp is signed and absent, [`Failure::BodyMalformed`] when the fields
    /// of a form are signed and the body is not a form, and [`Failure::SignatureMalformed`] when another value is not a
    /// text.
    pub fn signed<'r>(
        &'r self,
        inbound: &'r Inbound,
        values: &'r Extracted,
        timestamp: Option<&'r str>,
    ) -> impl Iterator<Item = Result<Filled<'r>, Failure>> {
        self.templates.iter().map(move |template| {
            template.fill(inbound, values, timestamp).map_err(|unfilled| match unfilled {
                Unfilled::NoTimestamp => Failure::TimestampMissing,
                Unfilled::NotText => Failure::SignatureMalformed,
                Unfilled::NoForm(why) => Failure::BodyMalformed(why),
            })
        })
    }

    /// Verifies the signatures of the request with each key.
    ///
    /// # Errors
    /// [`Failure::SignatureMissing`], [`Failure::SignatureMalformed`] or [`Failure::SignatureMismatch`], and what
    /// [`Self::signed`] and the fetch of a certificate fail with.
    pub async fn verify(
        &self,
        inbound: &Inbound,
        values: &Extracted,
        timestamp: Option<&str>,
        now: Moment,
    ) -> Result<Signed, Failure> {
        let presented = self
            .field
            .texts(inbound, values)
            .map_err(|_not_text| Failure::SignatureMalformed)?
            .ok_or(Failure::SignatureMissing)?;
        let presented = self.read(presented)?;
        let certificate = match &self.keys {
            Keys::Certificates(certificates) => Some(Box::pin(certificates.named(inbound, values, now)).await?),
            Keys::Hmac(_) | Keys::Public(..) => None,
        };
        for signed in self.signed(inbound, values, timestamp) {
            let signed = signed?;
            let matched = match (&self.keys, &presented, &certificate) {
                // The HMAC is computed once for each key, however many signatures a sender presents.
                (Keys::Hmac(keys), Presented::Digests(digests), _) => {
                    keys.iter().find(|(_, key)| key.verifies(signed.pieces(), digests)).map(|(at, _)| Some(*at))
                }
                (Keys::Public(keys, _), Presented::Signatures(signatures), _) => {
                    let message = signed.concat();
                    keys.iter().find(|(_, key)| key.verifies(&message, signatures)).map(|(at, _)| Some(*at))
                }
                (Keys::Certificates(_), Presented::Signatures(signatures), Some(certificate)) => {
                    certificate.verifies(&signed.concat(), signatures).then_some(None)
                }
                _ => None,
            };
            if let Some(secret) = matched {
                return Ok(Signed { secret, digest: self.digest_signed.then(|| sha256(&signed)) });
            }
        }
        Err(Failure::SignatureMismatch)
    }

    /// Decodes the presented texts.
    fn read(&self, texts: Texts<'_>) -> Result<Presented, Failure> {
        let texts = texts.filter_map(|text| text.strip_prefix(self.prefix.as_str()));
        let (presented, none) = match &self.keys {
            Keys::Hmac(keys) => {
                let length = keys.first().map_or(0, |(_, key)| key.digest_length());
                let digests: Vec<_> = texts.filter_map(|text| self.digest(text, length)).collect();
                let none = digests.is_empty();
                (Presented::Digests(digests), none)
            }
            Keys::Public(..) | Keys::Certificates(_) => {
                let decoded = texts.filter_map(|text| self.encoding.decode_vec(text.as_bytes(), MAX_SIGNATURE));
                let signatures: Vec<_> = decoded.filter(|bytes| self.has_shape(bytes)).take(MAX_PRESENTED).collect();
                let none = signatures.is_empty();
                (Presented::Signatures(signatures), none)
            }
        };
        if none { Err(Failure::SignatureMalformed) } else { Ok(presented) }
    }

    /// Decodes a presented digest to the start of an array.
    fn digest(&self, text: &str, length: usize) -> Option<[u8; MAX_DIGEST]> {
        let mut buffer = [0; MAX_DIGEST];
        let digest = buffer.get_mut(..length)?;
        self.encoding.decode(text.as_bytes(), digest).then_some(buffer)
    }

    /// Whether these bytes may be a signature for the algorithm, by their length and first bytes.
    fn has_shape(&self, bytes: &[u8]) -> bool {
        let shape = if let Keys::Public(_, shape) = &self.keys { *shape } else { Shape::Modulus };
        match shape {
            Shape::Exactly(length) => bytes.len() == length,
            Shape::Der => (8..=72).contains(&bytes.len()) && bytes.starts_with(&[0x30, der_length(bytes)]),
            Shape::Modulus => (256..=MAX_SIGNATURE).contains(&bytes.len()),
        }
    }

    /// The signatures that the provider would present for these bytes, one for each HMAC key, with the position of its
    /// secret. Empty for other algorithms.
    pub fn computed(&self, signed: &Filled<'_>) -> impl Iterator<Item = (usize, String)> {
        let keys = match &self.keys {
            Keys::Hmac(keys) => keys.as_slice(),
            Keys::Public(..) | Keys::Certificates(_) => &[],
        };
        keys.iter().map(|(at, key)| (*at, self.present(&key.digest(signed.pieces()))))
    }

    /// A signature in the profile's encoding, with its prefix.
    pub fn present(&self, signature: &[u8]) -> String {
        format!("{}{}", self.prefix, self.encoding.encode(signature))
    }

    /// The headers that it reads.
    pub fn headers(&self) -> Vec<HeaderName> {
        let mut headers = self.field.headers();
        headers.extend(self.templates.iter().flat_map(Template::fields).flat_map(Field::headers));
        if let Keys::Certificates(certificates) = &self.keys {
            headers.extend(certificates.headers());
        }
        headers
    }

    /// Whether the body has to be parsed as JSON first.
    pub fn reads_json(&self) -> bool {
        let certificate = matches!(&self.keys, Keys::Certificates(certificates) if certificates.reads_json());
        certificate || self.field.is_json() || self.templates.iter().flat_map(Template::fields).any(Field::is_json)
    }
}

/// The most signatures of one request that are verified with a public key, which is slow.
const MAX_PRESENTED: usize = 8;

/// The length byte of an ASN.1 sequence that takes all these bytes; fewer than 130 bytes.
fn der_length(bytes: &[u8]) -> u8 {
    bytes.len().checked_sub(2).and_then(|length| u8::try_from(length).ok()).unwrap_or(u8::MAX)
}

fn sha256(signed: &Filled<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    signed.pieces().iter().for_each(|piece| hash.update(piece));
    hash.finalize().into()
}
