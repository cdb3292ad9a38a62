//! Signatures of providers, with throw-away keys of `tests/fixtures/keys`. They are made with cryptographic libraries
//! alone, and not by the code under test.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::encoding::PublicKeyX509Der;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::KeyInit as _;
use hmac::Mac as _;

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key).expect("a key");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// HMAC-SHA256 of the pieces, in hexadecimal.
pub fn hmac_hex(secret: &str, pieces: &[&[u8]]) -> String {
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    pieces.iter().for_each(|piece| mac.update(piece));
    const_hex::encode(mac.finalize().into_bytes())
}

pub fn hmac_sha1(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(key).expect("a key");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// The key in `NAME.pem`, in PKCS#8.
pub fn pkcs8(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a key");
    let base64: String =
        text.lines().skip_while(|line| !line.starts_with("-----")).filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(base64).expect("base64")
}

pub fn ed25519(name: &str) -> Ed25519KeyPair {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8(name)).expect("a key")
}

/// A key whose signatures are both numbers one after the other.
pub fn p256(name: &str) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8(name)).expect("a key")
}

pub fn p256_signature(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
}

/// The base64 of a `SubjectPublicKeyInfo`.
pub fn p256_public(key: &EcdsaKeyPair) -> String {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().expect("DER");
    STANDARD.encode(der.as_ref())
}

pub fn rsa(name: &str) -> aws_lc_rs::rsa::KeyPair {
    aws_lc_rs::rsa::KeyPair::from_pkcs8(&pkcs8(name)).expect("a key")
}

pub fn rsa_signature(key: &aws_lc_rs::rsa::KeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("a signature");
    signature
}

/// The base64 of a `SubjectPublicKeyInfo`.
pub fn rsa_public(key: &aws_lc_rs::rsa::KeyPair) -> String {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().expect("DER");
    STANDARD.encode(der.as_ref())
}

/// Two positive numbers as an ASN.1 sequence.
pub fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let digits: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        let sign = digits.first().is_none_or(|first| *first >= 0x80);
        let digits: Vec<u8> = sign.then_some(0).into_iter().chain(digits).collect();
        [&[2, u8::try_from(digits.len()).expect("short")], digits.as_slice()].concat()
    };
    let both = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(both.len()).expect("short")], both.as_slice()].concat()
}

/// The other signature of P-256 that is as good: r, and the order of the group less s.
pub fn negated(signature: &[u8]) -> Vec<u8> {
    let order = const_hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").expect("hex");
    let (r, s) = signature.split_at(32);
    let mut borrow = 0;
    let mut difference: Vec<u8> = order
        .iter()
        .rev()
        .zip(s.iter().rev())
        .map(|(order, s)| {
            let digit = 256 + i32::from(*order) - i32::from(*s) - borrow;
            borrow = i32::from(digit < 256);
            digit.to_le_bytes()[0]
        })
        .collect();
    difference.reverse();
    [r, &difference].concat()
}

/// A public key in PEM.
pub fn pem(spki: &str) -> String {
    let lines: Vec<_> = spki.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}
