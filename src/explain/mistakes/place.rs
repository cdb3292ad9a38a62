//! Proofs that stand elsewhere, are written in another way, or are over something else than the profile says.

use http::HeaderName;

use super::Undone;
use crate::explain::Case;
use crate::explain::words::behind;
use crate::profile::Combination;
use crate::profile::Encoding;
use crate::profile::Hash;
use crate::profile::Holder;
use crate::profile::Item;
use crate::profile::Member;
use crate::profile::Place;
use crate::profile::PrefixedPlace;
use crate::profile::Scheme;
use crate::profile::Signature;
use crate::profile::Template;
use crate::profile::Verifier;

/// What providers sign, for profiles that say something else.
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

/// The same request with the proof read from everywhere, in every encoding.
pub(super) fn elsewhere(case: &Case) -> Vec<Undone> {
    let mut all = Vec::new();
    for (at, member) in case.profile.auth.members.iter().enumerate() {
        for (place, prefix) in places(case) {
            all.extend(read_from(case, at, member, &place, &prefix));
        }
    }
    all
}

fn read_from(case: &Case, at: usize, member: &Member, place: &Place, prefix: &str) -> Vec<Undone> {
    let moved = |is: Option<&Place>, before: &str| {
        let same = before == prefix;
        let (behind_it, behind_that) = if same { Default::default() } else { (behind(prefix), behind(before)) };
        match is {
            Some(is) if is == place && same => String::new(),
            Some(is) => format!("it stands in {place}{behind_it}, and the profile looks in {is}{behind_that}"),
            None => format!("it stands in {place}{behind_it}, and the profile looks for a bearer token"),
        }
    };
    let undone = |words: &str, scheme: Scheme| Undone::new(words, with(case, at, member, scheme));
    match &member.scheme {
        Scheme::Signature(said) => {
            let moved = moved(Some(&said.place.place), &said.place.prefix);
            let forms = forms(said).into_iter().map(|(words, form)| {
                let mut scheme = said.clone();
                scheme.place.place = place.clone();
                scheme.place.prefix = prefix.to_owned();
                scheme.place.encoding = form.0;
                scheme.verifier = form.1;
                let words: Vec<_> = [moved.clone(), words].into_iter().filter(|words| !words.is_empty()).collect();
                (words, Scheme::Signature(scheme))
            });
            let forms = forms.filter(|(words, _)| !words.is_empty());
            forms.map(|(words, scheme)| undone(&sentence("the signature is right, but ", &words), scheme)).collect()
        }
        Scheme::Token(said) => {
            let moved = moved(Some(&said.from.place), &said.from.prefix);
            let from = PrefixedPlace { place: place.clone(), prefix: prefix.to_owned() };
            let scheme = Scheme::Token(crate::profile::Token { from, ..said.clone() });
            let words = sentence("the secret is right, but ", std::slice::from_ref(&moved));
            if moved.is_empty() { Vec::new() } else { vec![undone(&words, scheme)] }
        }
        Scheme::Jwt(said) => {
            let from = said.from.as_ref();
            let moved = moved(from.map(|from| &from.place), from.map_or("", |from| &from.prefix));
            let mut scheme = said.clone();
            scheme.from = Some(PrefixedPlace { place: place.clone(), prefix: prefix.to_owned() });
            let words = sentence("the token is right, but ", std::slice::from_ref(&moved));
            if moved.is_empty() { Vec::new() } else { vec![undone(&words, Scheme::Jwt(scheme))] }
        }
        Scheme::Basic(_) => Vec::new(),
    }
}

fn sentence(begin: &str, words: &[String]) -> String {
    format!("{begin}{}. Something renames it on the way, or the profile has to say so.", words.join(", and "))
}

/// Encodings and hashes with what is said of each that is not the profile's.
fn forms(said: &Signature) -> Vec<(String, (Encoding, Verifier))> {
    let hashes = match &said.verifier {
        Verifier::Hmac(is) => [Hash::Sha256, Hash::Sha1, Hash::Sha512]
            .into_iter()
            .map(|hash| {
                let words = format!("it is made with HMAC-{}, and the profile says HMAC-{}", hash.title(), is.title());
                (if hash == *is { String::new() } else { words }, Verifier::Hmac(hash))
            })
            .collect(),
        other @ (Verifier::Ed25519 | Verifier::Ecdsa(_) | Verifier::Rsa(_) | Verifier::Certificate(..)) => {
            vec![(String::new(), other.clone())]
        }
    };
    let is = said.place.encoding;
    let mut all = Vec::new();
    for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64url] {
        for (hashed, verifier) in &hashes {
            let written = format!("it is written in {}, and the profile says {}", encoding.title(), is.title());
            let written = if encoding == is { String::new() } else { written };
            let words: Vec<_> = [written, hashed.clone()].into_iter().filter(|words| !words.is_empty()).collect();
            all.push((words.join(", and "), (encoding, verifier.clone())));
        }
    }
    all
}

/// Everywhere that a proof can stand, with what may stand before it.
fn places(case: &Case) -> Vec<(Place, String)> {
    let mut all = Vec::new();
    for name in case.headers.keys() {
        let Some(value) = case.headers.get(name).and_then(|value| value.to_str().ok()) else { continue };
        let place = Place::header(name.clone());
        all.push((place.clone(), String::new()));
        for end in ['=', ' ', ':'] {
            if let Some((before, _)) = value.split_once(end) {
                all.push((place.clone(), format!("{before}{end}")));
            }
        }
        all.extend(items(name, value).into_iter().map(|place| (place, String::new())));
    }
    let query = case.target.query().unwrap_or_default();
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        all.push((Place { holder: Holder::Query(name.into_owned()), item: None }, String::new()));
    }
    all
}

/// The entries of a header that may be a list.
fn items(name: &HeaderName, value: &str) -> Vec<Place> {
    let mut all = Vec::new();
    for separator in [',', ';', ' '] {
        for (assign, entry) in [('=', value), (',', value)]
            .into_iter()
            .flat_map(|(assign, value)| value.split(separator).map(move |entry| (assign, entry.trim_matches(' '))))
        {
            if assign != separator
                && let Some((key, _)) = entry.split_once(assign)
            {
                let item = Item { key: key.to_owned(), separator, assign };
                all.push(Place { holder: Holder::Header(vec![name.clone()]), item: Some(item) });
            }
        }
    }
    all
}

/// The same request with a signature over what other providers sign.
pub(super) fn signs_otherwise(case: &Case) -> Vec<Undone> {
    let profile = &case.profile;
    let mut all = Vec::new();
    for (at, member) in profile.auth.members.iter().enumerate() {
        let Scheme::Signature(said) = &member.scheme else { continue };
        for text in SIGNED {
            let lacks = text.contains("{timestamp}") && profile.timestamp.is_none()
                || text.contains("{url}") && !case.params.contains_key("url");
            let Some(template) = text.parse::<Template>().ok().filter(|_| !lacks) else { continue };
            let is: Vec<_> = said.signed.iter().map(ToString::to_string).collect();
            let words = format!(
                "what is signed is {text}, and the profile says {}. If the profile is yours, set signed; if not, something \
                 signs in another way than the provider does.",
                is.join(" or ")
            );
            let mut scheme = said.clone();
            scheme.signed = vec![template];
            all.push(Undone::new(words, with(case, at, member, Scheme::Signature(scheme))));
        }
    }
    all
}

/// The same request with another scheme in the place of one: of several that may decide, the only one.
fn with(case: &Case, at: usize, member: &Member, scheme: Scheme) -> Case {
    let mut case = case.clone();
    match case.profile.auth.combination {
        Combination::First => case.profile.auth.members = vec![Member { when: Vec::new(), scheme, ..member.clone() }],
        Combination::All => {
            case.profile.auth.members.get_mut(at).into_iter().for_each(|known| known.scheme = scheme.clone());
        }
    }
    case
}
