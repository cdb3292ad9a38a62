//! Proves that a signed text is unambiguous: that it can be split into its values in one way only.
//!
//! A signature covers a text, not the values that the text is composed of. If a value may contain its delimiter, or two
//! values are adjacent, an attacker who has a signed text can split it differently, and present other values under the
//! same signature. Each template becomes an automaton of the texts that it may give. The conditions of a profile limit
//! the texts of a value. A profile with an ambiguous text is refused, unless its key `ambiguous` gives a reason.

mod automaton;
mod builder;

use builder::AutomatonBuilder;

use super::Carrier;
use super::Combination;
use super::Condition;
use super::ConfigPath;
use super::Finding;
use super::Function;
use super::Location;
use super::Member;
use super::Piece;
use super::Profile;
use super::Reference;
use super::Scheme;
use super::Signature;
use super::SignatureAlgorithm;
use super::Template;

/// How to allow an ambiguous text, for messages.
const HOW_TO_ALLOW: &str = "write ambiguous = \"why that does no harm\" under the scheme";

/// Checks each scheme, and each pair of schemes that may share a key. Sets `unambiguous` of each signature.
pub(super) fn check_unambiguous(profile: &mut Profile) -> Result<(), Finding> {
    let mut proven = Vec::with_capacity(profile.auth.members.len());
    for (at, member) in profile.auth.members.iter().enumerate() {
        let Scheme::Signature(signature) = &member.scheme else {
            proven.push(false);
            continue;
        };
        let config_path = ConfigPath::member(at, member.scheme.table());
        let ambiguity = find_ambiguity(profile, &[member], Vec::new()).or_else(|| ambiguity_with_others(profile, at));
        proven.push(ambiguity.is_none());
        let weakness = signature.signed.iter().flat_map(Template::walk).find_map(weakness);
        match (signature.ambiguous.as_deref().map(str::trim), weakness, ambiguity) {
            (Some(""), ..) => {
                let message =
                    "says nothing; write why it does no harm that what is signed can be read in more than one way";
                return Err(Finding::new(config_path.key("ambiguous"), message));
            }
            (Some(_), None, None) => {
                let message = "is said of a text that has one reading only; leave it out";
                return Err(Finding::new(config_path.key("ambiguous"), message));
            }
            (None, Some(reason), _) => {
                return Err(Finding::new(
                    config_path.key("signed"),
                    format!("can be read in more than one way: {reason}; {HOW_TO_ALLOW}"),
                ));
            }
            (None, None, Some(reason)) => {
                let message = format!(
                    "can be read in more than one way: {reason}. All values but one must be unable to contain what ends \
                     them: write [[require]] with without = \"…\", or with equal min_length and max_length, or limits.json \
                     = true where every body is JSON; otherwise {HOW_TO_ALLOW}"
                );
                return Err(Finding::new(config_path.key("signed"), message));
            }
            (Some(_), ..) | (None, None, None) => {}
        }
    }
    for (member, proven) in profile.auth.members.iter_mut().zip(proven) {
        if let Scheme::Signature(signature) = &mut member.scheme {
            signature.unambiguous = proven;
        }
    }
    Ok(())
}

/// Why a signed text of this member may also be one of another member with the same kind of key, if it may.
fn ambiguity_with_others(profile: &Profile, at: usize) -> Option<String> {
    if profile.auth.combination != Combination::First {
        return None;
    }
    let (before, rest) = profile.auth.members.split_at_checked(at)?;
    let (member, after) = rest.split_first()?;
    let own = signature(member)?;
    before.iter().chain(after).find_map(|other| {
        let theirs = signature(other)?;
        if !same_key(&own.algorithm, &theirs.algorithm) {
            return None;
        }
        let equivalents = equivalent_headers(profile, &own.signed, &theirs.signed);
        let ambiguity = find_ambiguity(profile, &[member, other], equivalents)?;
        Some(format!("the same text may be signed for another scheme of the profile, where {ambiguity}"))
    })
}

fn signature(member: &Member) -> Option<&Signature> {
    if let Scheme::Signature(signature) = &member.scheme { Some(signature) } else { None }
}

/// Whether one key may be used with both algorithms.
fn same_key(one: &SignatureAlgorithm, other: &SignatureAlgorithm) -> bool {
    match (one, other) {
        (SignatureAlgorithm::Hmac(one), SignatureAlgorithm::Hmac(other))
        | (SignatureAlgorithm::Rsa(one), SignatureAlgorithm::Rsa(other))
        | (SignatureAlgorithm::Certificate(one, _), SignatureAlgorithm::Certificate(other, _)) => one == other,
        (SignatureAlgorithm::Ed25519, SignatureAlgorithm::Ed25519)
        | (SignatureAlgorithm::Ecdsa(_), SignatureAlgorithm::Ecdsa(_)) => true,
        _ => false,
    }
}

/// Headers that mean the same in two schemes whose templates differ only in the names of headers: pairs of theirs and
/// ours. Empty when the templates differ in something else, when a name is in both schemes, or when only one header of
/// a pair is read for the event's id, type or nonce.
fn equivalent_headers(profile: &Profile, own: &[Template], theirs: &[Template]) -> Vec<(Piece, Piece)> {
    let pieces = |templates: &[Template]| templates.iter().flat_map(Template::pieces).cloned().collect::<Vec<_>>();
    let (own, theirs) = (pieces(own), pieces(theirs));
    let header =
        |piece: &Piece| piece.location().is_some_and(|location| matches!(location.carrier, Carrier::Header(_)));
    let pairs = theirs.iter().zip(&own).filter(|(one, other)| one != other);
    let pairs: Vec<_> = pairs.map(|(one, other)| (one.clone(), other.clone())).collect();
    let event = &profile.event;
    let mut identifying: Vec<_> =
        std::iter::once(&event.id).chain(&event.kind).flat_map(Reference::locations).collect();
    identifying.extend(&event.nonce);
    let reads = |by: &Location, piece: &Piece| match (&by.carrier, piece.location().map(|location| &location.carrier)) {
        (Carrier::Header(names), Some(Carrier::Header(of))) => of.iter().any(|name| names.contains(name)),
        _ => false,
    };
    let alike = |one: &Piece, other: &Piece| identifying.iter().all(|by| reads(by, one) == reads(by, other));
    let apart = |(one, other): &(Piece, Piece)| {
        header(one) && header(other) && alike(one, other) && !own.contains(one) && !theirs.contains(other)
    };
    if own.len() == theirs.len() && pairs.iter().all(apart) { pairs } else { Vec::new() }
}

/// Why it is easy to find another text with the same signature, independent of the other pieces.
fn weakness(piece: &Piece) -> Option<String> {
    if matches!(piece, Piece::Call(Function::Crc32, _)) {
        Some(format!("another text with the same {piece} is easily made"))
    } else if *piece == Piece::SortedForm {
        Some(format!("{piece} does not tell where a name or a value of the form ends"))
    } else {
        None
    }
}

/// Describes an ambiguity, if there is one: with one member between two readings of its signed text, with two members
/// between a reading of each. The headers of each pair in `equivalents` count as the same value.
fn find_ambiguity(profile: &Profile, members: &[&Member], equivalents: Vec<(Piece, Piece)>) -> Option<String> {
    let mut builder = AutomatonBuilder::new(profile, equivalents);
    for (branch, member) in members.iter().enumerate() {
        let Some(signature) = signature(member) else { continue };
        builder.automaton.set_branch(branch);
        let conditions: Vec<_> = profile.require.iter().chain(&member.when).chain(&member.check).collect();
        for template in &signature.signed {
            let mut ends = builder.automaton.start();
            for part in template.parts() {
                ends = builder.part(ends, part, signature, &conditions);
            }
            builder.automaton.accept(&ends);
            if members.len() > 1 {
                continue;
            }
            for piece in template.walk() {
                let Piece::Call(_, arguments) = piece else { continue };
                if let Some(inside) = find_ambiguity_in_arguments(profile, arguments, signature, &conditions) {
                    return Some(format!("inside {piece}, {inside}"));
                }
            }
        }
    }
    builder.find_ambiguity(members.len() > 1)
}

/// The same for the arguments of a function.
fn find_ambiguity_in_arguments(
    profile: &Profile,
    arguments: &[Piece],
    signature: &Signature,
    conditions: &[&Condition],
) -> Option<String> {
    let mut builder = AutomatonBuilder::new(profile, Vec::new());
    let ends = builder.pieces(builder.automaton.start(), arguments, signature, conditions);
    builder.automaton.accept(&ends);
    builder.find_ambiguity(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Format;
    use crate::base::time::Moment;

    const SIGNATURE: &str = "signature = { header = \"X-S\", encoding = \"hex\" }";

    /// Whether a profile that signs this is refused because it has several readings, with a time of this format and
    /// with this besides.
    fn is_ambiguous(signed: &str, format: &str, rest: &str) -> bool {
        let time = format!("[timestamp]\nfrom = {{ header = \"X-T\" }}\nformat = \"{format}\"\npolicy = \"record\"");
        let text = format!(
            "title = \"X\"\n[auth.hmac]\n{SIGNATURE}\nsigned = {signed}\n{time}\n[event]\nid = {{ digest = \"body\" }}\n{rest}"
        );
        let error = Profile::parse(&text).err();
        let other = error.as_ref().filter(|error| !error.contains("can be read in more than one way: "));
        assert_eq!(other, None, "{text}");
        error.is_some()
    }

    #[test]
    fn times_are_told_from_what_stands_beside_them_by_how_they_are_written() {
        for format in ["rfc3339", "http-date"] {
            for signed in ["\"{timestamp}{body}\"", "\"{body}{timestamp}\"", "\"{header:X-A}{timestamp}\""] {
                assert!(!is_ambiguous(signed, format, ""), "{signed} {format}");
            }
        }
        for format in ["unix", "unix-ms", "unix-float"] {
            for signed in ["\"{timestamp}{body}\"", "\"{body}{timestamp}\""] {
                assert!(is_ambiguous(signed, format, ""), "{signed} {format}");
                assert!(!is_ambiguous(signed, format, "[limits]\njson = true"), "{signed} {format}");
            }
            assert!(!is_ambiguous("\"{timestamp}:{body}\"", format, ""));
        }
        let fixed = "[[require]]\nheader = \"X-T\"\nmin_length = 10\nmax_length = 10";
        assert!(!is_ambiguous("\"{timestamp}{body}\"", "unix", fixed));
        assert!(is_ambiguous("\"{timestamp}{body}\"", "unix", &fixed.replace("min_length = 10", "min_length = 9")));
        assert!(!is_ambiguous("\"{timestamp}.{body}\"", "unix", ""));
        assert!(is_ambiguous("\"{timestamp}.{body}\"", "unix-float", ""), "a time with decimals has a dot");
    }

    #[test]
    fn what_a_profile_requires_of_a_value_counts() {
        let signed = "[\"a\\n{json:/a?}\\n\", \"b\\n{json:/b}\\n\", \"c\\n{json:/c}\\n\"]";
        let without = |name: &str, more: &str| format!("[[require]]\njson = \"/{name}\"\nwithout = \"\\n\"\n{more}");
        let (b, c) = (without("b", ""), without("c", "optional = true\n"));
        assert!(!is_ambiguous(signed, "unix", &format!("{b}{c}")), "the first may have line breaks");
        assert!(is_ambiguous(signed, "unix", &b));
        assert!(is_ambiguous(signed, "unix", &c));
        let a = without("a", "optional = true\n");
        assert!(!is_ambiguous(signed, "unix", &format!("{a}{b}")), "the last may have line breaks");
        let letter = c.replace("without = \"\\n\"", "without = \"d\"");
        assert!(is_ambiguous(signed, "unix", &format!("{b}{letter}")), "that is not what ends it");
        let given = format!("{b}[[require]]\njson = \"/c\"\nequals = \"x\\ny\"");
        assert!(!is_ambiguous(signed, "unix", &given), "it is always the same");
    }

    #[test]
    fn schemes_with_one_key_do_not_sign_the_same_text_for_other_values() {
        let scheme = |name: &str, signed: &str, check: &str| {
            format!(
                "[[auth.first]]\ncheck = [{{ header = \"{check}\", without = \".|\" }}]\n[auth.first.hmac]\n\
                 signature = {{ header = \"{name}\", encoding = \"hex\" }}\nsigned = \"{signed}\"\n"
            )
        };
        let is_ambiguous = |one: &str, other: &str| {
            let text = format!("title = \"X\"\n{one}{other}[event]\nid = {{ digest = \"body\" }}\n");
            Profile::parse(&text).is_err_and(|error| {
                assert!(error.contains("may be signed for another scheme"), "{error}");
                true
            })
        };
        let (a, b) = (scheme("X-A", "{header:A-Id}.{body}", "A-Id"), scheme("X-B", "{header:B-Id}.{body}", "B-Id"));
        assert!(!is_ambiguous(&a, &b), "they differ in the name of a header alone");
        let id = |names: &str| {
            let text = format!("title = \"X\"\n{a}{b}[event]\nid = {{ header = {names} }}\n");
            Profile::parse(&text).is_err()
        };
        assert!(!id("[\"A-Id\", \"B-Id\"]"), "both are the id");
        assert!(id("\"A-Id\""), "what is no id in the one is the id in the other");
        let c = b.replace("without = \".|\"", "min_length = 8, max_length = 8");
        assert!(is_ambiguous(&a, &c), "their ids end elsewhere");
        let (one, other) = ("{header:A-Id}|{header:B-Id}", "{header:B-Id}|{header:A-Id}");
        assert!(is_ambiguous(&scheme("X-A", one, "A-Id"), &scheme("X-B", other, "B-Id")), "they change places");
        let timed = scheme("X-C", "{header:C-Id}.{body}", "C-Id")
            .replace("[auth.first.hmac]", "[auth.first.hmac]\nhash = \"sha512\"");
        assert!(!is_ambiguous(&c, &timed), "a signature of the one hash is none of the other");
    }

    #[test]
    fn every_format_is_as_it_is_written() {
        let formats = [
            Format::Unix,
            Format::UnixMs,
            Format::UnixFloat,
            Format::Rfc3339,
            Format::Rfc3339Lenient,
            Format::HttpDate,
        ];
        for format in formats {
            let name = match format {
                Format::Unix => "unix",
                Format::UnixMs => "unix-ms",
                Format::UnixFloat => "unix-float",
                Format::Rfc3339 => "rfc3339",
                Format::Rfc3339Lenient => "rfc3339-lenient",
                Format::HttpDate => "http-date",
            };
            // Behind a text that the time can be, nothing else fits.
            let written = format.write(Moment::from_unix(1_767_348_000));
            let signed = format!("[\"{written}{{json:/x?}}\", \"{{timestamp}}{{body}}\"]");
            assert!(is_ambiguous(&signed, name, "[limits]\njson = true"), "{name} is not known to be {written}");
        }
    }
}
