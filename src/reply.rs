//! Builds the answers that senders get. With [`crate::refusal`] the only place where the gateway chooses a status.

use bytes::Bytes;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;

use crate::body::Unreadable;
use crate::deliver::Answer;
use crate::deliver::Undelivered;
use crate::profile;
use crate::refusal::Refusal;
use crate::refusal::StatusKind;

/// What became of a request that was taken.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The upstream has it and answered this.
    Delivered(Answer),
    /// The broker has it.
    Published,
    /// It was finished before.
    Duplicate,
    /// The source does not want events of this type.
    Ignored,
}

/// The statuses that one provider understands.
#[derive(Debug, Clone, Copy)]
pub struct Statuses {
    accepted: StatusCode,
    unauthenticated: StatusCode,
    retry: Option<StatusCode>,
}

impl Default for Statuses {
    fn default() -> Self {
        Self { accepted: StatusCode::OK, unauthenticated: StatusCode::UNAUTHORIZED, retry: None }
    }
}

impl Statuses {
    /// What the profile says, and the usual statuses for the rest.
    pub fn new(said: &profile::Answers) -> Self {
        let status = |code: Option<u16>| code.and_then(|code| StatusCode::from_u16(code).ok());
        let usual = Self::default();
        Self {
            accepted: status(said.accepted.map(profile::Status::code)).unwrap_or(usual.accepted),
            unauthenticated: status(said.refused.map(profile::Status::code)).unwrap_or(usual.unauthenticated),
            retry: status(said.retry.map(profile::Status::code)),
        }
    }

    fn of(self, kind: StatusKind) -> StatusCode {
        match kind {
            StatusKind::Fixed(status) => status,
            StatusKind::Unauthenticated => self.unauthenticated,
            StatusKind::Retry => self.retry.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            StatusKind::Upstream(status) => self.retry.unwrap_or(status),
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The answer for a request that was taken.
pub fn accepted(outcome: Outcome, statuses: Statuses) -> Response<Full<Bytes>> {
    match outcome {
        Outcome::Delivered(answer) => relay(answer, br#"{"received":true}"#),
        Outcome::Published => json(statuses.accepted, br#"{"received":true}"#),
        Outcome::Duplicate => json(statuses.accepted, br#"{"received":true,"duplicate":true}"#),
        Outcome::Ignored => json(statuses.accepted, br#"{"received":true,"ignored":true}"#),
    }
}

/// The answer for a request that was not taken.
pub fn refused(refusal: Refusal, statuses: Statuses) -> Response<Full<Bytes>> {
    let row = refusal.row();
    let status = statuses.of(row.status);
    let retry_after = refusal.retry_after();
    // What follows on the connection may be no request at all.
    let ends = matches!(refusal, Refusal::Unreadable(Unreadable::Framing));
    if let Refusal::Undelivered(Undelivered::Answered(answer)) = refusal
        && answer.status == status
    {
        return relay(answer, &problem(status, row.detail));
    }
    let mut response = Response::new(Full::from(problem(status, row.detail)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM);
    if ends {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// An upstream's own answer, with `instead` where its body is too long to relay.
fn relay(answer: Answer, instead: &[u8]) -> Response<Full<Bytes>> {
    let whole = answer.body.is_some();
    let body = answer.body.unwrap_or_else(|| Bytes::copy_from_slice(instead));
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = answer.status;
    let content_type = if whole { answer.content_type } else { Some(JSON) };
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

fn json(status: StatusCode, body: &'static [u8]) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Vec<u8> {
    let title = status.canonical_reason().unwrap_or("Refused");
    serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail })
        .to_string()
        .into_bytes()
}
