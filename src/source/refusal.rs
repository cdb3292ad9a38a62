//! The reasons for which the gateway refuses a request, and one table of their statuses, public texts, metric labels
//! and blame.

use std::time::Duration;

use http::StatusCode;

use crate::http::admission::RateExceeded;
use crate::http::body::Unreadable;
use crate::http::origin::Denied;
use crate::http::unserved::Unserved;
use crate::store::Unavailable;
use crate::target::Failure;
use crate::verify;
use crate::verify::handshake::Unanswered;
use crate::verify::identity::Unidentified;

/// Why a request was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// No source has this path, or none with this host.
    #[error("no source has this path with this host")]
    NotFound,
    /// The source of this path is left out, because a secret is missing.
    #[error("the source of this path is left out, because a secret is missing")]
    LeftOut,
    /// The source takes other methods.
    #[error("the source does not take this method")]
    MethodNotAllowed,
    /// The client's address is not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The request could not be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It could not be verified.
    #[error(transparent)]
    Unauthenticated(#[from] verify::Failure),
    /// A handshake is not answered.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// It has no usable event id.
    #[error(transparent)]
    Unidentified(#[from] Unidentified),
    /// The same event is in flight or cooling down; it can be claimed after this time at the latest.
    #[error("the same event is in flight")]
    InFlight(Duration),
    /// The store does not answer.
    #[error(transparent)]
    StoreUnavailable(#[from] Unavailable),
    /// The target did not take it.
    #[error(transparent)]
    Undelivered(#[from] Failure),
    /// The bytes are no request that can be served.
    #[error(transparent)]
    Unserved(#[from] Unserved),
    /// As many requests as allowed are in flight.
    #[error("too many requests are in flight")]
    Overloaded,
    /// More requests came than a rate of the source allows.
    #[error(transparent)]
    RateLimited(#[from] RateExceeded),
}

/// Whether a refusal is the sender's fault, the gateway's or the target's; decides about retries and the log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Trying again would change nothing, unless [`Refusal::retry_after`] says when.
    Sender,
    /// Trying again may help.
    Gateway,
    /// Trying again may help; the gateway is not the one to look at.
    Upstream,
}

/// The status of an answer, before the profile of the provider maps it to a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusKind {
    /// The same for every provider.
    Fixed(StatusCode),
    /// The profile's status for requests that are not authenticated.
    Unauthenticated,
    /// The profile's status for requests that cannot be read or identified.
    Malformed,
    /// The profile's status for bodies over the limit.
    TooLarge,
    /// The status on which the provider retries.
    Retry,
    /// 429 if the provider is known to retry on it; else the status on which it retries.
    RateLimited,
    /// This one, unless the profile names the status on which the provider retries.
    Upstream(StatusCode),
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The status.
    pub status: StatusKind,
    /// What the sender is told.
    pub detail: &'static str,
    /// The value of the label `reason`.
    pub reason: &'static str,
    /// Whose fault it is.
    pub blame: Blame,
}

const UNAUTHENTICATED: &str = "the request could not be authenticated";
const DENIED: &str = "requests from this address are not taken";
const UNCERTIFIED: &str = "requests without a client certificate that is accepted here are not taken";
const TRY_AGAIN: &str = "the event cannot be taken right now; send it again";

impl Refusal {
    /// The row of this refusal.
    pub fn row(&self) -> Row {
        match self {
            Self::NotFound => sender(StatusCode::NOT_FOUND, "there is nothing here", "not_found"),
            Self::LeftOut => gateway("source_left_out"),
            Self::MethodNotAllowed => {
                sender(StatusCode::METHOD_NOT_ALLOWED, "send events with POST", "method_not_allowed")
            }
            Self::Denied(Denied::Address) => sender(StatusCode::FORBIDDEN, DENIED, "address_not_allowed"),
            Self::Denied(Denied::Unknown) => sender(StatusCode::FORBIDDEN, DENIED, "address_unknown"),
            Self::Denied(Denied::CertificateMissing) => {
                sender(StatusCode::FORBIDDEN, UNCERTIFIED, "client_certificate_missing")
            }
            Self::Denied(Denied::CertificateMismatch) => {
                sender(StatusCode::FORBIDDEN, UNCERTIFIED, "client_certificate_mismatch")
            }
            Self::Unreadable(unreadable) => unreadable_row(*unreadable),
            Self::Unauthenticated(verify::Failure::BodyMalformed(_)) => {
                malformed("the body is not what the provider sends", "body_malformed")
            }
            Self::Unauthenticated(failure @ (verify::Failure::KeysUnavailable | verify::Failure::KeysCoolingDown)) => {
                gateway(failure.label())
            }
            Self::Unauthenticated(failure) => Row {
                status: StatusKind::Unauthenticated,
                detail: UNAUTHENTICATED,
                reason: failure.label(),
                blame: Blame::Sender,
            },
            Self::Unanswered(Unanswered::Refused) => Row {
                status: StatusKind::Unauthenticated,
                detail: UNAUTHENTICATED,
                reason: "handshake_refused",
                blame: Blame::Sender,
            },
            Self::Unanswered(Unanswered::Unavailable) => gateway("handshake_unavailable"),
            Self::Unidentified(Unidentified::Missing) => malformed("the event has no id", "event_id_missing"),
            Self::Unidentified(Unidentified::Invalid) => malformed("the event's id cannot be used", "event_id_invalid"),
            Self::InFlight(_) => gateway("in_flight"),
            Self::StoreUnavailable(_) => gateway("store_unavailable"),
            Self::Unserved(unserved) => unserved_row(unserved),
            Self::Overloaded => gateway("overloaded"),
            Self::RateLimited(_) => Row {
                status: StatusKind::RateLimited,
                detail: "more requests came than are taken here in this time; send it again later",
                reason: "rate_limited",
                blame: Blame::Sender,
            },
            Self::Undelivered(failure) => undelivered_row(failure),
        }
    }

    /// The value of `Retry-After`, in seconds; `None` when a retry cannot succeed.
    pub fn retry_after(&self) -> Option<u64> {
        let seconds = |wait: Duration| wait.as_millis().div_ceil(1000).try_into().unwrap_or(1).max(1);
        if let Self::InFlight(remaining) = self {
            return Some(seconds(*remaining));
        }
        if let Self::RateLimited(exceeded) = self {
            return Some(seconds(exceeded.wait()));
        }
        match self.row().blame {
            Blame::Sender => None,
            Blame::Gateway | Blame::Upstream => Some(1),
        }
    }

    /// Every value that the label `reason` can have.
    pub const REASONS: &[&str] = &[
        "not_found",
        "source_left_out",
        "method_not_allowed",
        "address_not_allowed",
        "address_unknown",
        "client_certificate_missing",
        "client_certificate_mismatch",
        "body_too_large",
        "body_encoded",
        "body_malformed",
        "body_incomplete",
        "body_timed_out",
        "header_repeated",
        "host_missing",
        "host_mismatch",
        "framing",
        "head_malformed",
        "head_too_large",
        "head_timed_out",
        "proxy_protocol",
        "proxy_header",
        "proxy_not_trusted",
        "http2",
        "http2_error",
        "tls",
        "tls_expected",
        "tls_handshake",
        "displaced",
        "signature_missing",
        "signature_malformed",
        "signature_mismatch",
        "timestamp_missing",
        "timestamp_malformed",
        "timestamp_stale",
        "timestamp_future",
        "token_missing",
        "token_malformed",
        "token_algorithm",
        "token_unknown_key",
        "token_key_use",
        "token_key_unusable",
        "token_signature",
        "token_issuer",
        "token_audience",
        "token_expired",
        "token_not_yet_valid",
        "token_claim",
        "token_body",
        "credential_missing",
        "credential_malformed",
        "credential_mismatch",
        "certificate_not_allowed",
        "certificate_invalid",
        "condition_unmet",
        "keys_unavailable",
        "keys_cooling_down",
        "handshake_refused",
        "handshake_unavailable",
        "event_id_missing",
        "event_id_invalid",
        "in_flight",
        "store_unavailable",
        "overloaded",
        "rate_limited",
        "upstream_unreachable",
        "upstream_timed_out",
        "upstream_broke_off",
        "upstream_redirected",
        "upstream_refused",
    ];
}

fn sender(status: StatusCode, detail: &'static str, reason: &'static str) -> Row {
    Row { status: StatusKind::Fixed(status), detail, reason, blame: Blame::Sender }
}

fn malformed(detail: &'static str, reason: &'static str) -> Row {
    Row { status: StatusKind::Malformed, detail, reason, blame: Blame::Sender }
}

fn gateway(reason: &'static str) -> Row {
    Row { status: StatusKind::Retry, detail: TRY_AGAIN, reason, blame: Blame::Gateway }
}

fn displaced() -> Row {
    sender(StatusCode::REQUEST_TIMEOUT, "the request was not complete when others needed its room", "displaced")
}

fn head_too_large() -> Row {
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    sender(status, "the head of the request is too large", "head_too_large")
}

fn unreadable_row(unreadable: Unreadable) -> Row {
    match unreadable {
        Unreadable::TooLarge => Row {
            status: StatusKind::TooLarge,
            detail: "the body is larger than what is taken here",
            reason: "body_too_large",
            blame: Blame::Sender,
        },
        Unreadable::Encoded(_) => sender(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the body without content encoding, or with gzip or deflate alone",
            "body_encoded",
        ),
        Unreadable::Garbled(_) => malformed("the body is not what its content encoding says", "body_malformed"),
        Unreadable::HeaderRepeated => malformed("a header that may be there once is there twice", "header_repeated"),
        Unreadable::Framing => {
            sender(StatusCode::BAD_REQUEST, "the length of the body is given in two ways", "framing")
        }
        Unreadable::Incomplete => sender(StatusCode::BAD_REQUEST, "the body is incomplete", "body_incomplete"),
        Unreadable::TimedOut => {
            sender(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time", "body_timed_out")
        }
        Unreadable::Overloaded => gateway("overloaded"),
        Unreadable::Displaced => displaced(),
        Unreadable::HostMissing => {
            sender(StatusCode::BAD_REQUEST, "a request of HTTP/1.1 says which host it is for", "host_missing")
        }
        Unreadable::HostMismatch => {
            sender(StatusCode::BAD_REQUEST, "a request says which one host it is for", "host_mismatch")
        }
        Unreadable::HeadMalformed => {
            sender(StatusCode::BAD_REQUEST, "a header begins or ends with white space", "head_malformed")
        }
        Unreadable::HeadTooLarge => head_too_large(),
    }
}

fn undelivered_row(failure: &Failure) -> Row {
    let (status, reason) = match failure {
        // The only broker is the Redis of the store.
        Failure::Unacknowledged { .. } => return gateway("store_unavailable"),
        Failure::Unreachable(_) | Failure::Unsendable(_) => (StatusCode::BAD_GATEWAY, "upstream_unreachable"),
        Failure::Broken(_) => (StatusCode::BAD_GATEWAY, "upstream_broke_off"),
        Failure::ConnectTimedOut | Failure::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "upstream_timed_out"),
        // Redirects are not relayed: some providers count them as success, and others would follow them to an internal
        // address.
        Failure::Answered(answer) if !answer.status.is_client_error() && !answer.status.is_server_error() => {
            (StatusCode::BAD_GATEWAY, "upstream_redirected")
        }
        // `reply` relays its status.
        Failure::Answered(answer) => (answer.status, "upstream_refused"),
    };
    Row { status: StatusKind::Upstream(status), detail: TRY_AGAIN, reason, blame: Blame::Upstream }
}

fn unserved_row(unserved: &Unserved) -> Row {
    let bad = |reason| sender(StatusCode::BAD_REQUEST, "this is no request of HTTP/1", reason);
    match unserved {
        Unserved::Malformed => bad("head_malformed"),
        Unserved::TooLarge => head_too_large(),
        Unserved::ProxyProtocol => bad("proxy_protocol"),
        Unserved::ProxyHeader(_) => bad("proxy_header"),
        Unserved::ProxyNotTrusted => bad("proxy_not_trusted"),
        Unserved::Http2 => bad("http2"),
        Unserved::Http2Error(_) => bad("http2_error"),
        Unserved::Tls => bad("tls"),
        Unserved::TlsExpected => bad("tls_expected"),
        Unserved::TlsHandshake(_) => bad("tls_handshake"),
        Unserved::TimedOut => {
            sender(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time", "head_timed_out")
        }
        Unserved::Displaced => displaced(),
        Unserved::Busy(_) => gateway("overloaded"),
    }
}
