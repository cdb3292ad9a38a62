//! No request is believed that was not signed, and none that was changed since.
#![no_main]

use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::sync::OnceLock;

use bytes::Bytes;
use doorward::base::time::Moment;
use doorward::profile::Carrier;
use doorward::profile::Combination;
use doorward::profile::Location;
use doorward::profile::Profile;
use doorward::profile::Profiles;
use doorward::profile::Scheme;
use doorward::sign::Id;
use doorward::source::refusal::Refusal;
use doorward::verify::Failure;
use doorward::verify::identity::MAX_ID;
use doorward_fuzz::Request;
use doorward_fuzz::now;
use doorward_fuzz::provider::Parts;
use doorward_fuzz::provider::Provider;
use doorward_fuzz::provider::Taken;
use http::HeaderName;
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

/// The provider with this number, made when it is first asked for.
fn provider(number: u8) -> &'static Provider {
    static ALL: LazyLock<Vec<(String, OnceLock<Provider>)>> = LazyLock::new(|| {
        let shipped = Profiles::shipped();
        let texts = shipped.names().filter_map(|name| shipped.text(name));
        texts.map(|text| (text.to_owned(), OnceLock::new())).collect()
    });
    let (text, provider) = &ALL[usize::from(number) % ALL.len()];
    provider.get_or_init(|| Provider::new(offline(text)).expect("keys that fit"))
}

/// The profile, with the keys of tokens in `secrets` where they would be fetched.
fn offline(text: &str) -> Profile {
    let sections = text.split("\n[");
    let kept: Vec<_> = sections.filter(|section| !section.starts_with("params.jwks_url]")).collect();
    Profile::parse(&kept.join("\n[")).expect("a profile")
}

// The profile, whether to sign, where to change the signed request and how, and the request.
fuzz_target!(|input: &[u8]| {
    let [profile, sign, at @ .., change] = input.first_chunk::<5>().copied().unwrap_or_default();
    let Some(request) = input.get(5..).and_then(Request::parse) else { return };
    let provider = provider(profile);
    if sign % 2 == 1 {
        return signed(provider, &request, usize::from(u16::from_le_bytes(at)), change);
    }
    let Request { method, target, headers, body } = request;
    let parts = Parts { method, target, headers, body: Bytes::copy_from_slice(body) };
    let taken = provider.receive(parts, now());
    assert!(!is_believed(&taken), "{}: nobody signed this: {taken:?}", provider.profile.title);
});

fn is_believed(taken: &Result<Taken, Refusal>) -> bool {
    matches!(taken, Ok(Taken::Handshake(_) | Taken::Event(_)))
}

/// Times that have a date in every format, and at which our certificate holds.
const TIMES: RangeInclusive<i64> = 200_000_000..=60_000_000_000;

/// Signs what the request says, under the id, the type and at the time of the headers of these names.
fn signed(provider: &Provider, request: &Request<'_>, at: usize, change: u8) {
    let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    // With an id that is too long for any event, a token may be too long as well.
    let id = header("id").filter(|id| id.len() <= MAX_ID).map_or(Id::Fresh(1), Id::Asked);
    let seconds = header("at").and_then(|at| at.parse().ok());
    let moment = seconds.map_or_else(now, Moment::from_unix);
    let body = Some(Bytes::copy_from_slice(request.body)).filter(|body| !body.is_empty());
    let title = &provider.profile.title;
    let parts = match provider.sign(body.as_ref(), request.target.query(), (id, header("type"), moment)) {
        Ok(parts) => parts,
        Err(wrong) => {
            let usual = request.headers.is_empty() && request.target.query().is_none() && body.is_none();
            return assert!(!usual, "{title}: the sample is not signed: {wrong}");
        }
    };
    let taken = provider.receive(parts.clone(), moment);
    let fits = body.is_none() && TIMES.contains(&moment.unix());
    assert!(is_excused(&taken, fits), "{title}: the signature is not believed: {taken:?}\n{parts:?}");
    if !is_believed(&taken) || change == 0 {
        return;
    }
    if let Some(changed) = changed_body(&provider.profile, &parts, at, change) {
        let taken = provider.receive(changed.clone(), moment);
        assert!(!is_believed(&taken), "{title}: the body was changed: {taken:?}\n{changed:?}");
    }
    for changed in changed_proofs(&provider.profile, &parts, at, change) {
        let taken = provider.receive(changed.clone(), moment);
        assert!(!is_believed(&taken), "{title}: the proof was changed: {taken:?}\n{changed:?}");
    }
}

/// Whether nothing is wrong with the proof; times and conditions are the body's own affair where it was given.
fn is_excused(taken: &Result<Taken, Refusal>, fits: bool) -> bool {
    match taken {
        Ok(_) | Err(Refusal::Unreadable(_) | Refusal::Unidentified(_) | Refusal::Unanswered(_)) => true,
        Err(Refusal::Unauthenticated(Failure::BodyMalformed(_))) => true,
        Err(Refusal::Unauthenticated(
            Failure::TimestampMissing
            | Failure::TimestampMalformed
            | Failure::TimestampStale
            | Failure::TimestampFuture
            | Failure::CertificateInvalid
            | Failure::ConditionUnmet,
        )) => !fits,
        Err(_) => false,
    }
}

/// The request with one byte of its body changed, where all of it is signed.
fn changed_body(profile: &Profile, parts: &Parts, at: usize, change: u8) -> Option<Parts> {
    let body = Location { carrier: Carrier::Form(String::new()), item: None };
    let mut covers = profile.schemes().map(|scheme| profile.covers(scheme, &body));
    let covered = match profile.auth.combination {
        Combination::All => covers.any(|covers| covers),
        Combination::First => covers.all(|covers| covers),
    };
    let mut bytes = parts.body.to_vec();
    let at = at.checked_rem(bytes.len())?;
    bytes[at] ^= change;
    covered.then(|| Parts { body: bytes.into(), ..parts.clone() })
}

/// The request with one character of each proof changed that stands in a header.
fn changed_proofs(profile: &Profile, parts: &Parts, at: usize, change: u8) -> Vec<Parts> {
    let mut all = Vec::new();
    for name in profile.schemes().flat_map(proofs) {
        let Some(value) = parts.headers.get(&name) else { continue };
        let mut bytes = value.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= change;
        // Hexadecimal digits and the names of schemes count in either case.
        if bytes.eq_ignore_ascii_case(value.as_bytes()) {
            continue;
        }
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
        let mut parts = parts.clone();
        parts.headers.insert(name, value);
        all.push(parts);
    }
    all
}

/// The headers that a proof may stand in.
fn proofs(scheme: &Scheme) -> Vec<HeaderName> {
    match scheme.location().map(|location| &location.carrier) {
        None => vec![http::header::AUTHORIZATION],
        Some(Carrier::Header(names)) => names.clone(),
        Some(Carrier::Numbered(_) | Carrier::Json(_) | Carrier::Form(_) | Carrier::Query(_)) => Vec::new(),
    }
}
