//! Keyed hashes over a template (RFC 2104), compared in constant time as decoded bytes.

use base64::Engine as _;
use hmac::KeyInit as _;
use hmac::Mac;
use hmac::digest::CtOutput;
use hmac::digest::Output;
use hmac::digest::typenum::Unsigned as _;
use http::HeaderName;
use sha2::Digest as _;
use sha2::Sha256;

use super::Failure;
use crate::body::Inbound;
use crate::field::Field;
use crate::json::Fields;
use crate::json::Pointers;
use crate::profile;
use crate::profile::Encoding;
use crate::profile::Hash;
use crate::profile::KeyEncoding;
use crate::profile::KeyForm;
use crate::profile::Piece;
use crate::secret::Secret;

/// Longest digest there is, SHA-512's, in bytes.
const MAX_DIGEST: usize = 64;

/// `[auth.hmac]` of a profile with the secrets of a source.
pub struct Hmac {
    keys: Vec<Key>,
    signature: Field,
    prefix: String,
    encoding: Encoding,
    template: Vec<Part>,
}

impl std::fmt::Debug for Hmac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hmac").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// A key with its schedule computed, to be cloned for each request.
enum Key {
    Sha256(hmac::Hmac<Sha256>),
    Sha512(hmac::Hmac<sha2::Sha512>),
    Sha1(hmac::Hmac<sha1::Sha1>),
}

#[derive(Debug)]
enum Part {
    Literal(Vec<u8>),
    Body,
    Timestamp,
    Field(Field),
}

/// The bytes of one request that the signature covers, in pieces.
#[derive(Debug)]
pub struct Signed<'r>(Vec<&'r [u8]>);

impl Signed<'_> {
    /// SHA-256 of these bytes.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.0.iter().for_each(|piece| hash.update(piece));
        hash.finalize().into()
    }
}

impl Hmac {
    /// Makes the profile's scheme ready with these secrets.
    ///
    /// # Errors
    /// The position of a secret that is not written as the profile's key, with what would be right.
    pub fn new(
        said: &profile::Hmac,
        secrets: &[Secret],
        pointers: &mut Pointers,
    ) -> Result<Self, Vec<(usize, String)>> {
        let (keys, wrong): (Vec<_>, Vec<_>) = secrets
            .iter()
            .enumerate()
            .map(|(position, secret)| {
                let bytes = key_bytes(&said.key, secret).map_err(|message| (position, message))?;
                Key::new(said.hash, &bytes).ok_or_else(|| (position, "is not usable as a key".to_owned()))
            })
            .partition(Result::is_ok);
        if !wrong.is_empty() {
            return Err(wrong.into_iter().filter_map(Result::err).collect());
        }
        let template = said.signed.pieces().iter().map(|piece| match piece {
            Piece::Literal(text) => Part::Literal(text.as_bytes().to_vec()),
            Piece::Body => Part::Body,
            Piece::Timestamp => Part::Timestamp,
            Piece::Place(place) => Part::Field(Field::new(place, pointers)),
        });
        Ok(Self {
            keys: keys.into_iter().flatten().collect(),
            template: template.collect(),
            signature: Field::new(&said.signature.place, pointers),
            prefix: said.signature.prefix.clone(),
            encoding: said.signature.encoding,
        })
    }

    /// Collects the bytes that should have been signed.
    ///
    /// # Errors
    /// [`Failure::TimestampMissing`] when there is none to sign, and [`Failure::SignatureMalformed`] when another part of
    /// the template is no text. A part that is not there at all counts as empty.
    pub fn signed<'r>(
        &'r self,
        inbound: &'r Inbound,
        fields: &'r Fields,
        timestamp: Option<&'r str>,
    ) -> Result<Signed<'r>, Failure> {
        let pieces = self.template.iter().map(|part| match part {
            Part::Literal(text) => Ok(text.as_slice()),
            Part::Body => Ok(&inbound.body()[..]),
            Part::Timestamp => timestamp.map(str::as_bytes).ok_or(Failure::TimestampMissing),
            Part::Field(field) => {
                let text = field.text(inbound.headers(), fields).map_err(|_not_text| Failure::SignatureMalformed)?;
                Ok(text.unwrap_or_default().as_bytes())
            }
        });
        pieces.collect::<Result<_, _>>().map(Signed)
    }

    /// Whether the request presents anything where the signature should be.
    ///
    /// # Errors
    /// [`Failure::SignatureMissing`] when it does not.
    pub fn presented(&self, inbound: &Inbound, fields: &Fields) -> Result<(), Failure> {
        match self.signature.is_there(inbound.headers(), fields) {
            true => Ok(()),
            false => Err(Failure::SignatureMissing),
        }
    }

    /// Compares what the request presents with what each secret gives; the position of the secret that matched.
    ///
    /// # Errors
    /// [`Failure::SignatureMissing`], [`Failure::SignatureMalformed`] or [`Failure::SignatureMismatch`].
    pub fn verify(&self, inbound: &Inbound, fields: &Fields, signed: &Signed<'_>) -> Result<usize, Failure> {
        let presented = self
            .signature
            .texts(inbound.headers(), fields)
            .map_err(|_not_text| Failure::SignatureMalformed)?
            .ok_or(Failure::SignatureMissing)?;
        let decoded = presented.filter_map(|text| self.decode(text));
        if decoded.clone().next().is_none() {
            return Err(Failure::SignatureMalformed);
        }
        // Each secret's digest is computed once, however many signatures a sender presents.
        self.keys.iter().position(|key| key.verifies(signed, decoded.clone())).ok_or(Failure::SignatureMismatch)
    }

    /// The digest that a presented text stands for, at the start of the array.
    fn decode(&self, text: &str) -> Option<[u8; MAX_DIGEST]> {
        let mut buffer = [0; MAX_DIGEST];
        let digest = buffer.get_mut(..self.keys.first()?.digest_length())?;
        let text = text.strip_prefix(self.prefix.as_str())?;
        self.encoding.decode(text.as_bytes(), digest).then_some(buffer)
    }

    /// What the provider would present for these bytes, made with the first secret.
    pub fn sign(&self, signed: &Signed<'_>) -> Option<String> {
        let digest = self.keys.first()?.digest(signed);
        Some(format!("{}{}", self.prefix, self.encoding.encode(&digest)))
    }

    /// The headers that it reads.
    pub fn headers(&self) -> Vec<HeaderName> {
        let parts = self.template.iter().filter_map(|part| match part {
            Part::Field(field) => field.header(),
            Part::Literal(_) | Part::Body | Part::Timestamp => None,
        });
        parts.chain(self.signature.header()).cloned().collect()
    }

    /// Whether something besides the raw bytes of the body is read from it.
    pub fn reads_body(&self) -> bool {
        self.signature.is_json()
            || self.template.iter().any(|part| match part {
                Part::Field(field) => field.is_json(),
                Part::Literal(_) | Part::Body | Part::Timestamp => false,
            })
    }
}

impl Key {
    fn new(hash: Hash, bytes: &[u8]) -> Option<Self> {
        match hash {
            Hash::Sha256 => hmac::Hmac::new_from_slice(bytes).ok().map(Self::Sha256),
            Hash::Sha512 => hmac::Hmac::new_from_slice(bytes).ok().map(Self::Sha512),
            Hash::Sha1 => hmac::Hmac::new_from_slice(bytes).ok().map(Self::Sha1),
        }
    }

    fn digest_length(&self) -> usize {
        match self {
            Self::Sha256(_) => 32,
            Self::Sha512(_) => 64,
            Self::Sha1(_) => 20,
        }
    }

    fn verifies(&self, signed: &Signed<'_>, presented: impl Iterator<Item = [u8; MAX_DIGEST]>) -> bool {
        match self {
            Self::Sha256(key) => any_equal(&compute(key, signed), presented),
            Self::Sha512(key) => any_equal(&compute(key, signed), presented),
            Self::Sha1(key) => any_equal(&compute(key, signed), presented),
        }
    }

    fn digest(&self, signed: &Signed<'_>) -> Vec<u8> {
        match self {
            Self::Sha256(key) => compute(key, signed).into_bytes().to_vec(),
            Self::Sha512(key) => compute(key, signed).into_bytes().to_vec(),
            Self::Sha1(key) => compute(key, signed).into_bytes().to_vec(),
        }
    }
}

fn compute<M: Mac + Clone>(key: &M, signed: &Signed<'_>) -> CtOutput<M> {
    let mut mac = key.clone();
    signed.0.iter().for_each(|piece| mac.update(piece));
    mac.finalize()
}

/// Each comparison takes the same time whatever the bytes are: that is what `CtOutput` is for.
fn any_equal<M: Mac>(computed: &CtOutput<M>, mut presented: impl Iterator<Item = [u8; MAX_DIGEST]>) -> bool {
    presented.any(|digest| {
        let digest = digest.get(..M::OutputSize::USIZE).and_then(|digest| Output::<M>::try_from(digest).ok());
        digest.is_some_and(|digest| CtOutput::new(digest) == *computed)
    })
}

/// Turns a secret's text into key bytes.
fn key_bytes(form: &KeyForm, secret: &Secret) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
    let text = secret.expose();
    let text = match &form.prefix {
        Some(prefix) => text.strip_prefix(prefix.as_bytes()).unwrap_or(text),
        None => text,
    };
    let bytes = match form.encoding {
        KeyEncoding::Text => text.to_vec(),
        KeyEncoding::Hex => const_hex::decode(text).map_err(|_bad| "is not hexadecimal, as this profile's key is")?,
        KeyEncoding::Base64 => {
            let unpadded: &[u8] = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
            base64::engine::general_purpose::STANDARD_NO_PAD
                .decode(unpadded)
                .map_err(|_bad| "is not base64, as this profile's key is")?
        }
    };
    if bytes.is_empty() {
        return Err("decodes to an empty key, which everybody knows".to_owned());
    }
    Ok(zeroize::Zeroizing::new(bytes))
}
