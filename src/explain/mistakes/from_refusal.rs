//! Causes that follow from the refusal itself, and the message for refusals that no mistake explains.

use crate::explain::Case;
use crate::explain::json_styles::MAX_BODY;
use crate::explain::order::sorted;
use crate::explain::token;
use crate::extract::params;
use crate::http::body::Unreadable;
use crate::profile::Scheme;
use crate::source::refusal::Refusal;
use crate::verify::Failure;
use crate::verify::JWKS_COOLDOWN;
use crate::verify::identity::Unidentified;

/// The cause, for refusals for which no hypotheses are tested.
#[expect(clippy::wildcard_enum_match_arm, reason = "what has no words of its own says what it is")]
pub(super) fn describe(case: &Case, refusal: &Refusal) -> String {
    match refusal {
        Refusal::Unauthenticated(failure) => token(case, failure),
        Refusal::Unreadable(Unreadable::HeaderRepeated) => {
            "a header that decides something is there more than once, and which of them counts would be a guess. A proxy on \
             the way may add its own."
                .to_owned()
        }
        Refusal::Unreadable(Unreadable::Encoded(_)) => {
            "the request says that its body is compressed in a way that is not taken: gzip is, and deflate, one of them and \
             once. Something on the way compresses it, or the sender has to be told to use one of these."
                .to_owned()
        }
        Refusal::Unreadable(Unreadable::Garbled(_)) => {
            "the request says that its body is compressed, and it is not, or only a part of it is there. Something on the way \
             decompresses it and leaves the header, or the capture has kept the header and not the bytes: judge it without \
             Content-Encoding."
                .to_owned()
        }
        Refusal::Unreadable(Unreadable::TooLarge) => {
            "the body is larger than the gateway takes: larger than server.max_body, or than this provider's ever are \
             (limits.max_body of the profile)."
                .to_owned()
        }
        Refusal::Unreadable(Unreadable::Framing) => {
            "the request says in two ways where its body ends. A proxy on the way writes Transfer-Encoding or \
             Content-Length anew."
                .to_owned()
        }
        Refusal::MethodNotAllowed => format!(
            "events come with POST, and handshakes as the profile says; this is {}. A redirect on the way turns POST into GET.",
            case.method
        ),
        Refusal::Unidentified(Unidentified::Missing) => format!(
            "the request is genuine, but there is nothing where its event id should be: {}.{}",
            case.profile.event.id,
            members(case)
        ),
        Refusal::Unidentified(Unidentified::Invalid) => format!(
            "the request is genuine, but what stands at {} cannot be an event id: it is empty, too long, neither a number \
             nor a text, or has control characters or half a surrogate pair.",
            case.profile.event.id
        ),
        Refusal::Unanswered(_) => {
            "the request is a handshake, and what the profile checks of it does not hold; the steps say what. A token in it \
             has to be the one in params of the source."
                .to_owned()
        }
        other => other.to_string(),
    }
}

/// The names of the members of a JSON body, which are not secret.
fn members(case: &Case) -> String {
    let Ok(serde_json::Value::Object(members)) = serde_json::from_slice(&case.body) else { return String::new() };
    let names: Vec<_> = members.keys().take(20).map(|name| format!("/{name}")).collect();
    if names.is_empty() { String::new() } else { format!(" The body has {}.", names.join(", ")) }
}

/// The cause, for failures of tokens and certificates.
#[expect(clippy::wildcard_enum_match_arm, reason = "what has no words of its own says what it is")]
fn token(case: &Case, failure: &Failure) -> String {
    if let Some(description) = fetched(failure) {
        return description;
    }
    let claims = claims(case);
    let claim = |name: &str| claims.as_ref().and_then(|(_, claims)| claims.get(name)).map(ToString::to_string);
    let says = |name: &str| claim(name).unwrap_or_else(|| "not said".to_owned());
    match failure {
        Failure::TokenAudience => {
            format!("the token's audience is {}, and the source takes {}.", says("aud"), expected(case, "audience"))
        }
        Failure::TokenIssuer => {
            format!("the token's issuer is {}, and the source takes {}.", says("iss"), expected(case, "issuer"))
        }
        Failure::TokenExpired => "the token was not valid any more at the moment it was judged, or does not say until when. If the \
                                  request was captured earlier, name the moment with --at."
            .to_owned(),
        Failure::TokenNotYetValid => {
            "the token was not valid yet at the moment it was judged: one of the clocks is wrong.".to_owned()
        }
        Failure::TokenAlgorithm => {
            let algorithm = claims.as_ref().and_then(|(header, _)| header.get("alg")).map(ToString::to_string);
            let profile = algorithms(case);
            format!("the token is signed with {}, and the profile takes {profile}.", algorithm.unwrap_or_default())
        }
        Failure::BodyMalformed(_) => {
            "the body is not what the provider sends: no JSON, or no form, that every parser reads alike. The last step says why."
                .to_owned()
        }
        other => format!("{other}; the steps say which."),
    }
}

/// The cause, for failures of fetched keys and certificates.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest has nothing to do with what is fetched")]
fn fetched(failure: &Failure) -> Option<String> {
    Some(match failure {
        Failure::TokenUnknownKey => "the token names a key that is not among those of the source: it is from another issuer or \
                                     environment, or the key was replaced."
            .to_owned(),
        Failure::KeysUnavailable => {
            "the keys, or the certificate, could not be fetched. Is their address right, and can it be reached from here?"
                .to_owned()
        }
        Failure::CertificateNotAllowed => {
            "the request names a certificate at an address that this profile does not allow. Requests of the provider never do."
                .to_owned()
        }
        Failure::TokenKeyUnusable(why) => format!(
            "the issuer publishes the key that the token names, but it is {why}. That is for the issuer to mend; the log says \
             so at each fetch."
        ),
        Failure::KeysCoolingDown => format!(
            "the token names a key that is not among those that were fetched a moment ago. It may be a newer one: they are \
             fetched for that once in {} s, and the request may come again.",
            JWKS_COOLDOWN.as_secs()
        ),
        Failure::TokenKeyUse => "the issuer publishes the key that the token names, but not for signatures.".to_owned(),
        Failure::CertificateInvalid => {
            "the certificate at the address that the request names cannot be used: it is not readable, not valid now, or of \
             another subject than the provider's. Is this machine's clock right?"
                .to_owned()
        }
        _ => return None,
    })
}

fn claims(case: &Case) -> Option<(serde_json::Value, serde_json::Value)> {
    let text = case.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = text.and_then(|text| token::bare(text, None));
    let named = case.profile.schemes().find_map(|scheme| match scheme {
        Scheme::Jwt(spec) => {
            let from = spec.from.as_ref()?;
            let crate::profile::Carrier::Header(names) = &from.location.carrier else { return None };
            let value = names.iter().find_map(|name| case.headers.get(name))?.to_str().ok()?;
            token::bare(value, Some(&from.prefix))
        }
        Scheme::Signature(_) | Scheme::Token(_) | Scheme::Basic(_) => None,
    });
    token::parts(named.or(bearer)?)
}

/// The issuers or audiences that the profile accepts.
fn expected(case: &Case, name: &str) -> String {
    let spec = case.profile.schemes().find_map(|scheme| match scheme {
        Scheme::Jwt(spec) => {
            let texts = if name == "issuer" { &spec.issuer } else { &spec.audience };
            let texts: Vec<_> = texts.iter().map(|text| params::fill(text, &case.params)).collect();
            (!texts.is_empty()).then(|| texts.join(" or "))
        }
        Scheme::Signature(_) | Scheme::Token(_) | Scheme::Basic(_) => None,
    });
    spec.unwrap_or_else(|| params::param(&case.params, name).to_owned())
}

fn algorithms(case: &Case) -> String {
    let titles: Vec<_> = case
        .profile
        .schemes()
        .filter_map(|scheme| if let Scheme::Jwt(spec) = scheme { Some(spec.algorithm.title()) } else { None })
        .collect();
    titles.join(" or ")
}

/// The message when no hypothesis holds. `tried` is their number.
#[expect(clippy::wildcard_enum_match_arm, reason = "all that are left are other bytes or another secret")]
pub(super) fn unexplained(case: &Case, failure: &Failure, tried: usize) -> String {
    let tried = match tried {
        0 => String::new(),
        _ => format!(" {tried} variations of the usual mistakes were tried, and none explains it."),
    };
    match failure {
        Failure::TimestampStale => "the request is older than the profile allows, or than events are remembered. If it was captured earlier, name the moment with \
                                    --at; if not, it is a replay, it was held up on the way, or one of the clocks is wrong."
            .to_owned(),
        Failure::TimestampFuture => {
            "the request's time lies ahead of the moment it was judged at: one of the clocks is wrong.".to_owned()
        }
        Failure::TimestampMissing | Failure::TimestampMalformed => {
            format!("the time is not where the profile looks, or not written as it says.{tried}")
        }
        Failure::SignatureMissing | Failure::CredentialMissing | Failure::TokenMissing => {
            let names: Vec<_> = case.headers.keys().map(http::HeaderName::as_str).collect();
            let names = match names.as_slice() {
                [] => "The capture has no headers at all.".to_owned(),
                _ => format!("The request's headers are {}.", names.join(", ")),
            };
            format!(
                "the request does not carry the proof that the profile looks for. Is it from this provider, and is signing \
                 switched on there?{tried} {names}"
            )
        }
        Failure::SignatureMalformed => {
            format!("what stands where the signature should be is not written as the profile says; it may be cut short.{tried}")
        }
        Failure::TokenMalformed => "what stands where the token should be is no JWT: three parts of base64url, with points between \
                                    them. Something else sent the request, or cut it."
            .to_owned(),
        Failure::CredentialMalformed => {
            format!("what stands where the secret should be is not written as the profile says; the first step says how.{tried}")
        }
        Failure::CredentialMismatch => format!(
            "the request carries another secret: that of another endpoint, environment or account, or one that was replaced. \
             Name those that the source had earlier with --old-secret.{tried}"
        ),
        Failure::TokenSignature => {
            "the token is not signed with the key that it names: it was changed, or made by somebody else.".to_owned()
        }
        Failure::TokenBody => format!(
            "the token is genuine, but its claim is not the digest of this body, in the encoding that the profile says: the \
             body was changed on the way, or the claim is missing.{tried}"
        ),
        other => other_key_or_body(case, other, &tried),
    }
}

/// The message when a signature does not match.
fn other_key_or_body(case: &Case, failure: &Failure, tried: &str) -> String {
    if case.body.is_empty() && case.covers_body() {
        return format!(
            "{failure}. The capture has no body, which is signed: was it lost when it was captured?{tried}"
        );
    }
    let (key, hint) = if case.profile.keys_are_public() {
        ("public key", "")
    } else {
        ("secret", " Copy the secret anew, and name those that the source had earlier with --old-secret.")
    };
    let url = if case.params.contains_key("url") {
        ", params.url is not the address that is registered with the provider"
    } else {
        ""
    };
    let large = if case.body.len() > MAX_BODY {
        " A body of more than 1 MiB is not written in other ways; if it is JSON, it may have been on the way."
    } else {
        ""
    };
    let sorted = if sorted(&case.body) {
        " The members of the body are sorted by name: if a tool has sorted them, the order that was signed is lost, and \
         nothing can be said of the signature from this capture."
    } else {
        ""
    };
    let replaced = if case.body.windows(3).any(|bytes| bytes == "\u{fffd}".as_bytes()) {
        " The body has the character U+FFFD, which stands for bytes that could not be read as text: they may have been lost on \
         the way."
    } else {
        ""
    };
    format!(
        "{failure}. The {key} is that of another endpoint, environment or account, or was replaced{url}, or the body was really \
         changed.{hint}{tried}{large}{sorted}{replaced}"
    )
}
