//! Decodes the text of secrets into key bytes.

use base64::Engine as _;
use zeroize::Zeroizing;

use crate::base::secret::Secret;
use crate::extract::mac;
use crate::profile::KeyEncoding;
use crate::profile::KeyForm;

/// The text of a secret without the prefix of its form; `None` when the secret is for another scheme. `claimed` are the
/// prefixes of secrets that only one scheme of the profile uses.
pub(super) fn text<'s>(form: &KeyForm, secret: &'s Secret, claimed: &[&str]) -> Option<&'s [u8]> {
    let text = secret.expose();
    match form.without_prefix(text) {
        bare if form.only_prefixed => bare,
        _ if claimed.iter().any(|prefix| text.starts_with(prefix.as_bytes())) => None,
        bare => bare.or(Some(text)),
    }
}

/// The form in which the whole text of the secret is tried as the key; `None` if the text is only a prefix.
pub(super) fn as_text(form: &KeyForm, secret: &Secret) -> Option<KeyForm> {
    form.as_text().filter(|_| form.without_prefix(secret.expose()).is_none_or(|bare| !bare.is_empty()))
}

/// The bytes of a secret as the key of an HMAC.
///
/// # Errors
/// What the secret is not, for the operator.
pub fn key_bytes(form: &KeyForm, secret: &Secret) -> Result<Zeroizing<Vec<u8>>, String> {
    let read = bytes(form, KeyEncoding::Text, text(form, secret, &[]).ok_or("is not for this scheme")?);
    match as_text(form, secret) {
        Some(form) if read.is_err() => bytes(&form, KeyEncoding::Text, secret.expose()),
        _ => read,
    }
}

/// The bytes of a key.
///
/// # Errors
/// What the text is not, for the operator; never the text itself.
pub(super) fn bytes(form: &KeyForm, default_encoding: KeyEncoding, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = match form.encoding.unwrap_or(default_encoding) {
        KeyEncoding::Text | KeyEncoding::Base64 | KeyEncoding::Hex if is_public(text) => {
            return Err(
                "is a public key or certificate, which everybody knows, and this profile's secret is shared with \
                        the provider alone"
                    .to_owned(),
            );
        }
        KeyEncoding::Spki if contains(text, b"PRIVATE KEY-----") => {
            return Err(
                "is a private key, which belongs to the provider alone; a source takes the public half".to_owned()
            );
        }
        KeyEncoding::Text => text.to_vec(),
        KeyEncoding::Hex => const_hex::decode(text).map_err(|_bad| "is not hexadecimal, as this profile's key is")?,
        KeyEncoding::Base64 => base64(text).ok_or("is not base64, as this profile's key is")?,
        KeyEncoding::Spki => {
            spki(text).ok_or("is not a public key in PEM, or the base64 in it, as this profile's key is")?
        }
    };
    if bytes.is_empty() {
        return Err("decodes to an empty key, which everybody knows".to_owned());
    }
    Ok(Zeroizing::new(match form.derive {
        Some(hash) => mac::hash(hash, &[bytes]),
        None => bytes,
    }))
}

/// Whether the text is a public key or certificate in PEM (RFC 7468), or a JWK or JWK set (RFC 7517) without shared
/// keys.
fn is_public(text: &[u8]) -> bool {
    let pem = contains(text, b"-----BEGIN ")
        && [&b"PUBLIC KEY-----"[..], b"CERTIFICATE-----"].iter().any(|end| contains(text, end));
    let set = || text.trim_ascii_start().starts_with(b"{") && contains(text, b"\"kty\"") && !contains(text, b"\"oct\"");
    pem || set()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded: &[u8] = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(unpadded).ok()
}

/// The `SubjectPublicKeyInfo` from PEM, or from its base64 without the PEM lines around it.
fn spki(text: &[u8]) -> Option<Vec<u8>> {
    if text.trim_ascii_start().starts_with(b"-----BEGIN PUBLIC KEY-----") {
        let (_, pem) = x509_parser::pem::parse_x509_pem(text).ok()?;
        return Some(pem.contents);
    }
    let compact: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    base64(&compact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_knows_is_no_shared_secret_and_what_nobody_may_know_no_public_key() {
        let public = [
            "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n",
            "-----BEGIN CERTIFICATE-----\nMIIB\n",
            "-----BEGIN RSA PUBLIC KEY-----\nMIIB\n",
            r#" {"kty":"EC","crv":"P-256"}"#,
            r#"{"keys":[{"kty":"RSA","n":"x"}]}"#,
        ];
        for text in public {
            for encoding in [KeyEncoding::Text, KeyEncoding::Base64, KeyEncoding::Hex] {
                let message = bytes(&KeyForm::default(), encoding, text.as_bytes()).expect_err(text);
                assert!(message.starts_with("is a public key"), "{message}");
            }
        }
        let private = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----";
        let message = bytes(&KeyForm::default(), KeyEncoding::Spki, private.as_bytes()).expect_err("private");
        assert!(message.starts_with("is a private key"), "{message}");
        for secret in [private, "{\"a\":1}", "-----", r#"{"kty":"oct","k":"c2VjcmV0"}"#] {
            assert!(bytes(&KeyForm::default(), KeyEncoding::Text, secret.as_bytes()).is_ok(), "{secret}");
        }
    }
}
