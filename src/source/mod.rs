//! A source: one configured endpoint with everything that is needed to judge its requests, shared by all workers.

pub mod refusal;
pub mod reply;

use http::HeaderValue;
use std::time::Duration;
use wildmatch::WildMatch;

use crate::dispatch::Policy;
use crate::http::admission::InFlight;
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
    /// Who may send to it.
    pub allowlist: Allowlist,
    /// What one request may cost.
    pub limits: Limits,
    /// Complete requests that it may have in flight.
    pub in_flight: InFlight,
    /// Its profile with its secrets and parameters: what its requests are verified by.
    pub verifier: RequestVerifier,
    /// What the secrets are called that it may be proved with; see [`crate::base::secret::SecretRef::label`].
    pub secret_labels: Vec<String>,
    /// Which parts of its requests are credentials, which only an upstream may see.
    pub credentials: Credentials,
    /// Which types are delivered.
    pub filter: EventFilter,
    /// The answers that its provider understands.
    pub answers: Answers,
    /// Whether what cannot be verified is delivered all the same, marked.
    pub observe: bool,
    /// Where its events go.
    pub destination: Destination,
    /// What they are remembered under.
    pub keyspace: Keyspace,
}

/// A name of ASCII lower-case letters, digits, `-` and `_`, so that it can stand in a header, a label and a key.
#[derive(Debug, Clone)]
pub struct SourceName {
    text: String,
    header: HeaderValue,
}

impl SourceName {
    /// Takes the name.
    ///
    /// # Errors
    /// What would be right, when `text` is none.
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

/// Whether an event is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtered {
    /// It is to be delivered.
    EventFilter,
    /// Its type is not among those that are.
    Unwanted,
    /// Its type, which would decide, cannot be read.
    Untyped,
}

impl EventFilter {
    /// Wants what one of the patterns matches; everything when there is none.
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Self {
        Self(patterns.into_iter().map(|pattern| WildMatch::new(&pattern)).collect())
    }

    /// Whether an event is to be delivered. What could not be verified is: nobody could read its type.
    pub fn judge(&self, message: &Message) -> Filtered {
        if self.0.is_empty() || !message.verified {
            return Filtered::EventFilter;
        }
        let Some(kind) = &message.kind else { return Filtered::Untyped };
        let filter =
            std::str::from_utf8(kind.as_bytes()).is_ok_and(|kind| self.0.iter().any(|pattern| pattern.matches(kind)));
        if filter { Filtered::EventFilter } else { Filtered::Unwanted }
    }
}

/// Where the events of a source go.
#[derive(Debug, Clone)]
pub enum Destination {
    /// To the consumer app; one delivery may take this long.
    Upstream(Address, Duration),
    /// To the queue, and from there to the consumer app.
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
    /// How many attempts at one time.
    pub concurrency: usize,
    /// How often an event is tried.
    pub policy: Policy,
    /// How long delivered events are kept, to be looked at.
    pub keep: Duration,
}

impl DeliveryTerms {
    /// What the store has to know of the destination of this source.
    pub fn queue(&self, source: &str) -> QueueTerms {
        QueueTerms { id: DestinationId::unnamed(source), keep: self.keep }
    }
}

impl Destination {
    /// How its events are delivered from the queue, where it has one.
    pub fn queue(&self) -> Option<&DeliveryTerms> {
        if let Self::Queue(terms) = self { Some(terms) } else { None }
    }

    /// What the events of the source of this name are remembered under: beside the stream, where there is one.
    pub fn keyspace(&self, source: &str) -> Keyspace {
        match self {
            Self::Upstream(..) | Self::Queue(_) => Keyspace::of_source(source),
            Self::RedisStream(stream) => stream.keyspace.clone(),
        }
    }
}
