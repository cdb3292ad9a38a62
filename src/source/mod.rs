//! A source: one configured endpoint, with its verifier, limits, answers and destination. All workers share it.

pub mod refusal;
pub mod reply;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use wildmatch::WildMatch;

use crate::base::secret::Secret;
use crate::base::time::Moment;
use crate::dispatch::Policy;
use crate::http::admission::InFlight;
use crate::http::admission::Rates;
use crate::http::body::Limits;
use crate::http::origin::Allowlist;
use crate::message::Message;
use crate::profile::Credentials;
use crate::source::reply::Answers;
use crate::store::DestinationId;
use crate::store::Keyspace;
use crate::store::QueueTerms;
use crate::target::Address;
use crate::target::Stream;
use crate::verify::compile::RequestVerifier;

/// One configured endpoint.
#[derive(Debug)]
pub struct Source {
    /// Its name: metric label, key prefix and the header `doorward-source`.
    pub name: SourceName,
    /// Its path, matched byte for byte.
    pub path: String,
    /// Its hosts, in lower case and without a port; any when there are none.
    pub hosts: Vec<String>,
    /// Who may send to it.
    pub allowlist: Allowlist,
    /// The limits for one request.
    pub limits: Limits,
    /// The limit on complete requests in flight.
    pub in_flight: InFlight,
    /// How often requests may come.
    pub rates: Rates,
    /// Its profile with secrets and parameters, compiled.
    pub verifier: RequestVerifier,
    /// Its secrets, in their order.
    pub secrets: Vec<SourceSecret>,
    /// Which parts of its requests are credentials: they are passed to an upstream, and never stored.
    pub credentials: Credentials,
    /// Which event types are delivered.
    pub filter: EventFilter,
    /// The answers that its provider understands.
    pub answers: Answers,
    /// Whether requests that cannot be verified are delivered all the same, marked as unverified.
    pub observe: bool,
    /// Where its events go.
    pub destination: Destination,
    /// The keyspace of its dedupe records.
    pub keyspace: Keyspace,
}

/// A secret of a source.
#[derive(Debug)]
pub struct SourceSecret {
    /// See [`crate::base::secret::SecretRef::label`].
    pub label: String,
    /// What it is.
    pub secret: Secret,
    /// What it has proved, in all generations that have the same one.
    pub proofs: Arc<Proofs>,
}

/// The requests that a secret has proved.
#[derive(Debug)]
pub struct Proofs {
    count: AtomicU64,
    /// The time of the last one, or else since when the secret is known; in milliseconds since 1970.
    last: AtomicI64,
}

impl Default for Proofs {
    fn default() -> Self {
        Self { count: AtomicU64::new(0), last: AtomicI64::new(Moment::now().millis()) }
    }
}

impl Proofs {
    /// Counts one.
    pub fn add(&self, now: Moment) {
        self.last.store(now.millis(), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The seconds since the last one, or since the secret is known.
    pub fn idle_seconds(&self, now: Moment) -> u64 {
        let idle = now.millis().saturating_sub(self.last.load(Ordering::Relaxed));
        u64::try_from(idle / 1000).unwrap_or_default()
    }
}

/// A name of ASCII lower-case letters, digits, `-` and `_`, so that it can stand in a header, a label and a key.
#[derive(Debug, Clone)]
pub struct SourceName {
    text: String,
    header: HeaderValue,
}

impl SourceName {
    /// Parses a name.
    ///
    /// # Errors
    /// Which names are valid, when `text` is not one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        match HeaderValue::from_str(text) {
            Ok(header) if (1..=64).contains(&text.len()) && text.bytes().all(fits) => {
                Ok(Self { text: text.to_owned(), header })
            }
            _ => Err("is not a source name; use 1 to 64 lower-case letters, digits, \"-\" and \"_\"".to_owned()),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name as the value of a header.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }
}

/// The event types that a source delivers: patterns in which `*` stands for any characters.
#[derive(Debug, Default)]
pub struct EventFilter(Vec<WildMatch>);

/// The result of [`EventFilter::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterResult {
    /// The event is to be delivered.
    Wanted,
    /// No pattern matches its type.
    Unwanted,
    /// There are patterns, and its type cannot be read.
    Untyped,
}

impl EventFilter {
    /// A filter that wants the types that match a pattern; all, without patterns.
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Self {
        Self(patterns.into_iter().map(|pattern| WildMatch::new(&pattern)).collect())
    }

    /// Whether an event is to be delivered. An unverified one is: its type was not read.
    pub fn check(&self, message: &Message) -> FilterResult {
        if self.0.is_empty() || !message.verified {
            return FilterResult::Wanted;
        }
        let Some(kind) = &message.kind else { return FilterResult::Untyped };
        let wanted =
            std::str::from_utf8(kind.as_bytes()).is_ok_and(|kind| self.0.iter().any(|pattern| pattern.matches(kind)));
        if wanted { FilterResult::Wanted } else { FilterResult::Unwanted }
    }
}

/// Where the events of a source go.
#[derive(Debug, Clone)]
pub enum Destination {
    /// To the consumer app, while the provider waits; with the timeout of a delivery.
    Upstream(Address, Duration),
    /// To a queue of the store, and from there to the consumer app.
    Queue(DeliveryTerms),
    /// To a Redis stream.
    RedisStream(Stream),
}

/// How queued events are delivered.
#[derive(Debug, Clone)]
pub struct DeliveryTerms {
    /// Where they go.
    pub address: Address,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Most attempts at one time.
    pub concurrency: usize,
    /// The retry policy.
    pub policy: Policy,
    /// How long delivered events are kept for inspection.
    pub keep: Duration,
}

impl DeliveryTerms {
    /// The terms under which the store keeps the queue of this source.
    pub fn queue(&self, source: &str) -> QueueTerms {
        QueueTerms { id: DestinationId::unnamed(source), keep: self.keep }
    }
}

impl Destination {
    /// The terms of its queue, if it has one.
    pub fn queue(&self) -> Option<&DeliveryTerms> {
        if let Self::Queue(terms) = self { Some(terms) } else { None }
    }

    /// The keyspace for the dedupe records of the source of this name; that of the Redis stream, where there is one.
    pub fn keyspace(&self, source: &str) -> Keyspace {
        match self {
            Self::Upstream(..) | Self::Queue(_) => Keyspace::of_source(source),
            Self::RedisStream(stream) => stream.keyspace.clone(),
        }
    }
}
