//! The text that an event is known by: read from places, put together from several, hashed, or made up.

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

/// Stands between the parts of a composite id: a control character, which no part has, so that no two ids look the
/// same.
const JOINT: &str = "\u{1f}";

/// What an event is known by, ready to be read.
#[derive(Debug)]
pub(super) enum Reference {
    Field(Field),
    /// The SHA-256 of what stands there: a proof, which nobody else may see.
    Proof(Field),
    All(Vec<Self>),
    First(Vec<Self>),
    /// The SHA-256 of what stands there in each item of a list.
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
                // What is only beside a proof, in the same list, is none.
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

    /// Whether no header that it may be read from contradicts another one.
    pub(super) fn agrees(&self, inbound: &Inbound) -> bool {
        match self {
            Self::Field(field) | Self::Proof(field) => field.agrees(inbound),
            Self::All(several) | Self::First(several) => several.iter().all(|one| one.agrees(inbound)),
            Self::Each(_) | Self::BodyDigest | Self::Unique => true,
        }
    }

    /// The text; `None` when there is none, or not all of it.
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
                Ok(Some(Cow::Owned(texts.join(JOINT))))
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

/// The SHA-256 of what all items of a list say, in whatever order they are; `None` when one of them says nothing.
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
        // Each is told where it ends by its length, so that no other texts give the same bytes.
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(text);
    }
    Ok(Some(const_hex::encode(hash.finalize())))
}

fn digest(bytes: &[u8]) -> String {
    const_hex::encode(mac::hash(Hash::Sha256, &[bytes]))
}

/// A text with `between` its parts, if it has several.
pub(super) fn parted<'t>(text: &'t str, between: &str) -> Cow<'t, str> {
    if text.contains(JOINT) { Cow::Owned(text.replace(JOINT, between)) } else { Cow::Borrowed(text) }
}
