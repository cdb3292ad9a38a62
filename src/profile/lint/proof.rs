//! Warnings about proofs that prove less than they seem to: weak schemes, ambiguous signatures, certificates from any
//! path, unsigned times.

use crate::profile::Combination;
use crate::profile::ConfigPath;
use crate::profile::Finding;
use crate::profile::Hash;
use crate::profile::Member;
use crate::profile::Profile;
use crate::profile::Scheme;
use crate::profile::SignatureAlgorithm;
use crate::profile::TimestampPolicy;

pub(super) fn lints(profile: &Profile) -> Vec<Finding> {
    let members = profile.auth.members.iter().enumerate().filter(|(_, member)| may_decide(profile, member));
    let weak = members.filter_map(|(at, member)| weak_scheme(at, &member.scheme));
    weak.chain(ambiguous(profile)).chain(certificates_of_any_path(profile)).chain(unsigned_time(profile)).collect()
}

fn weak_scheme(at: usize, scheme: &Scheme) -> Option<Finding> {
    let config_path = ConfigPath::member(at, scheme.table());
    let (config_path, message) = match scheme {
        Scheme::Signature(signature) => match &signature.algorithm {
            SignatureAlgorithm::Hmac(Hash::Sha1) => (
                config_path.key("hash"),
                "is SHA-1, which still holds inside HMAC; where the provider offers another, take that",
            ),
            SignatureAlgorithm::Rsa(Hash::Sha1) | SignatureAlgorithm::Certificate(Hash::Sha1, _) => (
                config_path.key("hash"),
                "is SHA-1, of which collisions can be made; where the provider offers another, take that",
            ),
            SignatureAlgorithm::Hmac(_)
            | SignatureAlgorithm::Ed25519
            | SignatureAlgorithm::Ecdsa(_)
            | SignatureAlgorithm::Rsa(_)
            | SignatureAlgorithm::Certificate(..) => {
                return None;
            }
        },
        Scheme::Token(_) | Scheme::Basic(_) => (
            config_path,
            "is a secret that is sent along: it proves nothing about the request, and whoever has seen one can send \
             others. Where the provider offers signatures, take those; set allow as well",
        ),
        Scheme::Jwt(jwt) if jwt.body.is_none() => (
            config_path,
            "does not cover the body: whoever gets hold of a token can send anything until it expires. Set allow as well",
        ),
        Scheme::Jwt(_) => return None,
    };
    Some(Finding::new(config_path, message))
}

/// Whether the member is more than an addition to a signature, which proves the request anyway.
fn may_decide(profile: &Profile, member: &Member) -> bool {
    let has_signature = profile.auth.combination == Combination::All
        && profile.schemes().any(|scheme| matches!(scheme, Scheme::Signature(_)));
    matches!(member.scheme, Scheme::Signature(_)) || !has_signature
}

/// The reasons that the profile gives for ambiguous signed texts.
fn ambiguous(profile: &Profile) -> impl Iterator<Item = Finding> {
    profile.auth.members.iter().enumerate().filter_map(|(at, member)| {
        let Scheme::Signature(signature) = &member.scheme else { return None };
        let why = signature.ambiguous.as_ref()?;
        let config_path = ConfigPath::member(at, member.scheme.table()).key("ambiguous");
        Some(Finding::new(
            config_path,
            format!("says why it does no harm that what is signed can be read in more than one way: {why}"),
        ))
    })
}

/// Certificates that may be at any path of an allowed host.
fn certificates_of_any_path(profile: &Profile) -> impl Iterator<Item = Finding> {
    profile.auth.members.iter().enumerate().filter_map(|(at, member)| match &member.scheme {
        Scheme::Signature(signature) => match &signature.algorithm {
            SignatureAlgorithm::Certificate(_, certificate) if certificate.path.is_none() => Some(Finding::new(
                ConfigPath::member(at, "rsa").key("certificate"),
                "says no path: any file on its hosts will do, and whoever can put one there signs as the provider; write \
                 path = \"/certificates/*\"",
            )),
            SignatureAlgorithm::Certificate(..)
            | SignatureAlgorithm::Hmac(_)
            | SignatureAlgorithm::Ed25519
            | SignatureAlgorithm::Ecdsa(_)
            | SignatureAlgorithm::Rsa(_) => None,
        },
        Scheme::Token(_) | Scheme::Basic(_) | Scheme::Jwt(_) => None,
    })
}

fn unsigned_time(profile: &Profile) -> Option<Finding> {
    let enforced = profile.timestamp.as_ref().is_some_and(|timestamp| timestamp.policy == TimestampPolicy::Enforce);
    (enforced && !profile.signs_timestamp()).then(|| {
        Finding::new(
            ConfigPath::to(["timestamp", "tolerance"]),
            "is enforced on a time that no signature covers: it keeps out late retries, but no replay, which can \
             bring any time along",
        )
    })
}
