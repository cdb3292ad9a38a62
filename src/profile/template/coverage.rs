//! Which parts of a request a template covers: a change of a covered value changes the text of the template.

use super::Function;
use super::Part;
use super::Piece;
use super::Template;
use crate::profile::location::Carrier;
use crate::profile::location::Location;

impl Piece {
    /// Whether its text changes with the value at `location`. `timestamp` is the location of the time, `list` the
    /// carrier of the signature.
    pub(in crate::profile) fn covers(&self, location: &Location, timestamp: Option<&Location>, list: &Carrier) -> bool {
        match self {
            Self::Body => location.is_in_body(),
            Self::Query => matches!(location.carrier, Carrier::Query(_)),
            Self::Timestamp => timestamp == Some(location),
            Self::Item(key) => location.carrier == *list && location.item.as_ref().is_some_and(|item| item.key == *key),
            Self::Location(signed) | Self::Optional(signed) => {
                signed.carrier == location.carrier && (signed.item.is_none() || signed.item == location.item)
            }
            // It is easy to find another text with the same checksum.
            Self::Call(Function::Crc32, _) => false,
            Self::Call(_, arguments) => arguments.iter().any(|piece| piece.covers(location, timestamp, list)),
            Self::Literal(_) | Self::Method | Self::Url | Self::UrlWithPort | Self::Param(_) | Self::SortedForm => {
                false
            }
        }
    }
}

impl Part {
    /// Whether it is omitted when a value of the request is absent.
    pub(in crate::profile) fn is_optional(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Optional(_)))
    }

    /// All pieces; of an optional part only the values on which it depends.
    fn unconditional_pieces(&self) -> impl Iterator<Item = &Piece> {
        let optional = self.is_optional();
        self.0.iter().filter(move |piece| !optional || matches!(piece, Piece::Optional(_)))
    }
}

impl Template {
    /// The pieces whose values are in the text whenever the request has them, whatever else a sender omits.
    pub(in crate::profile) fn unconditional_pieces(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter().flat_map(Part::unconditional_pieces)
    }

    /// Whether it always covers something of the request, whatever a sender omits.
    pub fn covers_anything(&self) -> bool {
        let required = self.0.iter().filter(|part| !part.is_optional()).flat_map(Part::pieces).flat_map(Piece::walk);
        required
            .into_iter()
            .any(|piece| !matches!(piece, Piece::Literal(_) | Piece::Param(_) | Piece::Url | Piece::Call(..)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_part;
    use super::*;

    #[test]
    fn what_a_sender_can_leave_out_is_not_counted_on() {
        for (parts, covers, expected) in [
            (&["{header:a}.{body}"][..], true, "{header:a} {body}"),
            // All of it goes with the value that is absent.
            (&["{json:/ref?}.{body}"], false, "{json:/ref?}"),
            (&["{json:/a?}", "{json:/b?}"], false, "{json:/a?} {json:/b?}"),
            (&["a{json:/a?}", ".{body}"], true, "{json:/a?} {body}"),
        ] {
            let template = Template(parts.iter().map(|text| parse_part(text).expect("a part")).collect());
            let values = template.unconditional_pieces().filter(|piece| !matches!(piece, Piece::Literal(_)));
            assert_eq!(values.map(ToString::to_string).collect::<Vec<_>>().join(" "), expected, "{parts:?}");
            assert_eq!(template.covers_anything(), covers, "{parts:?}");
        }
    }
}
