//! The bytes that a signature covers, as a template: `{timestamp}.{body}`.

use http::HeaderName;
use serde::Deserialize;

use super::place::HeaderPlace;
use super::place::Place;
use crate::json::Pointer;

/// A template, split into its pieces.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Piece>);

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that stands for itself.
    Literal(String),
    /// The body as received.
    Body,
    /// The text of the timestamp as received.
    Timestamp,
    /// A header's value as received, or the text that a JSON pointer finds.
    Place(Place),
}

impl Piece {
    /// The place that this piece is read from.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Place(place) => Some(place),
            Self::Literal(_) | Self::Body | Self::Timestamp => None,
        }
    }
}

impl Template {
    /// The pieces in their order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((literal, after)) = rest.split_once('{') {
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            let (name, after) = after.split_once('}').ok_or_else(|| format!("{text:?} has a {{ without its }}"))?;
            pieces.push(variable(name)?);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        if !pieces.iter().any(|piece| !matches!(piece, Piece::Literal(_))) {
            return Err(format!("{text:?} covers nothing of the request; the usual template is \"{{body}}\""));
        }
        Ok(Self(pieces))
    }
}

fn variable(name: &str) -> Result<Piece, String> {
    match name.split_once(':') {
        None if name == "body" => Ok(Piece::Body),
        None if name == "timestamp" => Ok(Piece::Timestamp),
        Some(("header", header)) => {
            let name = HeaderName::try_from(header).map_err(|_bad| format!("{header:?} is not a header name"))?;
            Ok(Piece::Place(Place::Header(HeaderPlace { name, item: None })))
        }
        Some(("json", pointer)) => Ok(Piece::Place(Place::Json(Pointer::parse(pointer)?))),
        _ => Err(format!(
            "{{{name}}} is not known here; a template takes {{body}}, {{timestamp}}, {{header:NAME}} and \
             {{json:/pointer}}"
        )),
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Literal(text) => f.write_str(text),
            Piece::Body => f.write_str("{body}"),
            Piece::Timestamp => f.write_str("{timestamp}"),
            Piece::Place(Place::Header(header)) => write!(f, "{{header:{}}}", header.name),
            Piece::Place(Place::Json(pointer)) => write!(f, "{{json:{pointer}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_read_as_they_are_written() {
        for text in ["{body}", "{timestamp}.{body}", "{header:webhook-id}.{timestamp}.{body}", "v0:{timestamp}:{body}"]
        {
            assert_eq!(Template::try_from(text.to_owned()).expect("a template").to_string(), text);
        }
        for bad in ["", "body", "{body", "{bdy}", "{header:}", "{json:id}", "{header:a b}"] {
            assert!(Template::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
