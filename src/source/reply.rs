//! Builds the answers to senders. Only this file and [`crate::source::refusal`] choose a status.

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;

use crate::base::time;
use crate::base::time::Moment;
use crate::http::body::Unreadable;
use crate::profile;
use crate::source::refusal::Refusal;
use crate::source::refusal::StatusKind;
use crate::target::Answer;
use crate::target::Failure;
use crate::target::Receipt;
use crate::verify::handshake;

/// The outcome of a request that was accepted.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The target took it.
    Delivered(Receipt),
    /// It is on its queue.
    Queued,
    /// It is a duplicate: of an event with the same id (`None`), or with the same content, known by this replay guard.
    Duplicate(Option<&'static str>),
    /// The source does not want events of this type.
    Ignored,
    /// It was a handshake, with this answer.
    Handshake(handshake::Answer),
}

/// A content type and a body, where the profile specifies one.
type Body = Option<(HeaderValue, Bytes)>;

/// The statuses and bodies of answers to one provider.
#[derive(Debug, Clone)]
pub struct Answers {
    accepted: StatusCode,
    body: Body,
    unauthenticated: StatusCode,
    unauthenticated_body: Body,
    malformed: StatusCode,
    too_large: StatusCode,
    retry: Option<StatusCode>,
    rate_limited: StatusCode,
    allow: HeaderValue,
}

impl Default for Answers {
    fn default() -> Self {
        Self::new(&profile::Answers::default(), None, &[])
    }
}

impl Answers {
    /// The answers of a profile, with defaults for those it does not specify. `retried` are the statuses on which its
    /// provider is known to retry, and `methods` are those of its handshakes.
    pub fn new(spec: &profile::Answers, retried: Option<&profile::Retried>, methods: &[Method]) -> Self {
        let status =
            |code: Option<u16>, default| code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(default);
        let body = |body: &profile::AnswerBody| match body {
            profile::AnswerBody::Text(text) => (TEXT, Bytes::from(text.clone())),
            profile::AnswerBody::Json(json) => (JSON, Bytes::from(json.clone())),
        };
        let mut allow = vec!["POST"];
        methods.iter().map(Method::as_str).for_each(|method| {
            if !allow.contains(&method) {
                allow.push(method);
            }
        });
        let retry = spec.retry.and_then(|retry| StatusCode::from_u16(retry.code()).ok());
        // Where it is not known, 503 is the one that more providers retry on.
        let too_many = StatusCode::TOO_MANY_REQUESTS;
        let on_too_many = retried.is_some_and(|retried| retried.contains(too_many.as_u16()));
        let usual = if on_too_many { too_many } else { StatusCode::SERVICE_UNAVAILABLE };
        Self {
            accepted: status(spec.accepted.status.map(profile::Status::code), StatusCode::OK),
            body: spec.accepted.body.as_ref().map(body),
            unauthenticated: status(spec.refused.status.map(profile::Status::code), StatusCode::UNAUTHORIZED),
            unauthenticated_body: spec.refused.body.as_ref().map(body),
            malformed: status(spec.malformed.map(profile::Status::code), StatusCode::BAD_REQUEST),
            too_large: status(spec.too_large.map(profile::Status::code), StatusCode::PAYLOAD_TOO_LARGE),
            retry,
            rate_limited: retry.unwrap_or(usual),
            allow: HeaderValue::from_str(&allow.join(", ")).unwrap_or(HeaderValue::from_static("POST")),
        }
    }

    fn status(&self, kind: StatusKind) -> StatusCode {
        match kind {
            StatusKind::Fixed(status) => status,
            StatusKind::Unauthenticated => self.unauthenticated,
            StatusKind::Malformed => self.malformed,
            StatusKind::TooLarge => self.too_large,
            StatusKind::Retry => self.retry.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            StatusKind::RateLimited => self.rate_limited,
            StatusKind::Upstream(status) => self.retry.unwrap_or(status),
        }
    }

    /// The answer for an event that was accepted without an answer of an upstream to relay.
    fn accepted(&self, default_body: impl Into<Bytes>) -> Response<Full<Bytes>> {
        match &self.body {
            Some((content_type, body)) => with_body(self.accepted, content_type.clone(), body.clone()),
            None if self.accepted == StatusCode::NO_CONTENT => bodiless(self.accepted),
            None => with_body(self.accepted, JSON, default_body.into()),
        }
    }
}

/// The content type of JSON.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
/// The content type of problem details (RFC 9457).
pub const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The answer to a request that was accepted.
pub fn accepted(outcome: Outcome, answers: &Answers) -> Response<Full<Bytes>> {
    match outcome {
        Outcome::Delivered(Receipt::Answered(answer)) => relay(answer, br#"{"received":true}"#),
        Outcome::Delivered(Receipt::Stored) | Outcome::Queued => answers.accepted(r#"{"received":true}"#),
        Outcome::Duplicate(None) => answers.accepted(r#"{"received":true,"duplicate":true}"#),
        Outcome::Duplicate(Some(guard)) => {
            answers.accepted(format!(r#"{{"received":true,"duplicate":true,"replay_guard":"{guard}"}}"#))
        }
        Outcome::Ignored => answers.accepted(r#"{"received":true,"ignored":true}"#),
        Outcome::Handshake(answer) => handshake_answer(answer),
    }
}

/// The answer to a handshake. It may repeat what the sender wrote, so browsers must not sniff it as HTML.
fn handshake_answer(answer: handshake::Answer) -> Response<Full<Bytes>> {
    let mut response = match answer.content_type {
        Some(content_type) => with_body(answer.status, HeaderValue::from_static(content_type), answer.body),
        None => bodiless(answer.status),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in answer.headers {
        headers.insert(name, value);
    }
    response
}

/// The answer to a request that was refused.
pub fn refused(refusal: Refusal, answers: &Answers) -> Response<Full<Bytes>> {
    let row = refusal.row();
    let status = answers.status(row.status);
    // The bytes that follow on the connection may not be a request.
    let closes = matches!(
        refusal,
        Refusal::Unreadable(
            Unreadable::Framing | Unreadable::TimedOut | Unreadable::Displaced | Unreadable::HostMissing
        )
    );
    let mut retry_after = refusal.retry_after().map(HeaderValue::from);
    if let Refusal::Undelivered(Failure::Answered(answer)) = refusal {
        // The app's own `Retry-After` has precedence, if it is valid.
        let is_time =
            |when: &HeaderValue| when.to_str().is_ok_and(|text| time::retry_after(text, Moment::now()).is_some());
        let requested = answer.retry_after.clone().filter(is_time);
        if answer.status == status {
            let is_retryable = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            let mut response = relay(answer, &problem(status, row.detail));
            if let Some(when) = requested.or_else(|| retry_after.filter(|_| is_retryable)) {
                response.headers_mut().insert(header::RETRY_AFTER, when);
            }
            return response;
        }
        retry_after = requested.or(retry_after);
    }
    let mut response = match &answers.unauthenticated_body {
        Some((content_type, body)) if row.status == StatusKind::Unauthenticated => {
            with_body(status, content_type.clone(), body.clone())
        }
        _ => with_body(status, PROBLEM, problem(status, row.detail).into()),
    };
    if closes {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(when) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, when);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, answers.allow.clone());
    }
    response
}

/// Relays an upstream's answer, with the JSON in `substitute` as body where its own is too long.
fn relay(answer: Answer, substitute: &[u8]) -> Response<Full<Bytes>> {
    let is_whole = answer.is_whole;
    let body = if is_whole { answer.body } else { Bytes::copy_from_slice(substitute) };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = answer.status;
    let content_type = if is_whole { answer.content_type } else { Some(JSON) };
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

/// An answer with this body; without a content type where the body is empty.
fn with_body(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    if body.is_empty() {
        return bodiless(status);
    }
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn bodiless(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// Problem details as JSON (RFC 9457).
pub fn problem(status: StatusCode, detail: &str) -> Vec<u8> {
    let title = status.canonical_reason().unwrap_or("Refused");
    serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail })
        .to_string()
        .into_bytes()
}
