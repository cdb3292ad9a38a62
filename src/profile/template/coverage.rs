//! What of a request a template fixes: what nobody can change without changing the text.

use super::Function;
use super::Part;
use super::Piece;
use super::Template;
use crate::profile::place::Holder;
use crate::profile::place::Place;

impl Piece {
    /// Whether it changes with what `place` holds; `timestamp` is the time's own place, `list` what the signature stands in.
    pub(in crate::profile) fn covers(&self, place: &Place, timestamp: Option<&Place>, list: &Holder) -> bool {
        match self {
            Self::Body => place.is_in_body(),
            Self::Query => matches!(place.holder, Holder::Query(_)),
            Self::Timestamp => timestamp == Some(place),
            Self::Item(key) => place.holder == *list && place.item.as_ref().is_some_and(|item| item.key == *key),
            // Values of the body that stand one after the other can be shared out otherwise, and give the same text.
            Self::Place(signed) | Self::Optional(signed) if signed.is_in_body() => false,
            Self::Place(signed) | Self::Optional(signed) => {
                signed.holder == place.holder && (signed.item.is_none() || signed.item == place.item)
            }
            // Another text with the same checksum is easily made.
            Self::Call(Function::Crc32, _) => false,
            Self::Call(_, arguments) => arguments.iter().any(|piece| piece.covers(place, timestamp, list)),
            Self::Literal(_) | Self::Method | Self::Url | Self::UrlWithPort | Self::Param(_) | Self::SortedForm => {
                false
            }
        }
    }

    /// Whether no sender can make it longer or shorter.
    fn is_fixed(&self) -> bool {
        match self {
            Self::Literal(_) | Self::Method | Self::Url | Self::UrlWithPort | Self::Param(_) => true,
            Self::Call(function, _) => *function != Function::Crc32,
            Self::Body | Self::Timestamp | Self::Query | Self::SortedForm => false,
            Self::Place(_) | Self::Optional(_) | Self::Item(_) => false,
        }
    }
}

impl Part {
    /// Whether it is left out when a value of the request is absent.
    fn is_optional(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Optional(_)))
    }

    /// All pieces, or of a part that may be left out the values for whose absence it is.
    fn certain(&self) -> impl Iterator<Item = &Piece> {
        let optional = self.is_optional();
        self.0.iter().filter(move |piece| !optional || matches!(piece, Piece::Optional(_)))
    }
}

impl Template {
    /// The pieces that are in it whatever a sender leaves out, and those that are when what they stand for is there.
    pub(in crate::profile) fn certain(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter().flat_map(Part::certain)
    }

    /// Those of them with fixed text, or nothing, on either side. Of two others that follow each other, the end of the
    /// one can be read as the beginning of the next, and gives the same text.
    pub(in crate::profile) fn delimited(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter().enumerate().flat_map(|(at, part)| {
            let before = self.0.iter().take(at).rev().map(|part| (part, part.0.last()));
            let after = self.0.iter().skip(at + 1).map(|part| (part, part.0.first()));
            let (before, after) = (ends_fixed(before), ends_fixed(after));
            let fixed = move |at: Option<usize>, outside: bool| {
                at.and_then(|at| part.0.get(at)).map_or(outside, Piece::is_fixed)
            };
            let delimited = part
                .0
                .iter()
                .enumerate()
                .filter(move |(at, _)| fixed(at.checked_sub(1), before) && fixed(Some(at + 1), after));
            delimited
                .map(|(_, piece)| piece)
                .filter(|piece| part.certain().any(|certain| std::ptr::eq(certain, *piece)))
        })
    }

    /// Whether something of the request is in it, whatever a sender leaves out.
    pub fn covers_anything(&self) -> bool {
        let certain = self.0.iter().filter(|part| !part.is_optional()).flat_map(Part::pieces).flat_map(Piece::walk);
        certain
            .into_iter()
            .any(|piece| !matches!(piece, Piece::Literal(_) | Piece::Param(_) | Piece::Url | Piece::Call(..)))
    }
}

/// Whether the pieces that may come to stand at an edge are fixed: of parts that may be left out, and of the first that
/// may not.
fn ends_fixed<'p>(parts: impl Iterator<Item = (&'p Part, Option<&'p Piece>)>) -> bool {
    for (part, piece) in parts {
        if piece.is_some_and(|piece| !piece.is_fixed()) {
            return false;
        }
        if !part.is_optional() {
            return true;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::part;
    use super::*;

    #[test]
    fn what_a_sender_can_leave_out_is_not_counted_on() {
        let delimited = |parts: &[&str]| {
            let template = Template(parts.iter().map(|text| part(text).expect("a part")).collect());
            let delimited: Vec<_> = template.delimited().map(ToString::to_string).collect();
            (template.covers_anything(), delimited.join(" "))
        };
        for (parts, covers, expected) in [
            (&["{header:a}.{body}"][..], true, "{header:a} . {body}"),
            (&["{header:a}{body}"], true, ""),
            // All of it goes with the value that is absent.
            (&["{json:/ref?}.{body}"], false, "{json:/ref?} ."),
            (&["{json:/a?}", "{json:/b?}"], false, ""),
            (&["a{json:/a?}", ".{body}"], true, "a {json:/a?} . {body}"),
            // Without the second part, the third follows the first.
            (&["{header:a}", ".{json:/b?}.", "{header:c}"], true, "{json:/b?}"),
            (&["{header:a}.", "{json:/b?}.", "{header:c}"], true, "{header:a} . {json:/b?} {header:c}"),
        ] {
            let (does, found) = delimited(parts);
            assert_eq!(does, covers, "{parts:?}");
            let fields =
                |text: &str| text.split(' ').filter(|piece| piece.contains('{')).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(fields(&found), fields(expected), "{parts:?}");
        }
    }
}
