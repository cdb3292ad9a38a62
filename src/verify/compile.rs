//! Compiles a profile with the secrets and parameters of a source into an authenticator, handshakes and the identity of
//! events.

use std::time::Duration;

use crate::base::secret::Secret;
use crate::extract::condition::Condition;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::extract::params::Params;
use crate::extract::template::Context;
use crate::profile;
use crate::profile::Combination;
use crate::profile::Location;
use crate::profile::Profile;
use crate::profile::Reference;
use crate::profile::ReplayGuard;
use crate::verify::Authenticator;
use crate::verify::Freshness;
use crate::verify::KeyError;
use crate::verify::KeyMaterial;
use crate::verify::KeySets;
use crate::verify::Member;
use crate::verify::Scheme;
use crate::verify::handshake::Handshakes;
use crate::verify::identity::Identity;

/// A profile compiled with the secrets and parameters of a source.
#[derive(Debug)]
pub struct RequestVerifier {
    /// Verifies requests.
    pub authenticator: Authenticator,
    /// Answers handshakes.
    pub handshakes: Handshakes,
    /// Reads the identity of events.
    pub identity: Identity,
    /// The headers that all three read, each of which may occur only once; sorted.
    pub single_headers: Vec<http::HeaderName>,
    /// Whether the replay guard is needed: the signature does not cover the event's id, and there is no nonce.
    pub guarded: bool,
    /// Whether an attacker can change an event's type, because no signature covers it.
    pub type_unsigned: bool,
}

/// How a source recognises replays.
#[derive(Debug, Clone, Copy)]
pub struct ReplayPolicy {
    /// How long dedupe records are kept.
    pub ttl: Duration,
    /// The replay guard; the profile's when absent.
    pub guard: Option<ReplayGuard>,
    /// Whether only some types of events are delivered.
    pub selects: bool,
    /// Whether these types are all names without wildcards, so that their number is bounded.
    pub names_types: bool,
}

impl ReplayPolicy {
    /// The settings of a source that delivers these types of events.
    pub fn new(ttl: Duration, guard: Option<ReplayGuard>, events: &[String]) -> Self {
        let pattern = |name: &String| name.contains(['*', '?']);
        Self { ttl, guard, selects: !events.is_empty(), names_types: !events.is_empty() && !events.iter().any(pattern) }
    }
}

impl RequestVerifier {
    /// Compiles a profile with these secrets and complete parameters.
    ///
    /// # Errors
    /// All secrets and parameters that do not fit, each with the key of the source.
    pub fn new(
        profile: &Profile,
        secrets: &[Secret],
        params: &Params,
        replays: ReplayPolicy,
        key_sets: &mut KeySets,
    ) -> Result<Self, Vec<KeyError>> {
        let guard = replays.guard.unwrap_or(profile.event.replay_guard);
        let mut plan = ExtractionPlan::default();
        plan.json_optional = profile.event.id.works_without_json();
        plan.json_only = profile.limits.json;
        let material = KeyMaterial::new(secrets, params, profile.keys(), &mut plan, key_sets);
        let mut members = compile_members(profile, material)?;
        let guarded = enable_guard(profile, &mut members, guard, replays.ttl) && profile.event.nonce.is_none();
        let kind = profile.event.kind.as_ref();
        let type_unsigned = kind.is_some_and(|kind| uncovered(profile, &members, kind).contains(&true));
        let context = Context { params, signature: None, key: secrets.first().map(Secret::expose) };
        let timed = timed(profile, &members);
        let own_carriers = own_carriers(&members);
        let members: Vec<_> = members
            .into_iter()
            .zip(timed.into_iter().zip(own_carriers))
            .map(|((spec, scheme), (timed, has_own_carrier))| Member {
                position: profile.auth.members.iter().take_while(|member| !std::ptr::eq(*member, spec)).count(),
                when: Condition::all(&spec.when, context, &mut plan),
                check: Condition::all(&spec.check, context, &mut plan),
                scheme,
                timed,
                has_own_carrier,
            })
            .collect();
        let authenticator = Authenticator {
            combination: profile.auth.combination,
            members,
            require: Condition::all(&profile.require, context, &mut plan),
            freshness: profile
                .timestamp
                .as_ref()
                .map(|spec| Freshness::new(spec, profile.signs_timestamp().then_some(replays.ttl), &mut plan)),
            plan: ExtractionPlan::default(),
            json_first: false,
            compressed: profile.signed_when_compressed(),
            decompress_first: profile.signs_before_compression(),
        };
        let key = handshake_key(profile, secrets);
        let context = Context { key: key.as_ref().map(|key| key.as_slice()), ..context };
        let handshakes = Handshakes::new(&profile.handshakes, context, &mut plan)
            .map_err(|message| vec![("params".to_owned(), message)])?;
        // With the guard `content+type`, the same content with another type is another event.
        let recognised = profile.event.id != Reference::Unique && (!guarded || guard == ReplayGuard::Content);
        let notes_ignored = replays.selects && type_unsigned && recognised;
        let identity = Identity::new(profile, guard, notes_ignored, params, &mut plan);
        let json_first = authenticator.reads_json();
        let authenticator = Authenticator { plan, json_first, ..authenticator };
        let single_headers = [authenticator.headers(), identity.headers(), handshakes.headers()].concat();
        let mut verifier = Self { authenticator, handshakes, identity, single_headers, guarded, type_unsigned };
        verifier.sort_headers();
        Ok(verifier)
    }

    /// The same for a source that delivers the events with the same value at this location in order.
    #[must_use]
    pub fn ordered(mut self, order: &Location) -> Self {
        let order = Field::new(order, &mut self.authenticator.plan);
        self.single_headers.extend(order.headers());
        self.sort_headers();
        self.identity.set_order(order);
        self
    }

    fn sort_headers(&mut self) {
        self.single_headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        self.single_headers.dedup();
    }
}

/// Compiles the members of the profile, and drops those without a key.
fn compile_members<'p>(
    profile: &'p Profile,
    mut material: KeyMaterial<'_>,
) -> Result<Vec<(&'p profile::Member, Scheme)>, Vec<KeyError>> {
    let mut members = Vec::new();
    let mut errors = Vec::new();
    for spec in &profile.auth.members {
        match Scheme::new(&spec.scheme, &mut material) {
            Ok(scheme) => members.push((spec, scheme)),
            Err(error) => errors.push(error),
        }
    }
    for (at, message) in material.unusable() {
        errors.push(("secrets".to_owned(), format!("number {} {message}", at + 1)));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    with_keys(profile, members)
}

/// Makes the members whose proof does not cover the event's id return the digest of what is signed, for the replay
/// guard. Returns whether there are any.
fn enable_guard(
    profile: &Profile,
    members: &mut [(&profile::Member, Scheme)],
    guard: ReplayGuard,
    ttl: Duration,
) -> bool {
    let unguarded = uncovered(profile, members, &profile.event.id);
    for ((_, scheme), unguarded) in members.iter_mut().zip(&unguarded) {
        let digest = *unguarded && guard != ReplayGuard::Off;
        match scheme {
            Scheme::Signature(signature) => signature.digest_signed = digest,
            Scheme::Jwt(jwt) if jwt.binds_body() => {
                jwt.digest_signed = digest;
                jwt.issued_within = Some(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
            }
            // They sign nothing of the request.
            Scheme::Jwt(_) | Scheme::Token(_) => {}
        }
    }
    unguarded.contains(&true)
}

/// For each member, whether it signs the request but does not cover this reference.
fn uncovered(profile: &Profile, members: &[(&profile::Member, Scheme)], reference: &Reference) -> Vec<bool> {
    let covers = |spec: &profile::Member| profile.covers_all(&spec.scheme, reference);
    let covered = profile.auth.combination == Combination::All && members.iter().any(|(spec, _)| covers(spec));
    let proves = |scheme: &Scheme| match scheme {
        Scheme::Signature(_) => true,
        Scheme::Jwt(jwt) => jwt.binds_body(),
        Scheme::Token(_) => false,
    };
    members.iter().map(|(spec, scheme)| proves(scheme) && !covered && !covers(spec)).collect()
}

/// The members that have keys.
///
/// # Errors
/// A member that must verify has none, or no member has any.
fn with_keys<'p>(
    profile: &'p Profile,
    members: Vec<(&'p profile::Member, Scheme)>,
) -> Result<Vec<(&'p profile::Member, Scheme)>, Vec<KeyError>> {
    let missing = |spec: &profile::Member| {
        let about = spec.scheme.key(profile.fetches_keys()).and_then(|key| key.about.as_deref());
        let about = about.map(|about| format!(" ({about})")).unwrap_or_default();
        vec![("secrets".to_owned(), format!("has none for {}{about}", spec.scheme.title()))]
    };
    let all = profile.auth.combination == Combination::All;
    if all && let Some((spec, _)) = members.iter().find(|(spec, scheme)| !spec.optional && !scheme.has_keys()) {
        return Err(missing(spec));
    }
    let (with, without): (Vec<_>, Vec<_>) = members.into_iter().partition(|(_, scheme)| scheme.has_keys());
    match without.first() {
        Some((spec, _)) if with.is_empty() => Err(missing(spec)),
        _ => Ok(with),
    }
}

/// For each member, whether the timestamp is checked: for those that sign it, or for all when none does.
fn timed(profile: &Profile, members: &[(&profile::Member, Scheme)]) -> Vec<bool> {
    let signs = |spec: &profile::Member| {
        profile.timestamp.as_ref().is_some_and(|timestamp| profile.signs(&spec.scheme, &timestamp.from))
    };
    let signs: Vec<_> = profile.auth.members.iter().map(signs).zip(&profile.auth.members).collect();
    let any = signs.iter().any(|(signs, _)| *signs);
    members
        .iter()
        .map(|(spec, _)| !any || signs.iter().any(|(signs, member)| *signs && std::ptr::eq(*member, *spec)))
        .collect()
}

/// For each member, whether no other member's proof has the same carrier.
fn own_carriers(members: &[(&profile::Member, Scheme)]) -> Vec<bool> {
    let same = |one: &Scheme, other: &Scheme| one.field().shares_carrier(other.field());
    members.iter().map(|(_, one)| members.iter().filter(|(_, other)| same(one, other)).count() == 1).collect()
}

/// The key that the replies of handshakes are signed with.
fn handshake_key(profile: &Profile, secrets: &[Secret]) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let secret = secrets.first()?;
    let form = profile.keys().next()?;
    crate::verify::key_bytes(form, secret).ok()
}
