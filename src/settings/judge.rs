//! Joins what a profile asks for with the secrets and parameters of a source.

use super::section::Section;
use crate::auth::Authenticator;
use crate::auth::Freshness;
use crate::auth::KeySets;
use crate::auth::Material;
use crate::auth::Member;
use crate::auth::Misfit;
use crate::auth::Scheme;
use crate::condition::Condition;
use crate::event::Identity;
use crate::field::Field;
use crate::field::Wants;
use crate::handshake::Handshakes;
use crate::params;
use crate::params::Params;
use crate::profile;
use crate::profile::Combination;
use crate::profile::Place;
use crate::profile::Profile;
use crate::secret::Secret;
use crate::template::Context;

/// What a profile becomes with the secrets and parameters of a source.
#[derive(Debug)]
pub struct Judge {
    /// How requests prove their origin.
    pub authenticator: Authenticator,
    /// The probes that are answered.
    pub handshakes: Handshakes,
    /// Where events carry their identity.
    pub identity: Identity,
    /// The headers that all of them read, each of which may be there once.
    pub single_headers: Vec<http::HeaderName>,
}

impl Judge {
    /// Makes a profile ready with these secrets and complete parameters.
    ///
    /// # Errors
    /// Everything that does not fit, by the key of the source.
    pub fn new(
        profile: &Profile,
        secrets: &[Secret],
        params: &Params,
        key_sets: &mut KeySets,
    ) -> Result<Self, Vec<Misfit>> {
        let mut wants = Wants::default();
        wants.json_optional = profile.event.id.works_without_json();
        wants.json_only = profile.limits.json;
        let members = members(profile, Material::new(secrets, params, profile.keys(), &mut wants, key_sets))?;
        let context = Context { params, signature: None, key: secrets.first().map(Secret::expose) };
        let timed = timed(profile, &members);
        let alone = alone(&members);
        let members: Vec<_> = members
            .into_iter()
            .zip(timed.into_iter().zip(alone))
            .map(|((said, scheme), (timed, alone))| Member {
                position: profile.auth.members.iter().take_while(|member| !std::ptr::eq(*member, said)).count(),
                when: Condition::all(&said.when, context, &mut wants),
                check: Condition::all(&said.check, context, &mut wants),
                scheme,
                timed,
                alone,
            })
            .collect();
        let authenticator = Authenticator {
            combination: profile.auth.combination,
            members,
            require: Condition::all(&profile.require, context, &mut wants),
            freshness: profile
                .timestamp
                .as_ref()
                .map(|said| Freshness::new(said, profile.signs_timestamp(), &mut wants)),
            wants: Wants::default(),
            json_first: false,
        };
        let key = handshake_key(profile, secrets);
        let context = Context { key: key.as_ref().map(|key| key.as_slice()), ..context };
        let handshakes = Handshakes::new(&profile.handshakes, context, &mut wants)
            .map_err(|message| vec![("params".to_owned(), message)])?;
        let proofs: Vec<_> = profile.schemes().map(profile::Scheme::proof).collect();
        let identity = Identity::new(&profile.event, &proofs, params, &mut wants);
        let json_first = authenticator.reads_json();
        let authenticator = Authenticator { wants, json_first, ..authenticator };
        let mut single_headers = authenticator.headers();
        single_headers.extend(identity.headers());
        single_headers.extend(handshakes.headers());
        single_headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        single_headers.dedup();
        Ok(Self { authenticator, handshakes, identity, single_headers })
    }
}

impl Judge {
    /// The same for a source that delivers events in order in which this place reads the same.
    #[must_use]
    pub fn ordered(mut self, order: &Place) -> Self {
        let order = Field::new(order, &mut self.authenticator.wants);
        self.single_headers.extend(order.headers());
        self.single_headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        self.single_headers.dedup();
        self.identity.set_order(order);
        self
    }
}

/// The members that there are keys for, with them.
fn members<'p>(
    profile: &'p Profile,
    mut material: Material<'_>,
) -> Result<Vec<(&'p profile::Member, Scheme)>, Vec<Misfit>> {
    let mut members = Vec::new();
    let mut misfits = Vec::new();
    for said in &profile.auth.members {
        match Scheme::new(&said.scheme, &mut material) {
            Ok(scheme) => members.push((said, scheme)),
            Err(misfit) => misfits.push(misfit),
        }
    }
    for (at, message) in material.unusable() {
        misfits.push(("secrets".to_owned(), format!("number {} {message}", at + 1)));
    }
    if !misfits.is_empty() {
        return Err(misfits);
    }
    let mut members = working(profile, members)?;
    let covered = members.iter().any(|(said, _)| profile.covers_all(&said.scheme, &profile.event.id));
    let guarded = |said: &profile::Member| match profile.auth.combination {
        Combination::All => !covered,
        Combination::First => !profile.covers_all(&said.scheme, &profile.event.id),
    };
    for (said, scheme) in &mut members {
        match scheme {
            Scheme::Signature(signature) => signature.digest_signed = guarded(said),
            Scheme::Jwt(jwt) => jwt.digest_signed = jwt.binds_body() && guarded(said),
            // Whoever has seen the secret can send anything under any id.
            Scheme::Token(_) => {}
        }
    }
    Ok(members)
}

/// The members that there are keys for.
fn working<'p>(
    profile: &'p Profile,
    members: Vec<(&'p profile::Member, Scheme)>,
) -> Result<Vec<(&'p profile::Member, Scheme)>, Vec<Misfit>> {
    let missing = |said: &profile::Member| {
        let about = said.scheme.key(profile.fetches_keys()).and_then(|key| key.about.as_deref());
        let about = about.map(|about| format!(" ({about})")).unwrap_or_default();
        vec![("secrets".to_owned(), format!("has none for {}{about}", said.scheme.title()))]
    };
    let all = profile.auth.combination == Combination::All;
    if all && let Some((said, _)) = members.iter().find(|(said, scheme)| !said.optional && !scheme.has_keys()) {
        return Err(missing(said));
    }
    let (working, without): (Vec<_>, Vec<_>) = members.into_iter().partition(|(_, scheme)| scheme.has_keys());
    match without.first() {
        Some((said, _)) if working.is_empty() => Err(missing(said)),
        _ => Ok(working),
    }
}

/// Which members' requests have to be fresh: those that sign the time, or all when none does.
fn timed(profile: &Profile, members: &[(&profile::Member, Scheme)]) -> Vec<bool> {
    let signs = |said: &profile::Member| {
        profile.timestamp.as_ref().is_some_and(|timestamp| profile.covers(&said.scheme, &timestamp.from))
    };
    let signs: Vec<_> = profile.auth.members.iter().map(signs).zip(&profile.auth.members).collect();
    let any = signs.iter().any(|(signs, _)| *signs);
    members
        .iter()
        .map(|(said, _)| !any || signs.iter().any(|(signs, member)| *signs && std::ptr::eq(*member, *said)))
        .collect()
}

/// Which members' proofs have a place that no other member's proof has.
fn alone(members: &[(&profile::Member, Scheme)]) -> Vec<bool> {
    let same = |one: &Scheme, other: &Scheme| one.field().shares_holder(other.field());
    members.iter().map(|(_, one)| members.iter().filter(|(_, other)| same(one, other)).count() == 1).collect()
}

/// The key that the replies of handshakes are signed with.
fn handshake_key(profile: &Profile, secrets: &[Secret]) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let secret = secrets.first()?;
    let form = profile.keys().next()?;
    crate::auth::key_bytes(form, secret).ok()
}

/// The parameters that the profile asks for, with its defaults; `None` when one is missing.
pub(super) fn complete(profile: &Profile, section: &Section<'_>, given: &[(&str, String)]) -> Option<Params> {
    let misfits = match params::complete(profile, given) {
        Ok(params) => return Some(params),
        Err(misfits) => misfits,
    };
    misfits.into_iter().for_each(|(name, message)| section.error(&format!("params.{name}"), message));
    None
}
