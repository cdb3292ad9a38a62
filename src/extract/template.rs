//! The templates of a profile, compiled to be filled from requests.

use std::borrow::Cow;

use crate::base::form;
use crate::base::form::NotText;
use crate::base::json::Malformed;
use crate::extract::field::Extracted;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::extract::mac;
use crate::extract::mac::Key;
use crate::extract::params::Params;
use crate::extract::params::param;
use crate::http::inbound::Inbound;
use crate::profile;
use crate::profile::Encoding;
use crate::profile::Hash;
use crate::profile::Piece;

/// What templates of a source are compiled with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'c> {
    /// The source's parameters.
    pub params: &'c Params,
    /// The field of the signature, for other entries of its list (`{item:…}`).
    pub signature: Option<&'c Field>,
    /// The bytes of the source's first secret, for replies that prove knowledge of it (`{hmac_…}`).
    pub key: Option<&'c [u8]>,
}

/// A compiled template.
#[derive(Clone)]
pub struct Template(Vec<Vec<Part>>);

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may have secret parameters of the source, such as verify tokens.
        f.write_str("Template(…)")
    }
}

#[derive(Clone)]
enum Part {
    Literal(Vec<u8>),
    Body,
    Timestamp,
    Method,
    Query,
    SortedForm,
    Field(Field),
    Optional(Field),
    Digest(Hash, Encoding, Vec<Self>),
    Hmac(Box<Key>, Encoding, Vec<Self>),
    Crc32(Vec<Self>),
}

/// The text of a template for one request, in pieces.
#[derive(Debug, Clone)]
pub struct Filled<'r>(Vec<Cow<'r, [u8]>>);

impl Filled<'_> {
    /// The pieces in order.
    pub fn pieces(&self) -> &[Cow<'_, [u8]>] {
        &self.0
    }

    /// All bytes as one slice. A single piece, such as a body, is not copied.
    pub fn concat(&self) -> Cow<'_, [u8]> {
        match self.0.as_slice() {
            [piece] => Cow::Borrowed(piece),
            pieces => Cow::Owned(pieces.concat()),
        }
    }
}

/// Why a template could not be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfilled {
    /// It has `{timestamp}`, and the request has no timestamp.
    NoTimestamp,
    /// A value in it is not one text.
    NotText,
    /// It has `{sorted_form}`, and the body is not a form.
    NoForm(Malformed),
}

impl From<NotText> for Unfilled {
    fn from(_: NotText) -> Self {
        Self::NotText
    }
}

impl Template {
    /// Compiles a template, and adds the fields that it reads to the plan.
    pub fn new(spec: &profile::Template, context: Context<'_>, plan: &mut ExtractionPlan) -> Self {
        let parts = spec.parts().iter().map(|part| compile(part.pieces(), context, plan));
        Self(parts.collect())
    }

    /// Fills it from a request.
    ///
    /// # Errors
    /// [`Unfilled`]. An absent value is no error: it is empty, or its optional part is omitted.
    pub fn fill<'r>(
        &'r self,
        inbound: &'r Inbound,
        values: &'r Extracted,
        timestamp: Option<&'r str>,
    ) -> Result<Filled<'r>, Unfilled> {
        let mut filled = Vec::with_capacity(self.0.first().map_or(0, Vec::len));
        for parts in &self.0 {
            let before = filled.len();
            for part in parts {
                match part.fill(inbound, values, timestamp)? {
                    Some(piece) => filled.push(piece),
                    None => {
                        filled.truncate(before);
                        break;
                    }
                }
            }
        }
        Ok(Filled(filled))
    }

    /// The fields that it reads.
    pub fn fields(&self) -> Vec<&Field> {
        self.0.iter().flatten().flat_map(Part::fields).collect()
    }

    /// Whether its text is the same for every request.
    pub fn is_fixed(&self) -> bool {
        self.0.iter().flatten().all(|part| matches!(part, Part::Literal(_)))
    }
}

fn compile(pieces: &[Piece], context: Context<'_>, plan: &mut ExtractionPlan) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        parts.push(match piece {
            Piece::Literal(text) => Part::Literal(text.as_bytes().to_vec()),
            Piece::Body => Part::Body,
            Piece::Timestamp => Part::Timestamp,
            Piece::Method => Part::Method,
            Piece::Query => Part::Query,
            Piece::SortedForm => Part::SortedForm,
            Piece::Url => literal(param(context.params, "url")),
            Piece::UrlWithPort => literal(&with_port(param(context.params, "url"))),
            Piece::Param(name) => literal(param(context.params, name)),
            Piece::Location(location) => Part::Field(Field::new(location, plan)),
            Piece::Optional(location) => Part::Optional(Field::new(location, plan)),
            Piece::Item(key) => match context.signature {
                Some(signature) => Part::Field(signature.with_item(key)),
                None => literal(""),
            },
            Piece::Call(function, arguments) => {
                let arguments = compile(arguments, context, plan);
                match function {
                    profile::Function::Digest(hash, encoding) => Part::Digest(*hash, *encoding, arguments),
                    profile::Function::Crc32 => Part::Crc32(arguments),
                    profile::Function::Hmac(hash, encoding) => match context.key.and_then(|key| Key::new(*hash, key)) {
                        Some(key) => Part::Hmac(Box::new(key), *encoding, arguments),
                        None => literal(""),
                    },
                }
            }
        });
    }
    parts
}

fn literal(text: &str) -> Part {
    Part::Literal(text.as_bytes().to_vec())
}

/// The address with the other form of its port: with the scheme's default port where it has none, without it where it
/// has that one. Senders write it in either form.
fn with_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let default_port = if scheme == "http" { ":80" } else { ":443" };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let has_port = authority.rsplit(':').next().is_some_and(|port| {
        port.len() < authority.len() && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    match authority.strip_suffix(default_port) {
        Some(bare) => format!("{scheme}://{bare}{path}"),
        None if has_port => url.to_owned(),
        None => format!("{scheme}://{authority}{default_port}{path}"),
    }
}

impl Part {
    /// Its bytes; `None` when an optional value is absent.
    fn fill<'r>(
        &'r self,
        inbound: &'r Inbound,
        values: &'r Extracted,
        timestamp: Option<&'r str>,
    ) -> Result<Option<Cow<'r, [u8]>>, Unfilled> {
        let borrowed = |text: &'r str| Some(Cow::Borrowed(text.as_bytes()));
        let arguments = |arguments: &'r [Self]| {
            let mut filled = Vec::with_capacity(arguments.len());
            for part in arguments {
                filled.extend(part.fill(inbound, values, timestamp)?);
            }
            Ok::<_, Unfilled>(Filled(filled))
        };
        Ok(match self {
            Self::Literal(text) => Some(Cow::Borrowed(text)),
            Self::Body => Some(Cow::Borrowed(inbound.signed())),
            Self::Timestamp => borrowed(timestamp.ok_or(Unfilled::NoTimestamp)?),
            Self::Method => borrowed(inbound.method().as_str()),
            Self::Query => Some(match inbound.query() {
                Some(query) => Cow::Owned(format!("?{query}").into_bytes()),
                None => Cow::Borrowed(&[]),
            }),
            Self::SortedForm => {
                Some(Cow::Owned(sorted_form(form::read_all(inbound.body()).map_err(Unfilled::NoForm)?)))
            }
            Self::Field(field) => borrowed(field.text(inbound, values)?.unwrap_or_default()),
            Self::Optional(field) => field.text(inbound, values)?.and_then(borrowed),
            Self::Digest(hash, encoding, inner) => {
                let digest = mac::hash(*hash, arguments(inner)?.pieces());
                Some(Cow::Owned(encoding.encode(&digest).into_bytes()))
            }
            Self::Hmac(key, encoding, inner) => {
                let digest = key.digest(arguments(inner)?.pieces());
                Some(Cow::Owned(encoding.encode(&digest).into_bytes()))
            }
            Self::Crc32(inner) => {
                let mut checksum = crc32fast::Hasher::new();
                arguments(inner)?.pieces().iter().for_each(|piece| checksum.update(piece));
                Some(Cow::Owned(checksum.finalize().to_string().into_bytes()))
            }
        })
    }

    fn fields(&self) -> Vec<&Field> {
        match self {
            Self::Field(field) | Self::Optional(field) => vec![field],
            Self::Digest(_, _, inner) | Self::Hmac(_, _, inner) | Self::Crc32(inner) => {
                inner.iter().flat_map(Self::fields).collect()
            }
            Self::Literal(_) | Self::Body | Self::Timestamp | Self::Method | Self::Query | Self::SortedForm => {
                Vec::new()
            }
        }
    }
}

/// The fields of a form as Twilio signs them: sorted by name, each name followed by its value. Of a repeated name, each
/// distinct value once, sorted.
fn sorted_form(mut pairs: Vec<(String, String)>) -> Vec<u8> {
    pairs.sort();
    pairs.dedup();
    let mut signed = Vec::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len()).sum());
    for (name, value) in pairs {
        signed.extend_from_slice(name.as_bytes());
        signed.extend_from_slice(value.as_bytes());
    }
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_two_spellings() {
        for (bare, with) in [
            ("https://a.example/x?y=1", "https://a.example:443/x?y=1"),
            ("http://a.example", "http://a.example:80"),
            ("https://[::1]/x", "https://[::1]:443/x"),
        ] {
            assert_eq!(with_port(bare), with);
            assert_eq!(with_port(with), bare);
        }
        assert_eq!(with_port("https://a.example:8443/x"), "https://a.example:8443/x");
    }
}
