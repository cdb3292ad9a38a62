//! Builds the automaton of a profile's templates. The profile, its formats and HTTP limit the texts that each value may
//! be.

use super::automaton::Automaton;
use super::automaton::Class;
use super::automaton::Language;
use super::automaton::Owner;
use crate::base::time::Format;
use crate::profile::Carrier;
use crate::profile::Condition;
use crate::profile::Encoding;
use crate::profile::Function;
use crate::profile::Hash;
use crate::profile::Location;
use crate::profile::Part;
use crate::profile::Piece;
use crate::profile::Profile;
use crate::profile::Signature;
use crate::profile::Test;
use crate::profile::Timestamp;
use crate::profile::TimestampPolicy;

/// Builds an automaton of templates.
pub(super) struct AutomatonBuilder<'p> {
    profile: &'p Profile,
    pub(super) automaton: Automaton,
    /// The values. The index of one is its [`Owner`].
    owners: Vec<Piece>,
    /// The constants of unknown value. The index of one is its symbol.
    constants: Vec<Piece>,
    /// Headers of another scheme that mean the same as headers of this one: theirs, and ours.
    equivalents: Vec<(Piece, Piece)>,
}

impl<'p> AutomatonBuilder<'p> {
    pub(super) fn new(profile: &'p Profile, equivalents: Vec<(Piece, Piece)>) -> Self {
        Self { profile, automaton: Automaton::new(), owners: Vec::new(), constants: Vec::new(), equivalents }
    }

    /// Describes an ambiguity of the texts, if there is one. With `across`, only between texts of different schemes.
    pub(super) fn find_ambiguity(&self, across: bool) -> Option<String> {
        self.automaton.find_ambiguity(across).map(|(one, other)| self.describe(one, other))
    }

    /// Describes an ambiguity for people.
    fn describe(&self, one: Owner, other: Owner) -> String {
        let name = |owner: Owner| owner.and_then(|owner| self.owners.get(owner)).map(ToString::to_string);
        match (name(one), name(other)) {
            (Some(one), Some(other)) => format!("nothing tells what belongs to {one} from what belongs to {other}"),
            (Some(one), None) | (None, Some(one)) => format!("{one} may contain the text that stands beside it"),
            (None, None) => "two of its forms are alike".to_owned(),
        }
    }

    /// Appends a part of a template after the states `from`, under these conditions. Returns the states after it.
    pub(super) fn part(
        &mut self,
        from: Vec<usize>,
        part: &Part,
        signature: &Signature,
        conditions: &[&Condition],
    ) -> Vec<usize> {
        let ends = self.pieces(from.clone(), part.pieces(), signature, conditions);
        if part.is_optional() { from.into_iter().chain(ends).collect() } else { ends }
    }

    /// Appends pieces after the states `from`, under these conditions. Returns the states after them.
    pub(super) fn pieces(
        &mut self,
        from: Vec<usize>,
        pieces: &[Piece],
        signature: &Signature,
        conditions: &[&Condition],
    ) -> Vec<usize> {
        let mut ends = from;
        for (at, piece) in pieces.iter().enumerate() {
            let is_value = |at: Option<usize>| at.and_then(|at| pieces.get(at)).is_some_and(|piece| !is_fixed(piece));
            // A constant of unknown value does not delimit two values: it may look like a part of either.
            if is_constant(piece) && is_value(at.checked_sub(1)) && is_value(at.checked_add(1)) {
                continue;
            }
            let language = self.language(piece, signature, conditions);
            let value = self.equivalents.iter().find(|(theirs, _)| theirs == piece).map_or(piece, |(_, ours)| ours);
            let owner = (!is_fixed(piece)).then(|| index_of(&mut self.owners, value));
            ends = self.automaton.append(ends, &language, owner);
        }
        ends
    }

    fn language(&mut self, piece: &Piece, signature: &Signature, conditions: &[&Condition]) -> Language {
        match piece {
            Piece::Literal(text) => Language::literal(text),
            Piece::Method | Piece::Url | Piece::UrlWithPort | Piece::Param(_) => self.constant(piece),
            Piece::Body if self.profile.limits.json => json(),
            Piece::Body | Piece::SortedForm => any(),
            Piece::Query => {
                let query = Language::Sequence(vec![Language::literal("?"), any()]);
                Language::Choice(vec![Language::nothing(), query])
            }
            Piece::Timestamp => self.timestamp(conditions),
            Piece::Item(_) => {
                let separator = signature.location.location.item.as_ref().map(|item| item.separator);
                let without = separator.into_iter().filter_map(|separator| u8::try_from(separator).ok());
                Language::Repeat(text(&signature.location.location).and(Class::without(without)), 0, usize::MAX)
            }
            Piece::Location(location) => {
                let value = self.value(location, conditions);
                let may_be_absent = !about(location, conditions).any(|condition| condition.requires_presence());
                if may_be_absent { Language::Choice(vec![Language::nothing(), value]) } else { value }
            }
            Piece::Optional(location) => self.value(location, conditions),
            Piece::Call(Function::Crc32, _) => Language::Repeat(digits(), 1, 10),
            Piece::Call(Function::Digest(hash, encoding) | Function::Hmac(hash, encoding), _) => {
                digest(*hash, *encoding)
            }
        }
    }

    fn constant(&mut self, piece: &Piece) -> Language {
        Language::One(Class::constant(index_of(&mut self.constants, piece)))
    }

    /// The texts that a value may be when it is present.
    fn value(&mut self, location: &Location, conditions: &[&Condition]) -> Language {
        let (mut class, mut min, mut max) = (text(location), 0, usize::MAX);
        for condition in about(location, conditions) {
            match &condition.test {
                Test::Equals(template) if template.pieces().all(is_fixed) => {
                    let fixed = template.pieces().map(|piece| {
                        if let Piece::Literal(text) = piece { Language::literal(text) } else { self.constant(piece) }
                    });
                    return Language::Sequence(fixed.collect());
                }
                Test::Without(characters) => class = class.and(Class::without(ascii(characters))),
                Test::Length(least, most) => (min, max) = (min.max(*least), max.min(*most)),
                Test::Equals(_) | Test::Present | Test::Absent => {}
            }
        }
        Language::Repeat(class, min, max)
    }

    /// The texts of the timestamp. If it is checked, they have the profile's format.
    fn timestamp(&self, conditions: &[&Condition]) -> Language {
        let is_checked =
            |timestamp: &&Timestamp| timestamp.policy == TimestampPolicy::Enforce || self.profile.signs_timestamp();
        let Some(timestamp) = self.profile.timestamp.as_ref().filter(is_checked) else { return any() };
        let digits = |min, max| Language::Repeat(digits(), min, max);
        match timestamp.format {
            Format::Unix | Format::UnixMs => {
                let (mut min, mut max) = (1, 15);
                for condition in about(&timestamp.from, conditions) {
                    if let Test::Length(least, most) = condition.test {
                        (min, max) = (min.max(least), max.min(most));
                    }
                }
                digits(min, max)
            }
            Format::UnixFloat => {
                let decimals = Language::Sequence(vec![Language::literal("."), digits(1, 9)]);
                Language::Sequence(vec![digits(1, 15), Language::Choice(vec![Language::nothing(), decimals])])
            }
            Format::Rfc3339 => rfc3339(2),
            Format::Rfc3339Lenient => rfc3339(1),
            Format::HttpDate => {
                let letters = (b'A'..=b'Z').chain(b'a'..=b'z').chain(*b" ,:").chain(b'0'..=b'9');
                Language::Repeat(Class::bytes(letters), 29, 29)
            }
        }
    }
}

/// The index of a piece in the list, to which it is added if it is new.
fn index_of(list: &mut Vec<Piece>, piece: &Piece) -> usize {
    list.iter().position(|known| known == piece).unwrap_or_else(|| {
        list.push(piece.clone());
        list.len() - 1
    })
}

/// Whether it is the same in all requests of a source, but its text is not known here.
fn is_constant(piece: &Piece) -> bool {
    matches!(piece, Piece::Method | Piece::Url | Piece::UrlWithPort | Piece::Param(_))
}

/// Whether it is the same in all requests of a source.
fn is_fixed(piece: &Piece) -> bool {
    is_constant(piece) || matches!(piece, Piece::Literal(_))
}

/// The conditions on this location.
fn about<'c>(location: &'c Location, conditions: &'c [&'c Condition]) -> impl Iterator<Item = &'c Condition> {
    conditions.iter().copied().filter(move |condition| condition.location == *location)
}

/// The characters that UTF-8 encodes as one byte.
fn ascii(characters: &str) -> impl Iterator<Item = u8> {
    characters.bytes().filter(u8::is_ascii)
}

fn any() -> Language {
    Language::Repeat(Class::any(), 0, usize::MAX)
}

fn digits() -> Class {
    Class::bytes(b'0'..=b'9')
}

/// The symbols of texts at this location. Values of headers are visible ASCII, blanks and tabs.
fn text(location: &Location) -> Class {
    let class = match location.carrier {
        Carrier::Header(_) | Carrier::Numbered(_) => {
            Class::without((0..b' ').filter(|byte| *byte != b'\t').chain(127..=255))
        }
        Carrier::Json(_) | Carrier::Form(_) | Carrier::Query(_) => Class::any(),
    };
    let separator = location.item.as_ref().and_then(|item| u8::try_from(item.separator).ok());
    class.and(Class::without(separator))
}

/// A superset of JSON objects and arrays (RFC 8259), with white space around, and an optional byte order mark.
fn json() -> Language {
    let blank = || Language::Repeat(Class::bytes(*b" \t\r\n"), 0, usize::MAX);
    let one = |of: &[u8]| Language::One(Class::bytes(of.iter().copied()));
    let mark = Language::Choice(vec![Language::nothing(), Language::literal("\u{feff}")]);
    Language::Sequence(vec![mark, blank(), one(b"{["), any(), one(b"}]"), blank()])
}

/// RFC 3339 section 5.6, with at least `shortest` digits in a month and a day.
fn rfc3339(shortest: usize) -> Language {
    let digits = |min, max| Language::Repeat(digits(), min, max);
    let mark = |mark: &str| Language::One(Class::bytes(mark.bytes()));
    let fraction = Language::Sequence(vec![mark("."), digits(1, 9)]);
    let offset = Language::Sequence(vec![mark("+-"), digits(2, 2), mark(":"), digits(2, 2)]);
    Language::Sequence(vec![
        digits(4, 4),
        mark("-"),
        digits(shortest, 2),
        mark("-"),
        digits(shortest, 2),
        mark("T"),
        digits(2, 2),
        mark(":"),
        digits(2, 2),
        mark(":"),
        digits(2, 2),
        Language::Choice(vec![Language::nothing(), fraction]),
        Language::Choice(vec![mark("Zz"), offset]),
    ])
}

fn digest(hash: Hash, encoding: Encoding) -> Language {
    let bytes = hash.length();
    let alphabet = (b'0'..=b'9').chain(b'a'..=b'z').chain(b'A'..=b'Z').chain(*b"+/=-_");
    let length = match encoding {
        Encoding::Hex => bytes * 2,
        Encoding::Base64 | Encoding::Base64url => bytes.div_ceil(3) * 4,
    };
    Language::Repeat(Class::bytes(alphabet), length, length)
}
