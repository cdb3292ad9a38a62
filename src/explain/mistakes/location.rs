//! Hypotheses: the proof is in another location or encoding, or covers other bytes, than the profile says.

use http::HeaderName;

use super::Hypothesis;
use crate::explain::Case;
use crate::explain::wording::after_prefix;
use crate::profile::Carrier;
use crate::profile::Combination;
use crate::profile::Encoding;
use crate::profile::Hash;
use crate::profile::Item;
use crate::profile::Location;
use crate::profile::Member;
use crate::profile::PrefixedLocation;
use crate::profile::Scheme;
use crate::profile::Signature;
use crate::profile::SignatureAlgorithm;
use crate::profile::SignatureLocation;
use crate::profile::Template;
use crate::profile::Token;

/// Templates that providers commonly sign.
const SIGNED: [&str; 10] = [
    "{body}",
    "{timestamp}.{body}",
    "{timestamp}{body}",
    "{timestamp}:{body}",
    "v0:{timestamp}:{body}",
    "{body}{timestamp}",
    "{body}.{timestamp}",
    "{url}{body}",
    "{url}{sorted_form}",
    "{timestamp}",
];

/// Longest signature that is tried, in bytes.
const MAX_SIGNATURE: usize = 512;

/// A text in the request that may be a proof.
struct Candidate {
    location: Location,
    prefix: String,
    /// The text after the prefix.
    text: String,
}

impl Candidate {
    /// How the location differs from that of the profile; `None` when it does not.
    fn moved(&self, is: Option<(&Location, &str)>) -> Option<String> {
        let Self { location, prefix, .. } = self;
        let Some((is, before)) = is else {
            return Some(format!(
                "it stands in {location}{}, and the profile looks for a bearer token",
                after_prefix(prefix)
            ));
        };
        let (here, there) =
            if before == prefix { Default::default() } else { (after_prefix(prefix), after_prefix(before)) };
        (is != location || before != prefix)
            .then(|| format!("it stands in {location}{here}, and the profile looks in {is}{there}"))
    }
}

/// The same request with the proof read from every location, in every encoding.
pub(super) fn elsewhere(case: &Case) -> Vec<Hypothesis> {
    let candidates = candidates(case);
    let members = case.profile.auth.members.iter().enumerate();
    let all = members.flat_map(|(at, member)| candidates.iter().map(move |candidate| (at, member, candidate)));
    all.flat_map(|(at, member, candidate)| read_from(case, at, member, candidate)).collect()
}

fn read_from(case: &Case, at: usize, member: &Member, candidate: &Candidate) -> Vec<Hypothesis> {
    let from = || PrefixedLocation { location: candidate.location.clone(), prefix: candidate.prefix.clone() };
    let (what, found) = match &member.scheme {
        Scheme::Signature(spec) => ("signature", signatures(spec, candidate)),
        Scheme::Token(spec) => {
            let moved = candidate.moved(Some((&spec.from.location, &spec.from.prefix)));
            (
                "secret",
                moved
                    .map(|description| (description, Scheme::Token(Token { from: from(), ..spec.clone() })))
                    .into_iter()
                    .collect(),
            )
        }
        Scheme::Jwt(spec) if candidate.text.matches('.').count() == 2 => {
            let moved = candidate.moved(spec.from.as_ref().map(|from| (&from.location, from.prefix.as_str())));
            let mut scheme = spec.clone();
            scheme.from = Some(from());
            ("token", moved.map(|description| (description, Scheme::Jwt(scheme))).into_iter().collect())
        }
        Scheme::Jwt(_) | Scheme::Basic(_) => return Vec::new(),
    };
    let dropped = matches!(&candidate.location.carrier, Carrier::Header(names) if names.iter().any(|name| name.as_str().contains('_')));
    let advice = if dropped {
        "The gateway drops headers with _ in their names, so that no profile can read it there: have whatever sends or forwards \
         it write - instead."
    } else {
        "If the profile is yours, say so there; if not, something on the way changes it, or the sender has to change."
    };
    let hypothesis = found.into_iter().map(|(description, scheme)| {
        let description = format!("the {what} is right, but {description}. {advice}");
        let mut case = with_scheme(case, at, member, scheme);
        // The time may be in the same list.
        if let (Some(time), Some(is)) = (&mut case.profile.timestamp, member.scheme.location())
            && time.from.carrier == is.carrier
        {
            time.from.carrier = candidate.location.carrier.clone();
        }
        Hypothesis::new(description, case)
    });
    hypothesis.collect()
}

/// The scheme with its signature read from the candidate, in each encoding and algorithm that fit; with a description
/// of how that differs from the profile.
fn signatures(spec: &Signature, candidate: &Candidate) -> Vec<(String, Scheme)> {
    let moved = candidate.moved(Some((&spec.location.location, &spec.location.prefix)));
    let mut all = Vec::new();
    for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64url] {
        let Some(bytes) = encoding.decode_vec(candidate.text.as_bytes(), MAX_SIGNATURE) else { continue };
        let is = spec.location.encoding;
        let written = format!("it is written in {}, and the profile says {}", encoding.title(), is.title());
        for (hashed, algorithm) in algorithms(spec, bytes.len()) {
            let description = moved.clone().into_iter().chain((encoding != is).then(|| written.clone())).chain(hashed);
            let description = description.collect::<Vec<_>>().join(", and ");
            if description.is_empty() {
                continue;
            }
            let mut scheme = Signature { algorithm, ..spec.clone() };
            scheme.location =
                SignatureLocation { location: candidate.location.clone(), prefix: candidate.prefix.clone(), encoding };
            all.push((description, Scheme::Signature(Box::new(scheme))));
        }
    }
    all
}

/// The algorithms that make signatures of this length, with a description of how they differ from the profile.
fn algorithms(spec: &Signature, length: usize) -> Vec<(Option<String>, SignatureAlgorithm)> {
    let SignatureAlgorithm::Hmac(is) = &spec.algorithm else { return vec![(None, spec.algorithm.clone())] };
    let hashes =
        [(Hash::Sha256, 32), (Hash::Sha1, 20), (Hash::Sha512, 64)].into_iter().filter(|(_, long)| *long == length);
    let description =
        |hash: Hash| format!("it is made with HMAC-{}, and the profile says HMAC-{}", hash.title(), is.title());
    hashes.map(|(hash, _)| ((hash != *is).then(|| description(hash)), SignatureAlgorithm::Hmac(hash))).collect()
}

/// The texts of all locations where a proof can be, with and without a prefix.
fn candidates(case: &Case) -> Vec<Candidate> {
    let mut all = Vec::new();
    for name in case.headers.keys() {
        let Some(value) = case.headers.get(name).and_then(|value| value.to_str().ok()) else { continue };
        let location = Location::header(name.clone());
        all.push(Candidate { location: location.clone(), prefix: String::new(), text: value.to_owned() });
        for end in ['=', ' ', ':'] {
            if let Some((before, text)) = value.split_once(end) {
                all.push(Candidate {
                    location: location.clone(),
                    prefix: format!("{before}{end}"),
                    text: text.to_owned(),
                });
            }
        }
        all.extend(entries(name, value));
    }
    let query = case.target.query().unwrap_or_default();
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        let location = Location { carrier: Carrier::Query(name.into_owned()), item: None };
        all.push(Candidate { location, prefix: String::new(), text: text.into_owned() });
    }
    all
}

/// The entries of a header, read as a list.
fn entries(name: &HeaderName, value: &str) -> Vec<Candidate> {
    let mut all = Vec::new();
    for (separator, assign) in [(',', '='), (';', '='), (' ', '='), (' ', ','), (';', ',')] {
        for entry in value.split(separator) {
            let Some((key, text)) = entry.trim_matches(' ').split_once(assign) else { continue };
            let item = Some(Item { key: key.to_owned(), separator, assign });
            let location = Location { carrier: Carrier::Header(vec![name.clone()]), item };
            all.push(Candidate { location, prefix: String::new(), text: text.to_owned() });
        }
    }
    all
}

/// The same request with a signature over other common templates.
pub(super) fn signs_otherwise(case: &Case) -> Vec<Hypothesis> {
    let profile = &case.profile;
    let mut all = Vec::new();
    for (at, member) in profile.auth.members.iter().enumerate() {
        let Scheme::Signature(spec) = &member.scheme else { continue };
        for text in SIGNED {
            let lacks = text.contains("{timestamp}") && profile.timestamp.is_none()
                || text.contains("{url}") && !case.params.contains_key("url");
            let Some(template) = text.parse::<Template>().ok().filter(|_| !lacks) else { continue };
            let is: Vec<_> = spec.signed.iter().map(ToString::to_string).collect();
            let description = format!(
                "what is signed is {text}, and the profile says {}. If the profile is yours, set signed; if not, something \
                 signs in another way than the provider does.",
                is.join(" or ")
            );
            let mut scheme = spec.clone();
            scheme.signed = vec![template];
            all.push(Hypothesis::new(description, with_scheme(case, at, member, Scheme::Signature(scheme))));
        }
    }
    all
}

/// The same request with a scheme replaced. Of several alternatives, the new one is the only one left.
fn with_scheme(case: &Case, at: usize, member: &Member, scheme: Scheme) -> Case {
    let mut case = case.clone();
    match case.profile.auth.combination {
        Combination::First => case.profile.auth.members = vec![Member { when: Vec::new(), scheme, ..member.clone() }],
        Combination::All => {
            case.profile.auth.members.get_mut(at).into_iter().for_each(|known| known.scheme = scheme.clone());
        }
    }
    case
}
