//! A signed text is read in one way only: whoever has one and cuts it otherwise presents nothing that is accepted.
//!
//! For each profile a provider signs texts in which one value goes on with what ends it and with other values, as
//! somebody may have it signed who chooses that value. Every other cut of such a text is then presented with its
//! signature.

use std::collections::BTreeSet;

use bytes::Bytes;
use doorward::base::time::Moment;
use doorward::profile::Carrier;
use doorward::profile::Function;
use doorward::profile::Location;
use doorward::profile::Piece;
use doorward::profile::Profile;
use doorward::profile::Profiles;
use doorward::profile::Scheme;
use doorward::profile::Signature;
use doorward::sign::Id;
use doorward::sign::Request;
use http::HeaderValue;
use serde_json::Value;
use serde_json::json;

use crate::harness::gateway::source::InProcessSource;
use crate::harness::provider::any_profile::Provider;

const NOW: i64 = 1_767_348_000;

/// Those whose providers sign texts with more than one reading, and say so.
const AMBIGUOUS: [&str; 3] = ["braintree", "paypal", "twilio"];

/// How far from the end of a value another cut is tried, where nothing stands between two values.
const NEAR: usize = 12;

#[test]
fn no_other_cut_of_a_signed_text_is_accepted() {
    let mut tried = 0;
    for (name, profile) in Profiles::shipped().iter() {
        let ambiguous = profile.ambiguities().next().is_some();
        assert_eq!(ambiguous, AMBIGUOUS.contains(&name), "{name} says, or does not say, that it has several readings");
        for provider in provider(name, profile) {
            let found = forgeries(&InProcessSource::new(provider, &[]), &mut tried);
            if !ambiguous {
                assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
            }
        }
    }
    assert!(tried > 1000, "only {tried} other cuts were found");
}

/// Without what a profile requires of its values, the other cuts are there and are found.
#[test]
fn what_profiles_require_of_their_values_is_what_keeps_other_cuts_out() {
    for name in
        ["adyen", "aws-sns", "clerk", "gitlab", "openai", "polar", "resend", "standard-webhooks", "svix", "twitch"]
    {
        let text = Profiles::shipped().text(name).expect("a text").to_owned();
        let careless = careless(&text);
        assert!(Profile::parse(&careless).is_err(), "{name} is taken without what it requires");
        let spec = careless.replace("signed  ", "ambiguous = \"for trial\"\nsigned  ");
        let profile = Profile::parse(&spec).unwrap_or_else(|error| panic!("{name}: {error}"));
        let receiver = InProcessSource::new(Provider::new(name, &profile), &[(name.to_owned(), spec)]);
        assert!(!forgeries(&receiver, &mut 0).is_empty(), "{name}: no other cut was found");
    }
}

/// A profile without the conditions on what its values may contain.
fn careless(text: &str) -> String {
    let mut table: toml::Table = text.parse().expect("TOML");
    fn strip(value: &mut toml::Value) {
        if let toml::Value::Table(table) = value {
            if table.remove("without").is_some() || table.remove("min_length").is_some() {
                table.retain(|key, _| key != "optional" && key != "max_length");
                table.insert("absent".to_owned(), false.into());
            }
            table.iter_mut().for_each(|(_, value)| strip(value));
        } else if let toml::Value::Array(list) = value {
            list.iter_mut().for_each(strip);
            list.retain(|one| one.get("absent").is_none_or(|absent| absent.as_bool() != Some(false)));
        }
    }
    table.iter_mut().filter(|(key, _)| *key != "handshake").for_each(|(_, value)| strip(value));
    table.remove("limits");
    toml::to_string(&table).expect("TOML").replace("signed = ", "signed   = ")
}

fn signatures(profile: &Profile) -> impl Iterator<Item = &Signature> {
    profile.schemes().filter_map(|scheme| if let Scheme::Signature(spec) = scheme { Some(&**spec) } else { None })
}

/// Sources with all kinds of keys that the profile takes.
fn provider(name: &str, profile: &Profile) -> Vec<Provider> {
    let mut provider = Vec::new();
    if signatures(profile).next().is_some() {
        provider.push(Provider::new(name, profile));
    }
    if name == "standard-webhooks" {
        provider.push(Provider::with_private(name, profile));
    }
    provider
}

/// A piece of a signed text, and what it says in a request.
#[derive(Clone)]
struct Part {
    piece: Piece,
    text: String,
}

/// What is accepted under a signature that was made for other values.
fn forgeries(receiver: &InProcessSource, tried: &mut usize) -> Vec<String> {
    let provider = &receiver.provider;
    let profile = provider.profile();
    let now = Moment::from_unix(NOW);
    let genuine = provider.sign(Id::Fresh(1), None, now).unwrap_or_else(|error| panic!("{}: {error}", profile.title));
    drop(receiver.receive(&genuine, now).unwrap_or_else(|refusal| panic!("{}: {refusal}", profile.title)));
    // The one that it was signed with.
    let stands = |spec: &&Signature| read(&genuine, &spec.location.location).is_some();
    let Some(spec) = signatures(profile).find(stands) else { return Vec::new() };
    let mut found = BTreeSet::new();
    for template in &spec.signed {
        let pieces: Vec<_> = template
            .parts()
            .iter()
            .filter(|part| {
                part.pieces()
                    .iter()
                    .all(|piece| !matches!(piece, Piece::Optional(location) if read(&genuine, location).is_none()))
            })
            .flat_map(|part| part.pieces().to_vec())
            .collect();
        let values: Vec<_> =
            pieces.into_iter().map(|piece| Part { text: said_of(&piece, &genuine, provider), piece }).collect();
        for signed in signed_by_others(&values) {
            let text: String = signed.iter().map(|value| value.text.as_str()).collect();
            let signature = provider.signature_of(spec, text.as_bytes());
            // A text whose own values the profile does not take is none that the provider signs.
            let own = presented(&genuine, &signed, spec, &signature, profile);
            if own.is_none_or(|own| receiver.receive(&own, now).is_err()) {
                continue;
            }
            for cut in cuts(&signed, &text, &values) {
                let Some(request) = presented(&genuine, &cut, spec, &signature, profile) else { continue };
                *tried += 1;
                if let Ok(event) = receiver.receive(&request, now) {
                    let id = String::from_utf8_lossy(event.id.as_bytes()).into_owned();
                    let texts: Vec<_> = cut.iter().map(|value| format!("{}={:?}", value.piece, value.text)).collect();
                    found.insert(format!("{id}: {}", texts.join(" ")));
                }
            }
        }
    }
    found.into_iter().collect()
}

/// Whether a sender chooses it.
fn is_value(piece: &Piece) -> bool {
    !matches!(
        piece,
        Piece::Literal(_) | Piece::Method | Piece::Url | Piece::UrlWithPort | Piece::Param(_) | Piece::Call(..)
    )
}

/// Texts that the provider may have signed: the genuine one, and those in which one value goes on with a copy of what
/// stands behind it, or begins with a copy of what stands before it.
fn signed_by_others(values: &[Part]) -> Vec<Vec<Part>> {
    let text = |values: &[Part]| values.iter().map(|value| value.text.as_str()).collect::<String>();
    let mut all = vec![values.to_vec()];
    for (at, value) in values.iter().enumerate().filter(|(_, value)| is_value(&value.piece)) {
        let mut longer = values.to_vec();
        longer[at].text = format!("{}{}", value.text, text(&values[at + 1..]));
        all.push(longer);
        let mut longer = values.to_vec();
        longer[at].text = format!("{}{}", text(&values[..at]), value.text);
        all.push(longer);
    }
    all
}

/// Every other way to share the text out among the pieces.
fn cuts(signed: &[Part], text: &str, values: &[Part]) -> Vec<Vec<Part>> {
    // Where values ended, and where they would end in a copy of the text that stands further on.
    let mut ends = BTreeSet::from([0, text.len()]);
    let mut at = 0;
    for (value, original) in signed.iter().zip(values) {
        ends.extend([at + original.text.len(), (at + value.text.len()).saturating_sub(original.text.len())]);
        at += value.text.len();
        ends.insert(at);
    }
    for value in values.iter().filter(|value| !value.text.is_empty()) {
        ends.extend(text.match_indices(&value.text).flat_map(|(at, _)| [at, at + value.text.len()]));
    }
    let near: Vec<_> = (0..=text.len())
        .filter(|at| text.is_char_boundary(*at) && ends.iter().any(|end| end.abs_diff(*at) <= NEAR))
        .collect();
    let mut found = share(signed, text, 0, &near);
    found.retain(|cut| cut.iter().zip(signed).any(|(one, other)| one.text != other.text));
    found
}

/// Every way to share out what stands from here on.
fn share(signed: &[Part], text: &str, from: usize, near: &[usize]) -> Vec<Vec<Part>> {
    let Some((value, rest)) = signed.split_first() else {
        return if from == text.len() { vec![Vec::new()] } else { Vec::new() };
    };
    let next = rest.first().filter(|next| !is_value(&next.piece) && !next.text.is_empty());
    let ends: Vec<usize> = if !is_value(&value.piece) {
        text[from..].strip_prefix(&value.text).map(|rest| text.len() - rest.len()).into_iter().collect()
    } else if rest.is_empty() {
        vec![text.len()]
    } else if let Some(next) = next {
        // Also where one begins inside another.
        let starts = (from..text.len()).filter(|at| text.is_char_boundary(*at));
        starts.filter(|at| text[*at..].starts_with(&next.text)).collect()
    } else {
        near.iter().copied().filter(|end| *end >= from).collect()
    };
    let with = |end: usize| {
        let part = Part { piece: value.piece.clone(), text: text[from..end].to_owned() };
        share(rest, text, end, near).into_iter().map(move |others| [vec![part.clone()], others].concat())
    };
    ends.into_iter().flat_map(with).collect()
}

/// The genuine request with these values at their places; `None` where they cannot stand there.
fn presented(genuine: &Request, cut: &[Part], spec: &Signature, signature: &str, profile: &Profile) -> Option<Request> {
    let mut request = Request {
        method: genuine.method.clone(),
        query: genuine.query.clone(),
        headers: genuine.headers.clone(),
        body: genuine.body.clone(),
        id: String::new(),
    };
    if let Some(body) = cut.iter().find(|value| value.piece == Piece::Body) {
        request.body = Bytes::from(body.text.clone());
    }
    for value in cut {
        match &value.piece {
            Piece::Timestamp => write(&mut request, &profile.timestamp.as_ref()?.from, &value.text)?,
            Piece::Location(location) | Piece::Optional(location) => write(&mut request, location, &value.text)?,
            Piece::Query => {
                request.query = match value.text.strip_prefix('?') {
                    Some(query) => Some(query.to_owned()),
                    None if value.text.is_empty() => None,
                    None => return None,
                };
            }
            Piece::SortedForm | Piece::Item(_) => return None,
            Piece::Literal(_)
            | Piece::Body
            | Piece::Method
            | Piece::Url
            | Piece::UrlWithPort
            | Piece::Param(_)
            | Piece::Call(..) => {}
        }
    }
    write(&mut request, &spec.location.location, signature)?;
    Some(request)
}

/// What the piece says in the request.
fn said_of(piece: &Piece, request: &Request, provider: &Provider) -> String {
    let param = |name: &str| provider.complete().expect("parameters")[name].clone();
    match piece {
        Piece::Literal(text) => text.clone(),
        Piece::Body => text(&request.body),
        Piece::Timestamp => {
            read(request, &provider.profile().timestamp.as_ref().expect("a time").from).expect("the time")
        }
        Piece::Method => request.method.to_string(),
        Piece::Url => param("url"),
        Piece::UrlWithPort => param("url").replacen(".example", ".example:443", 1),
        Piece::Param(name) => param(name),
        Piece::Query => request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default(),
        Piece::SortedForm => {
            let mut pairs: Vec<_> = form_urlencoded::parse(&request.body).into_owned().collect();
            pairs.sort();
            pairs.into_iter().map(|(name, value)| name + &value).collect()
        }
        Piece::Location(location) | Piece::Optional(location) => read(request, location).unwrap_or_default(),
        Piece::Item(_) => panic!("no shipped profile signs another item"),
        Piece::Call(Function::Crc32, _) => crc32fast::hash(&request.body).to_string(),
        Piece::Call(..) => const_hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &request.body)),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The text at a place, read by means of our own.
fn read(request: &Request, location: &Location) -> Option<String> {
    let whole = match &location.carrier {
        Carrier::Header(names) => {
            names.iter().find_map(|name| request.headers.get(name)).map(|value| text(value.as_bytes()))
        }
        Carrier::Json(pointer) => {
            let body: Value = serde_json::from_slice(&request.body).ok()?;
            let value = body.pointer(&pointer.to_string()).filter(|value| !value.is_null())?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        }
        Carrier::Form(name) => {
            form_urlencoded::parse(&request.body).find(|(known, _)| known == name).map(|(_, text)| text.into_owned())
        }
        Carrier::Query(_) | Carrier::Numbered(_) => None,
    }?;
    match &location.item {
        Some(item) => item.values(&whole).next().map(str::to_owned),
        None => Some(whole),
    }
}

/// Sets the text at a place; `None` where it cannot stand there.
fn write(request: &mut Request, location: &Location, text: &str) -> Option<()> {
    let whole = match &location.item {
        None => text.to_owned(),
        Some(item) => {
            let list = read(request, &Location { carrier: location.carrier.clone(), item: None }).unwrap_or_default();
            let others = list.split(item.separator).filter(|entry| !entry.is_empty() && item.value(entry).is_none());
            let entry = format!("{}{}{text}", item.key, item.assign);
            others.chain([entry.as_str()]).collect::<Vec<_>>().join(&item.separator.to_string())
        }
    };
    match &location.carrier {
        Carrier::Header(names) => {
            let name = names.iter().find(|name| request.headers.contains_key(*name)).or_else(|| names.first())?;
            request.headers.insert(name.clone(), HeaderValue::from_str(&whole).ok()?);
        }
        Carrier::Json(pointer) => {
            let mut body: Value = serde_json::from_slice(&request.body).ok()?;
            match body.pointer_mut(&pointer.to_string()) {
                Some(value) => *value = json!(whole),
                None => {
                    let pointer = pointer.to_string();
                    let (parent, name) = pointer.rsplit_once('/')?;
                    body.pointer_mut(parent)?.as_object_mut()?.insert(name.to_owned(), json!(whole));
                }
            }
            request.body = Bytes::from(body.to_string());
        }
        Carrier::Form(field) => {
            let pairs = form_urlencoded::parse(&request.body).into_owned().filter(|(name, _)| name != field);
            let pairs: Vec<_> = pairs.chain([(field.clone(), whole)]).collect();
            request.body = Bytes::from(form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish());
        }
        Carrier::Query(_) | Carrier::Numbered(_) => return None,
    }
    Some(())
}
