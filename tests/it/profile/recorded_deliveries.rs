//! The recorded deliveries of every shipped profile, made with the providers' published vectors, official SDKs and
//! other people's signers: genuine ones are accepted, and each kind of bad one is refused for its reason.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use doorward::base::secret::Secret;
use doorward::base::time::Moment;
use doorward::config::Settings;
use doorward::config::default_ttl;
use doorward::explain::Accepted;
use doorward::explain::Case;
use doorward::explain::Explanation;
use doorward::explain::explain;
use doorward::extract::params;
use doorward::gateway::decide;
use doorward::gateway::decide::Verdict;
use doorward::http::body;
use doorward::http::inbound::Inbound;
use doorward::profile::Profiles;
use doorward::profile::Reference;
use doorward::source::Source;
use doorward::source::refusal::Refusal;
use doorward::verify::handshake::Answer;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Uri;
use serde::Deserialize;

use crate::harness::provider::issuer::Issuer;
use crate::harness::recorded;
use crate::harness::upstream::files::FileServer;

/// One recorded delivery and what should become of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    about: String,
    made_by: String,
    now: i64,
    secrets: Vec<String>,
    #[serde(default)]
    params: BTreeMap<String, String>,
    jwks: Option<serde_json::Value>,
    /// What a server on this machine has at which path, while the delivery is looked at.
    #[serde(default)]
    files: BTreeMap<String, String>,
    request: Recorded,
    expect: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    method: String,
    #[serde(default = "root")]
    target: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    body_base64: Option<String>,
}

fn root() -> String {
    "/".to_owned()
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Accepted {
        /// Absent where every request is an event of its own.
        id: Option<String>,
        #[serde(rename = "type")]
        kind: Option<String>,
        secret: Option<usize>,
    },
    Answered {
        status: u16,
        content_type: Option<String>,
        body: String,
        /// With names in lower case.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    Refused(String),
}

#[test]
fn every_recorded_delivery_ends_as_it_should() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (profile, place, fixture) in every_delivery() {
        let found = play(&profile, &fixture);
        if found != fixture.expect {
            wrong.push(format!("{place}: {}\n  is {found:?}, not {:?}", fixture.about, fixture.expect));
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{} of {seen} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 500, "only {seen} deliveries were found");
}

#[test]
fn every_recorded_delivery_is_explained_as_the_gateway_decides() {
    let mut wrong = Vec::new();
    for (profile, place, fixture) in every_delivery() {
        let expected = match &fixture.expect {
            Expected::Refused(reason) => Err(reason.as_str()),
            Expected::Accepted { .. } => Ok("accepted"),
            Expected::Answered { .. } => Ok("answered"),
        };
        let explanation = explained(&profile, &fixture);
        let found = match &explanation.verdict {
            Ok(Accepted::Event { .. }) => Ok("accepted"),
            Ok(Accepted::Handshake(_)) => Ok("answered"),
            Err(refusal) => Err(refusal.row().reason),
        };
        let failed: Vec<_> = explanation.steps.iter().map(|step| step.failed).collect();
        let ends = failed.iter().rposition(|failed| *failed) == found.is_err().then(|| failed.len() - 1);
        let told = |secret: &&String| explanation.steps.iter().any(|step| step.description.contains(*secret));
        if found != expected
            || !ends
            || fixture.secrets.iter().filter(|secret| secret.len() > 8).any(|secret| told(&secret))
        {
            wrong.push(format!("{place}: {}\n  {found:?} {:?}", fixture.about, explanation.steps));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is said of a delivery.
fn explained(profile: &str, fixture: &Fixture) -> Explanation {
    let issuer = fixture.jwks.as_ref().map(Issuer::publishing);
    let files = (!fixture.files.is_empty()).then(|| FileServer::serving(fixture.files.clone()));
    let server = files.as_ref().map(FileServer::address);
    let server = server.as_deref().unwrap_or_default();
    let (_, target, headers, body) = request(fixture, Some(server));
    let profile = Profiles::shipped().get(profile).expect("a profile").clone();
    let given = fixture.params.iter().map(|(name, value)| (name.as_str(), value.replace("@SERVER@", server)));
    let given: Vec<_> = given.chain(issuer.as_ref().map(|issuer| ("jwks_url", issuer.url()))).collect();
    let case = Case {
        params: params::complete(&profile, &given).expect("parameters"),
        profile,
        secrets: fixture.secrets.iter().map(|text| Secret::new(text.as_bytes()).expect("a secret")).collect(),
        old_secrets: Vec::new(),
        ttl: default_ttl().expect("a default"),
        method: fixture.request.method.parse().expect("a method"),
        target,
        headers,
        body,
        at: Moment::from_unix(fixture.now),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(explain(&case)).unwrap_or_else(|error| panic!("{}: {error}", fixture.about))
}

/// Method, target, headers and body of a delivery.
fn request(fixture: &Fixture, server: Option<&str>) -> (Method, Uri, HeaderMap, Bytes) {
    let here = |text: &str| server.map_or_else(|| text.to_owned(), |server| text.replace("@SERVER@", server));
    let mut headers = HeaderMap::new();
    for (name, value) in &fixture.request.headers {
        let latin = |character| u8::try_from(character).expect("ISO 8859-1");
        let bytes: Vec<u8> = here(value).chars().map(latin).collect();
        headers.append(
            HeaderName::try_from(name.as_str()).expect("a header name"),
            HeaderValue::from_bytes(&bytes).expect("a header value"),
        );
    }
    let body = match (&fixture.request.body, &fixture.request.body_base64) {
        (Some(text), None) => here(text).into_bytes(),
        (None, Some(text)) => base64::engine::general_purpose::STANDARD.decode(text).expect("base64"),
        _ => panic!("a fixture has one body"),
    };
    let method = fixture.request.method.parse().expect("a method");
    (method, here(&fixture.request.target).parse().expect("a target"), headers, body.into())
}

#[test]
fn every_shipped_profile_has_accepted_and_tampered_deliveries_and_answered_handshakes() {
    let mut providers = recorded::providers();
    for (name, profile) in Profiles::shipped().iter() {
        providers.retain(|provider| provider != name);
        let deliveries = recorded::deliveries(name);
        // A handshake that visits an address has tests of its own.
        let answered = profile.handshakes.iter().any(|said| said.visit.is_none()).then_some("answered-");
        for kind in ["accepted-", "tampered-"].into_iter().chain(answered) {
            assert!(deliveries.keys().any(|delivery| delivery.starts_with(kind)), "{name} has no {kind} fixture");
        }
    }
    assert!(providers.is_empty(), "fixtures of profiles that are not shipped: {providers:?}");
}

#[test]
fn every_delivery_says_who_made_it() {
    for (_, place, fixture) in every_delivery() {
        assert!(!fixture.made_by.is_empty() && !fixture.about.is_empty(), "{place}");
    }
}

/// Every recorded delivery with its profile and the place where it stands.
fn every_delivery() -> impl Iterator<Item = (String, String, Fixture)> {
    recorded::providers().into_iter().flat_map(|profile| {
        recorded::deliveries(&profile).into_iter().map(move |(name, delivery)| {
            let place = format!("tests/fixtures/providers/{profile}.json: {name}");
            let fixture = serde_json::from_value(delivery).unwrap_or_else(|error| panic!("{place}: {error}"));
            (profile.clone(), place, fixture)
        })
    })
}

/// Runs a delivery through its profile as it would have run at the time.
fn play(profile: &str, fixture: &Fixture) -> Expected {
    let issuer = fixture.jwks.as_ref().map(Issuer::publishing);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let files = (!fixture.files.is_empty()).then(|| FileServer::serving(fixture.files.clone()));
    let folder = tempfile::tempdir().expect("a folder");
    let server = files.as_ref().map(FileServer::address);
    let (source, settings) = source(folder.path(), profile, fixture, issuer.as_ref(), server.as_deref());
    let outcome = runtime.block_on(async {
        for jwks in &settings.jwks {
            let jwks = Arc::clone(jwks);
            drop(tokio::spawn(async move { jwks.run().await }));
        }
        receive(&source, profile, fixture, server.as_deref()).await
    });
    outcome.unwrap_or_else(|refusal| Expected::Refused(refusal.row().reason.to_owned()))
}

/// The steps of the gateway from the head of a request to its event.
async fn receive(source: &Source, profile: &str, fixture: &Fixture, server: Option<&str>) -> Result<Expected, Refusal> {
    let (method, target, headers, body) = request(fixture, server);
    let now = Moment::from_unix(fixture.now);
    let verifier = &source.verifier;
    decide::check_method(verifier, &method)?;
    body::check_head(&headers, &verifier.single_headers, &source.limits)?;
    let inbound = Inbound::recorded(method, target, headers, body, now);
    let decision = decide::decide(verifier, profile, &source.limits, inbound, || now).await;
    let event = match decision.verdict.map_err(|rejection| rejection.refusal)? {
        Verdict::Handshake(answer) => return Ok(answered(&answer)),
        Verdict::Event(event) => event,
    };
    let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec()).expect("UTF-8");
    let unique = Profiles::shipped().get(profile).is_some_and(|profile| profile.event.id == Reference::Unique);
    let id = (!unique).then(|| text(&event.id));
    let secret = decision.proof.and_then(|proof| proof.secret);
    Ok(Expected::Accepted { id, kind: event.kind.as_ref().map(text), secret })
}

fn answered(answer: &Answer) -> Expected {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    Expected::Answered {
        status: answer.status.as_u16(),
        content_type: answer.content_type.map(str::to_owned),
        body: text(&answer.body),
        headers: headers.collect(),
    }
}

/// The source that the fixture was recorded for.
fn source(
    folder: &Path,
    profile: &str,
    fixture: &Fixture,
    issuer: Option<&Issuer>,
    server: Option<&str>,
) -> (Arc<Source>, Settings) {
    let mut source = toml::Table::new();
    source.insert("profile".to_owned(), profile.into());
    source.insert("path".to_owned(), "/webhooks".into());
    if !fixture.secrets.is_empty() {
        let secrets: Vec<_> = fixture.secrets.iter().map(|secret| format!("plain:{secret}")).collect();
        source.insert("secrets".to_owned(), secrets.into());
    }
    let mut params: toml::Table = fixture
        .params
        .iter()
        .map(|(name, value)| (name.clone(), value.replace("@SERVER@", server.unwrap_or_default()).into()))
        .collect();
    if let Some(issuer) = issuer {
        params.insert("jwks_url".to_owned(), issuer.url().into());
    }
    source.insert("params".to_owned(), params.into());
    source.insert("deliver".to_owned(), toml::toml!(upstream = { url = "http://127.0.0.1:9/" }).into());
    let sources: toml::Table = [(profile.to_owned(), source.into())].into_iter().collect();
    let whole: toml::Table = [("sources".to_owned(), sources.into())].into_iter().collect();
    let path = folder.join("doorward.toml");
    std::fs::write(&path, whole.to_string()).expect("a configuration");
    let settings = Settings::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    let source = Arc::clone(settings.sources.first().expect("a source"));
    (source, settings)
}
