//! Collects the facts of one request, and writes its log line and metrics when it is answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Response;
use http::Uri;
use http_body_util::Full;
use prometheus::IntGauge;

use super::Endpoint;
use super::Gateway;
use super::Received;
use super::decide::Proof;
use crate::base::escape;
use crate::base::time::Moment;
use crate::dedup::FirstSeen;
use crate::http::admission::Permit;
use crate::http::admission::Reserved;
use crate::http::inbound::Inbound;
use crate::source::refusal::Blame;
use crate::source::refusal::Refusal;
use crate::source::reply;
use crate::source::reply::Answers;
use crate::source::reply::Outcome;
use crate::target::Receipt;

/// One request in flight, with the facts for its log line and metrics.
pub(super) struct RequestLog {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) begun: Instant,
    pub(super) facts: Facts,
    /// Counts the request as in flight; set when it is complete, and held until the answer.
    pub(super) permit: Option<Permit>,
    /// The memory of its body; set when it becomes a message, and held until the answer.
    pub(super) reserved: Option<Reserved>,
    in_flight: IntGauge,
}

/// The facts that are known so far. They hold nothing of an unverified request but its escaped path.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) client: Option<IpAddr>,
    pub(super) event: Option<(HeaderValue, Option<HeaderValue>)>,
    pub(super) secret: Option<usize>,
    pub(super) skew: Option<i64>,
    pub(super) upstream: Option<Duration>,
    pub(super) unverified: Option<Refusal>,
    /// The replay guard by which a duplicate with another id was recognised.
    guard: Option<&'static str>,
    /// The first arrival of the event that it is a duplicate of.
    first: Option<FirstSeen>,
    untyped: bool,
    verified: bool,
    /// The path of a request to no source, escaped for the log.
    path: Option<String>,
}

/// Most characters of a path that are logged.
const MAX_PATH: usize = 128;

/// The moment that the times of all samplers count from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The answers to requests to no source.
static DEFAULT_ANSWERS: LazyLock<Answers> = LazyLock::new(Answers::default);

impl RequestLog {
    pub(super) fn begin(gateway: &Gateway, target: &Uri, headers: &HeaderMap) -> Self {
        gateway.metrics.in_flight.inc();
        let endpoint = Arc::clone(gateway.routes.at(target, headers).unwrap_or(&gateway.unmatched));
        let in_flight = gateway.metrics.in_flight.clone();
        let path = endpoint.source.is_none().then(|| loggable(target.path()));
        let facts = Facts { path, ..Facts::default() };
        Self { endpoint, begun: Instant::now(), facts, permit: None, reserved: None, in_flight }
    }

    /// Begins the log of bytes that are no request; logs their path if there is one.
    pub(super) fn unserved(gateway: &Gateway, client: Option<IpAddr>, start: &[u8]) -> Self {
        gateway.metrics.in_flight.inc();
        let facts = Facts { client, path: path_of(start), ..Facts::default() };
        let (endpoint, in_flight) = (Arc::clone(&gateway.unmatched), gateway.metrics.in_flight.clone());
        Self { endpoint, begun: Instant::now(), facts, permit: None, reserved: None, in_flight }
    }

    pub(super) fn verified(&mut self, Proof { secret, skew }: Proof, now: Moment) {
        self.facts.verified = true;
        self.facts.secret = secret;
        self.facts.skew = skew;
        if let Some(secret) = secret.and_then(|position| self.endpoint.metrics.secrets.get(position)) {
            secret.proved(now);
        }
        if let Some(skew) = skew {
            #[expect(clippy::as_conversions, reason = "a skew beyond 2^53 seconds may be rounded")]
            self.endpoint.metrics.skew.observe(skew as f64);
        }
    }

    /// Records why a request would be refused if the source were not in observe mode.
    pub(super) fn unverified(&mut self, refusal: Refusal, mut inbound: Inbound) -> Received {
        self.endpoint.metrics.count_unverified(refusal.row().reason);
        self.facts.unverified = Some(refusal);
        self.reserved = inbound.take_reserved();
        Received::Observed(inbound)
    }

    /// Records that an event is a duplicate by its content, with another id. Returns the outcome.
    pub(super) fn guarded(&mut self, first: Option<FirstSeen>) -> Outcome {
        self.endpoint.metrics.guarded.inc();
        let guard = self.endpoint.source.as_ref().map(|(source, _)| source.verifier.identity.guard_name());
        (self.facts.guard, self.facts.first) = (guard, first);
        Outcome::Duplicate(guard)
    }

    /// Records that an event is ignored because its type could not be read.
    pub(super) fn untyped(&mut self) {
        self.endpoint.metrics.untyped.inc();
        self.facts.untyped = true;
    }

    pub(super) fn end(&self, result: Result<Outcome, Refusal>) -> Response<Full<Bytes>> {
        let took = self.begun.elapsed();
        let metrics = &self.endpoint.metrics;
        metrics.request_duration.observe(took.as_secs_f64());
        let source = self.endpoint.source.as_ref().map(|(source, _)| source);
        let answers = source.map_or_else(|| &*DEFAULT_ANSWERS, |source| &source.answers);
        match result {
            Ok(outcome) => {
                let (counter, label) = match outcome {
                    Outcome::Delivered(Receipt::Answered(_)) => (&metrics.delivered, "delivered"),
                    Outcome::Delivered(Receipt::Stored) | Outcome::Queued => (&metrics.queued, "queued"),
                    Outcome::Duplicate(_) => (&metrics.duplicate, "duplicate"),
                    Outcome::Ignored => (&metrics.ignored, "ignored"),
                    Outcome::Handshake(_) => (&metrics.handshake, "handshake"),
                };
                counter.inc();
                let response = reply::accepted(outcome, answers);
                self.log(took, response.status().as_u16(), label, None);
                response
            }
            Err(refusal) => {
                metrics.count_refused(refusal.row().reason);
                let cause = refusal.clone();
                let response = reply::refused(refusal, answers);
                self.log(took, response.status().as_u16(), "refused", Some(&cause));
                response
            }
        }
    }

    fn log(&self, took: Duration, status: u16, outcome: &str, refusal: Option<&Refusal>) {
        let row = refusal.map(Refusal::row);
        // Unverified requests may be a flood, which must not fill the log.
        let left_out = if self.facts.verified { Some(0) } else { self.endpoint.sampler.admit(EPOCH.elapsed()) };
        let Some(left_out) = left_out else { return };
        let left_out = Some(left_out).filter(|left_out| *left_out > 0);
        let first = self.facts.first.as_ref();
        macro_rules! write {
            ($level:expr, $message:literal) => {
                tracing::event!(
                    $level,
                    source = self.endpoint.source.as_ref().map(|(source, _)| source.name.as_str()),
                    outcome,
                    reason = row.map(|row| row.reason),
                    status,
                    path = self.facts.path.as_deref(),
                    event_id = self.facts.event.as_ref().map(|(id, _)| readable(id)).as_deref(),
                    event_type = self.facts.event.as_ref().and_then(|(_, kind)| kind.as_ref()).map(readable).as_deref(),
                    client = self.facts.client.map(tracing::field::display),
                    secret = self.facts.secret.map(|at| at + 1),
                    skew_s = self.facts.skew,
                    upstream_ms = self.facts.upstream.map(milliseconds),
                    took_ms = milliseconds(took),
                    replay_guard = self.facts.guard,
                    first_event_id = first.map(|first| readable(&first.id)).as_deref(),
                    first_event_type = first.and_then(|first| first.kind.as_ref()).map(readable).as_deref(),
                    first_at = first.map(|first| tracing::field::display(first.at.rfc3339())),
                    unverified = self.facts.unverified.as_ref().map(|refusal| refusal.row().reason),
                    left_out,
                    cause = refusal.or(self.facts.unverified.as_ref()).map(tracing::field::display),
                    $message
                )
            };
        }
        match row.map(|row| row.blame) {
            None if self.facts.unverified.is_some() => write!(tracing::Level::WARN, "taken, but not verified"),
            None if self.facts.untyped => write!(tracing::Level::WARN, "ignored, because its type cannot be read"),
            None if self.facts.guard.is_some() => {
                write!(tracing::Level::WARN, "taken for a replay, because of its content alone");
            }
            None => write!(tracing::Level::INFO, "taken"),
            Some(Blame::Sender) => write!(tracing::Level::WARN, "refused"),
            Some(Blame::Gateway | Blame::Upstream) => write!(tracing::Level::ERROR, "not taken"),
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

fn readable(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Rounded to microseconds.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A path, escaped and truncated for the log.
fn loggable(path: &str) -> String {
    // Truncated first, so that a long path is not escaped as a whole. Escaping never shortens it.
    let start = path.char_indices().nth(MAX_PATH + 1).and_then(|(end, _)| path.get(..end)).unwrap_or(path);
    let escaped = escape::line(start);
    match escaped.char_indices().nth(MAX_PATH) {
        Some((end, _)) => escaped.get(..end).unwrap_or_default().to_owned() + "\u{2026}",
        None => escaped.into_owned(),
    }
}

/// The path in a request line that may be truncated or malformed; without the query, which may contain a secret.
fn path_of(start: &[u8]) -> Option<String> {
    let line = start.trim_ascii_start().split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().filter(|method| !method.is_empty() && method.iter().all(u8::is_ascii_uppercase));
    let path = words.find(|word| !word.is_empty())?.split(|byte| matches!(byte, b'?' | b'#')).next()?;
    method.filter(|_| path.starts_with(b"/"))?;
    Some(loggable(&String::from_utf8_lossy(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_broken_request_is_told_without_its_query() {
        let path = |start: &str| path_of(start.as_bytes());
        let is = |path: &str| Some(path.to_owned());
        assert_eq!(path("POST /a/b?token=secret HTTP/9.9\r\nhost: a\r\n"), is("/a/b"));
        assert_eq!(path("\r\nPOST  /a#b"), is("/a"));
        assert_eq!(path("GET /\u{1b}[2J\u{202e} HTTP/1.1\r\n"), is("/\\u{1b}[2J\\u{202e}"));
        for none in ["", "POST", "POST ", "POST a", "post /a", "\u{16}\u{3} /a", "host: /a\r\nPOST /a HTTP/1.1"] {
            assert_eq!(path(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_long_path_is_cut() {
        let path = |length| format!("/{}", "\u{e9}".repeat(length));
        assert_eq!(loggable(&path(MAX_PATH - 1)), path(MAX_PATH - 1));
        assert_eq!(loggable(&path(MAX_PATH)), path(MAX_PATH - 1) + "\u{2026}");
    }
}
