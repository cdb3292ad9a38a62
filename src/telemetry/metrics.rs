//! The metrics of the process. Handles are resolved when the gateway starts, so that counting a request needs no
//! lookup.

use std::sync::Arc;

use prometheus::GaugeVec;
use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::log::dropped_lines;
use crate::base::supervisor;
use crate::base::supervisor::Supervisor;
use crate::dispatch::QueueMetrics;
use crate::source::Source;
use crate::store::DestinationId;
use crate::store::State;
use crate::store::Store;
use crate::verify::Jwks;

/// Upper bounds of duration buckets, in seconds.
const SECONDS: &[f64] =
    &[0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of skew buckets, in seconds; negative is ahead of our clock.
const SKEW: &[f64] = &[-300.0, -60.0, -10.0, -2.0, 0.0, 2.0, 10.0, 60.0, 300.0, 3600.0];

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
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
    deliveries: IntCounterVec,
    queue_events: IntGaugeVec,
    queue_oldest: GaugeVec,
    breaker_open: IntGaugeVec,
    /// How long the store takes.
    pub store: StoreMetrics,
    /// Connections that are open.
    pub open_connections: IntGauge,
    /// Connections that were closed because another one needed their place.
    pub displaced_connections: IntCounter,
    /// Requests that are being handled, and deliveries whose sender hung up.
    pub in_flight: IntGauge,
}

/// `doorward_store_duration_seconds`, by operation.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the operation of its name")]
pub struct StoreMetrics {
    pub claim: Histogram,
    pub ignore: Histogram,
    pub commit: Histogram,
    pub release: Histogram,
    pub enqueue: Histogram,
}

/// The metrics of one source.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    /// Events that the upstream took.
    pub delivered: IntCounter,
    /// Events that the broker took.
    pub queued: IntCounter,
    /// Events that were finished before.
    pub duplicate: IntCounter,
    /// Events of types that are not wanted.
    pub ignored: IntCounter,
    /// Probes that were answered.
    pub handshake: IntCounter,
    /// Requests that were refused.
    pub refused: IntCounter,
    /// Events that were delivered although the store could not be asked.
    pub undeduplicated: IntCounter,
    /// Duplicates that were known by their content alone.
    pub guarded: IntCounter,
    /// Events that were ignored because their type could not be read.
    pub untyped: IntCounter,
    /// From the head of a request to its answer, in seconds.
    pub request_duration: Histogram,
    /// Of a delivery to the upstream, in seconds.
    pub upstream_duration: Histogram,
    /// From the request's own time to ours, in seconds.
    pub skew: Histogram,
    /// Requests that each secret proved, in the order of the secrets.
    pub secrets: Vec<IntCounter>,
    refusals: IntCounterVec,
    unverified: IntCounterVec,
    source: String,
}

impl SourceMetrics {
    /// Counts a delivery that would have been refused for this reason.
    pub fn deliver_unverified(&self, reason: &str) {
        self.unverified.with_label_values(&[self.source.as_str(), reason]).inc();
    }

    /// Counts a refusal for this reason.
    pub fn refuse(&self, reason: &str) {
        self.refused.inc();
        self.refusals.with_label_values(&[self.source.as_str(), reason]).inc();
    }
}

impl Metrics {
    /// Registers the metrics of the process, of these sources and of this store.
    ///
    /// # Errors
    /// Only when two metrics have one name, which is a bug.
    pub fn new(sources: &[Arc<Source>], supervisor: &Supervisor, store: &Store) -> prometheus::Result<Self> {
        let registry = Registry::new();
        store.collectors()?.into_iter().try_for_each(|collector| registry.register(collector))?;
        let store = HistogramOpts::new("doorward_store_duration_seconds", "Time that the store took, by operation.");
        let store = registered(&registry, HistogramVec::new(store.buckets(SECONDS.to_vec()), &["operation"])?)?;
        let queue_events = Opts::new("doorward_queue_events", "Events on queues by state.");
        let queue_oldest = Opts::new("doorward_queue_oldest_seconds", "Age of the oldest event that is not delivered.");
        let breaker_open = "Whether the circuit breaker of its endpoint is open: 1 while nothing is attempted.";
        let breaker_open = Opts::new("doorward_destination_breaker_open", breaker_open);
        let metrics = Self {
            requests: counters(&registry, "requests_total", "Requests by outcome.", &["source", "outcome"])?,
            refusals: counters(&registry, "refusals_total", "Refused requests by reason.", &["source", "reason"])?,
            unverified: counters(&registry, "unverified_total", "Unverified deliveries.", &["source", "reason"])?,
            undeduplicated: counters(&registry, "undeduplicated_total", "Deliveries without a store.", &["source"])?,
            guarded: counters(&registry, "guarded_total", "Duplicates known by content alone.", &["source"])?,
            untyped: counters(&registry, "untyped_total", "Ignored events without a readable type.", &["source"])?,
            request_duration: histogram(&registry, "request_duration_seconds", "Head to answer.", SECONDS)?,
            upstream_duration: histogram(&registry, "upstream_duration_seconds", "Deliveries to upstreams.", SECONDS)?,
            skew: histogram(&registry, "timestamp_skew_seconds", "Age of requests by their own time.", SKEW)?,
            secrets: counters(&registry, "secret_matches_total", "Proofs by secret.", &["source", "secret"])?,
            deliveries: counters(
                &registry,
                "deliveries_total",
                "Attempts from queues.",
                &["source", "destination", "outcome"],
            )?,
            queue_events: registered(&registry, IntGaugeVec::new(queue_events, &["source", "destination", "state"])?)?,
            queue_oldest: registered(&registry, GaugeVec::new(queue_oldest, &["source", "destination"])?)?,
            breaker_open: registered(&registry, IntGaugeVec::new(breaker_open, &["source", "destination"])?)?,
            store: StoreMetrics {
                claim: store.with_label_values(&["claim"]),
                ignore: store.with_label_values(&["ignore"]),
                commit: store.with_label_values(&["commit"]),
                release: store.with_label_values(&["release"]),
                enqueue: store.with_label_values(&["enqueue"]),
            },
            open_connections: gauge(&registry, "open_connections", "Connections of senders.")?,
            displaced_connections: registered(
                &registry,
                IntCounter::new("doorward_displaced_connections_total", "Connections closed for others.")?,
            )?,
            in_flight: gauge(&registry, "in_flight_requests", "Requests being handled.")?,
            registry: registry.clone(),
        };
        registry.register(Box::new(JwksMetrics::new(sources)?))?;
        of_process(&registry, supervisor)?;
        Ok(metrics)
    }

    /// The handles of one source with the names of its secrets; requests to paths of no source count under `""`.
    pub fn of(&self, source: &str, secrets: &[String]) -> SourceMetrics {
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
            secrets: secrets.iter().map(|secret| self.secrets.with_label_values(&[source, secret])).collect(),
            refusals: self.refusals.clone(),
            unverified: self.unverified.clone(),
            source: source.to_owned(),
        }
    }

    /// The handles of one queue.
    pub fn of_queue(&self, id: &DestinationId) -> QueueMetrics {
        let labels = [id.source.as_str(), id.name.as_str()];
        let with = |last: &'static str| [labels.as_slice(), &[last]].concat();
        let outcome = |outcome| self.deliveries.with_label_values(&with(outcome));
        let states = [State::Blocked, State::Queued, State::Retrying, State::Dead];
        QueueMetrics {
            delivered: outcome("delivered"),
            retried: outcome("retried"),
            dead: outcome("dead"),
            upstream_duration: self.upstream_duration.with_label_values(&[&id.source]),
            breaker_open: self.breaker_open.with_label_values(&labels),
            states: states.map(|state| self.queue_events.with_label_values(&with(state.name()))),
            oldest: self.queue_oldest.with_label_values(&labels),
        }
    }

    /// All of it as Prometheus reads it (text format 0.0.4).
    ///
    /// # Errors
    /// Only when a metric cannot be written down, which is a bug.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// What the process counts by itself.
struct Counted {
    counter: IntCounter,
    total: fn() -> u64,
}

impl Counted {
    fn new(name: &str, help: &str, total: fn() -> u64) -> prometheus::Result<Self> {
        Ok(Self { counter: IntCounter::new(format!("doorward_{name}_total"), help)?, total })
    }
}

impl Collector for Counted {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.counter.inc_by((self.total)().saturating_sub(self.counter.get()));
        self.counter.collect()
    }
}

/// Age and refreshes of key sets, which count themselves.
struct JwksMetrics {
    sources: Vec<(String, Arc<Jwks>)>,
    age: GaugeVec,
    refreshes: IntCounterVec,
}

impl JwksMetrics {
    fn new(sources: &[Arc<Source>]) -> prometheus::Result<Self> {
        let with_keys = sources.iter().flat_map(|source| {
            let name = source.name.as_str();
            source.verifier.authenticator.key_sets().map(move |jwks| (name.to_owned(), Arc::clone(jwks)))
        });
        let age = Opts::new("doorward_jwks_age_seconds", "Time since the keys in use were fetched.");
        let refreshes = Opts::new("doorward_jwks_refreshes_total", "Fetches of keys by outcome.");
        Ok(Self {
            sources: with_keys.collect(),
            age: GaugeVec::new(age, &["source"])?,
            refreshes: IntCounterVec::new(refreshes, &["source", "outcome"])?,
        })
    }
}

impl Collector for JwksMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.age.desc().into_iter().chain(self.refreshes.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (source, jwks) in &self.sources {
            if let Some(age) = jwks.age() {
                self.age.with_label_values(&[source]).set(age.as_secs_f64());
            }
            let (succeeded, failed) = jwks.refreshes();
            for (outcome, total) in [("success", succeeded), ("failure", failed)] {
                let counter = self.refreshes.with_label_values(&[source.as_str(), outcome]);
                counter.inc_by(total.saturating_sub(counter.get()));
            }
        }
        self.age.collect().into_iter().chain(self.refreshes.collect()).collect()
    }
}

/// Registers what there is to see of the process.
fn of_process(registry: &Registry, supervisor: &Supervisor) -> prometheus::Result<()> {
    let build = IntGaugeVec::new(Opts::new("doorward_build_info", "The version that runs."), &["version"])?;
    registered(registry, build)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(supervisor.restarts().clone()))?;
    registry.register(Box::new(Counted::new(
        "panics",
        "Faults of the gateway, each of which ended one task.",
        supervisor::panics,
    )?))?;
    let dropped = "Lines of the log that were dropped, because standard error was read too slowly.";
    registry.register(Box::new(Counted::new("log_lines_dropped", dropped, dropped_lines)?))?;
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(())
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(Opts::new(format!("doorward_{name}"), help), labels)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    registered(registry, IntGauge::new(format!("doorward_{name}"), help)?)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<HistogramVec> {
    let options = HistogramOpts::new(format!("doorward_{name}"), help).buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(options, &["source"])?)
}
