//! Verifies secrets that are sent with the request (tokens, Basic credentials). They are compared in constant time.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use http::HeaderName;
use http::header;

use super::Failure;
use super::KeyMaterial;
use crate::base::secret::Secret;
use crate::extract::field::Extracted;
use crate::extract::field::Field;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::Carrier;
use crate::profile::KeyForm;
use crate::profile::Location;

/// `[auth.token]` or `[auth.basic]` with the secrets of a source.
#[derive(Debug)]
pub struct Token {
    field: Field,
    prefix: String,
    /// Whether the presented text is decoded as Basic credentials before it is compared.
    basic: bool,
    /// The secrets with their positions.
    secrets: Vec<(usize, Secret)>,
}

impl Token {
    /// `[auth.token]` with the source's secrets.
    pub fn new(spec: &profile::Token, material: &mut KeyMaterial<'_>) -> Self {
        let field = Field::new(&spec.from.location, material.plan);
        let secrets = material.keys(&spec.key, |_, text| Secret::new(text));
        Self { field, prefix: spec.from.prefix.clone(), basic: false, secrets }
    }

    /// `[auth.basic]` (RFC 7617) with the source's secrets, each `user:password`.
    pub fn basic(key: &KeyForm, material: &mut KeyMaterial<'_>) -> Self {
        let location = Location { carrier: Carrier::Header(vec![header::AUTHORIZATION]), item: None };
        let field = Field::new(&location, material.plan);
        let secrets = material.keys(key, |_, text| {
            if text.contains(&b':') {
                Secret::new(text)
            } else {
                Err("is not \"user:password\", as this profile's credentials are".to_owned())
            }
        });
        Self { field, prefix: String::new(), basic: true, secrets }
    }

    /// Whether there is a secret to compare with.
    pub fn has_keys(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// The field of the secret.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// The headers that it reads.
    pub fn headers(&self) -> Vec<HeaderName> {
        self.field.headers()
    }

    /// Whether the body has to be parsed as JSON first.
    pub fn reads_json(&self) -> bool {
        self.field.is_json()
    }

    /// The text that a provider with the first secret sends; `None` when there is no secret, or it is not UTF-8.
    pub fn present(&self) -> Option<String> {
        let (_, secret) = self.secrets.first()?;
        if self.basic {
            return Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(secret.expose())));
        }
        Some(format!("{}{}", self.prefix, std::str::from_utf8(secret.expose()).ok()?))
    }

    /// Compares the presented texts with each secret. Returns the position of the secret that matched.
    ///
    /// # Errors
    /// [`Failure::CredentialMissing`], [`Failure::CredentialMalformed`] or [`Failure::CredentialMismatch`].
    pub fn verify(&self, inbound: &Inbound, values: &Extracted) -> Result<usize, Failure> {
        let presented = self
            .field
            .texts(inbound, values)
            .map_err(|_not_text| Failure::CredentialMalformed)?
            .ok_or(Failure::CredentialMissing)?;
        let mut texts = Vec::new();
        for text in presented {
            let text = text.strip_prefix(self.prefix.as_str()).ok_or(Failure::CredentialMalformed)?;
            texts.push(if self.basic { credentials(text)? } else { text.as_bytes().to_vec() });
        }
        if texts.is_empty() {
            return Err(Failure::CredentialMalformed);
        }
        // Of several texts, as in each item of a batch, all must match the same secret.
        let matches = |secret: &Secret| texts.iter().all(|text| verify_slices_are_equal(text, secret.expose()).is_ok());
        self.secrets.iter().find(|(_, secret)| matches(secret)).map(|(at, _)| *at).ok_or(Failure::CredentialMismatch)
    }
}

/// Decodes `user:password` from the value of an `Authorization` header (RFC 7617).
fn credentials(value: &str) -> Result<Vec<u8>, Failure> {
    let (scheme, text) = value.split_once(' ').ok_or(Failure::CredentialMalformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Failure::CredentialMalformed);
    }
    let text = text.trim_matches(' ');
    let decoded = base64::engine::general_purpose::STANDARD.decode(text).ok();
    decoded.filter(|decoded| decoded.contains(&b':')).ok_or(Failure::CredentialMalformed)
}
