//! Turns the text of secrets into keys.

use base64::Engine as _;
use zeroize::Zeroizing;

use crate::mac;
use crate::profile::KeyEncoding;
use crate::profile::KeyForm;
use crate::secret::Secret;

/// The text of a secret without the prefix that its profile knows; `None` when the secret is meant for another scheme.
/// `claimed` are the prefixes that other schemes of the profile claim.
pub(super) fn text<'s>(form: &KeyForm, secret: &'s Secret, claimed: &[&str]) -> Option<&'s [u8]> {
    let text = secret.expose();
    match &form.prefix {
        Some(prefix) if form.only_prefixed => text.strip_prefix(prefix.as_bytes()),
        _ if claimed.iter().any(|prefix| text.starts_with(prefix.as_bytes())) => None,
        Some(prefix) => Some(text.strip_prefix(prefix.as_bytes()).unwrap_or(text)),
        None => Some(text),
    }
}

/// The bytes of a secret as the key of a keyed hash.
///
/// # Errors
/// What the secret is not, for the operator.
pub fn key_bytes(form: &KeyForm, secret: &Secret) -> Result<Zeroizing<Vec<u8>>, String> {
    bytes(form, KeyEncoding::Text, text(form, secret, &[]).ok_or("is not for this scheme")?)
}

/// The bytes of a key.
///
/// # Errors
/// What the text is not, for the operator; never the text itself.
pub(super) fn bytes(form: &KeyForm, usual: KeyEncoding, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = match form.encoding.unwrap_or(usual) {
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

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded: &[u8] = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(unpadded).ok()
}

/// The `SubjectPublicKeyInfo` in a PEM, or in the base64 that stands in one.
fn spki(text: &[u8]) -> Option<Vec<u8>> {
    if text.trim_ascii_start().starts_with(b"-----BEGIN PUBLIC KEY-----") {
        let (_, pem) = x509_parser::pem::parse_x509_pem(text).ok()?;
        return Some(pem.contents);
    }
    let compact: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    base64(&compact)
}
