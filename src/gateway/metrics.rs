//! The metrics of requests, by source. Their labels are resolved when a source is put into use, so that a request that is
//! not refused needs no lookup.

use std::sync::Arc;

use prometheus::Histogram;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;

use crate::base::metrics::Registry;
use crate::base::time::Moment;
use crate::source::Proofs;
use crate::source::SourceSecret;
use crate::store::metrics::StoreMetrics;

/// Upper bounds of the buckets of skew, in seconds; negative: ahead of our clock.
const SKEW: &[f64] = &[-300.0, -60.0, -10.0, -2.0, 0.0, 2.0, 10.0, 60.0, 300.0, 3600.0];

/// The metrics of all requests.
#[derive(Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    refusals: IntCounterVec,
    unverified: IntCounterVec,
    undeduplicated: IntCounterVec,
    guarded: IntCounterVec,
    untyped: IntCounterVec,
    request_duration: HistogramVec,
    upstream_duration: HistogramVec,
    skew: HistogramVec,
    secrets: IntCounterVec,
    last_match: IntGaugeVec,
    last_event: IntGaugeVec,
    /// How long the store takes.
    pub store: StoreMetrics,
    /// Requests that are being handled, and deliveries whose sender hung up.
    pub in_flight: IntGauge,
}

impl Metrics {
    /// Registers them, except `upstream_duration`, the registered histogram of how long deliveries take.
    ///
    /// # Errors
    /// Only when a name is taken, which is a bug.
    pub fn new(registry: &Registry, upstream_duration: HistogramVec) -> prometheus::Result<Self> {
        Ok(Self {
            requests: registry.counters("requests_total", "Requests by outcome.", &["source", "outcome"])?,
            refusals: registry.counters("refusals_total", "Refused requests by reason.", &["source", "reason"])?,
            unverified: registry.counters("unverified_total", "Unverified deliveries.", &["source", "reason"])?,
            undeduplicated: registry.counters("undeduplicated_total", "Deliveries without a store.", &["source"])?,
            guarded: registry.counters("guarded_total", "Duplicates known by content alone.", &["source"])?,
            untyped: registry.counters("untyped_total", "Ignored events without a readable type.", &["source"])?,
            request_duration: registry.durations("request_duration_seconds", "Head to answer.", &["source"])?,
            upstream_duration,
            skew: registry.histograms(
                "timestamp_skew_seconds",
                "Age of requests by their own time.",
                &["source"],
                SKEW,
            )?,
            secrets: registry.counters("secret_matches_total", "Proofs by secret.", &["source", "secret"])?,
            last_match: registry.gauges(
                "secret_last_match_timestamp_seconds",
                "When a secret last proved a request.",
                &["source", "secret"],
            )?,
            last_event: registry.gauges(
                "source_last_event_timestamp_seconds",
                "When a source last had a verified event.",
                &["source"],
            )?,
            store: StoreMetrics::new(registry)?,
            in_flight: registry.gauge("in_flight_requests", "Requests being handled.")?,
        })
    }

    /// The metrics of one source with the labels of its secrets; `""` is the source of requests to unknown paths.
    pub fn for_source(&self, source: &str, secrets: &[SourceSecret]) -> SourceMetrics {
        let outcome = |outcome: &str| self.requests.with_label_values(&[source, outcome]);
        SourceMetrics {
            delivered: outcome("delivered"),
            queued: outcome("queued"),
            duplicate: outcome("duplicate"),
            ignored: outcome("ignored"),
            handshake: outcome("handshake"),
            refused: outcome("refused"),
            undeduplicated: self.undeduplicated.with_label_values(&[source]),
            guarded: self.guarded.with_label_values(&[source]),
            untyped: self.untyped.with_label_values(&[source]),
            request_duration: self.request_duration.with_label_values(&[source]),
            upstream_duration: self.upstream_duration.with_label_values(&[source]),
            skew: self.skew.with_label_values(&[source]),
            secrets: secrets.iter().map(|secret| self.for_secret(source, secret)).collect(),
            last_event: (!source.is_empty()).then(|| begun(self.last_event.with_label_values(&[source]))),
            refusals: self.refusals.clone(),
            unverified: self.unverified.clone(),
            source: source.to_owned(),
        }
    }

    fn for_secret(&self, source: &str, secret: &SourceSecret) -> SecretMetrics {
        let labels = [source, secret.label.as_str()];
        let last_match = begun(self.last_match.with_label_values(&labels));
        SecretMetrics {
            matches: self.secrets.with_label_values(&labels),
            last_match,
            proofs: Arc::clone(&secret.proofs),
        }
    }
}

/// A time that is not known yet is now: what is watched begins.
fn begun(time: IntGauge) -> IntGauge {
    if time.get() == 0 {
        time.set(Moment::now().unix());
    }
    time
}

/// The metrics of one secret.
#[derive(Debug, Clone)]
pub struct SecretMetrics {
    /// Requests that a secret of this label verified.
    matches: IntCounter,
    /// When it last did, or when the gateway began to know it; in seconds since 1970.
    last_match: IntGauge,
    /// The same of this secret only, which may take the place of another one.
    proofs: Arc<Proofs>,
}

impl SecretMetrics {
    /// Counts a request that it verified.
    pub fn proved(&self, now: Moment) {
        self.matches.inc();
        self.last_match.set(now.unix());
        self.proofs.add(now);
    }
}

/// The metrics of one source.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    /// Events that the upstream took.
    pub delivered: IntCounter,
    /// Events that were stored on a queue or a stream.
    pub queued: IntCounter,
    /// Events that were finished before.
    pub duplicate: IntCounter,
    /// Events of types that are not wanted.
    pub ignored: IntCounter,
    /// Handshakes that were answered.
    pub handshake: IntCounter,
    /// Requests that were refused.
    pub refused: IntCounter,
    /// Events that were delivered without deduplication, because the store did not answer.
    pub undeduplicated: IntCounter,
    /// Duplicates that were recognised by their content, with another id.
    pub guarded: IntCounter,
    /// Events that were ignored because their type could not be read.
    pub untyped: IntCounter,
    /// From the head of a request to its answer, in seconds.
    pub request_duration: Histogram,
    /// Of a delivery to the upstream, in seconds.
    pub upstream_duration: Histogram,
    /// From the request's own time to ours, in seconds.
    pub skew: Histogram,
    /// Its secrets, in their order.
    pub secrets: Vec<SecretMetrics>,
    /// When it last had a verified event, or when the gateway began to know it; in seconds since 1970. Paths of no source
    /// have none.
    pub last_event: Option<IntGauge>,
    refusals: IntCounterVec,
    unverified: IntCounterVec,
    source: String,
}

impl SourceMetrics {
    /// Counts a delivery that would have been refused for this reason.
    pub fn count_unverified(&self, reason: &str) {
        self.unverified.with_label_values(&[self.source.as_str(), reason]).inc();
    }

    /// Counts a refusal for this reason.
    pub fn count_refused(&self, reason: &str) {
        self.refused.inc();
        self.refusals.with_label_values(&[self.source.as_str(), reason]).inc();
    }
}
