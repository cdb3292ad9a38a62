//! Understands one `[sources.NAME]`: joins what its profile asks for with what the operator gave.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Store;
use super::StoreKind;
use super::section::Section;
use super::section::count;
use super::section::duration;
use crate::auth::Authenticator;
use crate::auth::Freshness;
use crate::auth::Hmac;
use crate::auth::Jwks;
use crate::auth::JwksUrl;
use crate::auth::Jwt;
use crate::auth::Scheme;
use crate::body::Limits;
use crate::dedup::Stream;
use crate::deliver::Target;
use crate::event::Identity;
use crate::json::Pointers;
use crate::origin::Allowlist;
use crate::origin::Networks;
use crate::problem::closest;
use crate::profile;
use crate::profile::Algorithm;
use crate::profile::Profile;
use crate::profile::Profiles;
use crate::reply::Statuses;
use crate::secret::Secret;
use crate::secret::SecretRef;
use crate::source::Destination;
use crate::source::Source;
use crate::source::SourceName;
use crate::source::Wanted;

/// Longest an upstream may take when neither the source nor the provider says.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// What is left of a provider's deadline for the way there and back.
const MARGIN: Duration = Duration::from_secs(1);

/// What is around all sources.
pub(super) struct Surroundings<'s> {
    pub(super) profiles: &'s Profiles,
    pub(super) limits: &'s Limits,
    /// Absent when something is wrong with it.
    pub(super) store: Option<&'s Store>,
}

/// Key sets by address, so that sources of one issuer share theirs.
type KeySets = HashMap<(JwksUrl, &'static str), Arc<Jwks>>;

impl Surroundings<'_> {
    /// All sources and the key sets that they use.
    pub(super) fn sources(&self, sections: &Section<'_>) -> (Vec<Arc<Source>>, Vec<Arc<Jwks>>) {
        let mut paths = BTreeMap::new();
        let mut key_sets = KeySets::new();
        let mut sources = Vec::new();
        let named = sections.subsections();
        if named.is_empty() {
            sections.warning("", "there are none, so nothing can be received; `doorward profiles NAME` shows one");
        }
        for (name, section) in named {
            sources.extend(self.source(name, section, &mut paths, &mut key_sets).map(Arc::new));
        }
        (sources, key_sets.into_values().collect())
    }

    fn source<'n>(
        &self,
        name: &'n str,
        mut section: Section<'_>,
        paths: &mut BTreeMap<String, &'n str>,
        key_sets: &mut KeySets,
    ) -> Option<Source> {
        let source_name = SourceName::parse(name).map_err(|message| section.error("", message)).ok();
        let profile = section.want("profile", |name| self.profile(name));
        let path = section.want("path", path);
        if let Some(path) = &path
            && let Some(other) = paths.insert(path.clone(), name)
        {
            section.error("path", format!("is the path of sources.{other} too; each source needs its own"));
        }
        let allow = section.list("allow", Networks::parse);
        let wanted = Wanted::new(section.list("events", |pattern| Ok(pattern.to_owned())));
        let secrets = secrets(&mut section);
        let params = section.subsection("params").map(Section::texts).unwrap_or_default();
        let destination = self.destination(&mut section, profile);
        let judge = profile.and_then(|profile| judge(profile, &section, &secrets?, &params, key_sets));
        section.finish();
        let judge = judge?;
        Some(Source {
            name: source_name?,
            path: path?,
            allowlist: Allowlist::new(allow.into_iter().collect()),
            single_headers: judge.single_headers,
            limits: self.limits.clone(),
            authenticator: judge.authenticator,
            secrets: judge.secrets,
            identity: judge.identity,
            wanted,
            statuses: Statuses::new(&profile?.answers),
            destination: destination?,
        })
    }

    fn profile(&self, name: &str) -> Result<&Profile, String> {
        self.profiles.get(name).ok_or_else(|| {
            let names = || self.profiles.iter().map(|(name, _)| name);
            match closest(name, names()) {
                Some(known) => format!("there is no profile {name:?}; did you mean {known:?}?"),
                None => format!("there is no profile {name:?}; there are {}", names().collect::<Vec<_>>().join(", ")),
            }
        })
    }

    fn destination(&self, section: &mut Section<'_>, profile: Option<&Profile>) -> Option<Destination> {
        const FORMS: &str = "write deliver.upstream = { url = \"…\" } or deliver.redis-stream = { key = \"…\" }";
        let Some(mut deliver) = section.subsection("deliver") else {
            section.error("deliver", format!("is missing: where do events go? {FORMS}"));
            return None;
        };
        let upstream = deliver.subsection("upstream").map(|upstream| self.upstream(upstream, profile));
        let stream = deliver.subsection("redis-stream").map(|stream| self.stream(stream));
        let destination = match (upstream, stream) {
            (Some(upstream), None) => upstream,
            (None, Some(stream)) => stream,
            (None, None) => {
                section.error("deliver", format!("says nothing that is known; {FORMS}"));
                None
            }
            (Some(_), Some(_)) => {
                section.error("deliver", "names two destinations; a source has one");
                None
            }
        };
        deliver.finish();
        destination
    }

    fn upstream(&self, mut section: Section<'_>, profile: Option<&Profile>) -> Option<Destination> {
        let target = section.want("url", Target::parse);
        let said = section.may("timeout", duration);
        let deadline = profile.and_then(|profile| profile.facts.deadline);
        let usual = deadline.map_or(UPSTREAM_TIMEOUT, |deadline| deadline.saturating_sub(MARGIN).min(UPSTREAM_TIMEOUT));
        let timeout = said.unwrap_or_else(|| usual.max(MARGIN));
        if let Some(deadline) = deadline.filter(|deadline| timeout >= *deadline) {
            section.warning(
                "timeout",
                format!(
                    "is not shorter than the {deadline:?} that the provider waits: it gives up and sends again first"
                ),
            );
        }
        if let Some(lease) = self.store.map(|store| store.terms.lease).filter(|lease| timeout >= *lease) {
            section.error(
                "timeout",
                format!("is not shorter than store.lease ({lease:?}): the claim would end during the delivery"),
            );
        }
        section.finish();
        Some(Destination::Upstream(target?, timeout))
    }

    fn stream(&self, mut section: Section<'_>) -> Option<Destination> {
        let key =
            section.want("key", |key| if key.is_empty() { Err("is empty".to_owned()) } else { Ok(key.to_owned()) });
        let maxlen = section.may("maxlen", count(1, usize::MAX));
        if let Some(StoreKind::Memory | StoreKind::Sqlite(_)) = self.store.map(|store| &store.kind) {
            section.error("", "needs a Redis store, on which the stream lives; set store.url to redis:// or rediss://");
        }
        section.finish();
        let maxlen = maxlen.map(|maxlen| u64::try_from(maxlen).unwrap_or(u64::MAX));
        Some(Destination::RedisStream(Stream { key: key?, maxlen }))
    }
}

/// A path as it stands in a request line.
fn path(text: &str) -> Result<String, String> {
    let sendable = text.parse::<http::Uri>().is_ok_and(|uri| uri.authority().is_none() && uri.path() == text);
    if text.starts_with('/') && sendable {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a path such as \"/webhooks/github\", without query and without spaces"))
}

/// The secrets; `None` when one of them cannot be had.
fn secrets(section: &mut Section<'_>) -> Option<Vec<Secret>> {
    let references = section.list("secrets", |text| Ok(SecretRef::parse(text)));
    let mut secrets = Vec::with_capacity(references.len());
    let mut complete = true;
    for (position, reference) in references.into_iter().enumerate() {
        if let Ok(SecretRef::Plain(_)) = reference {
            section.warning("secrets", format!("number {}: a plain secret is for local trials only", position + 1));
        }
        match reference.and_then(|reference| reference.load()) {
            Ok(secret) => secrets.push(secret),
            Err(message) => {
                section.error("secrets", format!("number {}: {message}", position + 1));
                complete = false;
            }
        }
    }
    complete.then_some(secrets)
}

/// What a profile becomes with the secrets and parameters of a source.
struct Judge {
    authenticator: Authenticator,
    secrets: usize,
    identity: Identity,
    single_headers: Vec<http::HeaderName>,
}

fn judge(
    profile: &Profile,
    section: &Section<'_>,
    secrets: &[Secret],
    params: &[(&str, String)],
    key_sets: &mut KeySets,
) -> Option<Judge> {
    let params = complete(profile, section, params);
    match (profile.needs_secrets(), secrets.is_empty()) {
        (true, true) => {
            section.error("secrets", "is missing: this profile verifies with a secret, such as [\"env:NAME\"]");
        }
        (false, false) => section.error("secrets", "is not used by this profile; remove it"),
        _ => {}
    }
    if profile.needs_secrets() == secrets.is_empty() {
        return None;
    }
    let mut pointers = Pointers::default();
    let scheme = match &profile.auth {
        profile::Auth::Hmac(said) => match Hmac::new(said, secrets, &mut pointers) {
            Ok(hmac) => Scheme::Hmac(hmac),
            Err(wrong) => {
                for (position, message) in wrong {
                    section.error("secrets", format!("number {} {message}", position + 1));
                }
                return None;
            }
        },
        profile::Auth::Jwt(said) => Scheme::Jwt(jwt(said, section, &params?, key_sets)?),
    };
    let freshness =
        profile.timestamp.as_ref().map(|said| Freshness::new(said, profile.signs_timestamp(), &mut pointers));
    let identity = Identity::new(&profile.event, &mut pointers);
    let covers_id = profile.covers(&profile.event.id);
    let authenticator = Authenticator { scheme, freshness, pointers, covers_id };
    let mut single_headers = authenticator.headers();
    single_headers.extend(identity.headers().cloned());
    Some(Judge { authenticator, secrets: secrets.len(), identity, single_headers })
}

/// The parameters that the profile asks for, with its defaults; `None` when one is missing.
fn complete<'p>(
    profile: &'p Profile,
    section: &Section<'_>,
    given: &[(&str, String)],
) -> Option<HashMap<&'p str, String>> {
    for (name, _) in given.iter().filter(|(name, _)| !profile.params.contains_key(*name)) {
        let known: Vec<_> = profile.params.keys().map(String::as_str).collect();
        let hint = match known.as_slice() {
            [] => "it takes none".to_owned(),
            known => format!("it takes {}", known.join(", ")),
        };
        section.error(&format!("params.{name}"), format!("is not a parameter of this profile; {hint}"));
    }
    let mut values = HashMap::new();
    for (name, param) in &profile.params {
        let said = given.iter().find(|(given, _)| given == name).map(|(_, value)| value.clone());
        match said.or_else(|| param.default.clone()) {
            Some(value) if !value.is_empty() => drop(values.insert(name.as_str(), value)),
            _ => section.error(&format!("params.{name}"), format!("is missing: {}", param.about)),
        }
    }
    if values.len() < profile.params.len() {
        return None;
    }
    // A default may be made of other parameters: {issuer}.
    let filled = values.iter().map(|(name, value)| {
        let value =
            values.iter().fold(value.clone(), |text, (other, value)| text.replace(&format!("{{{other}}}"), value));
        (*name, value)
    });
    Some(filled.collect())
}

fn jwt(
    said: &profile::Jwt,
    section: &Section<'_>,
    params: &HashMap<&str, String>,
    key_sets: &mut KeySets,
) -> Option<Jwt> {
    let param = |name: &str| params.get(name).cloned().unwrap_or_default();
    match JwksUrl::parse(&param("jwks_url")) {
        Ok(url) => {
            let jwks = key_set(url, said.algorithm, key_sets);
            Some(Jwt::new(said, param("issuer"), param("audience"), jwks))
        }
        Err(message) => {
            section.error("params.jwks_url", message);
            None
        }
    }
}

fn key_set(url: JwksUrl, algorithm: Algorithm, key_sets: &mut KeySets) -> Arc<Jwks> {
    let made = key_sets.entry((url.clone(), algorithm.title())).or_insert_with(|| Arc::new(Jwks::new(url, algorithm)));
    Arc::clone(made)
}
