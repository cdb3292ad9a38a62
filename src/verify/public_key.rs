//! Public keys (Ed25519, ECDSA P-256, RSA of 2048 to 8192 bits) and the signatures that they verify.

use aws_lc_rs::signature;
use aws_lc_rs::signature::ParsedPublicKey;
use aws_lc_rs::signature::VerificationAlgorithm;

use crate::profile::EcdsaFormat;
use crate::profile::Hash;

/// The most bytes of a signature, which RSA with 8192 bits has.
pub(super) const MAX_SIGNATURE: usize = 1024;

/// A public key with its signature algorithm.
#[derive(Debug, Clone)]
pub(super) struct PublicKey(ParsedPublicKey);

impl PublicKey {
    /// A key for Ed25519 (RFC 8032): 32 bytes, or a `SubjectPublicKeyInfo` with them.
    pub(super) fn ed25519(bytes: &[u8]) -> Result<Self, String> {
        Self::new(&signature::ED25519, bytes, "is not an Ed25519 public key of 32 bytes")
    }

    /// A P-256 key as `SubjectPublicKeyInfo`.
    pub(super) fn ecdsa(format: EcdsaFormat, spki: &[u8]) -> Result<Self, String> {
        let algorithm = match format {
            EcdsaFormat::Der => &signature::ECDSA_P256_SHA256_ASN1,
            EcdsaFormat::Raw => &signature::ECDSA_P256_SHA256_FIXED,
        };
        Self::new(algorithm, spki, "is not a P-256 public key")
    }

    /// An RSA key of 2048 to 8192 bits as `SubjectPublicKeyInfo`.
    pub(super) fn rsa(hash: Hash, spki: &[u8]) -> Result<Self, String> {
        let algorithm = match hash {
            Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Hash::Sha1 => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
        };
        Self::new(algorithm, spki, "is not an RSA public key of 2048 to 8192 bits")
    }

    fn new(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8], message: &str) -> Result<Self, String> {
        ParsedPublicKey::new(algorithm, bytes).map(Self).map_err(|_rejected| message.to_owned())
    }

    /// Whether one of the signatures verifies for the message.
    pub(super) fn verifies(&self, message: &[u8], signatures: &[Vec<u8>]) -> bool {
        signatures.iter().any(|signature| self.0.verify_sig(message, signature).is_ok())
    }
}
