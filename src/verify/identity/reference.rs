//! The text of an event's id or type: read from locations, joined from several, hashed, or random.

use std::borrow::Cow;

use http::HeaderName;
use sha2::Digest as _;
use sha2::Sha256;

use crate::base::form::NotText;
use crate::extract::field::Extracted;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::extract::mac;
use crate::extract::params::Params;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::Hash;
use crate::profile::Location;

/// Separates the parts of a composite id: a control character, which no part may have, so that the join is unambiguous.
const SEPARATOR: &str = "\u{1f}";

/// A compiled reference.
#[derive(Debug)]
pub(super) enum Reference {
    Field(Field),
    /// The SHA-256 of a value that is the proof of a scheme, which must not be stored or shown.
    Proof(Field),
    All(Vec<Self>),
    First(Vec<Self>),
    /// The SHA-256 of the values in all items of a list.
    Each(Vec<Field>),
    BodyDigest,
    Unique,
}

impl Reference {
    pub(super) fn new(
        reference: &profile::Reference,
        proofs: &[Location],
        params: &Params,
        plan: &mut ExtractionPlan,
    ) -> Self {
        let mut all = |several: &[profile::Reference]| {
            several.iter().map(|reference| Self::new(reference, proofs, params, plan)).collect()
        };
        match reference {
            profile::Reference::All(several) => Self::All(all(several)),
            profile::Reference::First(several) => Self::First(all(several)),
            profile::Reference::Location(location) => {
                let field = Field::new(location, plan).with_params(params);
                // Another entry of the list that has the proof is not a proof.
                let is_proof = |proof: &Location| {
                    proof == location || location.item.is_none() && proof.carrier == location.carrier
                };
                let proof = proofs.iter().any(is_proof);
                if proof { Self::Proof(field) } else { Self::Field(field) }
            }
            profile::Reference::Each(locations) => {
                Self::Each(locations.iter().map(|location| Field::new(location, plan)).collect())
            }
            profile::Reference::BodyDigest => Self::BodyDigest,
            profile::Reference::Unique => Self::Unique,
        }
    }

    pub(super) fn headers(&self) -> Vec<HeaderName> {
        match self {
            Self::Field(field) | Self::Proof(field) => field.headers(),
            Self::All(several) | Self::First(several) => several.iter().flat_map(Self::headers).collect(),
            Self::Each(_) | Self::BodyDigest | Self::Unique => Vec::new(),
        }
    }

    /// Whether all headers that each value may be read from are equal; see [`Field::headers_agree`].
    pub(super) fn headers_agree(&self, inbound: &Inbound) -> bool {
        match self {
            Self::Field(field) | Self::Proof(field) => field.headers_agree(inbound),
            Self::All(several) | Self::First(several) => several.iter().all(|one| one.headers_agree(inbound)),
            Self::Each(_) | Self::BodyDigest | Self::Unique => true,
        }
    }

    /// The text; `None` when it, or a part of it, is absent.
    pub(super) fn text<'r>(
        &'r self,
        inbound: &'r Inbound,
        values: &'r Extracted,
    ) -> Result<Option<Cow<'r, str>>, NotText> {
        match self {
            Self::Field(field) => Ok(field.text(inbound, values)?.map(Cow::Borrowed)),
            Self::Proof(field) => {
                let text = field.text(inbound, values)?.filter(|text| !text.is_empty());
                Ok(text.map(|text| Cow::Owned(digest(text.as_bytes()))))
            }
            Self::First(several) => {
                for one in several {
                    if let Some(text) = one.text(inbound, values)?.filter(|text| !text.is_empty()) {
                        return Ok(Some(text));
                    }
                }
                Ok(None)
            }
            Self::All(several) => {
                let mut texts = Vec::with_capacity(several.len());
                for one in several {
                    let text = one.text(inbound, values)?.filter(|text| !text.is_empty());
                    match text {
                        Some(text) if text.contains(char::is_control) => return Err(NotText),
                        Some(text) => texts.push(text),
                        None => return Ok(None),
                    }
                }
                Ok(Some(Cow::Owned(texts.join(SEPARATOR))))
            }
            Self::Each(fields) => Ok(each(fields, values)?.map(Cow::Owned)),
            Self::BodyDigest => Ok(Some(Cow::Owned(digest(inbound.signed())))),
            Self::Unique => {
                let mut random = [0_u8; 16];
                getrandom::fill(&mut random).map_err(|_unavailable| NotText)?;
                Ok(Some(Cow::Owned(const_hex::encode(random))))
            }
        }
    }
}

/// The SHA-256 of the values in all items of a list, independent of their order. `None` when a value is absent.
fn each(fields: &[Field], values: &Extracted) -> Result<Option<String>, NotText> {
    let mut items: Vec<Vec<&str>> = Vec::new();
    for field in fields {
        let Some(texts) = field.each(values)? else { return Ok(None) };
        items.resize_with(texts.len(), Vec::new);
        items.iter_mut().zip(texts).for_each(|(item, text)| item.push(text));
    }
    items.sort_unstable();
    let mut hash = Sha256::new();
    for text in items.into_iter().flatten() {
        // The length before each text makes the hashed bytes unambiguous.
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(text);
    }
    Ok(Some(const_hex::encode(hash.finalize())))
}

fn digest(bytes: &[u8]) -> String {
    const_hex::encode(mac::hash(Hash::Sha256, &[bytes]))
}

/// A composite text with another separator, for people.
pub(super) fn with_separator<'t>(text: &'t str, separator: &str) -> Cow<'t, str> {
    if text.contains(SEPARATOR) { Cow::Owned(text.replace(SEPARATOR, separator)) } else { Cow::Borrowed(text) }
}
