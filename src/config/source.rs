//! Reads `[sources.NAME]`, and compiles each source with its profile.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Fingerprints;
use super::SharedLimits;
use super::Skipped;
use super::Store;
use super::again::Running;
use super::client_certificate;
use super::fingerprint::Fingerprinting;
use super::lint;
use super::route::Route;
use super::route::Taken;
use super::secrets::Unusable;
use super::secrets::secrets;
use super::section::Section;
use super::section::size;
use super::section::word;
use super::shared_secrets::SharedSecrets;
use crate::base::problem::Severity;
use crate::base::problem::closest;
use crate::base::secret::Secret;
use crate::extract::params;
use crate::extract::params::Params;
use crate::http::admission::InFlight;
use crate::http::body::Limits;
use crate::http::origin::Allowlist;
use crate::http::origin::Networks;
use crate::profile::Credentials;
use crate::profile::Profile;
use crate::profile::Profiles;
use crate::profile::ReplayGuard;
use crate::source::EventFilter;
use crate::source::Source;
use crate::source::SourceName;
use crate::source::SourceSecret;
use crate::source::reply::Answers;
use crate::verify::KeySets;
use crate::verify::compile::ReplayPolicy;
use crate::verify::compile::RequestVerifier;

/// The state that is shared while sources are read.
pub(super) struct SourceContext<'s> {
    pub(super) profiles: &'s Profiles,
    pub(super) shared_limits: &'s SharedLimits,
    /// `[store]`; absent when it has a problem.
    pub(super) store: Option<&'s Store>,
    /// Whether a listener asks clients for certificates.
    certificates: bool,
    /// The names of the profiles that sources use.
    used: RefCell<BTreeSet<String>>,
    shared_secrets: SharedSecrets,
    /// The gateway that runs while its configuration is read again.
    pub(super) running: Option<Running<'s>>,
    /// What all fingerprints begin with.
    pub(super) trusted: Fingerprinting,
    /// Whether a source is left out when a secret is missing.
    pub(super) skips: bool,
}

/// What was read of all sources.
pub(super) struct Sources {
    pub(super) sources: Vec<Arc<Source>>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) fingerprints: Fingerprints,
    /// The key sets that they use.
    pub(super) key_sets: KeySets,
}

/// What was read of one source: its name, its route, the labels of its secrets, and its limits.
type Parts = (Option<SourceName>, Option<Route>, Option<Vec<SourceSecret>>, Limits, InFlight);

/// What belongs to no one source while all are read.
#[derive(Default)]
struct Collected<'n> {
    /// The names of the sources, by path and host.
    routes: Taken<'n>,
    skipped: Vec<Skipped>,
    fingerprints: Fingerprints,
    key_sets: KeySets,
}

/// The input for the verifier of a source.
pub(super) struct VerificationInput<'g> {
    profile: &'g Profile,
    /// Absent when one of them cannot be loaded.
    pub(super) secrets: Option<&'g [Secret]>,
    params: &'g [(&'g str, String)],
}

impl<'s> SourceContext<'s> {
    pub(super) fn new(
        profiles: &'s Profiles,
        shared_limits: &'s SharedLimits,
        store: Option<&'s Store>,
        certificates: bool,
    ) -> Self {
        let (used, shared_secrets) = (RefCell::default(), SharedSecrets::default());
        let (running, trusted, skips) = (None, Fingerprinting::default(), false);
        Self { profiles, shared_limits, store, certificates, used, shared_secrets, running, trusted, skips }
    }

    /// The same for sources that replace those of a running gateway. `trusted` is what all of them depend on; with
    /// `skips`, sources whose secrets are missing are left out.
    pub(super) fn replacing(self, running: Option<Running<'s>>, trusted: Fingerprinting, skips: bool) -> Self {
        Self { running, trusted, skips, ..self }
    }

    /// The names of the profiles that sources use.
    pub(super) fn into_used(self) -> BTreeSet<String> {
        self.used.into_inner()
    }

    /// All sources and the key sets that they use.
    pub(super) fn sources(&self, sections: &Section<'_>) -> Sources {
        let key_sets = self.running.map(|running| running.current.key_sets.clone()).unwrap_or_default();
        let mut collected = Collected { key_sets, ..Collected::default() };
        let mut sources = Vec::new();
        let named = sections.subsections();
        if named.is_empty() {
            sections.warning("", "there are none, so nothing can be received; `doorward profiles NAME` shows one");
        }
        let count = named.len();
        for (name, section) in named {
            sources.extend(self.source(name, section, count, &mut collected));
        }
        let Collected { skipped, fingerprints, mut key_sets, .. } = collected;
        let used: HashSet<_> =
            sources.iter().flat_map(|source| source.verifier.authenticator.key_sets()).map(Arc::as_ptr).collect();
        key_sets.retain(|_, jwks| used.contains(&Arc::as_ptr(jwks)));
        Sources { sources, skipped, fingerprints, key_sets }
    }

    fn source<'n>(
        &self,
        name: &'n str,
        mut section: Section<'_>,
        count: usize,
        collected: &mut Collected<'n>,
    ) -> Option<Arc<Source>> {
        let source_name = SourceName::parse(name).map_err(|message| section.error("", message)).ok();
        let named = section.required("profile", |name| self.profile(name).map(|profile| (name.to_owned(), profile)));
        let (profile_name, profile) = named.unzip();
        let route = Route::read(&mut section, name, &mut collected.routes);
        let missing = if self.may_skip(name) { Severity::Warning } else { Severity::Error };
        let secrets = secrets(&mut section, profile, missing);
        if let (Err(Unusable::Missing), Severity::Warning, Some(route)) = (&secrets, missing, &route) {
            section.warning("", "is left out until its secrets are there, because on_problem is \"skip-source\"");
            collected.skipped.push(Skipped {
                name: name.to_owned(),
                path: route.path.clone(),
                hosts: route.hosts.clone(),
            });
        }
        let (labels, secrets) = secrets.ok().unzip();
        let params = section.subsection("params").map(Section::texts).unwrap_or_default();
        let input = profile.map(|profile| VerificationInput { profile, secrets: secrets.as_deref(), params: &params });
        if let (Some(input), Some(profile_name)) = (&input, profile_name) {
            let fingerprint = self.fingerprint(&section, input, &profile_name, count);
            collected.fingerprints.insert(name.to_owned(), fingerprint);
            self.used.borrow_mut().insert(profile_name.clone());
            if let Some(same) = self.unchanged(name, fingerprint) {
                self.share_secrets(&section, input);
                return Some(same);
            }
            self.lint(&section, input, &profile_name);
        }
        let (limits, in_flight) = self.shared_limits.for_source(count, self.max_body(&mut section, profile));
        let known = labels.zip(secrets.as_ref()).map(|(labels, secrets)| self.known_secrets(name, labels, secrets));
        let rest = (source_name, route, known, limits, in_flight);
        self.compile(section, input, rest, &mut collected.key_sets).map(Arc::new)
    }

    /// Reads the rest of a source, and compiles it.
    fn compile(
        &self,
        mut section: Section<'_>,
        input: Option<VerificationInput<'_>>,
        (name, route, known_secrets, limits, in_flight): Parts,
        key_sets: &mut KeySets,
    ) -> Option<Source> {
        let profile = input.as_ref().map(|input| input.profile);
        let allow = section.list("allow", Networks::parse);
        let certificate = client_certificate::rule(&mut section, self.certificates);
        let events: Vec<String> = section.list("events", |pattern| Ok(pattern.to_owned()));
        if let Some(profile) = profile {
            lint::events(&section, profile, &events);
        }
        let guard = section.optional("replay_guard", word(&ReplayGuard::ALL.map(|guard| (guard.name(), guard))));
        let rates = self.rates(&mut section, profile);
        let observe = section.optional("verify", word(&[("enforce", false), ("observe", true)]));
        if observe == Some(true) {
            section.warning("verify", "is \"observe\": what cannot be verified is delivered all the same");
        }
        let destination = self.destination(&mut section, profile);
        // Without a valid `[store]` the configuration is refused, so the value does not matter.
        let ttl = self.store.map_or(Duration::MAX, |store| store.terms.ttl);
        let replays = ReplayPolicy::new(ttl, guard, &events);
        let verifier = input.and_then(|input| self.verifier(&section, &input, replays, key_sets));
        section.finish();
        let (destination, order) = destination?;
        let Route { path, hosts } = route?;
        let (verifier, source_name) = (order.iter().fold(verifier?, RequestVerifier::ordered), name?);
        Some(Source {
            answers: answers(profile?, &verifier),
            keyspace: destination.keyspace(source_name.as_str()),
            name: source_name,
            path,
            hosts,
            allowlist: Allowlist::new(allow.into_iter().collect(), certificate),
            limits,
            in_flight,
            rates,
            verifier,
            secrets: known_secrets?,
            credentials: Credentials::of(profile?),
            filter: filter(events, profile?),
            observe: observe == Some(true),
            destination,
        })
    }

    fn share_secrets(&self, section: &Section<'_>, input: &VerificationInput<'_>) {
        if let Some(secrets) = input.secrets.filter(|_| input.profile.needs_secrets()) {
            self.shared_secrets.add(section, input.profile, secrets, input.params);
        }
    }

    /// The limit on bodies: that of the source or else of the server, and no more than the provider sends.
    pub(super) fn max_body(&self, section: &mut Section<'_>, profile: Option<&Profile>) -> usize {
        let configured = section.optional("max_body", size);
        if configured.is_some_and(|configured| configured > self.shared_limits.max_buffered) {
            section
                .error("max_body", "is more than server.max_buffered, so that the largest bodies could never be read");
        }
        let max_body = configured.unwrap_or(self.shared_limits.limits.max_body);
        let Some(profile) = profile else { return max_body };
        // A limit of the source's own is intended.
        if configured.is_none() {
            lint::largest_body(section, profile, max_body);
        }
        let largest = profile.limits.max_body.and_then(|size| usize::try_from(size.as_u64()).ok());
        largest.map_or(max_body, |largest| largest.min(max_body))
    }

    /// Reports warnings about settings that are allowed, but probably mistaken.
    fn lint(&self, section: &Section<'_>, input: &VerificationInput<'_>, name: &str) {
        let profile = input.profile;
        if let Some(secrets) = input.secrets {
            lint::secrets(section, profile, secrets, !self.profiles.is_shipped(name));
        }
        if let Some(store) = self.store {
            lint::horizon(section, profile, store.terms.ttl);
        }
        // For the operator's own profiles, this is among the lints of the profile.
        if self.profiles.is_shipped(name) {
            lint::readings(section, profile);
        }
    }

    fn verifier(
        &self,
        section: &Section<'_>,
        input: &VerificationInput<'_>,
        replays: ReplayPolicy,
        key_sets: &mut KeySets,
    ) -> Option<RequestVerifier> {
        let (profile, secrets) = (input.profile, input.secrets?);
        let params = complete(profile, section, input.params);
        if let Some(params) = &params {
            lint::params(section, profile, params);
        }
        match (profile.needs_secrets(), secrets.is_empty()) {
            (true, false) => self.shared_secrets.add(section, profile, secrets, input.params),
            (false, true) => {}
            (true, true) => {
                section.error("secrets", "is missing: this profile verifies with a secret, such as [\"env:NAME\"]");
                return None;
            }
            (false, false) => {
                section.error("secrets", "is not used by this profile; remove it");
                return None;
            }
        }
        match RequestVerifier::new(profile, secrets, &params?, replays, key_sets) {
            Ok(verifier) => {
                lint::replays(section, profile, &verifier, replays);
                Some(verifier)
            }
            Err(misfits) => {
                misfits.into_iter().for_each(|(key, message)| section.error(&key, message));
                None
            }
        }
    }

    /// The profile of this name.
    pub(super) fn profile(&self, name: &str) -> Result<&'s Profile, String> {
        self.profiles.get(name).ok_or_else(|| {
            if self.profiles.is_broken(name) {
                return "cannot be used: its file has a problem, which is reported there".to_owned();
            }
            let names = || self.profiles.names();
            match closest(name, names()) {
                Some(known) => format!("there is no profile {name:?}; did you mean {known:?}?"),
                None => {
                    format!("there is no profile {name:?}; `doorward profiles` lists the {} there are", names().count())
                }
            }
        })
    }
}

fn answers(profile: &Profile, verifier: &RequestVerifier) -> Answers {
    let methods: Vec<_> = verifier.handshakes.methods().cloned().collect();
    Answers::new(&profile.answers, profile.facts.retried.as_ref(), &methods)
}

/// The filter by event type; it wants everything where the profile's events have no type.
fn filter(events: Vec<String>, profile: &Profile) -> EventFilter {
    EventFilter::new(events.into_iter().filter(|_| profile.event.kind.is_some()))
}

/// The parameters of the profile, with its defaults; `None` when one is missing or not valid.
pub(super) fn complete(profile: &Profile, section: &Section<'_>, input: &[(&str, String)]) -> Option<Params> {
    let misfits = match params::complete(profile, input) {
        Ok(params) => return Some(params),
        Err(misfits) => misfits,
    };
    misfits.into_iter().for_each(|(name, message)| section.error(&format!("params.{name}"), message));
    None
}
