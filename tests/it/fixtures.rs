//! The recorded deliveries of every shipped profile, made with the providers' published vectors, official SDKs and other
//! people's signers: genuine ones are accepted, and each kind of bad one is refused for its reason.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use doorward::auth::Verified;
use doorward::body;
use doorward::body::Inbound;
use doorward::profile::Profiles;
use doorward::refusal::Refusal;
use doorward::settings::Settings;
use doorward::source::Source;
use doorward::time::Moment;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use serde::Deserialize;

use crate::harness::Issuer;

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
    request: Recorded,
    expect: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    method: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    body_base64: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Accepted {
        id: String,
        #[serde(rename = "type")]
        kind: Option<String>,
        secret: Option<usize>,
    },
    Refused(String),
}

#[test]
fn every_recorded_delivery_ends_as_it_should() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (profile, path) in recorded() {
        let text = std::fs::read_to_string(&path).expect("a fixture");
        let fixture: Fixture =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let found = play(&profile, &fixture);
        if found != fixture.expect {
            wrong.push(format!("{}: {}\n  is {found:?}, not {:?}", path.display(), fixture.about, fixture.expect));
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{} of {seen} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 500, "only {seen} deliveries were found");
}

#[test]
fn every_shipped_profile_has_accepted_and_tampered_deliveries() {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (profile, path) in recorded() {
        names.entry(profile).or_default().push(path.file_name().expect("a name").to_string_lossy().into_owned());
    }
    for (name, _) in Profiles::shipped().iter() {
        let files = names.remove(name).unwrap_or_default();
        for kind in ["accepted-", "tampered-"] {
            assert!(files.iter().any(|file| file.starts_with(kind)), "{name} has no {kind} fixture");
        }
    }
    assert!(names.is_empty(), "fixtures of profiles that are not shipped: {names:?}");
}

#[test]
fn every_delivery_says_who_made_it() {
    for (_, path) in recorded() {
        let text = std::fs::read_to_string(&path).expect("a fixture");
        let fixture: Fixture = serde_json::from_str(&text).expect("a fixture");
        assert!(!fixture.made_by.is_empty() && !fixture.about.is_empty(), "{}", path.display());
    }
}

/// Every fixture with the name of its profile.
fn recorded() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers");
    let list = |folder: &Path| {
        let mut paths: Vec<_> =
            std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    };
    let folders = list(&root);
    folders
        .iter()
        .flat_map(|folder| {
            let profile = folder.file_name().expect("a name").to_string_lossy().into_owned();
            list(folder).into_iter().map(move |path| (profile.clone(), path))
        })
        .collect()
}

/// Runs a delivery through its profile as it would have run at the time.
fn play(profile: &str, fixture: &Fixture) -> Expected {
    let issuer = fixture.jwks.as_ref().map(Issuer::publishing);
    let folder = tempfile::tempdir().expect("a folder");
    let (source, settings) = source(folder.path(), profile, fixture, issuer.as_ref());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let verified = runtime.block_on(async {
        for jwks in &settings.jwks {
            let jwks = Arc::clone(jwks);
            drop(tokio::spawn(async move { jwks.run().await }));
        }
        verify(&source, fixture).await
    });
    let identified = verified.and_then(|verified| {
        let secret = verified.secret();
        Ok((source.identity.identify(profile, verified)?, secret))
    });
    match identified {
        Ok((event, secret)) => {
            let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec()).expect("UTF-8");
            Expected::Accepted { id: text(event.id()), kind: event.kind().map(text), secret }
        }
        Err(refusal) => Expected::Refused(refusal.row().reason.to_owned()),
    }
}

async fn verify(source: &Source, fixture: &Fixture) -> Result<Verified, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in &fixture.request.headers {
        let bytes: Vec<u8> = value.chars().map(|character| u8::try_from(character).expect("ISO 8859-1")).collect();
        headers.append(
            HeaderName::try_from(name.as_str()).expect("a header name"),
            HeaderValue::from_bytes(&bytes).expect("a header value"),
        );
    }
    let body = match (&fixture.request.body, &fixture.request.body_base64) {
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(text)) => base64::engine::general_purpose::STANDARD.decode(text).expect("base64"),
        _ => panic!("a fixture has one body"),
    };
    let now = Moment::from_unix(fixture.now);
    body::announced(&headers, &source.single_headers, &source.limits)?;
    let method = fixture.request.method.parse().expect("a method");
    let inbound = Inbound::recorded(method, headers, Bytes::from(body), now);
    Ok(source.authenticator.verify(inbound, now).await?)
}

/// The source that the fixture was recorded for.
fn source(folder: &Path, profile: &str, fixture: &Fixture, issuer: Option<&Issuer>) -> (Arc<Source>, Settings) {
    let mut source = toml::Table::new();
    source.insert("profile".to_owned(), profile.into());
    source.insert("path".to_owned(), "/webhooks".into());
    if !fixture.secrets.is_empty() {
        let secrets: Vec<_> = fixture.secrets.iter().map(|secret| format!("plain:{secret}")).collect();
        source.insert("secrets".to_owned(), secrets.into());
    }
    let mut params: toml::Table =
        fixture.params.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
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
