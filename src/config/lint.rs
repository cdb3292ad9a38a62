//! Warnings about a source: settings that are allowed, but weak or probably a mistake.

use std::time::Duration;

use base64::Engine as _;
use bytesize::ByteSize;
use http::Uri;

use super::section::Section;
use crate::base::secret::Secret;
use crate::base::secret::stray_end;
use crate::extract::params::Params;
use crate::profile::KeyEncoding;
use crate::profile::KeyForm;
use crate::profile::Piece;
use crate::profile::Profile;
use crate::profile::Reference;
use crate::profile::ReplayGuard;
use crate::profile::Scheme;
use crate::profile::SignatureAlgorithm;
use crate::profile::TimestampPolicy;
use crate::verify;
use crate::verify::compile::ReplayPolicy;
use crate::verify::compile::RequestVerifier;

/// Shorter static secrets can be guessed. In bytes.
pub(super) const MIN_SECRET_LEN: usize = 16;

/// Warns of a provider whose signed texts are ambiguous, with the reasons that the profile gives.
pub(super) fn readings(section: &Section<'_>, profile: &Profile) {
    let mut spec: Vec<_> = profile.ambiguities().collect();
    spec.dedup();
    for why in spec {
        section
            .warning("profile", format!("means a provider whose signed texts can be read in more than one way: {why}"));
    }
}

/// Warns of weak and mistaken secrets. `own` tells whether the profile is the operator's, and so may be wrong about
/// them.
pub(super) fn secrets(section: &Section<'_>, profile: &Profile, secrets: &[Secret], own: bool) {
    for (at, secret) in secrets.iter().enumerate() {
        let number = at + 1;
        if let Some(twin) = secrets.iter().take(at).position(|other| other.expose() == secret.expose()) {
            section.warning("secrets", format!("number {number}: is the same as number {}", twin + 1));
        }
        if profile.schemes().any(|scheme| is_short(profile, scheme, secret)) {
            section.warning(
                "secrets",
                format!(
                    "number {number}: has less than {MIN_SECRET_LEN} bytes, which can be guessed by whoever may send; choose a longer \
                     one"
                ),
            );
        }
        // PEM ends with a line break.
        let text = std::str::from_utf8(secret.expose()).ok().filter(|text| !text.starts_with("-----BEGIN "));
        if let Some(stray) = text.filter(|_| !profile.keys_are_public()).and_then(stray_end) {
            section.warning("secrets", format!("number {number}: {}", stray_warning(stray)));
        }
        if own && profile.schemes().any(|scheme| is_taken_raw(scheme, secret)) {
            section.warning(
                "secrets",
                format!(
                    "number {number}: is used as it stands, with its whsec_: is that intended? Secrets of Standard Webhooks \
                     are decoded; their profile says key = {{ encoding = \"base64\", prefix = [\"whsec_\", \
                     \"v1,whsec_\"] }}"
                ),
            );
        }
    }
}

/// The warning about a result of [`stray_end`].
pub(super) fn stray_warning(stray: &str) -> String {
    format!(
        "begins or ends with {stray}, which becomes part of it: does it belong there? `echo`, files of variables and quotation \
         marks that no shell takes away leave such things"
    )
}

/// Whether the provider sends the secret itself (a token), and it is short.
fn is_short(profile: &Profile, scheme: &Scheme, secret: &Secret) -> bool {
    let Scheme::Token(token) = scheme else { return false };
    // A secret with the prefix of another scheme is not this token.
    let has_prefix = |key: &KeyForm| key.only_prefixed && key.without_prefix(secret.expose()).is_some();
    let is_token = token.key.only_prefixed || !profile.keys().any(has_prefix);
    is_token && verify::key_bytes(&token.key, secret).is_ok_and(|bytes| bytes.len() < MIN_SECRET_LEN)
}

/// Whether the secret looks like one of Standard Webhooks, and is not decoded like one.
fn is_taken_raw(scheme: &Scheme, secret: &Secret) -> bool {
    let Scheme::Signature(signature) = scheme else { return false };
    let raw = matches!(signature.algorithm, SignatureAlgorithm::Hmac(_))
        && matches!(signature.key.encoding, None | Some(KeyEncoding::Text))
        && signature.key.prefix.is_empty();
    let text = secret.expose().strip_prefix(b"v1,").unwrap_or_else(|| secret.expose());
    let behind = text.strip_prefix(b"whsec_").filter(|_| raw);
    let key = behind.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    key.is_some_and(|key| (24..=64).contains(&key.len()))
}

/// Warns of mistaken parameters. `params` are complete.
pub(super) fn params(section: &Section<'_>, profile: &Profile, params: &Params) {
    for name in profile.params.keys() {
        if let Some(stray) = params.get(name).and_then(|value| stray_end(value)) {
            section.warning(&format!("params.{name}"), stray_warning(stray));
        }
    }
    let Some(url) = params.get("url") else { return };
    let parsed = url.parse::<Uri>().ok();
    let web = parsed.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    let Some(uri) = web else {
        return section.warning(
            "params.url",
            "is no address such as \"https://hooks.example/path\", as which the provider knows the endpoint and signs it",
        );
    };
    let signs_query = |scheme: &Scheme| {
        let Scheme::Signature(signature) = scheme else { return false };
        signature.signed.iter().any(|signed| signed.walk().any(|piece| *piece == Piece::Query))
    };
    if uri.query().is_some() && profile.schemes().any(signs_query) {
        section.warning(
            "params.url",
            "has a query, and that of each request is signed behind it as well: leave the query out",
        );
    }
}

/// Warns of a filter by type where the events have none.
pub(super) fn events(section: &Section<'_>, profile: &Profile, events: &[String]) {
    if profile.event.kind.is_none() && !events.is_empty() {
        section.warning("events", "chooses by type, and this profile has none: everything is delivered");
    }
}

/// Warns of replay guards that have no effect, or let replays through.
pub(super) fn replays(section: &Section<'_>, profile: &Profile, verifier: &RequestVerifier, replays: ReplayPolicy) {
    let guard = replays.guard.unwrap_or(profile.event.replay_guard);
    if !verifier.guarded {
        if replays.guard.is_some() {
            section.warning(
                "replay_guard",
                "decides nothing with this profile: it is for those whose signature covers something, but not the event's id",
            );
        }
        return;
    }
    match guard {
        ReplayGuard::Off => section.warning(
            "replay_guard",
            "is \"off\": the event's id is not signed, so that whoever captures a request can have it delivered again, under \
             as many other ids as they like",
        ),
        ReplayGuard::ContentAndType if verifier.type_unsigned && !replays.names_types => section.warning(
            "events",
            "is empty or has a pattern, and with replay_guard = \"content+type\" what was captured can be delivered once \
             more under each type that somebody makes up, since types are not signed: list those that the app takes",
        ),
        ReplayGuard::ContentAndType | ReplayGuard::Content => {}
    }
}

/// Warns when the provider is known to send larger bodies than the source takes.
pub(super) fn largest_body(section: &Section<'_>, profile: &Profile, max_body: usize) {
    let max_body = ByteSize(u64::try_from(max_body).unwrap_or(u64::MAX));
    let Some(largest) = profile.largest_body().filter(|largest| *largest > max_body) else { return };
    let [max_body, largest] = [max_body, largest].map(|size| size.to_string().replace(".0 ", " "));
    let written = largest.replace(' ', "");
    section.warning(
        "max_body",
        format!(
            "is {max_body}, as much as is taken here, and the provider sends up to {largest}: larger events are refused with \
             413 and lost; write max_body = \"{written}\", or less if that is enough"
        ),
    );
}

/// Warns when the provider retries for longer than events are remembered.
pub(super) fn horizon(section: &Section<'_>, profile: &Profile, ttl: Duration) {
    let Some(horizon) = profile.facts.horizon.filter(|horizon| *horizon > ttl) else { return };
    // With an enforced timestamp, each attempt is signed anew.
    let signed_anew = profile.timestamp.as_ref().is_none_or(|timestamp| timestamp.policy == TimestampPolicy::Enforce);
    let consequence = if !signed_anew && profile.signs_timestamp() {
        "an attempt whose signed time is older than that is refused"
    } else if profile.event.id != Reference::Unique {
        "an event may be forgotten and delivered twice"
    } else {
        return;
    };
    section.warning(
        "profile",
        format!(
            "means a provider that tries again for up to {}, longer than store.ttl ({}): {consequence}",
            humantime::format_duration(horizon),
            humantime::format_duration(ttl)
        ),
    );
}
